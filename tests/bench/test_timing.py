"""Turns, counted operations and the structures to measure on."""

import numpy as np
import pytest
import torch

from escn_calc.bench import arithmetic, timing
from escn_calc.bench.arithmetic import matrix_product_rates, multiply_adds
from escn_calc.bench.machine import machine_record
from escn_calc.bench.slabs import METALS, displaced, known_slab, standard_slab
from escn_calc.bench.timing import spread, take_turns
from escn_calc.errors import InputError


class Clock:
    """Goes on by one second at every call that is timed."""

    def __init__(self):
        self.now = 0.0

    def call(self, _):
        self.now += 1.0


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: made.now)
    return made


def test_calls_take_turns_with_the_same_argument(clock):
    log = []
    calls = {name: lambda item, name=name: log.append((name, item)) or clock.call(item) for name in "ab"}
    seconds = take_turns(calls, lambda turn: 10 * turn, 0.0)
    assert log == [("a", 0), ("b", 0), ("a", 10), ("b", 10), ("a", 20), ("b", 20)]
    assert seconds == {"a": [1.0] * 3, "b": [1.0] * 3}


def test_turns_go_on_until_the_time_is_over(clock):
    assert take_turns({"call": clock.call}, lambda turn: turn, 7.5) == {"call": [1.0] * 8}


def test_preparing_is_not_timed(clock):
    assert take_turns({"call": lambda item: None}, clock.call, 0.0) == {"call": [0.0] * 3}


def test_spread():
    assert spread([3.0, 1.0, 2.0, 10.0]) == "2.5 (1 to 10)"


def test_products_that_add_to_their_result_count():
    left, right, result = torch.ones(2, 3), torch.ones(3, 5), torch.ones(2, 5)
    assert multiply_adds(lambda: left @ right) == 2 * 3 * 5
    assert multiply_adds(lambda: result.addmm_(left, right)) == 2 * 3 * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rate_is_that_of_the_fastest_product(monkeypatch, dtype):
    seconds = {"wall": [2.0, 1.0, 4.0], "processor": [8.0, 16.0, 9.0]}
    asked = []
    monkeypatch.setattr(arithmetic, "CPU_SIZE", 10)
    monkeypatch.setattr(arithmetic, "timed", lambda call, repeats: asked.append(call()) or seconds)
    assert matrix_product_rates("cpu", dtype) == {"wall": 1000.0, "processor": 125.0}
    assert asked == [10.0]


def test_machine():
    record = machine_record("cpu")
    assert record["name"] and record["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("size", [38, 102, 198])
def test_sizes_that_are_met(size):
    assert len(standard_slab(size)) == size


@pytest.mark.parametrize("size", [6, 20, 40, 57, 100, 333, 5000])
def test_sizes_are_met_nearly(size):
    assert abs(len(standard_slab(size)) - size) <= max(2, 0.2 * size)


def test_carbon_points_to_the_surface_and_nothing_is_close():
    slab = standard_slab(40)
    distances = slab.get_all_distances(mic=True) + 9 * np.eye(38)
    assert distances[slab.symbols == "C"][:, slab.symbols == "Cu"].min() == pytest.approx(1.9, abs=0.2)
    assert distances.min() > 1.0
    assert (standard_slab(40).positions == slab.positions).all()


@pytest.mark.parametrize(
    ("elements", "name", "symbols"),
    [
        (None, "CO on Cu(111)", {"Cu", "C", "O"}),
        (("C", "O", "Pd", "Pt"), "CO on Pt(111)", {"Pt", "C", "O"}),
        (("H", "O", "Al"), "Al(111)", {"Al"}),
    ],
)
def test_slabs_have_elements_that_the_model_knows(elements, name, symbols):
    system = known_slab(20, elements)
    assert system.name == name and set(system.atoms.symbols) == symbols


def test_models_without_a_metal_are_refused():
    with pytest.raises(InputError, match=rf"knows none of {' '.join(METALS)}.* it knows C H O\. Give a structure file"):
        known_slab(20, ("O", "H", "C"))


def test_displaced_structures_differ_a_little_and_come_again():
    slab = standard_slab(40)
    before = slab.positions.copy()
    first, second = displaced(slab, 1).positions, displaced(slab, 2).positions
    assert (slab.positions == before).all()
    assert (first == displaced(slab, 1).positions).all()
    for moved in (first - before, second - before, second - first):
        assert 0.005 < np.sqrt(np.mean(moved**2)) < 0.02
