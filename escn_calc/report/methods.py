"""How the energies were made, in sentences that can go into a paper, with the works to cite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escn_calc.report.wording import number, plural, typeset

if TYPE_CHECKING:
    from escn_calc.report.systems import System
    from escn_calc.screening.results import Campaign


@dataclass(frozen=True)
class Citation:
    """A work to cite, and for what."""

    purpose: str
    text: str
    doi: str = ""


ESCN = Citation(
    "eSCN architecture",
    "S. Passaro, C. L. Zitnick, Reducing SO(3) convolutions to SO(2) for efficient equivariant GNNs, ICML 2023, "
    "PMLR 202, 27420; arXiv:2302.03655",
)
ASE = Citation(
    "structures and optimisers",
    "A. H. Larsen et al., The atomic simulation environment: a Python library for working with atoms, J. Phys.: "
    "Condens. Matter 29, 273002 (2017)",
    "10.1088/1361-648X/aa680e",
)
PYMATGEN = Citation(
    "crystals and slabs",
    "S. P. Ong et al., Python Materials Genomics (pymatgen), Comput. Mater. Sci. 68, 314 (2013)",
    "10.1016/j.commatsci.2012.10.028",
)
SLABS = Citation(
    "slabs",
    "W. Sun, G. Ceder, Efficient creation and convergence of surface slabs, Surf. Sci. 617, 53 (2013)",
    "10.1016/j.susc.2013.05.016",
)
ADSORBML = Citation(
    "heuristic and random placements",
    "J. Lan et al., AdsorbML: a leap in efficiency for adsorption energy calculations using generalizable machine "
    "learning potentials, npj Comput. Mater. 9, 172 (2023)",
    "10.1038/s41524-023-01121-5",
)
OC20 = Citation(
    "reference scheme of OC20",
    "L. Chanussot et al., Open Catalyst 2020 (OC20) dataset and community challenges, ACS Catal. 11, 6059 (2021)",
    "10.1021/acscatal.0c04525",
)
SCALING = Citation(
    "scaling relations",
    "F. Abild-Pedersen et al., Scaling properties of adsorption energies for hydrogen-containing molecules on "
    "transition-metal surfaces, Phys. Rev. Lett. 99, 016105 (2007)",
    "10.1103/PhysRevLett.99.016105",
)
VIEWER = Citation(
    "3D view",
    "N. Rego, D. Koes, 3Dmol.js: molecular visualization with WebGL, Bioinformatics 31, 1322 (2015)",
    "10.1093/bioinformatics/btu829",
)


PLACED = {
    "sites": ", one on each site that symmetry tells apart,",
    "heuristic": ", on sites of a triangulation of the surface with random rotations,",
    "random": ", at random places with random rotations,",
}
UNITS = {
    "fmax": "eV/Å",
    "smax": "eV/Å³",
    "vacuum": "Å",
    "minimum_thickness": "Å",
    "minimum_width": "Å",
    "minimum_area": "Å²",
    "bond_formed": "Å",
    "bond_broken": "Å",
    "surface_bond": "Å",
    "desorption": "Å",
    "migration": "Å",
    "enclosure": "°",
    "slab_displacement": "Å",
    "force": "eV/Å",
}


SIGN = (
    "Negative energies lie below the clean slab and the references; a positive one need not mean that the adsorbate "
    "leaves the surface, since what it is compared with may be stable."
)


def paragraphs(systems: Sequence[System], campaign: Campaign) -> list[str]:
    """Say in words what was calculated, with which model and settings, and what the energies leave out."""
    return [
        " ".join(sentences)
        for sentences in (
            _what_the_energies_are(campaign),
            _how_they_were_made(systems, campaign),
            _what_they_leave_out(campaign),
        )
    ]


def _what_the_energies_are(campaign: Campaign) -> list[str]:
    if campaign.energy_kind == "adsorption":
        return [
            f"The model {campaign.model} returns adsorption energies: the clean slab and the gas references are "
            "already subtracted, and nothing was subtracted again.",
            f"References of the model: {_sentence(campaign.energy_reference)}",
            f"Energies on this page are relative to: {_sentence(typeset(campaign.scheme_words))}",
            SIGN,
        ]
    return [
        "Adsorption energies are ΔE = E(slab with adsorbate) − E(clean slab) − E(references), all from the same model; "
        "the clean slab was relaxed in the same way.",
        f"References: {_sentence(typeset(campaign.scheme_words))}",
        SIGN,
    ]


def _how_they_were_made(systems: Sequence[System], campaign: Campaign) -> list[str]:
    surfaces = len({system.surface for system in systems})
    adsorbates = len({system.adsorbate for system in systems})
    placements = sum(len(system.placements) for system in systems)
    counted = sum(len(system.counted) for system in systems)
    versions = ", ".join(f"{name} {version}" for name, version in campaign.versions.items())
    digest = f" (sha256 of the weights {campaign.model_sha256})" if campaign.model_sha256 else ""
    return [
        *_slab_sentences(campaign.settings),
        f"{plural(placements, 'placement')} of {plural(adsorbates, 'adsorbate')} on {plural(surfaces, 'surface')}"
        f"{PLACED.get(str(campaign.settings.get('mode')), '')} were relaxed with {campaign.model}{digest}"
        f"{_stopping_words(campaign.settings)}.",
        f"The energy of a system is the lowest among those of its placements that count; {counted} of {placements} do: "
        "they have converged, and no anomaly disqualifies them.",
        f"Software: {versions}." if versions else "",
    ]


def _slab_sentences(settings: Mapping[str, Any]) -> list[str]:
    if "vacuum" not in settings:
        return []
    size = [
        words.format(_value(settings[name]))
        for name, words in (
            ("layers", "{} layers"),
            ("minimum_thickness", "at least {} Å thick"),
            ("minimum_width", "at least {} Å between periodic images"),
            ("minimum_area", "at least {} Å² of surface"),
            ("supercell", "{} surface cells"),
        )
        if settings.get(name) is not None
    ]
    free = settings.get("free_layers")
    fixed = "" if free is None else f"; the upper {plural(int(free), 'layer')} and the adsorbate were free to move"
    size.append(f"{_value(settings['vacuum'])} Å of vacuum")
    return [f"Slabs were cut from the bulk ({', '.join(size)}){fixed}."]


def _stopping_words(settings: Mapping[str, Any]) -> str:
    if not {"optimizer", "fmax", "steps"} <= settings.keys():
        return ""
    return (
        f" and {settings['optimizer']} until no force was larger than {_value(settings['fmax'])} eV/Å, in at most "
        f"{settings['steps']} steps"
    )


def _what_they_leave_out(campaign: Campaign) -> list[str]:
    return [
        "Energies are those of the model at rest: no zero-point energy, heat or entropy, no solvent and no electric "
        "field, except where a figure says otherwise.",
        "Errors of the model, and of the theory it was trained on, are not part of any number on this page.",
    ]


def settings_rows(campaign: Campaign) -> list[tuple[str, str]]:
    """List the settings and thresholds by name."""
    rows = [
        (name.replace("_", " "), _with_unit(name, value))
        for name, value in campaign.settings.items()
        if value not in (None, "", {}, [])
    ]
    rows += [
        (f"anomalies: {name.replace('_', ' ')}", _with_unit(name, value)) for name, value in campaign.thresholds.items()
    ]
    rows += [(f"energy of {name}", f"{number(energy, 4)} eV") for name, energy in campaign.reference_energies.items()]
    return rows


def citations(campaign: Campaign, *, scaling: bool, viewer: bool, others: Sequence[Citation] = ()) -> list[Citation]:
    """List the works that what is on the page rests on."""
    works = [Citation("model", campaign.model_citation)] if campaign.model_citation else []
    works += [ESCN] if campaign.model_sha256 else []
    works += [ASE]
    works += [PYMATGEN, SLABS] if "vacuum" in campaign.settings else []
    works += [ADSORBML] if campaign.settings.get("mode") in ("heuristic", "random") else []
    works += [OC20] if campaign.scheme.startswith("oc20") else []
    works += [SCALING] if scaling else []
    works += others
    return list(dict.fromkeys([*works, VIEWER] if viewer else works))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _with_unit(name: str, value: object) -> str:
    return f"{_value(value)} {UNITS.get(name, '')}".strip()


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " × ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
