"""Thermodynamic volcanoes: limiting potentials from adsorption energies, where a campaign has those that it takes.

Free energies are those of :mod:`escn_calc.adsorption.electrode` with tabulated corrections, reactions those of
:mod:`escn_calc.adsorption.pathways`. Where OOH was not calculated, its free energy follows from that of OH by the
scaling relation of I. C. Man et al., ChemCatChem 3, 1159 (2011), doi:10.1002/cctc.201000397.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from escn_calc.adsorption.electrode import FreeEnergy, free_energy
from escn_calc.adsorption.energies import adsorption_energy
from escn_calc.adsorption.pathways import WATER_FORMATION, hydrogen_evolution, oxygen_reduction
from escn_calc.adsorption.references import OC20
from escn_calc.adsorption.species import species
from escn_calc.adsorption.thermochemistry import TABULATED_CORRECTIONS, tabulated_correction
from escn_calc.report import wording
from escn_calc.report.methods import Citation
from escn_calc.report.systems import System, best_energy

FEWEST_TO_PLOT = 3

OOH_ABOVE_OH = 3.2
"""eV. Free energy of OOH minus that of OH, on metals and oxides alike, ± 0.2 (Man et al., see above)."""

ELECTRODE = Citation(
    "computational hydrogen electrode, free energies of O* and OH*",
    "J. K. Nørskov et al., Origin of the overpotential for oxygen reduction at a fuel-cell cathode, J. Phys. Chem. B "
    "108, 17886 (2004)",
    "10.1021/jp047349j",
)
HYDROGEN = Citation(
    "free energy of H*",
    "J. K. Nørskov et al., Trends in the exchange current for hydrogen evolution, J. Electrochem. Soc. 152, J23 (2005)",
    "10.1149/1.1856988",
)
SCALING_OF_OOH = Citation(
    "free energy of OOH* from that of OH*",
    "I. C. Man et al., Universality in oxygen evolution electrocatalysis on oxide surfaces, ChemCatChem 3, 1159 (2011)",
    "10.1002/cctc.201000397",
)


@dataclass(frozen=True)
class Point:
    """A surface: descriptor in eV and limiting potential in V vs RHE, and whether one of its energies has a warning."""

    surface: str
    x: float
    y: float
    doubtful: bool


@dataclass(frozen=True)
class Volcano:
    """Points and the two legs behind them.

    Attributes
    ----------
    title, words : str
        What it is, and what is plotted.
    x_label, y_label : str
        With units.
    peak : float
        Descriptor at the top, in eV.
    height : callable
        Limiting potential in V on the legs at a descriptor in eV.
    points : tuple of Point
        One per surface.
    citations : tuple of Citation
        Where its numbers are from.
    """

    title: str
    words: str
    x_label: str
    y_label: str
    peak: float
    height: Callable[[float], float]
    points: tuple[Point, ...]
    citations: tuple[Citation, ...]


def volcanoes(systems: Sequence[System], scheme: str) -> list[Volcano]:
    """Return the volcanoes that a campaign has energies for.

    Parameters
    ----------
    systems : sequence of System
        All systems; each coverage makes its own volcano.
    scheme : str
        Name of the reference scheme of the energies: free energies are known for "oc20" (H2, H2O) only.
    """
    if scheme != OC20.name:
        return []
    found = []
    for coverage in dict.fromkeys(system.coverage for system in systems):
        of_coverage = [one for one in systems if one.coverage == coverage and one.best is not None]
        by_species = {
            name: {one.surface: one for one in of_coverage if one.adsorbate.strip("*") == name}
            for name in ("H", "O", "OH", "OOH")
        }
        found += [_hydrogen(by_species["H"], coverage), _oxygen(by_species, coverage)]
    return [volcano for volcano in found if len(volcano.points) >= FEWEST_TO_PLOT]


def _hydrogen(of_hydrogen: dict[str, System], coverage: float | None) -> Volcano:
    points = []
    for surface, system in of_hydrogen.items():
        adsorbed = _free_energy("H", best_energy(system))
        potential = hydrogen_evolution(adsorbed).limiting_potential
        points.append(Point(surface, adsorbed.at_zero, potential, _doubtful(system)))
    correction = TABULATED_CORRECTIONS["H"][0]
    return Volcano(
        _title("Hydrogen evolution", coverage),
        f"Limiting potential of hydrogen evolution on {wording.plural(len(points), 'surface')} against the free energy "
        f"of adsorption ΔG(H*) = ΔE(H*) {wording.signed(correction)[0]} {correction:.2f} eV, at 298 K. The potential "
        "is −|ΔG(H*)|, so that all points lie on the legs: left of the top H* binds too strongly, right of it too "
        "weakly. Without barriers, solvent and field.",
        "ΔG(H*) (eV)",
        "limiting potential (V vs RHE)",
        0.0,
        lambda x: -abs(x),
        tuple(points),
        (ELECTRODE, HYDROGEN),
    )


def _oxygen(by_species: dict[str, dict[str, System]], coverage: float | None) -> Volcano:
    corrections = {name: correction for name, (correction, _) in TABULATED_CORRECTIONS.items()}
    surfaces = [surface for surface in by_species["OH"] if surface in by_species["O"]]
    calculated = bool(surfaces) and all(surface in by_species["OOH"] for surface in surfaces)
    points = []
    for surface in surfaces:
        used = [by_species[name][surface] for name in ("O", "OH", "OOH") if calculated or name != "OOH"]
        states = {one.adsorbate.strip("*"): _free_energy(one.adsorbate.strip("*"), best_energy(one)) for one in used}
        if not calculated:
            states["OOH"] = _free_energy("OOH", states["OH"].at_zero + OOH_ABOVE_OH - corrections["OOH"])
        potential = oxygen_reduction(states).limiting_potential
        points.append(Point(surface, states["OH"].at_zero, potential, any(map(_doubtful, used))))
    top = (2 * WATER_FORMATION - OOH_ABOVE_OH) / 2
    source = (
        f"is ΔE(OOH*) + {corrections['OOH']:.2f} eV, a value in general use without a known source"
        if calculated
        else f"is taken as ΔG(OH*) + {OOH_ABOVE_OH} eV"
    )
    return Volcano(
        _title("Oxygen reduction", coverage),
        f"Limiting potential of O₂ + 4 (H⁺ + e⁻) → 2 H₂O over OOH*, O* and OH* on "
        f"{wording.plural(len(points), 'surface')} against the free energy of adsorption of OH*, at 298 K. "
        f"ΔG(OH*) is ΔE(OH*) + {corrections['OH']:.2f} eV, ΔG(O*) is ΔE(O*) + {corrections['O']:.2f} eV, ΔG(OOH*) "
        f"{source}. Legs: removal of OH* on the left, formation of OOH* (ΔG(OH*) + {OOH_ABOVE_OH} eV) on the "
        "right; a point below them is limited by O*. Without barriers, solvent and field.",
        "ΔG(OH*) (eV)",
        "limiting potential (V vs RHE)",
        top,
        lambda x: min(x, 2 * top - x),
        tuple(points),
        (ELECTRODE,) if calculated else (ELECTRODE, SCALING_OF_OOH),
    )


def _free_energy(name: str, energy: float) -> FreeEnergy:
    adsorbed = species(name)
    return free_energy(adsorption_energy("adsorption", energy, adsorbed, OC20), tabulated_correction(adsorbed))


def _doubtful(system: System) -> bool:
    return system.standing != "no warning"


def _title(reaction: str, coverage: float | None) -> str:
    return reaction if coverage is None else f"{reaction}, {coverage:.3g} ML"
