"""One training run, from the configuration to models with cards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch.utils.data import DataLoader

from escn_calc.checkpoints.card import read_document
from escn_calc.labels import LabelledFrame
from escn_calc.records import versions
from escn_calc.training.callbacks import Callback
from escn_calc.training.cards import Provenance
from escn_calc.training.compiled import CompiledObjective
from escn_calc.training.config import TrainingConfig
from escn_calc.training.constants import (
    constants_record,
    shared_constants,
    with_fitted_constants,
    with_recorded_constants,
)
from escn_calc.training.distributed import World, join_world
from escn_calc.training.files import RunFiles
from escn_calc.training.graphs import MEMORY_SHARE, FrameDataset
from escn_calc.training.loader import PaddedSize, make_loader, padded_size
from escn_calc.training.loop import FitResult, FitSettings, fit
from escn_calc.training.objective import LossWeights, Objective, trainable
from escn_calc.training.optimisation import Optimisation, OptimiserSettings, ParameterGroup, Schedule, freeze
from escn_calc.training.plan import Plan, make_plan
from escn_calc.training.recorder import Recorder
from escn_calc.training.start import Start, network_to_train


@dataclass(frozen=True)
class TrainingResult:
    """What a run has come to.

    Attributes
    ----------
    files : paths of all results.
    finished : whether all epochs are done; False if the run was interrupted and can go on.
    signal : number of the signal that interrupted it; None if none did.
    steps, epochs : done, those before a resume included.
    seconds : of training, those before a resume included.
    metrics : of the best model, as its card has them; empty before the first validation.
    notes : what is worth knowing about the model, as its card has it.
    """

    files: RunFiles
    finished: bool
    signal: int | None
    steps: int
    epochs: int
    seconds: float
    metrics: dict[str, int | float | str]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Loaders:
    """Batches to learn from and to judge by; ``size`` is that of all batches to learn from, None if they differ."""

    train: DataLoader
    validation: DataLoader
    size: PaddedSize | None


def train(
    config: TrainingConfig,
    *,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda stage: None,
    callbacks: Sequence[Callback] = (),
) -> TrainingResult:
    """Train a model.

    Where ``config.out`` holds the state of a run with the same settings, data and start, that run goes on, bit by bit
    as if it had never stopped. Under ``torchrun`` all processes train together and the first one writes.

    Parameters
    ----------
    config : TrainingConfig
        The run, see :func:`escn_calc.training.config_file.load_config`.
    overwrite : bool
        Remove the files of an earlier run in ``config.out`` and begin again.
    report : callable
        Called with a few words when a stage of the preparation begins.
    callbacks : sequence of Callback
        Called at every step and validation.

    Returns
    -------
    TrainingResult

    Raises
    ------
    InputError
        Settings, data and start do not fit together, or ``config.out`` holds another run.
    CheckpointError, DownloadError
        The start cannot be used or fetched.
    CalculationError
        The numbers are no longer finite.
    """
    begun = datetime.now(UTC)
    with join_world(config.device) as world:
        plan = make_plan(config, world, overwrite, report)
        report("Building graphs")
        train_set, validation_set = (_dataset(plan, frames) for frames in (plan.data.train, plan.data.validation))
        report("Fitting references")
        start = _with_constants(plan, train_set)
        objective, optimisation = _objective(config, world, start)
        loaders = _loaders(plan, train_set, validation_set)
        compiled = objective if loaders.size is None else CompiledObjective(objective, loaders.size)
        recorder = Recorder(plan.files, start, _provenance(plan), _record(plan, start, begun))
        if world.is_first and overwrite:
            plan.files.remove()
        world.barrier()
        fitted = fit(
            compiled,
            loaders.train,
            loaders.validation,
            optimisation,
            FitSettings(config.schedule.epochs, config.validate_every.epochs, config.save_every_minutes),
            world,
            plan.state,
            (recorder, *callbacks),
        )
        if world.is_first:
            report("Writing results")
            recorder.finish(fitted)
        world.barrier()
        return _result(plan.files, fitted)


def _dataset(plan: Plan, frames: Sequence[LabelledFrame]) -> FrameDataset:
    network = plan.start.checkpoint.config
    return FrameDataset(
        list(frames),
        network.cutoff,
        network.max_neighbors,
        plan.config.data.only_free_atoms,
        memory_share=MEMORY_SHARE / plan.world.local_size,
    )


def _with_constants(plan: Plan, data: FrameDataset) -> Start:
    """The start with its constants; a resumed run takes those that it began with, whatever it would fit today."""
    if plan.resuming:
        return with_recorded_constants(plan.start, plan.files.read_record()["constants"])
    config = plan.config
    start = with_fitted_constants(plan.start, data, config.references, str(plan.world.device), config.batch.edges)
    return shared_constants(start, plan.world)


def _objective(config: TrainingConfig, world: World, start: Start) -> tuple[Objective, Optimisation]:
    dtype = torch.float64 if config.precision == "float64" else torch.float32
    network = trainable(network_to_train(start.checkpoint, dtype).to(world.device))
    if config.model.freeze:
        freeze(network, config.model.freeze)
    forces = start.checkpoint.card.forces
    assert forces is not None
    checkpoint, loss = start.checkpoint, config.loss
    objective = Objective(
        network,
        checkpoint.normalizers,
        checkpoint.element_references,
        LossWeights(loss.energy, loss.forces, loss.stress, loss.energy_per),
        forces,
        config.precision,
    )
    settings, schedule = config.optimizer, config.schedule
    optimiser = OptimiserSettings(
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        groups=tuple(ParameterGroup(group.match, group.learning_rate) for group in settings.groups),
        clip=settings.clip,
        ema=settings.ema,
    )
    course = Schedule(
        epochs=schedule.epochs,
        warm_up_steps=schedule.warm_up_steps,
        decay=schedule.decay,
        final=schedule.final,
        step_epochs=schedule.step_epochs or schedule.epochs,
        factor=schedule.factor,
    )
    return objective, Optimisation(network, optimiser, course)


def _loaders(plan: Plan, train_set: FrameDataset, validation_set: FrameDataset) -> _Loaders:
    config, world = plan.config, plan.world
    edges, share = config.batch.edges, (config.workers, world.rank, world.size)
    size = padded_size(train_set, edges) if config.compile else None
    return _Loaders(
        make_loader(train_set, edges, config.seed, True, *share, size),
        make_loader(validation_set, edges, config.seed, False, *share),
        size,
    )


def _provenance(plan: Plan) -> Provenance:
    config = plan.config
    return Provenance(
        name=config.model.name or config.out.name,
        words=config.card,
        data=plan.data.hashes,
        counts=plan.data.counts,
        group_by=config.data.group_by,
        settings_sha256=hashlib.sha256(json.dumps(plan.identity["settings"], sort_keys=True).encode()).hexdigest(),
        versions=versions(),
    )


def _record(plan: Plan, start: Start, begun: datetime) -> dict[str, Any]:
    """What is run, as values that JSON can hold."""
    origin, world = start.origin, plan.world
    earlier = plan.files.read_record()["processes"] if plan.resuming else []
    process = {
        "began": begun.isoformat(timespec="seconds"),
        "device": str(world.device),
        "world_size": world.size,
        "threads": torch.get_num_threads(),
        "preparation_s": round((datetime.now(UTC) - begun).total_seconds(), 3),
        "versions": versions(),
    }
    return {
        "command": "escn train",
        "config": plan.config.model_dump(mode="json"),
        "data": {"sha256": plan.data.hashes, **plan.data.counts},
        "start": None if origin is None else {"name": origin.name, "sha256": origin.sha256},
        "constants": constants_record(start),
        "processes": [*earlier, process],
    }


def _result(files: RunFiles, fitted: FitResult) -> TrainingResult:
    card = read_document(files.best).card if files.best.exists() else None
    return TrainingResult(
        files=files,
        finished=fitted.finished,
        signal=fitted.signal,
        steps=fitted.progress.step,
        epochs=fitted.progress.epoch,
        seconds=fitted.progress.seconds,
        metrics={} if card is None else card.metrics,
        notes=() if card is None else card.notes,
    )
