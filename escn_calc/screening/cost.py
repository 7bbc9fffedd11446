"""What a campaign will cost, from a few timed evaluations, before it runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ase import Atoms

from escn_calc.errors import CalculationError, ESCNError, renamed

if TYPE_CHECKING:
    from escn_calc.potential import Potential
    from escn_calc.screening.calculators import CalculatorPotential
    from escn_calc.screening.local import Engine
    from escn_calc.screening.tasks import Task

TYPICAL_EVALUATIONS = {"bulk": 8, "gas": 10, "slab": 10, "adslab": 40}
"""Evaluations of a relaxation where nothing is known yet: about the medians of examples/screen_metals.yaml."""

TIMED = 3
"""Evaluations that are timed, after one that is not; their median counts."""

LONG_S = 10.0
"""Seconds after which no more evaluations are timed; if the first one takes as long, it counts."""

MOST_TIMED_ATOMS = 400
MOST_TIMED_STRUCTURES = 100


@dataclass(frozen=True)
class Speed:
    """How fast a device evaluates.

    Attributes
    ----------
    device : str
    structures, atoms : int
        In one evaluation of those that were timed.
    seconds_per_atom : float
    """

    device: str
    structures: int
    atoms: int
    seconds_per_atom: float


@dataclass(frozen=True)
class Cost:
    """Time that relaxations will take.

    Attributes
    ----------
    speed : Speed
        Of one worker.
    workers : int
        That share the work.
    seconds : float
        With the usual number of steps.
    seconds_at_most : float
        If every relaxation goes to its step limit.
    evaluations : dict
        Evaluations of one relaxation that were assumed, by kind.
    """

    speed: Speed
    workers: int
    seconds: float
    seconds_at_most: float
    evaluations: dict[str, float]


def representative(tasks: Sequence[Task]) -> list[Task]:
    """Choose tasks of the size on which most of the time will be spent, enough to fill a batch."""
    by_size = sorted(tasks, key=lambda task: len(task.atoms))
    if not by_size:
        return []
    total = sum(len(task.atoms) for task in by_size)
    below, middle = 0, 0
    while below + len(by_size[middle].atoms) < total / 2:
        below += len(by_size[middle].atoms)
        middle += 1
    return (by_size[middle:] + by_size[:middle][::-1])[:MOST_TIMED_STRUCTURES]


def speed_of(engine: Engine, tasks: Sequence[Task]) -> Speed:
    """Time a few evaluations; if those of a whole batch fail, of the most representative structure alone.

    Raises
    ------
    InputError, CheckpointError, DownloadError
        The model cannot be loaded.
    CalculationError
        That structure cannot be evaluated either.
    """
    chosen = representative(tasks)
    try:
        return engine.speed(chosen)
    except CalculationError:
        return engine.speed(chosen[:1])


def measured_speed(potential: Potential | CalculatorPotential, tasks: Sequence[Task], together: int | None) -> Speed:
    """Time evaluations of structures, as many at once as are relaxed together.

    Parameters
    ----------
    potential : Potential or CalculatorPotential
    tasks : sequence of Task
        At least one; their structures are taken in order.
    together : int or None
        So many at most; None for up to ``MOST_TIMED_ATOMS`` atoms.

    Raises
    ------
    CalculationError
        One cannot be evaluated.
    """
    chosen = list(tasks[:1])
    for task in tasks[1:together]:
        if sum(len(one.atoms) for one in chosen) + len(task.atoms) <= MOST_TIMED_ATOMS:
            chosen.append(task)
    seconds = [_seconds(potential, chosen, 0)]
    while len(seconds) < 1 + TIMED and sum(seconds) < LONG_S:
        seconds.append(_seconds(potential, chosen, len(seconds)))
    atoms = sum(len(task.atoms) for task in chosen)
    return Speed(potential.device, len(chosen), atoms, statistics.median(seconds[1:] or seconds) / atoms)


def estimate(tasks: Sequence[Task], speed: Speed, workers: int, known: Mapping[str, float]) -> Cost:
    """Estimate what relaxations will take.

    Parameters
    ----------
    tasks : sequence of Task
    speed : Speed
        Of one worker.
    workers : int
        That share the work.
    known : mapping
        Mean number of evaluations of relaxations that are finished, by kind.
    """
    evaluations = {**TYPICAL_EVALUATIONS, **known}
    usual = sum(len(task.atoms) * min(evaluations[task.kind], task.settings.steps + 1) for task in tasks)
    at_most = sum(len(task.atoms) * (task.settings.steps + 1) for task in tasks)
    kinds = {task.kind for task in tasks}
    return Cost(
        speed=speed,
        workers=workers,
        seconds=usual * speed.seconds_per_atom / workers,
        seconds_at_most=at_most * speed.seconds_per_atom / workers,
        evaluations={kind: evaluations[kind] for kind in TYPICAL_EVALUATIONS if kind in kinds},
    )


def _seconds(potential: Potential | CalculatorPotential, tasks: Sequence[Task], number: int) -> float:
    """Time one evaluation of all structures, slightly moved so that no calculator answers from its memory."""
    moved = [_moved(task.atoms, number) for task in tasks]
    began = time.perf_counter()
    outcomes = potential.evaluate_each(moved)
    seconds = time.perf_counter() - began
    for task, outcome in zip(tasks, outcomes, strict=True):
        if isinstance(outcome, ESCNError):
            raise CalculationError(f"cannot be evaluated: {renamed(str(outcome), task.name)}") from outcome
    return seconds


def _moved(atoms: Atoms, number: int) -> Atoms:
    copy = atoms.copy()
    copy.set_constraint()
    copy.rattle(0.01, seed=number)
    return copy
