"""Everything that ``escn bench`` measures."""

from dataclasses import dataclass
from typing import Any

from escn_calc.bench.accuracy import Difference, compare
from escn_calc.bench.arithmetic import matrix_product_rates
from escn_calc.bench.machine import machine_record
from escn_calc.bench.slabs import System
from escn_calc.bench.speed import STAGES, Speed, Tell, batch_of, check_systems, measure_speed
from escn_calc.calculator import ESCNCalculator
from escn_calc.potential import DTYPES

COMPARED = 8
"""Structures at most that accuracy is judged by."""


@dataclass(frozen=True)
class Benchmark:
    """What was found.

    Attributes
    ----------
    machine : name, threads and load before the start.
    speeds : of the structures, in the order given.
    matrix_product_rate : multiply-adds per second of large matrix products in the same precision, measured between.
    compared_atoms : of the structure on which ``differences`` were found, the smallest one.
    differences : against single structures and other precisions.
    """

    machine: dict[str, Any]
    speeds: tuple[Speed, ...]
    matrix_product_rate: float
    compared_atoms: int
    differences: tuple[Difference, ...]


def stages(systems: list[System]) -> int:
    """So often :func:`run_benchmark` tells what comes next."""
    return STAGES * len(systems) + 2


def run_benchmark(
    calculator: ESCNCalculator, systems: list[System], *, batch: int, seconds: float, tell: Tell = lambda words: None
) -> Benchmark:
    """Measure a calculator on structures.

    Parameters
    ----------
    calculator : as a script has it.
    systems : at least one.
    batch : structures given to the model together.
    seconds : for each structure, in which calls are repeated; three times at least.
    tell : told what comes next.

    Raises
    ------
    InputError, OutOfMemoryError
        A structure cannot be evaluated; before anything is measured.
    CalculationError
        An evaluation failed.
    """
    potential = calculator.potential
    check_systems(potential, systems)
    machine = machine_record(potential.device)
    tell("accuracy")
    smallest = min((system.atoms for system in systems), key=len)
    differences = compare(calculator, batch_of(smallest, min(batch, COMPARED)))
    tell("matrix products")
    rate = matrix_product_rates(potential.device, DTYPES[potential.dtype])["wall"]
    speeds = [measure_speed(calculator, system, batch, seconds, tell) for system in systems]
    return Benchmark(machine, tuple(speeds), rate, len(smallest), differences)
