"""Up and down on a slab: its normal, its planes of atoms, and which atoms an adsorbate can touch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

PLANE_TOLERANCE = 0.15
"""Å. Atoms whose heights follow one another within this are one plane."""
LONGEST_NEIGHBOUR = 6.0
"""Å. Within this distance every atom of a solid has a neighbour."""
SHELL = 1.2
"""Neighbours are bonded up to this multiple of the shortest distance: with it fcc has 12, bcc 8 + 6."""
PROBE = 2.0
"""Å, distance at which an adsorbed atom touches: between the lengths of bonds of O and C with metals."""
UNDERCOORDINATED = 0.85
"""Atoms with a smaller share of the bonds of the interior are exposed even where others stand around them."""
HIGHER = 0.2
"""Å. A neighbour is above an atom if it is higher by more than this."""
RIGHT_ABOVE = 0.3
"""Å, sideways."""
WIDEST_OPENING = 190.0
"""Degrees. Neighbours that leave no wider opening, seen from above, stand all around an atom."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frame:
    """The directions of a slab: two in its plane, and up.

    Attributes
    ----------
    axes : ndarray (3, 3)
        Unit vectors, one per row: along the first cell vector, in the plane and perpendicular to it, and the normal on
        the side of the third cell vector. Right-handed.
    lattice : ndarray (2, 2)
        The first two cell vectors, in components along the first two axes, Å.
    """

    axes: Array
    lattice: Array

    def flat(self, positions: Array) -> Array:
        """Components (…, 2) in the plane of positions (…, 3), Å."""
        return positions @ self.axes[:2].T

    def heights(self, positions: Array) -> Array:
        """Components (…) along the normal of positions (…, 3), Å."""
        return positions @ self.axes[2]

    def in_space(self, flat: Array, heights: Array) -> Array:
        """Positions (…, 3) with given components in the plane (…, 2) and heights (…), Å."""
        return flat @ self.axes[:2] + np.asarray(heights)[..., None] * self.axes[2]


def frame(atoms: Atoms) -> Frame:
    """Return the directions of a slab; its cell may be left-handed and turned in any way."""
    first, second, third = atoms.cell.array
    normal = np.cross(first, second)
    normal /= np.linalg.norm(normal)
    if third @ normal < 0:
        normal = -normal
    along = first / np.linalg.norm(first)
    axes = np.array([along, np.cross(normal, along), normal])
    return Frame(axes, atoms.cell.array[:2] @ axes[:2].T)


def in_cell(flat: Array, lattice: Array) -> Array:
    """Shift points (…, 2) by lattice vectors into the cell, fractions from 0 up to but not reaching 1."""
    fractions = flat @ np.linalg.inv(lattice)
    return (fractions - np.floor(fractions + 1e-6)) @ lattice


def shortest(vectors: Array, lattice: Array) -> Array:
    """Shift small vectors (…, 2) by lattice vectors so that each is short; exact for those shorter than 0.4 cells."""
    fractions = vectors @ np.linalg.inv(lattice)
    return (fractions - np.round(fractions)) @ lattice


def reduced(vectors: Array) -> Array:
    """Return the two shortest vectors (2, d) of the lattice that two vectors span, after Lagrange and Gauss."""
    first, second = sorted(vectors, key=np.linalg.norm)
    while True:
        second = second - np.round(second @ first / (first @ first)) * first
        if second @ second >= (1 - 1e-9) * (first @ first):
            return np.array([first, second])
        first, second = second, first


def images(lattice: Array, reach: float) -> Array:
    """Lattice vectors (M, 2) that bring any point of the cell within ``reach`` (Å) of any other."""
    heights = abs(np.linalg.det(lattice)) / np.linalg.norm(lattice[::-1], axis=1)
    counts = np.ceil(reach / heights).astype(int) + 1
    steps = [np.arange(-count, count + 1) for count in counts]
    return np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 2) @ lattice


def planes(heights: Array, tolerance: float = PLANE_TOLERANCE) -> list[NDArray[np.int64]]:
    """Group atoms by height, the highest plane first; each plane holds the indices of its atoms."""
    order = np.argsort(-heights, kind="stable")
    steps = np.flatnonzero(-np.diff(heights[order]) > tolerance) + 1
    return list(np.split(order, steps))


def coordination(atoms: Atoms) -> NDArray[np.int64]:
    """Number of neighbours within ``SHELL`` times the distance to the nearest one, (N,)."""
    centres, _ = _bonds(atoms)
    return np.bincount(centres, minlength=len(atoms))


def exposed_atoms(atoms: Atoms) -> NDArray[np.int64]:
    """Indices of the atoms that an adsorbate can sit on, ascending.

    An atom is exposed if an adsorbed atom that comes straight down on it touches it first, at ``PROBE`` above it; and
    if it is not the floor of a hollow: bonded (nearly) as in the interior and with higher neighbours all around. Atoms
    of the lower half never are. Only positions decide, not tags: more layers may move than can be touched.
    """
    heights = frame(atoms).heights(atoms.positions)
    upper = heights >= (heights.min() + heights.max()) / 2 - PLANE_TOLERANCE
    return np.flatnonzero(upper & _touched_first(atoms, heights) & ~_is_floor(atoms, heights))


def _touched_first(atoms: Atoms, heights: Array) -> NDArray[np.bool_]:
    """Whether no other atom is in the way of a sphere of radius ``PROBE`` that comes down on an atom, (N,)."""
    directions = frame(atoms)
    flat = directions.flat(atoms.positions)
    apart = shortest(flat[None] - flat[:, None], directions.lattice)
    distances = np.linalg.norm(apart[:, :, None] + images(directions.lattice, PROBE), axis=-1)
    rises = heights[None, :, None] - heights[:, None, None]
    in_the_way = (distances < PROBE) & (rises > HIGHER)
    drop = PROBE - np.sqrt(np.maximum(PROBE**2 - distances**2, 0.0))
    return ~(in_the_way & (rises > drop)).any(axis=(1, 2))


def _is_floor(atoms: Atoms, heights: Array) -> NDArray[np.bool_]:
    centres, vectors = _bonds(atoms)
    counts = np.bincount(centres, minlength=len(atoms))
    interior = np.array([counts[atoms.numbers == number].max() for number in atoms.numbers])
    full = counts >= UNDERCOORDINATED * interior
    directions = frame(atoms)
    above = directions.heights(vectors) > HIGHER
    return np.array(
        [full[i] and all_around(directions.flat(vectors[(centres == i) & above])) for i in range(len(atoms))]
    )


def all_around(sideways: Array) -> bool:
    """Whether neighbours (n, 2), Å sideways, stand all around an atom; one right above or below it also counts."""
    if len(sideways) == 0:
        return False
    if (np.linalg.norm(sideways, axis=1) < RIGHT_ABOVE).any():
        return True
    angles = np.sort(np.degrees(np.arctan2(sideways[:, 1], sideways[:, 0])))
    openings = np.diff(np.append(angles, angles[0] + 360.0))
    return bool(openings.max() <= WIDEST_OPENING)


def _bonds(atoms: Atoms) -> tuple[NDArray[np.int64], Array]:
    """Index of the atom (M,) and vector to the neighbour (M, 3), Å, of every bond, each seen from both ends."""
    centres, distances, vectors = neighbor_list("idD", atoms, LONGEST_NEIGHBOUR)
    nearest = np.full(len(atoms), np.inf)
    np.minimum.at(nearest, centres, distances)
    bonded = distances < SHELL * nearest[centres]
    return centres[bonded], vectors[bonded]
