"""Molecular dynamics with the integrators of ASE: files that survive a kill, guards, and a meter of energy drift.

``run_md`` is the whole interface; ``read_log`` reads the table it writes. Nothing here imports torch.
"""

from escn_calc.md.drift import DriftMeter
from escn_calc.md.log import read_log
from escn_calc.md.results import EnergyDriftWarning, MDResult, MDStep
from escn_calc.md.run import run_md
from escn_calc.md.settings import ENSEMBLES, TimestepWarning

__all__ = [
    "ENSEMBLES",
    "DriftMeter",
    "EnergyDriftWarning",
    "MDResult",
    "MDStep",
    "TimestepWarning",
    "read_log",
    "run_md",
]
