"""Ready-made callbacks that end the relaxation of a structure that is no longer what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.geometry import complete_cell

from escn_calc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.batch_relaxation.relaxation import Callback
    from escn_calc.relax_result import RelaxStep

EXPLOSION = 1000.0
"""eV/Å. Atoms half a bond length apart feel less than a tenth of it."""

DESORPTION = 4.0
"""Å. Past every bond, and past the range in which relaxations find their way back."""


def stop_on_explosion(force: float = EXPLOSION) -> Callback:
    """End a relaxation when the largest force on an atom, after constraints, is above a limit.

    Parameters
    ----------
    force : float
        The limit in eV/Å.

    Raises
    ------
    InputError
        A limit that is not positive.
    """
    _check_positive("force", force, "eV/Å")

    def callback(index: int, step: RelaxStep, atoms: Atoms) -> str | None:
        if step.fmax <= force:
            return None
        return f"exploded: the largest force is {step.fmax:.4g} eV/Å, above {force:g} eV/Å, at step {step.index}"

    return callback


def stop_on_desorption(distance: float = DESORPTION) -> Callback:
    """End a relaxation when some atoms have left the others: an adsorbate its surface, a fragment its molecule.

    Two atoms belong together if they, or images of them, are linked by steps no longer than ``distance`` from atom to
    atom. What belonged together in the first frame and no longer does has desorbed; what was apart may stay so.

    Parameters
    ----------
    distance : float
        In Å.

    Raises
    ------
    InputError
        A distance that is not positive.
    """
    _check_positive("distance", distance, "Å")
    groups_at_start: dict[int, np.ndarray] = {}

    def callback(index: int, step: RelaxStep, atoms: Atoms) -> str | None:
        groups = _groups(atoms, distance)
        if step.index == 0:
            groups_at_start[index] = groups
        left = _smallest_part_that_left(groups_at_start[index], groups)
        if left is None:
            return None
        who = f"{atoms.symbols[left].get_chemical_formula()} (atom{'s' * (len(left) > 1)} {', '.join(map(str, left))})"
        return f"desorbed: {who} left the others by more than {distance:g} Å at step {step.index}"

    return callback


def _groups(atoms: Atoms, distance: float) -> np.ndarray:
    """Number the groups of linked atoms, (N,)."""
    import vesin  # imports torch where it is installed
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components  # scipy takes a while to import

    search = vesin.NeighborList(cutoff=distance, full_list=False, n_threads=1)
    box = complete_cell(atoms.cell.array)
    first, second = search.compute(points=atoms.positions, box=box, periodic=atoms.pbc, quantities="ij")
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(atoms), len(atoms)))
    groups: np.ndarray = connected_components(links, directed=False)[1]
    return groups


def _smallest_part_that_left(before: np.ndarray, now: np.ndarray) -> np.ndarray | None:
    """Atoms of the smallest piece of a group that fell apart; None if none did."""
    pieces = []
    for group in np.unique(before):
        members = np.flatnonzero(before == group)
        names = np.unique(now[members])
        if len(names) > 1:
            pieces += [members[now[members] == name] for name in names]
    return min(pieces, key=len) if pieces else None


def _check_positive(name: str, value: float, unit: str) -> None:
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value} {unit}; it must be a positive number")
