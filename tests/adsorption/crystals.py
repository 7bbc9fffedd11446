"""Crystals whose surfaces are known."""

from ase import Atoms
from ase.spacegroup import crystal

from escn_calc.adsorption.bulks import Bulk, bulk
from escn_calc.adsorption.slabs import Slab, slabs


def cu3au() -> Bulk:
    """L1₂."""
    basis = [(0, 0.5, 0.5), (0, 0, 0)]
    return bulk(crystal(["Cu", "Au"], basis, spacegroup=221, cellpar=[3.74] * 3 + [90] * 3), name="Cu3Au")


def fept() -> Bulk:
    """L1₀ in the cell of four atoms, so that (111) is the close-packed facet."""
    places = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return bulk(Atoms("Fe2Pt2", scaled_positions=places, cell=[3.85, 3.85, 3.71], pbc=True), name="FePt")


def rutile() -> Bulk:
    """TiO₂."""
    basis = [(0, 0, 0), (0.3053, 0.3053, 0)]
    return bulk(crystal(["Ti", "O"], basis, spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90]), name="TiO2")


def by_name(name: str) -> Bulk:
    """Elements of ASE and the compounds of this module."""
    made = {"Cu3Au": cu3au, "FePt": fept, "TiO2": rutile}
    if name in made:
        return made[name]()
    compounds = {"NaCl": ("rocksalt", 5.64), "ZnS": ("zincblende", 5.41), "CsCl": ("cesiumchloride", 4.12),
                 "CaF2": ("fluorite", 5.46)}  # fmt: skip
    structure, lattice = compounds.get(name, (None, None))
    return bulk(name, crystal=structure, lattice=lattice)


def one_slab(name: str, facet: str, **options: object) -> Slab:
    """The first termination."""
    return slabs(by_name(name), facet, **options)[0]  # type: ignore[arg-type]
