"""Structures that the symmetry of the slab makes equal, as they start or after they have relaxed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from escn_calc.adsorption.geometry import Array, shortest
from escn_calc.adsorption.slabs import Slab
from escn_calc.adsorption.symmetry import Symmetry, cell_symmetry
from escn_calc.errors import InputError

LARGEST_TOLERANCE = 0.35
"""Å, just below half a bond of H₂: with more, two atoms could be taken for one."""


@dataclass(frozen=True, eq=False)
class _Covered:
    """A structure in the frame of its slab, adsorbate atoms ordered by element and height.

    Attributes
    ----------
    numbers : ndarray (n,)
        Atomic numbers of the adsorbate.
    flat, heights : ndarray (n, 2), (n,)
        Its positions, Å.
    moved : ndarray (N, 3)
        How far each slab atom is from where it is in the slab as built, Å.
    """

    numbers: NDArray[np.int64]
    flat: Array
    heights: Array
    moved: Array


def groups_of_equals(structures: Sequence[Atoms], slab: Slab, *, tolerance: float = 0.2) -> list[list[int]]:
    """Group structures that an operation of the cell's symmetry takes into one another.

    Equal are structures whose adsorbate atoms (whichever carries which index) and slab atoms all coincide within the
    tolerance after an operation that maps slab and cell onto themselves and leaves the upper face up. Operations that a
    supercell does not have are not used: its images make the difference.

    Parameters
    ----------
    structures : sequence of Atoms
        The atoms of the slab first, in its order, then those of the adsorbate; relaxed or not, wrapped or not.
    slab : Slab
        As it was built, not relaxed: its symmetry counts.
    tolerance : float
        Å, for every atom. Up to 0.35.

    Returns
    -------
    list of list of int
        Indices of equal structures, ascending; groups in the order of their first members, to which the others are
        equal.

    Raises
    ------
    InputError
        A structure does not start with the atoms of the slab, or the tolerance is out of range.
    """
    if not 0 < tolerance <= LARGEST_TOLERANCE:
        raise InputError(f"tolerance is {tolerance} Å; it must be positive and at most {LARGEST_TOLERANCE} Å")
    symmetry = cell_symmetry(slab.atoms)
    partners = _partners(slab.atoms, symmetry)
    groups: list[list[int]] = []
    heads: list[tuple[_Covered, Array]] = []
    for index, atoms in enumerate(structures):
        covered = _covered(index, atoms, slab, symmetry)
        for group, (head, images) in zip(groups, heads, strict=True):
            if _may_be_equal(covered, head, tolerance) and _equal(covered, head, images, symmetry, partners, tolerance):
                group.append(index)
                break
        else:
            groups.append([index])
            heads.append((covered, symmetry.images_of(covered.flat)))
    return groups


def _covered(index: int, atoms: Atoms, slab: Slab, symmetry: Symmetry) -> _Covered:
    size = len(slab.atoms)
    if len(atoms) < size or not np.array_equal(atoms.numbers[:size], slab.atoms.numbers):
        raise InputError(
            f"structure {index} ({atoms.get_chemical_formula()}) does not start with the {size} atoms of {slab.name} "
            "in their order"
        )
    directions = symmetry.frame
    moved = atoms.positions[:size] - slab.atoms.positions
    sideways, up = shortest(directions.flat(moved), directions.lattice), directions.heights(moved)
    numbers, flat = atoms.numbers[size:], directions.flat(atoms.positions[size:])
    heights = directions.heights(atoms.positions[size:])
    if atoms.pbc[2]:
        period = float(directions.heights(slab.atoms.cell.array[2]))
        tilt = directions.flat(slab.atoms.cell.array[2])
        middle = directions.heights(slab.atoms.positions).mean() + period / 4
        cells = np.round((heights - middle) / period)
        heights, flat = heights - cells * period, flat - cells[:, None] * tilt
        cells = np.round(up / period)
        up, sideways = up - cells * period, shortest(directions.flat(moved) - cells[:, None] * tilt, directions.lattice)
    order = np.lexsort([heights, numbers])
    return _Covered(numbers[order], flat[order], heights[order], np.column_stack([sideways, up]))


def _may_be_equal(one: _Covered, other: _Covered, tolerance: float) -> bool:
    """Compare what no operation changes: elements, and heights in ascending order."""
    return np.array_equal(one.numbers, other.numbers) and bool(
        (np.abs(one.heights - other.heights) < tolerance).all()
        and (np.abs(np.sort(one.moved[:, 2]) - np.sort(other.moved[:, 2])) < tolerance).all()
    )


def _equal(
    one: _Covered, other: _Covered, images: Array, symmetry: Symmetry, partners: NDArray[np.int64], tolerance: float
) -> bool:
    """Whether an operation takes ``other``, whose adsorbate it puts at ``images`` (G, n, 2), to ``one``."""
    sideways = np.linalg.norm(shortest(images[:, :, None] - one.flat[None, None], symmetry.lattice), axis=-1)
    up = np.abs(other.heights[:, None] - one.heights[None])
    near = (np.hypot(sideways, up) < tolerance) & (other.numbers[:, None] == one.numbers[None])
    possible = near.any(axis=2).all(axis=1) & near.any(axis=1).all(axis=1)
    for operation in np.flatnonzero(possible):
        turned = np.column_stack([other.moved[:, :2] @ symmetry.rotations[operation].T, other.moved[:, 2]])
        if (np.linalg.norm(one.moved[partners[operation]] - turned, axis=1) < tolerance).all():
            return True
    return False


def _partners(atoms: Atoms, symmetry: Symmetry) -> NDArray[np.int64]:
    """For every operation, the atom (G, N) of the slab to which it takes each atom."""
    flat, heights = symmetry.frame.flat(atoms.positions), symmetry.frame.heights(atoms.positions)
    level = np.abs(heights[:, None] - heights[None])
    return np.array(
        [
            np.hypot(np.linalg.norm(shortest(moved[:, None] - flat[None], symmetry.lattice), axis=-1), level).argmin(
                axis=1
            )
            for moved in symmetry.images_of(flat)
        ]
    )
