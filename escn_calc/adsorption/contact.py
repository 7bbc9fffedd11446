"""How far down an adsorbate goes: to where the first of its atoms touches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from escn_calc.adsorption.geometry import Array, Frame, exposed_atoms, frame, images, reduced, shortest

INTERSTITIAL_GAP = 0.1
"""Å between atoms that touch, on top of the sum of their covalent radii; as in OC20 and AdsorbML."""
LOWEST = 0.5
"""Å. No atom starts less than this above the nearest exposed atom: small ones would fall into wide hollows."""
CLOSEST = 1.5
"""Sums of covalent radii. Atoms of different molecules, or of a molecule and its image, that are closer would bond."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A slab as adsorbates meet it: what :func:`contact_height` needs to know.

    Attributes
    ----------
    frame : Frame
    numbers : ndarray (N,)
        Atomic numbers of the slab.
    flat, heights : ndarray (N, 2), (N,)
        Its positions in the frame, Å.
    exposed : ndarray (M,)
        Indices of the atoms that can be touched.
    """

    frame: Frame
    numbers: NDArray[np.int64]
    flat: Array
    heights: Array
    exposed: NDArray[np.int64]


def surface_of(atoms: Atoms) -> Surface:
    """Look at a slab from above."""
    directions = frame(atoms)
    positions = atoms.positions
    return Surface(
        directions, atoms.numbers, directions.flat(positions), directions.heights(positions), exposed_atoms(atoms)
    )


def contact_height(surface: Surface, numbers: NDArray[np.int64], flat: Array, heights: Array) -> float:
    """Smallest shift along the normal with which no atom of an adsorbate is too close to one of the slab.

    Atoms i of the adsorbate and j of the slab at a distance ρ along the plane touch at the sum of their covalent radii
    and the gap, R, so the shift is the largest of z_j + (R² − ρ²)^½ − z_i over all i, j with ρ < R; and at least such
    that every atom is ``LOWEST`` above the exposed atom nearest to it along the plane.

    Parameters
    ----------
    surface : Surface
    numbers : ndarray (n,)
        Atomic numbers of the adsorbate.
    flat : ndarray (n, 2)
        Where its atoms are along the plane, in the frame of the slab, Å.
    heights : ndarray (n,)
        Their heights before the shift, Å.

    Returns
    -------
    float
        Å.
    """
    lattice = surface.frame.lattice
    touch = covalent_radii[numbers][:, None] + covalent_radii[surface.numbers][None] + INTERSTITIAL_GAP
    apart = shortest(surface.flat[None] - flat[:, None], lattice)
    squares = ((apart[:, :, None] + images(lattice, float(touch.max()))) ** 2).sum(axis=-1).min(axis=-1)
    shifts = surface.heights[None] + np.sqrt(np.maximum(touch**2 - squares, 0.0)) - heights[:, None]
    touching = np.where(squares < touch**2, shifts, -np.inf).max()
    nearest = surface.exposed[squares[:, surface.exposed].argmin(axis=1)]
    return float(max(touching, (surface.heights[nearest] + LOWEST - heights).max()))


def closest_image(numbers: NDArray[np.int64], positions: Array, vectors: Array) -> tuple[float, float]:
    """How near a molecule comes to its own images: Å, and multiples of the sum of covalent radii, of the tightest pair.

    Parameters
    ----------
    numbers : ndarray (n,)
        Atomic numbers.
    positions : ndarray (n, 3)
        Å.
    vectors : ndarray (2, 3)
        Along which it is repeated, Å.
    """
    shifts = _nearest_cells(vectors)
    repeated = (positions[:, None] + shifts[np.linalg.norm(shifts, axis=1) > 0]).transpose(1, 0, 2)
    return _tightest(numbers, positions, numbers, repeated)


def closest_molecule(first: Atoms, second: Atoms, vectors: Array) -> tuple[float, float]:
    """How near two molecules come to one another and one another's images; as :func:`closest_image`."""
    repeated = (second.positions[:, None] + _nearest_cells(vectors)).transpose(1, 0, 2)
    return _tightest(first.numbers, first.positions, second.numbers, repeated)


def _nearest_cells(vectors: Array) -> Array:
    steps = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.asarray(steps @ reduced(vectors))


def _tightest(
    numbers: NDArray[np.int64], positions: Array, other_numbers: NDArray[np.int64], repeated: Array
) -> tuple[float, float]:
    distances = np.linalg.norm(positions[None, :, None] - repeated[:, None], axis=-1)
    ratios = distances / (covalent_radii[numbers][:, None] + covalent_radii[other_numbers][None])
    tightest = np.unravel_index(ratios.argmin(), ratios.shape)
    return float(distances[tightest]), float(ratios[tightest])
