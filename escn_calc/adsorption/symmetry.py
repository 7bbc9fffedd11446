"""The symmetry of a surface: operations that map a slab onto itself and leave its upper face up.

They are found in a cell of the slab's own height with a fixed gap above it, so they do not depend on the vacuum; and
where the symmetry of the *surface* is asked for, in the primitive surface cell, so that it does not depend on the
supercell either. The symmetry of the *cell* is what remains when its periodic images count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from escn_calc.adsorption.geometry import Array, Frame, frame, in_cell, reduced, shortest

TOLERANCE = 0.05
"""Å. So far may an atom be from where symmetry has it."""
GAP = 20.0
"""Å between the slab and its image while symmetry is looked for."""


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Operations x → R x + t on positions in the frame of a slab, Å.

    Attributes
    ----------
    frame : Frame
        In whose components the operations are written.
    rotations : ndarray (G, 2, 2)
        Rotations and reflections in the plane.
    translations : ndarray (G, 2)
        Translations in the plane, up to vectors of ``lattice``.
    lattice : ndarray (2, 2)
        Vectors by which everything repeats, one per row.
    """

    frame: Frame
    rotations: Array
    translations: Array
    lattice: Array

    def images_of(self, flat: Array) -> Array:
        """Where every operation takes points (…, 2): (G, …, 2)."""
        turned = np.einsum("gij,...j->g...i", self.rotations, flat)
        return turned + self.translations.reshape(len(self.rotations), *(1,) * (flat.ndim - 1), 2)


def cell_symmetry(atoms: Atoms) -> Symmetry:
    """Symmetry of a slab in its cell: only operations that map the lattice of the cell onto itself."""
    directions = frame(atoms)
    rotations, translations = _operations(directions, directions.lattice, atoms.numbers, atoms.positions)
    upright = rotations[:, 2, 2] > 0
    return Symmetry(directions, rotations[upright, :2, :2], translations[upright, :2], directions.lattice)


def surface_symmetry(atoms: Atoms) -> Symmetry:
    """Symmetry of the surface that a slab repeats: ``lattice`` is that of the primitive surface cell."""
    directions = frame(atoms)
    lattice = primitive_lattice(atoms)
    kept = _one_of_each(directions, lattice, atoms)
    rotations, translations = _operations(directions, lattice, atoms.numbers[kept], atoms.positions[kept])
    upright = rotations[:, 2, 2] > 0
    return Symmetry(directions, rotations[upright, :2, :2], translations[upright, :2], lattice)


def has_equal_faces(atoms: Atoms) -> bool:
    """Whether an operation takes the upper face of a slab to its lower one."""
    directions = frame(atoms)
    rotations, _ = _operations(directions, directions.lattice, atoms.numbers, atoms.positions)
    return bool((rotations[:, 2, 2] < 0).any())


def primitive_lattice(atoms: Atoms) -> Array:
    """Return the two shortest vectors (2, 2) that repeat a slab, in its frame, at 90° to 120°, right-handed."""
    directions = frame(atoms)
    rotations, translations = _operations(directions, directions.lattice, atoms.numbers, atoms.positions)
    pure = translations[np.abs(rotations - np.eye(3)).max(axis=(1, 2)) < 1e-3][:, :2]
    steps = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    lattice = reduced(directions.lattice)
    vectors = (in_cell(pure, lattice)[:, None] + steps @ lattice).reshape(-1, 2)
    area = abs(np.linalg.det(lattice)) / len(pure)
    return _reduced(vectors, area)


def primitive_cell(atoms: Atoms) -> Atoms:
    """Return one primitive surface cell of a slab, its first vector along x and its normal along z."""
    directions = frame(atoms)
    lattice = primitive_lattice(atoms)
    kept = _one_of_each(directions, lattice, atoms)
    angle = np.arctan2(lattice[0, 1], lattice[0, 0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flat = in_cell(directions.flat(atoms.positions[kept]), lattice) @ turn
    heights = directions.heights(atoms.positions[kept])
    cell = np.zeros((3, 3))
    cell[:2, :2] = lattice @ turn
    cell[0, 1] = 0.0
    cell[2, 2] = np.ptp(heights) + GAP
    return Atoms(atoms.numbers[kept], np.column_stack([flat, heights]), cell=cell, pbc=True)


def _reduced(vectors: Array, area: float) -> Array:
    lengths = np.linalg.norm(vectors, axis=1)
    vectors, lengths = vectors[lengths > 0.1], lengths[lengths > 0.1]
    direction = np.round(np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])), 2) % 360.0
    vectors = vectors[np.lexsort([direction, np.round(lengths, 3)])]
    first = vectors[0]
    crosses = first[0] * vectors[:, 1] - first[1] * vectors[:, 0]
    obtuse = vectors @ first < 1e-3 * (first @ first)
    second = vectors[(np.abs(crosses - area) < 0.05 * area) & obtuse][0]
    return np.array([first, second])


def _one_of_each(directions: Frame, lattice: Array, atoms: Atoms) -> NDArray[np.int64]:
    """Indices of atoms of which no two are a lattice vector apart, the lowest index of each, ascending."""
    flat, heights = directions.flat(atoms.positions), directions.heights(atoms.positions)
    sideways = np.linalg.norm(shortest(flat[None] - flat[:, None], lattice), axis=-1)
    same = (sideways < 4 * TOLERANCE) & (np.abs(heights[None] - heights[:, None]) < 4 * TOLERANCE)
    same &= atoms.numbers[None] == atoms.numbers[:, None]
    return np.flatnonzero(same.argmax(axis=1) == np.arange(len(atoms)))


def _operations(directions: Frame, lattice: Array, numbers: NDArray[np.int64], positions: Array) -> tuple[Array, Array]:
    """All operations, rotations (G, 3, 3) and translations (G, 3) in the frame, of a slab in a cell of fixed gap."""
    from pymatgen.core import Structure
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    heights = directions.heights(positions)
    cell = np.zeros((3, 3))
    cell[:2, :2] = lattice if np.linalg.det(lattice) > 0 else lattice[::-1]
    cell[2, 2] = np.ptp(heights) + GAP
    placed = np.column_stack([directions.flat(positions), heights])
    structure = Structure(cell, [chemical_symbols[number] for number in numbers], placed, coords_are_cartesian=True)
    found = SpacegroupAnalyzer(structure, TOLERANCE).get_symmetry_operations(cartesian=True)
    return np.array([op.rotation_matrix for op in found]), np.array([op.translation_vector for op in found])
