"""What a campaign will cost: what is timed, what is made of it, and what happens when that fails."""

from __future__ import annotations

import time

import numpy as np
import pytest

from escn_calc.errors import CalculationError
from escn_calc.screening import prepare
from escn_calc.screening.calculators import CalculatorPrediction
from escn_calc.screening.cost import (
    LONG_S,
    MOST_TIMED_STRUCTURES,
    Speed,
    estimate,
    measured_speed,
    representative,
    speed_of,
)
from tests.screening.campaigns import campaign


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Two molecules, two slabs of three atoms, and sixteen of four."""
    return prepare(campaign(tmp_path_factory.mktemp("cost"))).plan.tasks


class Clocked:
    """Evaluations that take as long as they are told to, on a clock of their own."""

    device = "cpu"

    def __init__(self, monkeypatch, *seconds: float, fails_for: str = "") -> None:
        self.now, self.sizes = 0.0, []
        self._seconds, self._fails_for = list(seconds), fails_for
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def evaluate_each(self, structures):
        self.now += self._seconds[len(self.sizes)]
        self.sizes.append([len(atoms) for atoms in structures])
        return [
            CalculationError(f"structure {index}: no convergence")
            if self._fails_for in atoms.get_chemical_symbols()
            else CalculatorPrediction(0.0, np.zeros((len(atoms), 3)), None)
            for index, atoms in enumerate(structures)
        ]


def test_most_of_the_time_is_spent_on_what_is_timed(tasks):
    chosen = representative(tasks)
    assert {task.key for task in chosen} == {task.key for task in tasks} and chosen[0].kind == "adslab"
    assert len(representative(tasks * 10)) == MOST_TIMED_STRUCTURES
    assert representative([]) == []


def test_the_first_evaluation_does_not_count(tasks, monkeypatch):
    potential = Clocked(monkeypatch, 8.0, 0.25, 1.0, 0.5)
    assert measured_speed(potential, tasks[-4:], 2) == Speed("cpu", 2, 8, 0.5 / 8)
    assert potential.sizes == [[4, 4]] * 4


def test_long_evaluations_are_timed_once(tasks, monkeypatch):
    potential = Clocked(monkeypatch, LONG_S)
    assert measured_speed(potential, tasks[-4:], 1).seconds_per_atom == LONG_S / 4
    assert len(potential.sizes) == 1


def test_what_cannot_be_evaluated_is_named(tasks, monkeypatch):
    with pytest.raises(CalculationError, match=r"cannot be evaluated: Pt\(111\) O hcp: no convergence"):
        measured_speed(Clocked(monkeypatch, 1.0, fails_for="O"), tasks[-1:], 1)


def test_a_batch_that_fails_is_tried_with_one(tasks):
    class Engine:
        words, workers = "nowhere", 1

        def speed(self, tasks):
            if len(tasks) > 1:
                raise CalculationError("out of memory")
            return Speed("cpu", 1, len(tasks[0].atoms), 0.5)

    assert speed_of(Engine(), tasks) == Speed("cpu", 1, 4, 0.5)


def test_estimate(tasks):
    cost = estimate(tasks, Speed("cpu", 1, 4, 0.01), 2, {"adslab": 11.0})
    atoms = {kind: sum(len(task.atoms) for task in tasks if task.kind == kind) for kind in ("gas", "slab", "adslab")}
    by_kind = {kind: number * atoms[kind] for kind, number in cost.evaluations.items()}
    assert cost.evaluations["adslab"] == 11.0
    assert cost.seconds == pytest.approx(0.01 * sum(by_kind.values()) / 2)
    assert cost.seconds_at_most == pytest.approx(0.01 * sum(atoms.values()) * 301 / 2)
