"""The eSCN checkpoints that Meta FAIR has published, and the energies known for them.

Needs neither torch nor ASE until a structure is built, so that listing is quick. Facts come from the project's page
of pretrained models, its configuration files, its documentation builds and tutorials; the project has published
no file sizes and no checksums.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from escn_calc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

BASE_URL = "https://dl.fbaipublicfiles.com/"
OC20_FOLDER = "opencatalystproject/models/2023_03/s2ef/"
ODAC_FOLDER = "dac/checkpoints_20231018/"
NAMES_SUGGESTED = 3

_OC20_SYMBOLS = (
    "H B C N O Na Al Si P S Cl K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn "
    "Sb Te Cs Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi"
)
OC20_ELEMENTS = tuple(_OC20_SYMBOLS.split())
"""Elements of OC20 as FAIR's own code lists them where it asks which embeddings were fitted."""

ESCN_CITATION = (
    "S. Passaro, C. L. Zitnick, Reducing SO(3) Convolutions to SO(2) for Efficient Equivariant GNNs, ICML 2023, "
    "arXiv:2302.03655"
)


@dataclass(frozen=True)
class TrainingSet:
    """What all checkpoints trained on one data set share."""

    name: str
    energy_kind: Literal["adsorption", "total"]
    energy_reference: str
    elements: tuple[str, ...] | None
    licence: str
    citation: str
    not_for: str


@dataclass(frozen=True)
class ReferenceEnergy:
    """An energy that someone computed with the published file and wrote down.

    Attributes
    ----------
    structure : key of :data:`REFERENCE_STRUCTURES`.
    energy : mean of the published values, in eV.
    spread : their standard deviation in eV, from the random edge frames; None for a single value.
    draws : number of published values.
    tolerance : largest accepted difference in eV; covers spread, neighbour ties and hardware.
    source : where the values were printed.
    """

    structure: str
    energy: float
    spread: float | None
    draws: int
    tolerance: float
    source: str


@dataclass(frozen=True)
class CatalogueEntry:
    """One published checkpoint.

    ``config`` holds the options of the published configuration that differ from :class:`ESCNConfig`'s defaults.
    The normaliser constants are (mean, standard deviation) in eV and eV/Å.
    """

    name: str
    path: str
    training_set: TrainingSet
    split: str
    config: Mapping[str, object]
    energy_normalizer: tuple[float, float]
    force_normalizer: tuple[float, float]
    metrics: Mapping[str, int | float | str] = field(default_factory=dict)
    references: tuple[ReferenceEnergy, ...] = ()

    @property
    def url(self) -> str:
        """Address of the file on FAIR's server."""
        return BASE_URL + self.path

    @property
    def file_name(self) -> str:
        """Name of the file on FAIR's server."""
        return self.path.rsplit("/", 1)[-1]


OC20 = TrainingSet(
    name="OC20",
    energy_kind="adsorption",
    energy_reference=(
        "adsorption energy: DFT (RPBE) energy of slab with adsorbate, minus that of the clean relaxed slab, minus "
        "gas-phase references of the adsorbate's atoms from N2, H2O, CO and H2"
    ),
    elements=OC20_ELEMENTS,
    licence="data set OC20: CC-BY-4.0; for the weights no licence of their own is stated",
    citation=f"{ESCN_CITATION}; L. Chanussot et al., ACS Catalysis 11, 6059 (2021), doi:10.1021/acscatal.0c04525",
    not_for="total or formation energies, stress, charged or solvated surfaces, clean-slab subtraction",
)
ODAC23 = TrainingSet(
    name="ODAC23",
    energy_kind="adsorption",
    energy_reference=(
        "adsorption energy: DFT (PBE-D3) energy of the framework with CO2 and H2O, minus that of the empty framework, "
        "minus that of the gas molecules"
    ),
    elements=None,
    licence="not stated with the files",
    citation=f"{ESCN_CITATION}; A. Sriram et al., ACS Central Science 10, 923 (2024), arXiv:2311.00341",
    not_for="total or formation energies, stress, metal surfaces, adsorbates other than CO2 and H2O",
)

OC20_ENERGIES = (-0.7554450631141663, 2.887317180633545)
OC20_FORCES = (0.0, 2.887317180633545)
OC20_CONFIG = {
    "sphere_channels": 128,
    "hidden_channels": 256,
    "cutoff": 12.0,
    "max_neighbors": 20,
    "num_sphere_samples": 128,
    "basis_width_scalar": 2.0,
}
ODAC_CONFIG = {
    **OC20_CONFIG,
    "lmax_list": (6,),
    "mmax_list": (2,),
    "num_layers": 12,
    "cutoff": 8.0,
    "max_num_elements": 100,
}

DOCUMENTATION = "FAIR's documentation builds of 2025, CPU"
TUTORIAL = "FAIR's tutorials of 2023, CPU"


L4_ENERGIES = ReferenceEnergy("Pt(111)+O", 1.6783, 0.0079, 11, 0.04, DOCUMENTATION)
L6_M3_ENERGIES = (
    ReferenceEnergy("CH4", -2.2350, None, 1, 0.01, "FAIR's tutorials, CPU"),
    ReferenceEnergy("Pt16O", 0.6050, None, 2, 0.01, TUTORIAL),
    ReferenceEnergy("Pt(111)+O", 1.7138, 0.0031, 10, 0.04, TUTORIAL),
)

_ENTRIES = (
    CatalogueEntry(
        name="eSCN-L4-M2-Lay12-S2EF-OC20-2M",
        path=OC20_FOLDER + "escn_l4_m2_lay12_2M_s2ef.pt",
        training_set=OC20,
        split="2M",
        config={**OC20_CONFIG, "lmax_list": (4,), "mmax_list": (2,), "num_layers": 12},
        energy_normalizer=OC20_ENERGIES,
        force_normalizer=OC20_FORCES,
        metrics={"force MAE, val ID (eV/Å)": 0.0191, "EFwT, val ID": "2.55 %"},
        references=(L4_ENERGIES,),
    ),
    CatalogueEntry(
        name="eSCN-L6-M2-Lay12-S2EF-OC20-2M",
        path=OC20_FOLDER + "escn_l6_m2_lay12_2M_s2ef.pt",
        training_set=OC20,
        split="2M",
        config={**OC20_CONFIG, "lmax_list": (6,), "mmax_list": (2,), "num_layers": 12},
        energy_normalizer=OC20_ENERGIES,
        force_normalizer=OC20_FORCES,
        metrics={"force MAE, val ID (eV/Å)": 0.0186, "EFwT, val ID": "2.66 %"},
    ),
    CatalogueEntry(
        name="eSCN-L6-M2-Lay12-S2EF-OC20-All+MD",
        path=OC20_FOLDER + "escn_l6_m2_lay12_all_md_s2ef.pt",
        training_set=OC20,
        split="All+MD",
        config={**OC20_CONFIG, "lmax_list": (6,), "mmax_list": (2,), "num_layers": 12},
        energy_normalizer=OC20_ENERGIES,
        force_normalizer=OC20_FORCES,
        metrics={"force MAE, val ID (eV/Å)": 0.0161, "EFwT, val ID": "4.28 %"},
    ),
    CatalogueEntry(
        name="eSCN-L6-M3-Lay20-S2EF-OC20-All+MD",
        path=OC20_FOLDER + "escn_l6_m3_lay20_all_md_s2ef.pt",
        training_set=OC20,
        split="All+MD",
        config={
            **OC20_CONFIG,
            "lmax_list": (6,),
            "mmax_list": (3,),
            "num_layers": 20,
            "sphere_channels": 160,
            "hidden_channels": 384,
        },
        energy_normalizer=OC20_ENERGIES,
        force_normalizer=OC20_FORCES,
        metrics={"force MAE, val ID (eV/Å)": 0.0139, "EFwT, val ID": "6.64 %"},
        references=L6_M3_ENERGIES,
    ),
    CatalogueEntry(
        name="eSCN-S2EF-ODAC",
        path=ODAC_FOLDER + "eSCN.pt",
        training_set=ODAC23,
        split="S2EF",
        config=ODAC_CONFIG,
        energy_normalizer=(-0.39596545696258545, 1.451111078262329),
        force_normalizer=(0.0, 0.04262716323137283),
    ),
    CatalogueEntry(
        name="eSCN-IS2RE-ODAC",
        path=ODAC_FOLDER + "eSCN_Direct.pt",
        training_set=ODAC23,
        split="IS2RE: energy of the relaxed structure from the unrelaxed one",
        config={**ODAC_CONFIG, "regress_forces": False},
        energy_normalizer=(-0.5249277949333191, 0.943034291267395),
        force_normalizer=(0.0, 1.0),
    ),
)
CATALOGUE: dict[str, CatalogueEntry] = {entry.name: entry for entry in _ENTRIES}


def find_entry(name: str) -> CatalogueEntry | None:
    """Return the entry called ``name``, upper and lower case being the same; None if there is none."""
    wanted = name.casefold()
    return next((entry for key, entry in CATALOGUE.items() if key.casefold() == wanted), None)


def get_entry(name: str) -> CatalogueEntry:
    """Return the entry called ``name``.

    Raises
    ------
    InputError
        If there is none; suggests the nearest names.
    """
    entry = find_entry(name)
    if entry is None:
        raise InputError(f"there is no published checkpoint {name!r}; {suggest(name, list(CATALOGUE))}")
    return entry


def suggest(name: str, known: list[str]) -> str:
    """Return a phrase with the names in ``known`` that begin with ``name``, else the similar ones, else all."""
    by_key, wanted = {key.casefold(): key for key in known}, name.casefold()
    near = [key for key in by_key if key.startswith(wanted)] or difflib.get_close_matches(
        wanted, by_key, n=NAMES_SUGGESTED, cutoff=0.5
    )
    if near:
        return "did you mean " + " or ".join(by_key[key] for key in near) + "?"
    return "known are " + ", ".join(known)


def _pt111_oxygen() -> "Atoms":
    """Pt(111) p(2x2), five layers, with O above an fcc site; not relaxed, no periodicity along z."""
    from ase.build import add_adsorbate, fcc111

    atoms = fcc111("Pt", size=(2, 2, 5), vacuum=10.0, a=3.92)
    add_adsorbate(atoms, "O", height=1.2, position="fcc")
    return atoms


def _pt16_oxygen() -> "Atoms":
    """Relaxed Pt(111) p(2x2), four layers, with O at 1/4 monolayer, as in FAIR's ``structures.json``."""
    from ase import Atoms

    return Atoms("Pt16O", positions=PT16O_POSITIONS, cell=PT16O_CELL, pbc=True)


def _methane() -> "Atoms":
    """Build ASE's gas-phase CH4, without a cell."""
    from ase.build import molecule

    return molecule("CH4")


REFERENCE_STRUCTURES: Mapping[str, Callable[[], "Atoms"]] = MappingProxyType(
    {"CH4": _methane, "Pt16O": _pt16_oxygen, "Pt(111)+O": _pt111_oxygen}
)

PT16O_CELL = (
    (5.628569978244919, 0.0, 0.0),
    (2.8142849891224593, 4.874484588138524, 0.0),
    (0.0, 0.0, 30.89356221412413),
)
PT16O_POSITIONS = (
    (0.0, 0.0, 12.0),
    (2.81428498912, 0.0, 12.0),
    (1.40714249456, 2.43724229407, 12.0),
    (4.22142748368, 2.43724229407, 12.0),
    (1.40714249456, 0.812414098023, 14.2978540714),
    (4.22142748368, 0.812414098023, 14.2978540714),
    (2.81428498912, 3.24965639209, 14.2978540714),
    (5.62856997824, 3.24965639209, 14.2978540714),
    (5.63459399391, 1.62135022898, 16.5544045073),
    (2.80826097346, 1.62135022898, 16.5544045073),
    (7.03571247281, 4.06207049012, 16.6738810685),
    (4.22142748368, 4.06902642425, 16.5544045073),
    (8.39035912796, 4.84417610112, 18.9394419736),
    (5.68106581765, 4.84417610112, 18.9394419736),
    (7.03571247281, 2.4978592681, 18.9394419736),
    (4.22142748368, 2.43724229407, 18.7955902671),
    (1.40714249456, 0.812414098023, 20.0917178564),
)
