"""The loop: it learns, stops and resumes to the last bit, and shares work exactly."""

import os
import signal
import socket
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing
from torch_geometric.data import Batch

from escn_calc.errors import CalculationError, InputError
from escn_calc.training.callbacks import Callback
from escn_calc.training.compiled import CompiledObjective
from escn_calc.training.distributed import World, join_world
from escn_calc.training.figures import SUMS, figures
from escn_calc.training.loader import make_loader, padded_size
from escn_calc.training.loop import FitSettings, fit
from escn_calc.training.objective import LossWeights
from escn_calc.training.optimisation import Optimisation, OptimiserSettings, Schedule
from escn_calc.training.state import StateFolder
from tests.training.objectives import dataset, objective

ALONE = World(0, 1, torch.device("cpu"))
SCHEDULE = Schedule(epochs=3, warm_up_steps=2)
OPTIMISER = OptimiserSettings(3e-3, weight_decay=1e-2)
EDGES = 250


class Training:
    """Everything that :func:`fit` needs, made afresh, and what it reports."""

    def __init__(self, *, compiled=False, epochs=3, rate=OPTIMISER.learning_rate, weights=None):
        data = dataset()
        size = padded_size(data, EDGES) if compiled else None
        self.objective = objective(weights=weights)
        self.step = CompiledObjective(self.objective, size, "eager") if compiled else self.objective
        self.train = make_loader(data, EDGES, seed=3, shuffle=True, padded=size)
        self.validation = make_loader(data, EDGES, seed=0, shuffle=False)
        self.optimisation = Optimisation(self.objective.network, replace(OPTIMISER, learning_rate=rate), SCHEDULE)
        self.settings = FitSettings(epochs, save_every_minutes=60.0)
        self.record = Record()

    def run(self, state=None, world=ALONE, callbacks=()):
        parts = (self.step, self.train, self.validation, self.optimisation, self.settings, world, state)
        return fit(*parts, (self.record, *callbacks))

    def tensors(self):
        return self.optimisation.tensors()


class Record(Callback):
    """Keeps all reports."""

    def __init__(self):
        self.starts, self.steps, self.validations = [], [], []

    def on_start(self, progress, batches):
        self.starts.append((progress.step, batches))

    def on_step(self, report):
        self.steps.append(report)

    def on_validation(self, report):
        self.validations.append(report)


class SignalAt(Callback):
    """Sends this process a signal after a step."""

    def __init__(self, step, number=signal.SIGTERM):
        self.step, self.number = step, number

    def on_step(self, report):
        if report.step == self.step:
            os.kill(os.getpid(), self.number)


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def without_time(progress):
    return replace(progress, seconds=0.0)


def test_loss_falls_and_reports_are_complete():
    training = Training(rate=0.06, weights=LossWeights(energy=1.0, forces=0.01, energy_per="atom"))
    result = training.run()
    steps, validations = training.record.steps, training.record.validations
    assert result.finished and result.progress.epoch == 3 and result.progress.step == len(steps) >= 6
    assert [report.step for report in steps] == list(range(1, len(steps) + 1))
    assert validations[-1].validation["loss"] < 0.9 * validations[0].validation["loss"]
    assert validations[-1].train["loss"] < validations[0].train["loss"]
    assert [report.epoch for report in validations] == [1, 2, 3]
    assert sum(report.structures for report in steps if report.epoch == 0) == 6
    assert steps[0].learning_rate == pytest.approx(0.5 * 0.06)
    assert result.progress.best == min(report.validation["loss"] for report in validations)


def test_validation_uses_averaged_weights_and_gives_them_away():
    training = Training(epochs=1)
    training.run()
    (report,) = training.record.validations
    averaged = {name: report.weights[name] for name in report.weights}
    with training.optimisation.averaged():
        assert_same(averaged, dict(training.objective.network.state_dict()))
        sums = torch.zeros(len(SUMS), dtype=torch.float64)
        for batch in training.validation:
            sums += training.objective(batch).sums
    assert report.validation["loss"] == pytest.approx(figures(sums, training.objective.weights)["loss"], rel=1e-9)
    assert not torch.equal(averaged["sphere_embedding.weight"], training.objective.network.sphere_embedding.weight)
    assert report.improved and training.objective.training


@pytest.mark.parametrize(
    ("stop_at", "compiled"), [(2, False), ("end of epoch", False), pytest.param(2, True, marks=pytest.mark.slow)]
)
def test_resumed_training_is_the_same_to_the_last_bit(tmp_path, stop_at, compiled):
    whole = Training(compiled=compiled)
    expected = whole.run()
    if stop_at == "end of epoch":
        stop_at = whole.record.steps[0].batches - 1
    stopped, resumed = Training(compiled=compiled), Training(compiled=compiled)
    folder = StateFolder(tmp_path, {"settings": {"seed": 3}})
    usual = signal.getsignal(signal.SIGTERM)
    first = stopped.run(folder, callbacks=[SignalAt(stop_at)])
    assert not first.finished and first.progress.step == stop_at + 1
    assert signal.getsignal(signal.SIGTERM) == usual
    second = resumed.run(folder)
    assert resumed.record.starts[0][0] == stop_at + 1
    assert second.finished and without_time(second.progress) == without_time(expected.progress)
    assert second.progress.seconds > first.progress.seconds
    assert_same(whole.tensors(), resumed.tensors())
    loss = [report.loss for report in whole.record.steps]
    assert loss == [report.loss for report in stopped.record.steps + resumed.record.steps]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError()])
def test_batch_that_does_not_fit_into_memory_is_described(error, monkeypatch):
    training = Training()

    def full(inputs):
        raise error

    monkeypatch.setattr(training.objective, "losses", full)
    with pytest.raises(
        CalculationError,
        match=r"out of memory in a batch of \d structures, \d+ atoms and \d+ edges: lower batch\.edges",
    ):
        training.run()


def test_other_errors_of_a_step_stay_what_they_are(monkeypatch):
    training = Training()
    monkeypatch.setattr(training.objective, "losses", lambda inputs: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        training.run()


def test_finished_training_is_not_continued(tmp_path):
    folder = StateFolder(tmp_path, {})
    first, again = Training(), Training()
    first.run(folder)
    result = again.run(folder)
    assert result.finished and again.record.steps == again.record.validations == []
    assert_same(first.tensors(), again.tensors())


def test_kill_goes_back_to_the_last_save(tmp_path):
    class Kill(Callback):
        def on_step(self, report):
            if report.epoch == 1:
                raise KeyboardInterrupt

    whole, killed, resumed = Training(), Training(), Training()
    whole.run()
    folder = StateFolder(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        killed.run(folder, callbacks=[Kill()])
    resumed.run(folder)
    assert resumed.record.steps[0].epoch == 1 and resumed.record.steps[0].batch == 1
    assert_same(whole.tensors(), resumed.tensors())


class DiesInValidation(Callback):
    """Ends the run when the models of the first validation would be written."""

    def on_validation(self, report):
        raise KeyboardInterrupt


def test_models_are_never_without_a_state(tmp_path):
    undisturbed = Training()
    undisturbed.run()
    state = StateFolder(tmp_path / "state", {"settings": {}})
    with pytest.raises(KeyboardInterrupt):
        Training().run(state, callbacks=[DiesInValidation()])
    assert state.exists()
    resumed = Training()
    resumed.run(state)
    assert [report.epoch for report in resumed.record.validations] == [1, 2, 3]
    assert_same(resumed.tensors(), undisturbed.tensors())


def test_second_signal_has_its_usual_effect():
    training = Training()

    class Twice(Callback):
        def on_step(self, report):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        training.run(callbacks=[Twice()])
    assert len(training.record.steps) == 1


def test_validation_that_is_not_finite_is_an_error(tmp_path):
    training = Training()
    folder = StateFolder(tmp_path, {})

    class Poison(Callback):
        def on_step(self, report):
            for tensor in training.optimisation._average.values():
                tensor.fill_(float("nan"))

    with pytest.raises(CalculationError, match="validation after 1 epochs gave numbers that are not finite"):
        training.run(folder, callbacks=[Poison()])
    assert not folder.exists()


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"epochs": 1, "validate_every": 0}])
def test_refused_settings(changes):
    with pytest.raises(InputError, match="both must be at least 1"):
        FitSettings(**changes)


def test_validation_comes_every_so_many_epochs_and_at_the_end():
    training = Training()
    training.settings = FitSettings(3, validate_every=2)
    training.run()
    assert [report.epoch for report in training.record.validations] == [2, 3]


def uneven_batches():
    """Per step two ranks with different numbers of structures, atoms and labels."""
    data = dataset(6)
    graphs = [data[index] for index in range(6)]
    graphs[4].has_forces = torch.zeros_like(graphs[4].has_forces)
    graphs[5].has_energy = torch.zeros_like(graphs[5].has_energy)
    return [
        [Batch.from_data_list(graphs[:1]), Batch.from_data_list(graphs[1:4])],
        [Batch.from_data_list(graphs[2:5]), Batch.from_data_list(graphs[5:])],
    ]


class Given:
    """A loader of given batches, one per step."""

    def __init__(self, batches):
        self.batches, self.batch_sampler = batches, self

    def set_position(self, epoch, batch):
        self.first = batch

    def batches_in(self, epoch):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches[self.first :])


def fit_given(train, validation, world):
    made = objective()
    optimisation = Optimisation(made.network, OPTIMISER, Schedule(epochs=1))
    record = Record()
    result = fit(made, Given(train), Given(validation), optimisation, FitSettings(1), world, callbacks=[record])
    return optimisation.tensors(), result, record


def one_rank(rank, port, folder):
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with join_world("cpu") as world:
        steps = uneven_batches()
        tensors, result, record = fit_given([step[rank] for step in steps], [steps[0][rank]], world)
    names = [f"network.{name}" for name, _ in objective().network.named_parameters()]
    torch.save({name: tensors[name] for name in names}, folder / f"{rank}.pt")
    torch.save(
        {"best": result.progress.best, "losses": [step.loss for step in record.steps]},
        folder / f"record-{rank}.pt",
    )


def test_two_processes_are_one_with_the_joined_batches(tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torch.multiprocessing.spawn(one_rank, (port, tmp_path), nprocs=2)
    steps = [Batch.from_data_list([*one.to_data_list(), *other.to_data_list()]) for one, other in uneven_batches()]
    expected, result, record = fit_given(steps, steps[:1], ALONE)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    records = [torch.load(tmp_path / f"record-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert_same(ranks[0], ranks[1])
    for name, tensor in ranks[0].items():
        assert torch.allclose(tensor, expected[name], rtol=0.0, atol=1e-9), name
    assert records[0]["losses"] == pytest.approx([step.loss for step in record.steps], rel=1e-9)
    assert records[1]["losses"] == []
    assert records[0]["best"] == records[1]["best"] == pytest.approx(result.progress.best, rel=1e-7)


def test_one_process_is_a_world_of_its_own(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_world("cpu") as world:
        assert world == ALONE and world.is_first
        module = torch.nn.Linear(1, 1)
        assert world.wrap(module) is module
        assert world.mean(torch.tensor([4.0])).tolist() == [4.0]
