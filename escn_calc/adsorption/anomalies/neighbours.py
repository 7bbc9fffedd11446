"""Pairs of near atoms, through periodic boundaries and in cells of any size."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from ase.data import covalent_radii
from ase.geometry import complete_cell
from scipy.spatial import KDTree

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of atoms, or of an atom and an image of another one or of itself.

    Attributes
    ----------
    first, second : (P,) indices.
    vectors : (P, 3) Å from the first atom to the second.
    distances : (P,) Å.
    excess : (P,) Å, the distance minus the sum of the covalent radii.
    """

    first: np.ndarray
    second: np.ndarray
    vectors: np.ndarray
    distances: np.ndarray
    excess: np.ndarray

    def where(self, chosen: np.ndarray) -> Pairs:
        """Return those of a mask (P,)."""
        return Pairs(*(part[chosen] for part in vars(self).values()))


def pairs_within(atoms: Atoms, reach: float, centres: np.ndarray) -> Pairs:
    """Find all pairs of an atom of ``centres`` and any other atom or image, no farther apart than ``reach``.

    Parameters
    ----------
    atoms : Atoms
        Of any cell and periodicity.
    reach : float
        In Å.
    centres : (C,) array of int
        The first atoms of the pairs; pairs of two centres are found from both.
    """
    positions = atoms.get_positions(wrap=True)
    shifts = _shifts(atoms, reach)
    images = (positions[None] + shifts[:, None]).reshape(-1, 3)
    low, high = positions[centres].min(axis=0) - reach, positions[centres].max(axis=0) + reach
    near = np.flatnonzero(((images >= low) & (images <= high)).all(axis=1))
    found = KDTree(positions[centres]).sparse_distance_matrix(KDTree(images[near]), reach, output_type="ndarray")
    first, image = centres[found["i"]], near[found["j"]]
    is_another = image != first  # the first images are the atoms themselves
    first, image = first[is_another], image[is_another]
    second = image % len(atoms)
    vectors = images[image] - positions[first]
    distances = np.linalg.norm(vectors, axis=1)
    radii = covalent_radii[atoms.numbers]
    return Pairs(first, second, vectors, distances, distances - radii[first] - radii[second])


def _shifts(atoms: Atoms, reach: float) -> np.ndarray:
    """Lattice vectors (S, 3) by which images of wrapped atoms may come within reach; zero is the first."""
    box = complete_cell(atoms.cell.array)
    heights = 1 / np.linalg.norm(np.linalg.inv(box), axis=0)
    repeats = np.where(atoms.pbc, np.ceil(reach / heights), 0).astype(int)
    steps = sorted(product(*(range(-count, count + 1) for count in repeats)), key=np.count_nonzero)
    return np.array(steps) @ box
