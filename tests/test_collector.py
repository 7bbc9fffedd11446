"""Concurrent ASE runs: the results of serial ones, in full batches, whatever the threads do to each other."""

from __future__ import annotations

import copy
import gc
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB, DimerControl, MinModeAtoms, MinModeTranslate, NEBTools
from ase.optimize import BFGS, FIRE

from escn_calc.calculator import EvaluationError, StructureError
from escn_calc.collector import Calculators, batched, gathering, run_each
from escn_calc.collector import runs as runs_module
from escn_calc.errors import BatchError, CalculationError, ESCNError, InputError
from escn_calc.hessian import hessian
from escn_calc.relax import relax
from tests.toy_potential import ToyCard, ToyPrediction

NEVER = 1e6
"""s of patience. A test that ends with it has not waited for anybody in vain."""

TIME = 120.0
"""s within which everything here ends even on a machine that is busy otherwise, unless there is a deadlock."""


class Valleys:
    """E = Σ 1 - cos x + y²/2 + z²/2 + x y/10: minima and saddle points along x, in microseconds.

    Helium is refused, neon fails, argon is a bug of the potential. During evaluation ``interrupt_at`` somebody presses
    Ctrl-C.
    """

    device, dtype, matmul, frames = "cpu", "float64", "full", "canonical"

    def __init__(self, forces: str | None = "direct", duration: float = 0.0, interrupt_at: int = 0) -> None:
        self.card = ToyCard("valleys", "d" * 64, forces)
        self.forces, self.duration, self.interrupt_at = forces, duration, interrupt_at
        self.sizes: list[int] = []

    def evaluate_each(self, structures: list[Atoms]) -> list[ToyPrediction | ESCNError]:
        self.sizes.append(len(structures))
        if len(self.sizes) == self.interrupt_at:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(self.duration)
        return [self.answer(index, atoms) for index, atoms in enumerate(structures)]

    def answer(self, index: int, atoms: Atoms) -> ToyPrediction | ESCNError:
        name = f"structure {index} ({atoms.get_chemical_formula()})"
        if "He" in atoms.symbols:
            return InputError(f"{name}: atom 0 is He, which the model does not know")
        if "Ne" in atoms.symbols:
            return CalculationError(f"{name}: the energy is not finite")
        if "Ar" in atoms.symbols:
            raise ZeroDivisionError("a bug")
        x, y, z = atoms.positions.T
        energies = 1 - np.cos(x) + (y**2 + z**2) / 2 + x * y / 10
        forces = -np.stack([np.sin(x) + y / 10, y + x / 10, z], axis=1) if self.forces else None
        return ToyPrediction(float(energies.sum()), energies, forces, None, None, "total", self.forces)


class Serial(Calculator):
    """The same energies and forces without any of what is tested."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        prediction = Valleys().answer(0, atoms)
        if isinstance(prediction, ESCNError):
            raise prediction
        self.results = {"energy": prediction.energy, "forces": prediction.forces}


def structure(seed: int, symbols: str = "H2") -> Atoms:
    return Atoms(symbols, positions=np.random.default_rng(seed).normal(size=(2, 3)))


def chain(calculators: list[Calculator], ends: bool = True) -> list[Atoms]:
    """Seven images from one valley to the next, the band bent; the ends with stored results unless told otherwise."""
    images = [Atoms("H2", positions=[[2 * np.pi * part, 0.4 * np.sin(np.pi * part), 0.0], [0, 0, 1]]) for part in
              np.linspace(0, 1, 7)]  # fmt: skip
    for image in (images[0], images[-1]) if ends else ():
        prediction = Valleys().answer(0, image)
        image.calc = SinglePointCalculator(image, energy=prediction.energy, forces=prediction.forces)
    for image, calculator in zip(images[1:-1] if ends else images, calculators, strict=True):
        image.calc = calculator
    return images


def run_neb(images: list[Atoms], *, parallel: bool, observer: Callable[[], None] | None = None, steps: int = 15) -> int:
    """Relax a stock NEB and return its number of steps."""
    band = NEB(images, climb=True, parallel=parallel, method="improvedtangent")
    with FIRE(band, logfile=None) as optimizer:
        if observer is not None:
            optimizer.attach(observer)
        optimizer.run(fmax=1e-6, steps=steps)
        return optimizer.nsteps


def in_threads(functions: list[Callable[[], object]]) -> list[object]:
    """Call each function in a thread of its own and return what it returns or raises."""
    outcomes: list[object] = [None] * len(functions)

    def call(index: int) -> None:
        try:
            outcomes[index] = functions[index]()
        except BaseException as error:
            outcomes[index] = error

    threads = [threading.Thread(target=call, args=(index,), daemon=True) for index in range(len(functions))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + TIME
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    return outcomes


def in_time(test: Callable) -> Callable:
    """Let a test fail that does not end."""

    @wraps(test)
    def run(*arguments, **settings):
        (outcome,) = in_threads([partial(test, *arguments, **settings)])
        if outcome is not None:
            raise outcome

    return run


def walk(atoms: Atoms, steps: int, seed: int | None = None) -> np.ndarray:
    """Steepest descent; with a seed, pauses and repeated questions at random. Returns the energies on the way."""
    random = np.random.default_rng(seed)
    energies = []
    for _ in range(steps):
        if seed is not None and random.random() < 0.3:
            time.sleep(random.exponential(0.002))
        energies.append(atoms.get_potential_energy())
        if seed is not None and random.random() < 0.3:
            atoms.get_forces()
        atoms.positions += 0.1 * atoms.get_forces()
    return np.array(energies)


def to_its_end(function: Callable, atoms: Atoms, *arguments: object) -> object:
    """Do what ``run_each`` does: say that a run has ended, so that nobody waits for it."""
    try:
        return function(atoms, *arguments)
    finally:
        atoms.calc.potential.retire()


@pytest.fixture
def died(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What threads die of, other than ``SystemExit``, of which Python says nothing."""
    errors: list[BaseException] = []

    def note(arguments):
        if arguments.exc_type is not SystemExit:
            errors.append(arguments.exc_value)

    monkeypatch.setattr(threading, "excepthook", note)
    return errors


class Clock:
    """The time of the collector, which stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def pass_when(self, ready: Callable[[], bool], calculators: Calculators) -> None:
        """Let the patience of a collector end once."""
        wait_until(ready)
        self.now += 10 * NEVER
        with calculators._collector._changed:
            calculators._collector._changed.notify()


def wait_until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + TIME
    while not ready():
        assert time.monotonic() < end, "deadlock"
        time.sleep(0.001)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gathering, "monotonic", lambda: clock.now)
    return clock


def waiting(calculators: Calculators) -> int:
    """How many runs wait for an evaluation."""
    return len(calculators._collector._waiting)


def attached(calculator: Calculator, atoms: Atoms) -> Atoms:
    atoms.calc = calculator
    return atoms


# What is computed, and in how many batches


@in_time
def test_stock_neb_takes_one_evaluation_a_step():
    serial = chain([Serial() for _ in range(5)])
    steps = run_neb(serial, parallel=False)
    potential = Valleys()
    with batched(potential, patience=NEVER) as calculators:
        images = chain([calculators.new() for _ in range(5)])
        assert run_neb(images, parallel=True) == steps
        for image, expected in zip(images, serial, strict=True):
            np.testing.assert_array_equal(image.positions, expected.positions)
            assert image.get_potential_energy() == expected.get_potential_energy()
    assert steps == 15 and potential.sizes == [5] * (steps + 1)


def test_neb_with_batched_ends_soon_stops_waiting_for_them(clock):
    potential = Valleys()
    with batched(potential, patience=NEVER) as calculators:
        band = threading.Thread(
            target=lambda: run_neb(chain([calculators.new() for _ in range(7)], ends=False), parallel=True), daemon=True
        )
        band.start()
        for evaluation in range(gathering.MISSES):
            clock.pass_when(
                lambda done=2 + evaluation: len(potential.sizes) == done and waiting(calculators) == 5, calculators
            )
        band.join(TIME)
        assert not band.is_alive(), "deadlock"
    assert potential.sizes == [1, 1] + [5] * 16


@in_time
def test_serial_neb_waits_for_nobody():
    potential = Valleys()
    with batched(potential, patience=NEVER) as calculators:
        run_neb(chain([calculators.new() for _ in range(5)]), parallel=False)
    assert potential.sizes == [1] * (5 * 16)


@in_time
def test_runs_of_different_length_share_every_batch_they_can():
    potential, lengths = Valleys(), [3, 1, 7, 5, 5]
    with batched(potential, patience=NEVER) as calculators:
        runs = [attached(calculators.new(), structure(seed)) for seed in range(5)]
        found = in_threads([partial(to_its_end, walk, *run) for run in zip(runs, lengths, strict=True)])
    assert potential.sizes == [sum(length > step for length in lengths) for step in range(7)]
    for seed, length in enumerate(lengths):
        np.testing.assert_array_equal(found[seed], walk(attached(Serial(), structure(seed)), length))


def test_relaxations_in_two_nebs_at_a_time():
    potential = Valleys()
    with batched(potential, patience=0.2) as calculators:
        bands = [chain([calculators.new() for _ in range(5)]) for _ in range(2)]
        in_threads([partial(run_neb, images, parallel=True, steps=8) for images in bands])
    reference = chain([Serial() for _ in range(5)])
    run_neb(reference, parallel=False, steps=8)
    for images in bands:
        np.testing.assert_array_equal([image.positions for image in images], [image.positions for image in reference])
    assert sum(potential.sizes) == 2 * 5 * 9


@pytest.mark.parametrize("repetition", range(8))
@in_time
def test_chaos(repetition):
    """Random pauses, lengths, failures, second questions, patience; late starts. Ten rounds each."""
    random = np.random.default_rng(repetition)
    for seed in range(1000 * repetition, 1000 * repetition + 10):
        potential = Valleys(duration=random.choice([0.0, 0.001]))
        number = int(random.integers(1, 9))
        kinds = random.choice(["H2", "H2", "H2", "HeH", "NeH"], size=number)
        lengths = random.integers(1, 12, size=number)
        starts = random.exponential(0.002, size=number)

        def run(atoms, steps, start, seed=seed):
            time.sleep(start)
            return walk(atoms, steps, seed)

        with batched(potential, patience=random.choice([0.0, 0.001, NEVER])) as calculators:
            runs = [attached(calculators.new(), structure(index, kinds[index])) for index in range(number)]
            jobs = [partial(to_its_end, run, *job) for job in zip(runs, lengths, starts, strict=True)]
            if random.random() < 0.5:
                found = in_threads(jobs)
            else:
                with ThreadPoolExecutor(number) as pool:
                    futures = [pool.submit(job) for job in jobs]
                    found = [future.exception(TIME) or future.result() for future in futures]
        for index, (kind, length) in enumerate(zip(kinds, lengths, strict=True)):
            if kind == "H2":
                np.testing.assert_array_equal(found[index], walk(attached(Serial(), structure(index)), length))
            else:
                assert type(found[index]) is {"HeH": StructureError, "NeH": EvaluationError}[kind]
                assert str(found[index]).startswith(f"structure 0 ({structure(0, kind).get_chemical_formula()}): ")
        assert max(potential.sizes) <= number and sum(potential.sizes) <= lengths.sum()


@in_time
def test_neb_with_threads_that_are_held_up():
    """Whatever the order and the delays of the threads, one evaluation a step and the same positions."""
    reference = chain([Serial() for _ in range(5)])
    run_neb(reference, parallel=False, steps=2)
    for seed in range(8):
        random = np.random.default_rng(seed)
        potential = Valleys()
        with batched(potential, patience=NEVER) as calculators:
            images = chain([calculators.new() for _ in range(5)])
            for image in images[1:-1]:
                image.calc.get_property = held_up(image.calc.get_property, random.exponential(0.002))
            run_neb(images, parallel=True, steps=2)
        assert potential.sizes == [5] * 3
        np.testing.assert_array_equal([image.positions for image in images], [image.positions for image in reference])


def held_up(function: Callable, delay: float) -> Callable:
    def late(*arguments, **settings):
        time.sleep(delay)
        return function(*arguments, **settings)

    return late


def test_one_that_pauses_holds_up_the_others_for_a_while_only(clock):
    potential, finished = Valleys(), threading.Event()

    def pause(atoms):
        atoms.get_forces()
        for evaluation in range(gathering.MISSES):
            clock.pass_when(
                lambda done=1 + evaluation: len(potential.sizes) == done and waiting(calculators) == 1, calculators
            )
        assert finished.wait(TIME)
        atoms.positions += 0.1
        return atoms.get_potential_energy()

    def others(atoms):
        walk(atoms, 30)
        finished.set()

    with batched(potential, patience=NEVER) as calculators:
        paused, running = (attached(calculators.new(), structure(seed)) for seed in range(2))
        energy, error = in_threads([partial(pause, paused), partial(to_its_end, others, running)])
        assert error is None and energy == Valleys().answer(0, paused).energy
        assert potential.sizes == [2] + [1] * 30

        def ask_last(atoms):  # it has asked again, so it is waited for again
            wait_until(lambda: waiting(calculators) == 1)
            atoms.get_potential_energy()

        for atoms in (paused, running):
            atoms.positions += 0.1
        in_threads([partial(ask_last, paused), running.get_potential_energy])
    assert potential.sizes[31:] == [2]


def test_accident_heals(clock):
    """A thread that was late once is waited for at the next step again."""
    potential, come = Valleys(), threading.Event()
    with batched(potential, patience=NEVER) as calculators:
        images = chain([calculators.new() for _ in range(5)])
        on_time = images[3].calc.get_property
        images[3].calc.get_property = lambda *arguments: come.wait(TIME) and on_time(*arguments)
        band = threading.Thread(target=run_neb, args=(images,), kwargs={"parallel": True, "steps": 6}, daemon=True)
        band.start()
        clock.pass_when(lambda: waiting(calculators) == 4, calculators)
        wait_until(lambda: potential.sizes == [4])
        come.set()
        clock.pass_when(lambda: waiting(calculators) == 1, calculators)  # the others are still expected then
        band.join(TIME)
        assert not band.is_alive(), "deadlock"
    assert potential.sizes == [4, 1] + [5] * 6


@in_time
def test_batch_is_in_the_order_of_the_calculators_whoever_came_first():
    """So that the same runs give the same sums, to the last bit."""
    potential, order = Valleys(), []

    def evaluate_each(structures, original=potential.evaluate_each):
        order.extend(atoms.get_chemical_formula() for atoms in structures)
        return original(structures)

    def ask(atoms, earlier):
        wait_until(lambda: waiting(calculators) == earlier)
        atoms.get_potential_energy()

    potential.evaluate_each = evaluate_each
    with batched(potential, patience=NEVER) as calculators:
        runs = [attached(calculators.new(), structure(0, symbols)) for symbols in ("H2", "N2", "O2")]
        in_threads([partial(ask, atoms, earlier) for atoms, earlier in zip(runs, (2, 0, 1), strict=True)])
    assert order == ["H2", "N2", "O2"]


def test_who_comes_during_an_evaluation_waits_for_those_in_it(clock):
    """However long the evaluation takes: otherwise two runs could take turns for ever."""
    potential, begun = Valleys(), threading.Event()

    def evaluate_each(structures, original=potential.evaluate_each):
        if not begun.is_set():
            begun.set()
            clock.pass_when(lambda: waiting(calculators) == 1, calculators)
        return original(structures)

    def early():
        walk(attached(calculators.new(), structure(0)), 4)

    def late():
        begun.wait(TIME)
        walk(attached(calculators.new(), structure(1)), 3)

    potential.evaluate_each = evaluate_each
    with batched(potential, patience=NEVER) as calculators:
        assert in_threads([early, late]) == [None, None]
    assert potential.sizes == [1, 2, 2, 2]


@in_time
def test_dropped_calculators_are_not_waited_for():
    potential = Valleys()
    with batched(potential, patience=NEVER) as calculators:
        dropped = [calculators.new() for _ in range(3)]
        atoms = attached(calculators.new(), structure(0))
        del dropped
        gc.collect()
        in_threads([atoms.get_potential_energy])
    assert potential.sizes == [1]


@in_time
def test_diffusion_hop_with_the_shipped_model(record_figure):
    """O from one hollow of Cu(111) to the other: the barrier of the serial band, one evaluation a step."""
    from escn_calc.potential import load_potential

    potential, sizes = load_potential(dtype="float64"), []

    def evaluate_each(structures, *search, original=potential.evaluate_each):
        sizes.append(len(structures))
        return original(structures, *search)

    potential.evaluate_each = evaluate_each
    ends = [hollow(site) for site in ("fcc", "hcp")]
    for atoms, prediction in zip(ends, potential.evaluate(ends), strict=True):
        atoms.calc = SinglePointCalculator(atoms, energy=prediction.energy, forces=prediction.forces)
    sizes.clear()
    barriers = []
    for parallel in (False, True):
        with batched(potential, patience=NEVER) as calculators:
            images = [ends[0], *(attached(calculators.new(), ends[0].copy()) for _ in range(5)), ends[1]]
            NEB(images, method="improvedtangent").interpolate(mic=True)
            steps = run_neb(images, parallel=parallel, steps=6)
        barriers.append(NEBTools(images).get_barrier(fit=False)[0])
    assert sizes == [1] * 5 * (steps + 1) + [5] * (steps + 1)
    assert barriers[0] > 0.05
    assert barriers[1] == pytest.approx(barriers[0], abs=1e-8)
    record_figure("barrier of a batched NEB less that of the serial one", f"{barriers[1] - barriers[0]:.1e} eV")


def hollow(site: str) -> Atoms:
    atoms = fcc111("Cu", size=(2, 2, 2), vacuum=8.0, periodic=True)
    add_adsorbate(atoms, "O", 1.2, site)
    atoms.set_constraint(FixAtoms(indices=range(4)))
    return atoms


# Errors, and the end


@in_time
def test_bug_of_the_potential_reaches_everybody_in_the_batch_and_nobody_else():
    potential = Valleys()
    with batched(potential, patience=NEVER) as calculators:
        runs = [attached(calculators.new(), structure(seed, kind)) for seed, kind in enumerate(["H2", "ArH", "H2"])]
        found = in_threads([atoms.get_potential_energy for atoms in runs])
        for error in found:
            with pytest.raises(EvaluationError, match="the evaluation of a batch failed: ZeroDivisionError: a bug"):
                raise error
        assert len(set(map(id, found))) == 3
        runs[1].symbols = "H2"
        expected = [Valleys().answer(0, atoms).energy for atoms in runs]
        assert in_threads([atoms.get_potential_energy for atoms in runs]) == expected
    assert potential.sizes == [3, 3]


def test_neb_whose_image_fails_is_not_silent(died):
    potential = Valleys()
    with (
        pytest.raises(CalculationError, match=r"failed in a thread that ended by it: structure 0 \(H2\): all gone"),
        batched(potential, patience=0.1) as calculators,
    ):
        images = chain([calculators.new() for _ in range(5)])
        fail_at(potential, number=13)
        run_neb(images, parallel=True, steps=2)
    assert [type(error) for error in died] == [EvaluationError]


@in_time
def test_observer_ends_the_neb_with_the_step_that_failed(died):
    potential = Valleys()
    with (
        pytest.raises(CalculationError, match="failed in a thread that ended by it"),
        batched(potential, patience=NEVER) as calculators,
    ):
        images = chain([calculators.new() for _ in range(5)])
        fail_at(potential, number=13)
        run_neb(images, parallel=True, observer=calculators.check)
    assert len(potential.sizes) == 3 and len(died) == 1


def fail_at(potential: Valleys, number: int) -> None:
    """Let the evaluation of one structure fail."""
    original, numbers = potential.answer, count(1)

    def answer(index, atoms):
        if next(numbers) == number:
            return CalculationError(f"structure {index} (H2): all gone")
        return original(index, atoms)

    potential.answer = answer


def test_errors_that_somebody_caught_are_not_raised_again(died):
    with batched(Valleys()) as calculators:
        runs = [attached(calculators.new(), structure(seed, "NeH")) for seed in range(3)]
        assert all(isinstance(error, EvaluationError) for error in in_threads([atoms.get_forces for atoms in runs]))
        with pytest.raises(EvaluationError):
            runs[0].get_forces()
        calculators.check()
    assert died == []


def test_exception_in_the_block_ends_its_threads_silently(died):
    potential, threads = Valleys(), []
    with (
        pytest.raises(ZeroDivisionError),
        batched(potential, patience=NEVER) as calculators,
    ):
        busy = attached(calculators.new(), structure(9))  # of the main thread, which does not ask
        for seed in range(3):
            atoms = attached(calculators.new(), structure(seed))
            threads.append(threading.Thread(target=walk, args=(atoms, 100)))
            threads[-1].start()
        wait_until(lambda: waiting(calculators) == 3)
        raise ZeroDivisionError
    for thread in threads:
        thread.join(TIME)
    assert not any(thread.is_alive() for thread in threads) and died == [] and potential.sizes == []
    with pytest.raises(EvaluationError, match=r"a batched calculator was used after its 'with batched\(...\)' block"):
        busy.get_potential_energy()


@pytest.mark.parametrize("duration", [0.0, 0.1])
@pytest.mark.parametrize("evaluation", [1, 10])
def test_ctrl_c_during_a_neb(died, duration, evaluation):
    before = set(threading.enumerate())
    with (
        pytest.raises(KeyboardInterrupt),
        batched(Valleys(duration=duration, interrupt_at=evaluation), patience=NEVER) as calculators,
    ):
        run_neb(chain([calculators.new() for _ in range(5)]), parallel=True, steps=1_000_000)
    wait_until(lambda: not set(threading.enumerate()) - before)
    assert died == []


def test_ctrl_c_during_run_each():
    started, potential = [], Valleys(duration=0.001, interrupt_at=10)

    def run(atoms):
        started.append(atoms)
        return walk(atoms, 1_000_000)

    with pytest.raises(KeyboardInterrupt):
        run_each(run, [structure(seed) for seed in range(20)], potential, max_active=5)
    assert len(started) <= 5 and len(potential.sizes) < 1000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("run_each")]


def test_ctrl_c_ends_a_program():
    program = """
from escn_calc.collector import run_each
from tests.test_collector import Valleys, structure, walk

run_each(lambda atoms: walk(atoms, 10**9), [structure(seed) for seed in range(9)], Valleys(interrupt_at=10))
"""
    top = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=top, capture_output=True, text=True, timeout=5 * TIME)
    assert done.returncode == -signal.SIGINT
    assert done.stderr.count("Traceback") == 1 and done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_main_thread_that_survives_an_interrupt_goes_on():
    potential = Valleys(duration=0.01, interrupt_at=6)
    with batched(potential, patience=NEVER) as calculators:
        other = attached(calculators.new(), structure(1))
        in_threads([partial(to_its_end, Atoms.get_potential_energy, other)])
        atoms = attached(calculators.new(), structure(0))
        result = relax(atoms, atoms.calc, optimizer="FIRE", fmax=1e-12, steps=1_000_000)
        assert result.reason == "interrupted" and result.steps > 1
        atoms.positions += 1.0
        assert atoms.get_potential_energy() == Valleys().answer(0, atoms).energy
    assert set(potential.sizes) == {1}


def test_interrupted_request_is_withdrawn(clock):
    potential, joined, released = Valleys(), threading.Event(), threading.Event()
    with batched(potential, patience=NEVER) as calculators:

        def pause():
            atoms = attached(calculators.new(), structure(1))
            joined.set()
            wait_until(lambda: waiting(calculators) == 1)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            released.wait(TIME)
            return atoms.get_potential_energy()

        with ThreadPoolExecutor(1) as pool:
            paused = pool.submit(pause)
            assert joined.wait(TIME)
            with pytest.raises(KeyboardInterrupt):
                attached(calculators.new(), structure(0)).get_potential_energy()
            assert waiting(calculators) == 0 and potential.sizes == []
            released.set()
            clock.pass_when(lambda: waiting(calculators) == 1, calculators)
            assert paused.result(TIME) == Valleys().answer(0, structure(1)).energy
    assert potential.sizes == [1]


def test_threads_that_outlive_the_block_are_told():
    outcomes = []

    def outlive(atoms):
        try:
            walk(atoms, 1_000_000)
        except EvaluationError as error:
            outcomes.append(str(error))

    with batched(Valleys(), patience=NEVER) as calculators:
        atoms = attached(calculators.new(), structure(0))
        thread = threading.Thread(target=outlive, args=(atoms,))
        thread.start()
        time.sleep(0.05)
    thread.join(TIME)
    assert outcomes == ["a batched calculator was used after its 'with batched(...)' block; use it inside"]


# The calculator


def test_calculator_is_one_of_ase(tmp_path):
    potential = Valleys()
    with batched(potential) as calculators:
        atoms = attached(calculators.new(), structure(0))
        forces = atoms.get_forces()
        assert atoms.get_forces() is not forces and atoms.get_potential_energy() == atoms.calc.results["energy"]
        assert atoms.calc.results["free_energy"] == atoms.get_potential_energies().sum()
        assert potential.sizes == [1] and not atoms.calc.calculation_required(atoms, ["energy", "forces"])
        atoms.set_tags([0, 1])
        atoms.set_initial_charges([1, 0])
        assert atoms.calc.check_state(atoms) == [] and atoms.calc.get_property("energy", atoms) is not None
        atoms.positions[0, 0] += 1e-3
        assert atoms.calc.check_state(atoms) == ["positions"]
        assert atoms.calc.get_property("forces", atoms, allow_calculation=False) is None
        assert atoms.get_potential_energy() == Valleys().answer(0, atoms).energy and potential.sizes == [1, 1]
        with pytest.raises(PropertyNotImplementedError, match="stress property not implemented"):
            atoms.get_stress()
        for name in ("a.traj", "a.db", "a.extxyz"):
            write(tmp_path / name, atoms)
            stored = read(tmp_path / name)
            assert stored.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        assert read(tmp_path / "a.traj").calc.name == "escn"
        assert atoms.calc.todict()["model"] == "valleys" and atoms.calc.todict()["sha256"] == "d" * 64
        atoms.calc.reset()
        assert atoms.calc.results == {}
    assert potential.sizes == [1, 1]


def test_results_outlive_the_block():
    with batched(Valleys()) as calculators:
        atoms = attached(calculators.new(), structure(0))
        energy = atoms.get_potential_energy()
    assert atoms.get_potential_energy() == energy and copy.deepcopy(atoms).get_potential_energy() == energy
    atoms.positions += 0.1
    with pytest.raises(EvaluationError, match="used after its 'with batched"):
        atoms.get_potential_energy()


@in_time
def test_deep_copy_is_a_calculator_of_its_own():
    potential = Valleys()
    with batched(potential, patience=NEVER) as calculators:
        atoms = attached(calculators.new(), structure(0))
        energy = atoms.get_potential_energy()
        copied = copy.deepcopy(atoms)
        assert copied.calc is not atoms.calc and copied.get_potential_energy() == energy
        assert potential.sizes == [1]
        copied.positions += 0.1
        atoms.positions += 0.2
        found = in_threads([atoms.get_potential_energy, copied.get_potential_energy])
    assert found == [Valleys().answer(0, each).energy for each in (atoms, copied)] and potential.sizes == [1, 2]


def test_model_is_shared_and_stays():
    with batched(Valleys()) as calculators:
        calculator = calculators.new()
        with pytest.raises(InputError, match="dtype cannot be set: batched calculators share one model; load another"):
            calculator.set(dtype="float32")
        for function in (pickle.dumps, copy.copy):
            with pytest.raises(InputError, match="cannot be pickled; give another process an ESCNCalculator"):
                function(calculator)
        with pytest.raises(StructureError, match="the calculator has no structure yet; pass atoms"):
            calculator.calculate()


def test_failed_evaluation_leaves_no_results():
    with batched(Valleys()) as calculators:
        atoms = attached(calculators.new(), structure(0))
        atoms.get_forces()
        atoms.symbols = "HeH"
        with pytest.raises(StructureError, match=r"^structure 0 \(HHe\): atom 0 is He"):
            atoms.calc.calculate(atoms)
        assert atoms.calc.results == {}


def test_model_without_forces():
    with batched(Valleys(forces=None)) as calculators:
        atoms = attached(calculators.new(), structure(0))
        assert np.isfinite(atoms.get_potential_energy())
        with pytest.raises(PropertyNotImplementedError, match="forces property not implemented"):
            atoms.get_forces()


@in_time
def test_calculator_shared_by_two_threads():
    potential = Valleys(duration=0.01)
    with batched(potential, patience=NEVER) as calculators:
        calculator = calculators.new()
        runs = [attached(calculator, structure(seed)) for seed in range(4)]
        found = in_threads([partial(walk, atoms, 5) for atoms in runs])
    for seed in range(4):
        np.testing.assert_array_equal(found[seed], walk(attached(Serial(), structure(seed)), 5))


@in_time
def test_dimer_and_dynamics():
    """One run alone, and two different kinds of runs together."""

    def search(atoms):
        with DimerControl(displacement_method="vector", logfile=None, eigenmode_logfile=None) as control:
            dimer = MinModeAtoms(atoms, control)
            dimer.displace(displacement_vector=np.array([[0.1, 0.02, 0.0], [0, 0, 0]]))
            with MinModeTranslate(dimer, logfile=None) as translate:
                translate.run(fmax=1e-3, steps=100)
        return atoms.positions.copy()

    def move(atoms):
        VelocityVerlet(atoms, timestep=0.1).run(20)
        return atoms.positions.copy()

    def near_saddle():
        return Atoms("H2", positions=[[2.6, -0.2, 0], [0, 0, 1.0]])

    potential = Valleys()
    with batched(potential, patience=NEVER) as calculators:
        runs = [attached(calculators.new(), near_saddle()), attached(calculators.new(), structure(3))]
        np.random.seed(0)
        found = in_threads([partial(to_its_end, *run) for run in zip((search, move), runs, strict=True)])
    x, y, _ = found[0][0]
    assert abs(x - np.pi) < 0.2 and abs(np.sin(x) + y / 10) < 0.02 and abs(y + x / 10) < 0.02
    np.testing.assert_array_equal(found[1], move(attached(Serial(), structure(3))))
    assert potential.sizes[:21] == [2] * 21


# run_each, and Hessians


@in_time
def test_run_each_gives_what_serial_runs_give(monkeypatch):
    monkeypatch.setattr(runs_module, "batched", partial(batched, patience=NEVER))
    structures = [structure(seed) for seed in range(15)]
    originals = [atoms.copy() for atoms in structures]
    potential = Valleys()

    def minimise(atoms):
        with BFGS(atoms, logfile=None) as search:
            search.run(fmax=1e-4, steps=12)
        return atoms

    found = run_each(minimise, structures, potential, max_active=7)
    assert structures == originals and all(atoms.calc is None for atoms in structures)
    for atoms, original in zip(found, originals, strict=True):
        np.testing.assert_array_equal(atoms.positions, minimise(attached(Serial(), original)).positions)
    assert max(potential.sizes) == 7
    assert np.mean(potential.sizes) > 4


def test_run_each_keeps_the_results_of_the_others():
    structures = [structure(0), structure(1, "HeH"), structure(2), structure(3)]

    def run(atoms):
        if np.array_equal(atoms.positions, structures[3].positions):
            raise KeyError("a mistake of the caller")
        return walk(atoms, 4)[-1]

    message = r"2 of 4 structures failed: \[1\] structure 0 \(HHe\): atom 0 is He.*; \[3\] 'a mistake of the caller'"
    with pytest.raises(BatchError, match=message) as caught:
        run_each(run, structures, Valleys())
    assert [type(caught.value.errors[index]) for index in (1, 3)] == [StructureError, KeyError]
    expected = [walk(attached(Serial(), structures[index]), 4)[-1] for index in (0, 2)]
    assert caught.value.results == [expected[0], None, expected[1], None]


def test_relax_is_one_of_the_functions():
    structures = [structure(seed) for seed in range(6)]
    found = run_each(lambda atoms: relax(atoms, atoms.calc, fmax=1e-3), structures, Valleys())
    for result, atoms in zip(found, structures, strict=True):
        expected = relax(atoms, Serial(), fmax=1e-3)
        assert (result.reason, result.steps, result.energy) == ("converged", expected.steps, expected.energy)


@in_time
def test_hessians_share_batches():
    structures = [structure(seed) for seed in range(4)]
    potential = Valleys()
    with batched(potential, patience=NEVER) as calculators:
        calculator = [calculators.new() for _ in structures]
        found = in_threads([partial(hessian, *pair) for pair in zip(structures, calculator, strict=True)])
    assert potential.sizes == [4 * 12]
    for matrix, atoms in zip(found, structures, strict=True):
        np.testing.assert_array_equal(matrix, hessian(atoms, Serial()))
    with batched(potential) as calculators:
        np.testing.assert_array_equal(calculators.new().get_hessian(structures[0]), found[0])
        with pytest.raises(InputError, match=r"structure 0 \(HHe\): atom 0 is He"):
            hessian(structure(0, "HeH"), calculators.new())


def test_nothing_to_run():
    potential = Valleys()
    assert run_each(walk, [], potential) == [] and potential.sizes == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"potential": "default"},
            r"potential is 'default'; pass load_potential\(\.\.\.\), or the .potential of an ESC",
        ),
        ({"structures": structure(0)}, r"expected a list of ase.Atoms, found one ase.Atoms object: pass \[atoms\]"),
        ({"structures": [structure(0), "H2"]}, "structure 1 is of type str; give ASE Atoms"),
        ({"max_active": 0}, "max_active is 0; it must be 1 or more"),
    ],
)
def test_run_each_refuses(change, message):
    calls = []
    arguments = {"structures": [structure(0)], "potential": Valleys(), **change}
    with pytest.raises(InputError, match=message):
        run_each(calls.append, **arguments)
    assert calls == []


@pytest.mark.parametrize("patience", [-1.0, np.nan, np.inf])
def test_bad_patience(patience):
    with (
        pytest.raises(InputError, match=f"patience is {patience} s; it must be zero or a positive number"),
        batched(Valleys(), patience=patience),
    ):
        pass
