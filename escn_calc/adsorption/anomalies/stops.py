"""Anomalies that end a relaxation, because what follows would be thrown away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from escn_calc.adsorption.anomalies.adlayer import Adlayer
from escn_calc.adsorption.anomalies.adsorbates import past_return
from escn_calc.adsorption.anomalies.find import adsorbate_atoms, beyond_reason, collisions
from escn_calc.adsorption.anomalies.thresholds import Thresholds
from escn_calc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.relax_result import RelaxStep

PATIENCE = 5
"""Frames. A bond that an optimiser's long first step has torn is back within fewer."""


def stop_on_anomalies(
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
    *,
    patience: int = PATIENCE,
    adsorbate: Sequence[int] | np.ndarray | None = None,
) -> Callable[[int, RelaxStep, Atoms], str | None]:
    """End a relaxation whose adsorbates have desorbed, reacted or gone below the surface, or which has exploded.

    To be used as a callback of :func:`escn_calc.batch_relaxation.relax_batch`, one for each call: it keeps the first
    frame of every structure. The words with which it ends a structure are those of the anomaly, which
    :func:`find_anomalies` finds again in the last frame.

    Parameters
    ----------
    thresholds : Thresholds
        What counts as what.
    patience : int
        An anomaly must be there in so many frames one after the other; forces beyond reason end at once.
    adsorbate : sequence of int or None
        Indices of the atoms of adsorbates, the same in all structures; None for the atoms with tag 2 in each.

    Raises
    ------
    InputError
        ``patience`` is not positive.
    """
    if patience < 1:
        raise InputError(f"patience is {patience} frames; it must be 1 or more")
    first_frames: dict[int, Adlayer] = {}
    frames_in_a_row: defaultdict[int, int] = defaultdict(int)

    def callback(index: int, step: RelaxStep, atoms: Atoms) -> str | None:
        for explosion in beyond_reason(atoms, step.fmax, thresholds):
            return explosion.message
        if step.index == 0:
            first_frames[index] = Adlayer.of(atoms, adsorbate_atoms(atoms, adsorbate), thresholds)
            frames_in_a_row[index] = 0
        start = first_frames[index]
        now = Adlayer.of(atoms, start.adsorbate, thresholds, start)
        found = [*collisions(atoms, thresholds), *past_return(start, now, thresholds)]
        frames_in_a_row[index] = frames_in_a_row[index] + 1 if found else 0
        return found[0].message if frames_in_a_row[index] >= patience else None

    return callback
