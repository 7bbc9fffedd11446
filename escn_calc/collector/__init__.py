"""Concurrent ASE runs, evaluated together.

A chain of images, a hundred optimisers, dynamics from many starts: each is one run that asks its calculator for one
structure at a time, while a model is fastest with many. Inside ``with batched(potential) as calculators`` every run has
a calculator of its own and a thread of its own. A calculator that is asked for forces parks its thread; once all runs
that can come are parked, their structures are evaluated in one call, and all go on.

- :mod:`escn_calc.collector.gathering`: who is waited for, and how long.
- :mod:`escn_calc.collector.calculator`: the calculator, plain ASE outwards.
- :mod:`escn_calc.collector.runs`: ``batched`` and ``run_each``.
"""

from escn_calc.collector.calculator import BatchedCalculator
from escn_calc.collector.runs import Calculators, batched, run_each

__all__ = ["BatchedCalculator", "Calculators", "batched", "run_each"]
