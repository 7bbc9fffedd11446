"""Which atoms of a structure are held in place."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms


def free_indices(atoms: Atoms) -> np.ndarray:
    """Return the indices of all atoms that no ``FixAtoms`` holds, ascending; other constraints are not looked at."""
    free = np.ones(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            free[constraint.index] = False
    return np.flatnonzero(free)
