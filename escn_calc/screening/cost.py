"""What a campaign will cost, from a few timed evaluations, before it runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ase import Atoms

from escn_calc.errors import ESCNError

if TYPE_CHECKING:
    from escn_calc.potential import Potential
    from escn_calc.screening.calculators import CalculatorPotential
    from escn_calc.screening.tasks import Task

TYPICAL_EVALUATIONS = {"bulk": 8, "gas": 10, "slab": 10, "adslab": 40}
"""Evaluations of a relaxation where nothing is known yet: about the medians of examples/screen_metals.yaml."""

TIMED = 3
"""Evaluations that are timed, after one that is not; their median counts."""

MOST_TIMED_ATOMS = 400


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


def representative(tasks: Sequence[Task]) -> list[Atoms]:
    """Choose structures of the size on which most of the time will be spent, enough to fill a batch."""
    by_size = sorted((task.atoms for task in tasks), key=len)
    if not by_size:
        return []
    total = sum(map(len, by_size))
    below, middle = 0, 0
    while below + len(by_size[middle]) < total / 2:
        below += len(by_size[middle])
        middle += 1
    return by_size[middle:] + by_size[:middle][::-1]


def measured_speed(
    potential: Potential | CalculatorPotential, structures: Sequence[Atoms], together: int | None
) -> Speed:
    """Time evaluations of structures, as many at once as are relaxed together.

    Parameters
    ----------
    potential : Potential or CalculatorPotential
    structures : sequence of Atoms
        At least one; they are taken in order.
    together : int or None
        So many at most; None for up to ``MOST_TIMED_ATOMS`` atoms.

    Raises
    ------
    ESCNError
        One cannot be evaluated.
    """
    chosen = list(structures[:1])
    for atoms in structures[1:together]:
        if sum(map(len, chosen)) + len(atoms) <= MOST_TIMED_ATOMS:
            chosen.append(atoms)
    seconds: list[float] = []
    for _ in range(1 + TIMED):
        began = time.perf_counter()
        for outcome in potential.evaluate_each(_moved(chosen, len(seconds))):
            if isinstance(outcome, ESCNError):
                raise outcome
        seconds.append(time.perf_counter() - began)
    atoms_in_all = sum(map(len, chosen))
    return Speed(potential.device, len(chosen), atoms_in_all, statistics.median(seconds[1:]) / atoms_in_all)


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


def _moved(structures: Sequence[Atoms], number: int) -> list[Atoms]:
    """Copies that are slightly moved each time, so that no calculator answers from its memory."""
    copies = [atoms.copy() for atoms in structures]
    for atoms in copies:
        atoms.set_constraint()
        atoms.rattle(0.01, seed=number)
    return copies
