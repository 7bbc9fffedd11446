"""Relaxation of many structures at once, evaluated together: :func:`relax_batch`."""

from escn_calc.batch_relaxation.arguments import BATCH_OPTIMIZERS
from escn_calc.batch_relaxation.driver import iter_relax_batch, relax_batch
from escn_calc.batch_relaxation.relaxation import Callback
from escn_calc.batch_relaxation.stops import stop_on_desorption, stop_on_explosion

__all__ = [
    "BATCH_OPTIMIZERS",
    "Callback",
    "iter_relax_batch",
    "relax_batch",
    "stop_on_desorption",
    "stop_on_explosion",
]
