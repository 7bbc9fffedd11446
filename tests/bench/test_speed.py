"""What is measured on one structure, which structures are refused, and what accuracy is judged by."""

import math

import numpy as np
import pytest
from ase.build import fcc111

from escn_calc import ESCNCalculator, energy_model
from escn_calc.bench import arithmetic
from escn_calc.bench.accuracy import Difference, compare, references
from escn_calc.bench.run import run_benchmark, stages
from escn_calc.bench.slabs import System
from escn_calc.bench.speed import Speed, batch_of, check_systems, graph_of, measure_speed
from escn_calc.errors import InputError, OutOfMemoryError
from escn_calc.memory import SEARCH_BYTES, Size
from escn_calc.potential import Potential, Prediction
from tests.smooth import rattled_slab, write_smooth_model

SLAB = rattled_slab()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_smooth_model(tmp_path_factory.mktemp("smooth") / "model")


@pytest.fixture
def calculator(model):
    return ESCNCalculator(model, device="cpu")


@pytest.fixture
def evaluated(monkeypatch):
    """Positions of every structure that is evaluated, call by call."""
    calls, evaluate = [], Potential.evaluate

    def noting(self, structures, *search):
        calls.append([atoms.positions for atoms in structures])
        return evaluate(self, structures, *search)

    monkeypatch.setattr(Potential, "evaluate", noting)
    return calls


def test_calls_and_batches_are_of_structures_that_differ(calculator, evaluated):
    told = []
    speed = measure_speed(calculator, System("slab", SLAB), 3, 0.0, told.append)
    assert told == ["slab: memory and multiply-adds", "slab: seconds"]
    counted, timed = evaluated[:2], evaluated[2:]
    assert [len(call) for call in counted] == [1, 1]
    assert [len(call) for call in timed] == [1, 3] * 3
    in_batches = np.array([positions for call in timed[1::2] for positions in call])
    assert len(np.unique(in_batches, axis=0)) == 9
    assert len(np.unique(np.array(timed[::2]), axis=0)) == 3
    assert [len(times) for times in (speed.call_seconds, speed.graph_seconds, speed.batch_seconds)] == [3, 3, 3]
    assert (speed.name, speed.atoms, speed.batch) == ("slab", 14, 3)


def test_counts_are_those_of_one_call(calculator):
    potential = calculator.potential
    speed = measure_speed(calculator, System("slab", SLAB), 1, 0.0, lambda words: None)
    assert speed.edges == len(graph_of(potential, SLAB).source) > 14 * 12
    assert speed.multiply_adds == arithmetic.multiply_adds(lambda: potential.evaluate([SLAB]))
    twice = measure_speed(calculator, System("slabs", SLAB.repeat((2, 1, 1))), 1, 0.0, lambda words: None)
    assert twice.multiply_adds == pytest.approx(2 * speed.multiply_adds, rel=0.01)
    assert twice.peak_bytes == pytest.approx(2 * speed.peak_bytes, rel=0.1)
    weights = sum(weight.nbytes for weight in potential._model.network.parameters())
    assert speed.peak_bytes > weights


def test_figures_that_follow():
    speed = Speed("", 5, 60, (0.5, 0.2, 0.25), (0.01, 0.02, 0.04), 8, (1.0, 2.0, 0.5), 10**9, 0, None)
    assert speed.steps_per_second == [2.0, 5.0, 4.0]
    assert speed.structures_per_second == [8.0, 4.0, 16.0]
    assert speed.graph_share == pytest.approx(0.08)
    assert speed.gain == 2.0
    assert speed.reached(1.6e10) == pytest.approx(0.25)


@pytest.mark.parametrize("affordable", [1e9, 3e10])
def test_most_atoms_are_where_refusal_begins(calculator, monkeypatch, affordable):
    monkeypatch.setattr(energy_model, "affordable_bytes", lambda device: affordable)
    most = calculator.potential.most_atoms_like(SLAB)
    edges = len(graph_of(calculator.potential, SLAB).source) / len(SLAB)
    model = calculator.potential._model

    def check(atoms):
        model.check_fits(Size(atoms, math.ceil(edges * atoms)), "gradient", SEARCH_BYTES * edges * atoms)

    check(most)
    with pytest.raises(OutOfMemoryError):
        check(most + 1)


def test_no_limit_is_known_where_the_system_tells_none(calculator, monkeypatch):
    monkeypatch.setattr(energy_model, "affordable_bytes", lambda device: math.inf)
    assert calculator.potential.most_atoms_like(SLAB) is None


def test_structures_that_cannot_be_evaluated_are_refused_by_name(calculator, evaluated, monkeypatch):
    heavy, close = SLAB.copy(), SLAB.copy()
    heavy.numbers[3] = 92
    close.positions[1] = close.positions[0]
    for atoms, message in ((heavy, r"atom 3 \(U\) of u\.xyz \(.*\): the model's element"), (close, r"u\.xyz.*")):
        with pytest.raises(InputError, match=message):
            run_benchmark(calculator, [System("slab", SLAB), System("u.xyz", atoms)], batch=1, seconds=0.0)
    monkeypatch.setattr(Potential, "most_atoms_like", lambda self, atoms: 13)
    with pytest.raises(OutOfMemoryError, match="slab has 14 atoms, but about 13 fit into the free memory"):
        check_systems(calculator.potential, [System("slab", SLAB)])
    assert evaluated == []


def test_everything_is_told_and_measured_once(calculator, monkeypatch):
    monkeypatch.setattr(arithmetic, "CPU_SIZE", 16)
    told = []
    systems = [System("slab", SLAB), System("thin", fcc111("Cu", (1, 1, 3), vacuum=6.0, periodic=True))]
    found = run_benchmark(calculator, systems, batch=2, seconds=0.0, tell=told.append)
    assert len(told) == stages(systems)
    assert [speed.name for speed in found.speeds] == ["slab", "thin"]
    assert found.compared_atoms == 3
    assert found.matrix_product_rate > 0


def test_single_and_batched_results_agree_and_float32_errs(calculator):
    alone, precise = compare(calculator, batch_of(SLAB, 3))
    assert (alone.against, precise.against) == ("one by one", "float64")
    assert alone.energy_per_atom < 1e-6 and alone.relative_forces < 1e-5
    assert 0 < precise.energy_per_atom < 1e-5 and 1e-9 < precise.relative_forces < 1e-4


def test_batches_that_differ_are_seen(calculator, monkeypatch):
    evaluate = Potential.evaluate

    def wrong_in_batches(self, structures, *search):
        found = evaluate(self, structures, *search)
        for prediction in found[1:]:
            prediction.forces[2, 1] += 0.5
        return found

    monkeypatch.setattr(Potential, "evaluate", wrong_in_batches)
    alone, _ = compare(calculator, batch_of(SLAB, 2))
    assert alone.forces == pytest.approx(0.5, abs=1e-5) and alone.energy_per_atom < 1e-6


@pytest.mark.parametrize(
    ("settings", "against"),
    [
        ({"dtype": "float32"}, ["float64"]),
        ({"dtype": "float64"}, ["float32"]),
        ({"checkpoint_layers": True}, ["float32", "float64"]),
    ],
)
def test_references_are_plain_ones(model, settings, against):
    calculator = ESCNCalculator(model, device="cpu", frames="converged", **settings)
    found = dict(references(calculator))
    assert list(found) == against
    for dtype, reference in found.items():
        plain = ESCNCalculator(model, device="cpu", frames="converged", dtype=dtype)
        assert reference.parameters == plain.parameters


def test_references_leave_a_device_without_float64(calculator, monkeypatch):
    monkeypatch.setattr(calculator.potential, "device", "mps")
    assert {reference.parameters["device"] for _, reference in references(calculator)} == {"cpu"}


def prediction(energy, forces):
    return Prediction(energy, np.full(2, energy / 2), None if forces is None else np.array(forces), "total", "direct")


def test_difference_is_the_largest():
    still = [[0.0, 0.0, 0.0], [0.0, 0.0, 4.0]]
    mine = [prediction(-4.0, still), prediction(2.0, [[0.0, 0.1, 0.0], [0.0, -0.2, 4.0]])]
    other = [prediction(-4.1, still), prediction(2.4, still)]
    found = Difference.between("others", mine, other)
    assert found.energy_per_atom == pytest.approx(0.2)
    assert found.forces == pytest.approx(0.2) and found.relative_forces == pytest.approx(0.05)
    without = Difference.between("others", [prediction(1.0, None)], [prediction(1.0, None)])
    assert without == Difference("others", 0.0, None, None)
    nothing = prediction(0.0, np.zeros((2, 3)))
    assert Difference.between("others", [nothing], [nothing]).relative_forces is None
