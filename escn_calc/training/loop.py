"""The training loop: epochs of steps, validation on averaged weights, a state that survives any stop.

The loop knows losses, weights and positions only. What people see (progress bars, logs, models with cards) follows
from callbacks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from escn_calc.errors import CalculationError, InputError
from escn_calc.memory import is_out_of_memory
from escn_calc.training.callbacks import Callback, StepReport, ValidationReport
from escn_calc.training.compiled import CompiledObjective
from escn_calc.training.distributed import World
from escn_calc.training.figures import SUMS, figures
from escn_calc.training.objective import Objective, label_counts
from escn_calc.training.optimisation import Optimisation, StepOutcome
from escn_calc.training.state import Progress, StateFolder
from escn_calc.training.stopping import StopSignals

BatchLoader = DataLoader[Batch]
"""Batches whose ``batch_sampler`` is an :class:`escn_calc.training.loader.EdgeBatchSampler`."""


@dataclass(frozen=True)
class FitSettings:
    """How long to train, how often to validate (in epochs), and how often to save (in minutes) between validations."""

    epochs: int
    validate_every: int = 1
    save_every_minutes: float = 10.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.validate_every < 1:
            raise InputError(
                f"epochs is {self.epochs} and validation comes every {self.validate_every} epochs: both must be at "
                "least 1"
            )
        if not self.save_every_minutes >= 0:
            raise InputError(f"save_every_minutes is {self.save_every_minutes}: it must be at least 0")


@dataclass(frozen=True)
class FitResult:
    """Where training ended.

    Attributes
    ----------
    progress : as the state has it.
    finished : whether all epochs are done; False if a signal stopped training, to be resumed.
    signal : number of the signal that this process received; None if it received none.
    """

    progress: Progress
    finished: bool
    signal: int | None = None


def fit(
    objective: Objective | CompiledObjective,
    train: BatchLoader,
    validation: BatchLoader,
    optimisation: Optimisation,
    settings: FitSettings,
    world: World,
    state: StateFolder | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train, from the state if there is one, until all epochs are done or SIGINT or SIGTERM asks to stop.

    Parameters
    ----------
    objective : on the device of ``world``.
    train, validation : batches of this rank; over all ranks the validation data once.
    optimisation : of the network of ``objective``.
    settings : how long.
    world : the processes that train together, all of which call this.
    state : where to save; None keeps nothing.
    callbacks : told about the progress.

    Returns
    -------
    FitResult
        The network holds the weights of the last step; ``optimisation.averaged`` has the averaged ones.

    Raises
    ------
    InputError
        The state belongs to another run, or cannot be read or written.
    CalculationError
        Gradients stay, or the validation loss is, not finite, or a batch does not fit into memory.
    """
    progress = state.load(optimisation) if state is not None and state.exists() else Progress()
    with StopSignals() as stop:
        run = _Run(objective, train, validation, optimisation, settings, world, state, tuple(callbacks), stop, progress)
        return run.to_the_end()


class _Run:
    """The loop; ``progress`` is replaced after every step."""

    def __init__(
        self,
        objective: Objective | CompiledObjective,
        train: BatchLoader,
        validation: BatchLoader,
        optimisation: Optimisation,
        settings: FitSettings,
        world: World,
        state: StateFolder | None,
        callbacks: tuple[Callback, ...],
        stop: StopSignals,
        progress: Progress,
    ) -> None:
        self.plain = objective.objective if isinstance(objective, CompiledObjective) else objective
        self.train, self.validation = train, validation
        self.optimisation, self.settings, self.world, self.state = optimisation, settings, world, state
        self.callbacks = callbacks if world.is_first else ()
        self.stop, self.progress = stop, progress
        self.parallel: nn.Module = world.wrap(objective)
        self.sums = torch.tensor(progress.sums, dtype=torch.float64)
        self.clock = self.saved = time.monotonic()

    def to_the_end(self) -> FitResult:
        for callback in self.callbacks:
            callback.on_start(self.progress, self._batches())
        while True:
            if self._validation_is_due():
                self._validate()
                self._save()
            if self.progress.epoch >= self.settings.epochs:
                return FitResult(self.progress, finished=True)
            if not self._epoch():
                self._save()
                return FitResult(self.progress, finished=False, signal=self.stop.signal)

    def _epoch(self) -> bool:
        """Go through what is left of the epoch; False if asked to stop."""
        epoch, batches = self.progress.epoch, self._batches()
        self.train.batch_sampler.set_position(epoch, self.progress.batch)  # type: ignore[union-attr]
        for batch in self.train:
            stopping = self._step(batch.to(self.world.device), batches)
            if self.progress.batch == batches:
                self.progress = replace(self.progress, epoch=epoch + 1, batch=0)
            if stopping:
                return False
            if time.monotonic() - self.saved > 60 * self.settings.save_every_minutes:
                self._save()
        return True

    def _step(self, batch: Batch, batches: int) -> bool:
        """Take a step; True if any rank was asked to stop."""
        counts, stopping = self._shared(batch)
        self.optimisation.clear_gradients()
        with _memory_described(batch):
            losses = self.parallel(batch, counts)
            losses.total.backward()
        before = self.progress
        outcome = self.optimisation.step(before.step, before.epoch + before.batch / batches)
        sums = self.world.sum(losses.sums).cpu()
        if not outcome.skipped:
            self.sums = self.sums + sums
        self._advance(step=before.step + 1, batch=before.batch + 1, sums=tuple(self.sums.tolist()))
        self._report(outcome, sums, before, batches)
        return stopping

    def _shared(self, batch: Batch) -> tuple[Tensor, bool]:
        """Mean label counts over the ranks, and whether any of them was asked to stop, in one exchange."""
        own = torch.cat([label_counts(batch), torch.tensor([float(self.stop.asked)], device=batch.batch.device)])
        shared = self.world.mean(own)
        return shared[:3], bool(shared[3] > 0)

    def _report(self, outcome: StepOutcome, sums: Tensor, before: Progress, batches: int) -> None:
        if not self.callbacks:
            return
        report = StepReport(
            step=self.progress.step,
            epoch=before.epoch,
            batch=self.progress.batch,
            batches=batches,
            loss=figures(sums, self.plain.weights)["loss"],
            gradient_norm=outcome.gradient_norm,
            learning_rate=outcome.learning_rate,
            skipped=outcome.skipped,
            structures=int(sums[SUMS.index("structures")]),
            seconds=self.progress.seconds,
        )
        for callback in self.callbacks:
            callback.on_step(report)

    def _validation_is_due(self) -> bool:
        """At the end of the right epochs, also if training was stopped just before."""
        progress = self.progress
        at_end = progress.batch == 0 and progress.epoch > progress.validated
        return at_end and (progress.epoch % self.settings.validate_every == 0 or progress.epoch == self.settings.epochs)

    def _validate(self) -> None:
        with self.optimisation.averaged():
            found = figures(self._validation_sums(), self.plain.weights)
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self.plain.network.state_dict().items()}
        if not all(map(math.isfinite, found.values())):
            raise CalculationError(
                f"validation after {self.progress.epoch} epochs gave numbers that are not finite ({found}): lower the "
                "learning rate and start again, or look for extreme validation structures"
            )
        if self.progress.validated == 0:
            self._save()  # models are never without a state to go on from
        improved = self.progress.best is None or found["loss"] < self.progress.best
        trained = figures(self.sums, self.plain.weights)
        self.sums = torch.zeros(len(SUMS), dtype=torch.float64)
        self._advance(
            validated=self.progress.epoch,
            best=found["loss"] if improved else self.progress.best,
            sums=tuple(self.sums.tolist()),
        )
        self._report_validation(trained, found, improved, weights)

    def _validation_sums(self) -> Tensor:
        self.validation.batch_sampler.set_position(0, 0)  # type: ignore[union-attr]
        total = torch.zeros(len(SUMS), dtype=torch.float64)
        self.plain.eval()
        try:
            with torch.no_grad():
                for batch in self.validation:
                    with _memory_described(batch):
                        total += self.plain(batch.to(self.world.device)).sums.cpu()
        finally:
            self.plain.train()
        return self.world.sum(total).cpu()

    def _report_validation(
        self, trained: dict[str, float], found: dict[str, float], improved: bool, weights: dict[str, Tensor]
    ) -> None:
        progress, schedule = self.progress, self.optimisation.schedule
        report = ValidationReport(
            step=progress.step,
            epoch=progress.epoch,
            seconds=progress.seconds,
            train=trained,
            validation=found,
            learning_rate=self.optimisation.settings.learning_rate * schedule.rate_at(progress.step, progress.epoch),
            improved=improved,
            weights=weights,
        )
        for callback in self.callbacks:
            callback.on_validation(report)

    def _advance(self, **changes: object) -> None:
        now = time.monotonic()
        seconds, self.clock = self.progress.seconds + now - self.clock, now
        self.progress = replace(self.progress, seconds=seconds, **changes)  # type: ignore[arg-type]

    def _batches(self) -> int:
        return self.train.batch_sampler.batches_in(self.progress.epoch)  # type: ignore[union-attr]

    def _save(self) -> None:
        self.saved = time.monotonic()
        if self.state is not None and self.world.is_first:
            self.state.save(self.progress, self.optimisation)


@contextmanager
def _memory_described(batch: Batch) -> Iterator[None]:
    """Say which batch it was when memory runs out, and what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        size = f"{batch.num_graphs} structures, {batch.num_nodes} atoms and {batch.num_edges} edges"
        raise CalculationError(
            f"out of memory in a batch of {size}: lower batch.edges, or leave the structure out if it is one alone"
        ) from error
