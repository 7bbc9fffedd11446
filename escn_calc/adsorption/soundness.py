"""Whether given atoms can be a crystal or a slab at all: checks that come before anything is built from them."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from escn_calc.errors import InputError

TOO_CLOSE = 0.6
"""Sums of covalent radii. Triple bonds, the shortest, have 0.77."""
TOO_FAR = 3.0
"""Sums of covalent radii. Solid neon has 2.7, and is no surface to adsorb on."""
SMALLEST_VOLUME = 1.0
"""Å³ for each atom; diamond has 5.7."""
WIDEST_GALLERY = 8.0
"""Å. A layer as high as this without atoms is vacuum; between the sheets of graphite it is 3.35 Å."""


def check_positions(atoms: Atoms, name: str) -> None:
    """Make sure that all positions are numbers and no two atoms are on top of each other.

    Parameters
    ----------
    atoms : Atoms
    name : str
        How to call them in the message.

    Raises
    ------
    InputError
        There are no atoms, a position or cell vector is not finite, or two atoms are too close.
    """
    if len(atoms) == 0:
        raise InputError(f"{name}: the structure has no atoms")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise InputError(f"{name}: a position or cell vector is not a finite number")
    first, second, distances, ratios = _pairs(atoms, TOO_CLOSE)
    if len(ratios):
        worst = int(ratios.argmin())
        raise InputError(
            f"{name}: atoms {first[worst]} and {second[worst]} ({atoms.symbols[first[worst]]}, "
            f"{atoms.symbols[second[worst]]}) are {distances[worst]:.2f} Å apart; are the lengths in Å?"
        )


def check_is_solid(atoms: Atoms, name: str) -> None:
    """Make sure that a periodic structure is a crystal: neighbours within reach, and no vacuum between its planes.

    Raises
    ------
    InputError
        As :func:`check_positions`; or the cell is too small, no two atoms are neighbours, or there is a gap as in a
        slab.
    """
    if abs(atoms.cell.volume) < SMALLEST_VOLUME * len(atoms):
        raise InputError(
            f"{name}: {len(atoms)} atoms in a cell of {abs(atoms.cell.volume):.3g} Å³; are the lengths in Å?"
        )
    check_positions(atoms, name)
    if len(_pairs(atoms, TOO_FAR)[0]) == 0:
        raise InputError(
            f"{name}: no two atoms of the crystal are nearer than {TOO_FAR:g} times the sum of their covalent radii; "
            "are the lengths in Å?"
        )
    gap = _widest_gap(atoms)
    if gap > WIDEST_GALLERY:
        raise InputError(
            f"{name}: a gap of {gap:.1f} Å between its planes of atoms: this is a slab in vacuum, not a crystal; a "
            "slab is given as a slab, not as a bulk"
        )


def _pairs(atoms: Atoms, reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Indices (P,) and (P,), distances in Å and in sums of covalent radii, of pairs up to ``reach`` such sums."""
    radii = covalent_radii[atoms.numbers]
    first, second, distances = neighbor_list("ijd", atoms, reach * radii)
    return first, second, distances, distances / (radii[first] + radii[second])


def _widest_gap(atoms: Atoms) -> float:
    """Height in Å of the widest layer without atoms parallel to two cell vectors."""
    fractions = np.sort(atoms.cell.scaled_positions(atoms.positions) % 1.0, axis=0)
    gaps = np.diff(fractions, axis=0, append=fractions[:1] + 1.0).max(axis=0)
    heights = 1.0 / np.linalg.norm(atoms.cell.reciprocal().array, axis=1)
    return float((gaps * heights).max())
