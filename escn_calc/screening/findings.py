"""Anomalies of what a campaign has relaxed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from escn_calc.adsorption.anomalies import Anomaly, Thresholds, find_anomalies
from escn_calc.errors import ESCNError

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.screening.relaxing import Ended


def anomalies_of(ended: Ended, slab: Atoms | None, thresholds: Thresholds) -> tuple[Anomaly, ...]:
    """Find the anomalies of a relaxation that has ended.

    Parameters
    ----------
    ended : Ended
    slab : Atoms or None
        The relaxed clean slab under an adsorbate, if there is one.
    thresholds : Thresholds
        What counts as what.

    Returns
    -------
    tuple of Anomaly
        None for a bulk, whose lattice is meant to change, and for what could not be evaluated.
    """
    end, task = ended.end, ended.task
    if isinstance(end, ESCNError) or task.kind == "bulk":
        return ()
    molecule = np.arange(len(task.atoms)) if task.kind == "gas" else None
    return find_anomalies(
        task.atoms,
        end.atoms,
        slab=slab,
        adsorbate=molecule,
        reason=end.reason,
        fmax=end.fmax,
        unfamiliar=ended.unfamiliar,
        thresholds=thresholds,
    )
