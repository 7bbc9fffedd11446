"""A campaign as a store would return it: 7 metals × 6 adsorbates × 4 sites, with a few things gone wrong.

Energies are invented, of the size and order that density functionals give; structures are unrelaxed.
"""

from dataclasses import replace
from functools import cache

from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule

from escn_calc.adsorption.anomalies import Anomaly
from escn_calc.screening.results import Campaign, Result

METALS = ("Cu", "Ag", "Au", "Pd", "Pt", "Rh", "Ir")
SITES = ("fcc", "hcp", "bridge", "ontop")
LOWEST = {
    "H": (-0.05, 0.28, 0.35, -0.45, -0.38, -0.42, -0.31),
    "C": (2.93, 4.25, 3.62, 0.98, 1.05, 0.61, 0.79),
    "N": (1.35, 2.86, 2.58, 0.65, 0.62, -0.11, 0.18),
    "O": (1.12, 2.23, 2.71, 1.47, 1.41, 0.31, 0.62),
    "CO": (-0.71, -0.12, -0.21, -1.88, -1.66, -1.82, -1.75),
    "OH": (0.21, 0.74, 1.45, 0.89, 0.98, 0.05, 0.42),
}
REACTIONS = {
    "H": "* + 1/2 H2(g) → H*",
    "C": "* + CO(g) + H2(g) → C* + H2O(g)",
    "N": "* + 1/2 N2(g) → N*",
    "O": "* + H2O(g) → O* + H2(g)",
    "CO": "* + CO(g) → CO*",
    "OH": "* + H2O(g) → OH* + 1/2 H2(g)",
}
ABOVE = {"fcc": 0.0, "hcp": 0.06, "bridge": 0.21, "ontop": 0.55}
HEIGHTS = {"H": 1.0, "C": 1.1, "N": 1.1, "O": 1.2, "CO": 1.5, "OH": 1.5}


@cache
def structure(metal: str, adsorbate: str, site: str) -> Atoms:
    atoms = fcc111(metal, (2, 2, 4), vacuum=8.0)
    atoms.set_tags([0 if tag > 2 else 1 for tag in atoms.get_tags()])
    adsorbed = molecule("CO") if adsorbate == "CO" else molecule("OH") if adsorbate == "OH" else Atoms(adsorbate)
    if adsorbate == "CO":
        adsorbed = adsorbed[::-1]
    if len(adsorbed) > 1 and adsorbed.positions[1, 2] < adsorbed.positions[0, 2]:
        adsorbed.positions[:, 2] *= -1
    adsorbed.set_tags(2)
    add_adsorbate(atoms, adsorbed, HEIGHTS[adsorbate] + (0.5 if site == "ontop" else 0.0), site)
    return atoms


def placement(metal: str, adsorbate: str, site: str) -> Result:
    lowest = LOWEST[adsorbate][METALS.index(metal)]
    swapped = {"CO": {"fcc": 0.09, "hcp": 0.12, "ontop": 0.0}}.get(adsorbate, {}) if metal in ("Cu", "Ag", "Au") else {}
    energy = lowest + swapped.get(site, ABOVE[site] * (1 + 0.1 * METALS.index(metal)))
    return Result(
        row=1,
        key=f"{metal}-{adsorbate}-{site}",
        surface=f"{metal}(111)",
        bulk=metal,
        miller=(1, 1, 1),
        adsorbate=adsorbate,
        coverage=None,
        molecules=1,
        site=site,
        state="converged",
        failure="",
        steps=23 + 3 * SITES.index(site),
        fmax=0.041,
        energy=energy,
        why_no_energy="",
        reaction=REACTIONS[adsorbate],
        raw_energy=energy - 60.0,
        anomalies=(),
        doubts=(),
        valid=True,
        best=energy == lowest,
        duplicate_of=None,
        atoms=structure(metal, adsorbate, site),
    )


def gone_wrong(result: Result) -> Result:
    """What happens in real campaigns."""
    match result.bulk, result.adsorbate, result.site:
        case _, "H", "bridge":
            return replace(
                result, anomalies=(anomaly("migrated", "H left bridge: it is bound to atoms 12, 13 and 15"),)
            )
        case "Ag" | "Au", "CO", "hcp":
            return rejected(result, "desorbed", "CO is 4.31 Å away from the nearest atom of the slab")
        case "Pd", "OH", "ontop":
            return rejected(result, "dissociated", "the bond O–H is broken, 2.87 Å")
        case "Au", "C", _:
            return rejected(result, "reconstructed", "slab atoms 12 and 13 moved by 1.62 Å and 1.40 Å", best=False)
        case "Ir", "N", "ontop":
            return replace(
                result, state="step limit", valid=False,
                anomalies=(anomaly("not converged", "largest force 0.21 eV/Å after 200 steps"),),
            )  # fmt: skip
        case "Rh", "C", "fcc":
            return replace(result, doubts=("atom 14 (Rh) moved by 1.12 Å",))
        case "Pt", "O", "bridge":
            return replace(
                result, state="failed", energy=None, steps=None, fmax=None, valid=False, reaction="",
                failure="an evaluation failed: forces are not finite",
            )  # fmt: skip
    return result


def anomaly(kind: str, message: str) -> Anomaly:
    return Anomaly(kind, f"{kind}: {message}", ())


def rejected(result: Result, kind: str, message: str, **changes: object) -> Result:
    return replace(result, anomalies=(anomaly(kind, message),), valid=False, **changes)


def some_results() -> list[Result]:
    return [gone_wrong(placement(metal, adsorbate, site)) for metal in METALS for adsorbate in LOWEST for site in SITES]


def sound_results() -> list[Result]:
    return [placement(metal, adsorbate, site) for metal in METALS for adsorbate in LOWEST for site in SITES]


def some_campaign() -> Campaign:
    return Campaign(
        name="metals",
        model="escn-small-fcc",
        model_sha256="3c9f" * 16,
        energy_kind="total",
        energy_reference="total energies of the teacher, atoms in vacuum",
        model_citation="escn-calc developers, escn-small-fcc, 2026",
        model_elements=("Ag", "Au", "C", "Cu", "H", "Ir", "N", "O", "Pd", "Pt", "Rh"),
        model_not_for="published results; oxides; alloys",
        scheme="oc20",
        scheme_words="H: 1/2 H2(g); O: H2O(g) - H2(g); C: CO(g) + H2(g) - H2O(g); N: 1/2 N2(g)",
        reference_energies={"H2": -6.7712, "H2O": -14.2214, "CO": -14.7831, "N2": -16.6322},
        settings={"fmax": 0.05, "steps": 200, "optimizer": "LBFGS", "layers": 4, "vacuum": 15.0, "mode": "sites"},
        config="bulks: [Cu, Ag, Au, Pd, Pt, Rh, Ir]\nfacets: ['111']\nadsorbates: [H, C, N, O, CO, OH]\n",
        versions={"escn-calc": "0.1", "ase": "3.29.0", "pymatgen": "2026.10.24", "torch": "2.13.0"},
        first_written="2026-11-23T09:12:44+00:00",
        last_written="2026-11-23T09:31:02+00:00",
        planned={"bulk": 7, "gas": 4, "slab": 7, "adslab": 168},
        done={"bulk": 7, "gas": 4, "slab": 7, "adslab": 168},
        failures=(),
        thresholds={"desorption": 4.0, "slab_displacement": 0.75},
        knows_what_is_familiar=True,
        planned_systems=tuple((f"{metal}(111)", what, None, 4) for metal in METALS for what in LOWEST),
    )
