"""Where a crystal can be cut parallel to a plane, and the stack of atoms below each cut.

pymatgen's ``SlabGenerator`` gives the unit cell oriented along the plane and the heights between planes of atoms. The
rest is done here, because its slabs lose terminations (a slab that is another one upside down counts as the same),
round thickness and vacuum to whole cells, and may point along the opposite of the normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.symbols import Symbols

from escn_calc.adsorption.bulks import SYMMETRY_TOLERANCE, Bulk
from escn_calc.adsorption.facets import Miller, facet_name
from escn_calc.adsorption.geometry import PLANE_TOLERANCE, Array, coordination, exposed_atoms, planes
from escn_calc.adsorption.symmetry import GAP, primitive_cell
from escn_calc.errors import InputError

SAME_PLANE = 0.1
"""Å. No cut goes between atoms whose heights are closer."""
THICK = 12.0
"""Å. In a stack of this height the middle is as in the crystal."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A crystal cut above one of its planes.

    Attributes
    ----------
    crystal : Atoms
        Cell oriented along the plane: its first two vectors lie in it.
    normal : ndarray (3,)
        Unit vector out of the surface.
    height : float
        Where along the normal the crystal ends, Å; between two planes of atoms.
    period : float
        Height of the oriented cell, Å.
    """

    crystal: Atoms
    normal: Array
    height: float
    period: float

    def stack(self, repeats: int) -> Atoms:
        """Stack oriented cells below the cut: one primitive surface cell, normal along z, lowest plane first."""
        upwards = self.crystal.cell.array * np.sign(self.crystal.cell.array[2] @ self.normal)
        first, second, third = self.crystal.cell.array[0], self.crystal.cell.array[1], upwards[2]
        heights = self.crystal.positions @ self.normal
        cells_below = np.floor((self.height - heights) / self.period)
        layers = cells_below[None, :] - np.arange(repeats)[:, None]
        positions = self.crystal.positions + layers[..., None] * third
        if np.cross(first, second) @ self.normal < 0:
            first, second = second, first
        stacked = Atoms(
            np.tile(self.crystal.numbers, repeats),
            positions.reshape(-1, 3),
            cell=[first, second, self.normal * (repeats * self.period + GAP)],
            pbc=True,
        )
        return _sorted(primitive_cell(stacked))


@dataclass(frozen=True)
class Stacking:
    """How the planes below a cut count.

    Attributes
    ----------
    planes_per_period : int
        Planes of atoms in one period of the crystal.
    planes_per_layer : int
        Planes that an adsorbate reaches: one of fcc(111), three of a terrace of fcc(211). Together they are a layer.
    broken_bonds : int
        Bonds missing in the upper half of a thick stack.
    top : str
        Composition of the uppermost plane.
    """

    planes_per_period: int
    planes_per_layer: int
    broken_bonds: int
    top: str


def cuts(bulk: Bulk, miller: Miller) -> list[tuple[Cut, Stacking]]:
    """All cuts parallel to a plane that give different surfaces, those first that break the fewest bonds.

    Two cuts give the same surface if an operation of the crystal that leaves the normal up takes one to the other.

    Raises
    ------
    InputError
        The indices are so high that planes of atoms follow one another too closely to be told apart.
    """
    from pymatgen.core.surface import SlabGenerator
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    spacing = widest_spacing(bulk.atoms, miller)
    if spacing < PLANE_TOLERANCE:
        raise InputError(
            f"{bulk.name}{facet_name(miller, bulk.atoms)}: the planes of atoms are at most {spacing:.2f} Å apart, too "
            f"close to tell where a surface is (limit {PLANE_TOLERANCE:g} Å); give lower Miller indices"
        )
    structure = AseAtomsAdaptor.get_structure(bulk.atoms)
    generator = SlabGenerator(structure, miller, min_slab_size=1.0, min_vacuum_size=1.0, primitive=False)
    oriented = generator.oriented_unit_cell
    normal = structure.lattice.reciprocal_lattice_crystallographic.get_cartesian_coords(miller)
    normal = normal / np.linalg.norm(normal)
    rise = float(oriented.lattice.matrix[2] @ normal)
    heights = np.sort([fraction * rise for fraction in generator.gen_possible_terminations(ftol=SAME_PLANE)])
    operations = SpacegroupAnalyzer(oriented, SYMMETRY_TOLERANCE).get_symmetry_operations(cartesian=True)
    shifts = np.array(
        [op.translation_vector @ normal for op in operations if op.rotation_matrix @ normal @ normal > 0.99]
    )
    crystal = Atoms([site.specie.Z for site in oriented], oriented.cart_coords, cell=oriented.lattice.matrix, pbc=True)
    found = [Cut(crystal, normal, height, abs(rise)) for height in _distinct(heights, shifts, abs(rise))]
    return sorted(((cut, stacking(cut)) for cut in found), key=lambda pair: pair[1].broken_bonds)


def widest_spacing(crystal: Atoms, miller: Miller) -> float:
    """Largest distance in Å between neighbouring planes of atoms parallel to a lattice plane."""
    repeat = 1.0 / np.linalg.norm(np.array(miller) @ crystal.cell.reciprocal().array)
    heights = np.sort((crystal.cell.scaled_positions(crystal.positions) @ np.array(miller)) % 1.0)
    return float(np.diff(heights, append=heights[0] + 1.0).max() * repeat)


def stacking(cut: Cut) -> Stacking:
    """Count the planes and the broken bonds below a cut."""
    repeats = max(2, math.ceil(THICK / cut.period))
    thick = cut.stack(repeats)
    heights = thick.positions[:, 2]
    of_each = planes(heights)
    exposed = set(exposed_atoms(thick).tolist())
    reached = [index for index, plane in enumerate(of_each) if exposed & set(plane.tolist())]
    bonds = coordination(thick)
    interior = np.array([bonds[thick.numbers == number].max() for number in thick.numbers])
    upper = heights > heights.mean()
    return Stacking(
        planes_per_period=round(len(of_each) / repeats),
        planes_per_layer=max(reached) + 1,
        broken_bonds=int((interior - bonds)[upper].sum()),
        top=Symbols(thick.numbers[of_each[0]]).formula.reduce()[0].format("metal"),
    )


def _distinct(heights: Array, shifts: Array, period: float) -> list[float]:
    kept: list[float] = []
    for height in heights:
        moved = (height + shifts[:, None] - np.array(kept)[None, :]) / period
        if not (np.abs(moved - np.round(moved)) * period < SAME_PLANE).any():
            kept.append(float(height))
    return kept


def _sorted(atoms: Atoms) -> Atoms:
    """Lowest plane first; within a plane by y, then x."""
    ranks = np.empty(len(atoms), dtype=int)
    for rank, plane in enumerate(reversed(planes(atoms.positions[:, 2]))):
        ranks[plane] = rank
    order = np.lexsort([np.round(atoms.positions[:, 0], 3), np.round(atoms.positions[:, 1], 3), ranks])
    return atoms[order]
