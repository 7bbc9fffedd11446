"""What a run is going to do, with everything refused that can be refused before a file is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from escn_calc.identity import Identity
from escn_calc.training.cards import check_energy_kind
from escn_calc.training.config import TrainingConfig
from escn_calc.training.data import TrainingData, read_data
from escn_calc.training.distributed import World
from escn_calc.training.files import RunFiles
from escn_calc.training.start import (
    Start,
    elements_of,
    knowing_only,
    make_start,
    refuse_unknown_elements,
    refuse_untrained_elements,
)
from escn_calc.training.state import StateFolder

FREE_TO_CHANGE = {"out", "device", "workers", "save_every_minutes"}
"""Settings that a resumed run may have different, because its numbers do not depend on them."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A run whose settings, data and start have passed all checks.

    Attributes
    ----------
    config, world : what was asked for, and the processes that do it.
    files : where results go.
    data, start : what is learnt from, and the model that learns.
    identity : what makes the numbers of the run.
    state : from which a stopped run goes on.
    resuming : whether this one goes on.
    """

    config: TrainingConfig
    files: RunFiles
    world: World
    data: TrainingData
    start: Start
    identity: Identity
    state: StateFolder
    resuming: bool


def make_plan(config: TrainingConfig, world: World, overwrite: bool, report: Callable[[str], None]) -> Plan:
    """Read data and start, and check all of it; see :func:`escn_calc.training.run.train` for parameters and errors."""
    report("Reading data")
    data = read_data(config)
    report("Loading the model")
    start = make_start(config.model, data.train, config.seed)
    refitted = config.references == "fit"
    check_energy_kind(start, config.card, refitted)
    if refitted and start.origin is not None:
        start = knowing_only(start, elements_of(data.train))
    if refitted or start.origin is None:
        refuse_untrained_elements(data.validation, elements_of(data.train))
    else:
        refuse_unknown_elements(data.validation, start)
    identity = _identity(config, data, start, world)
    files = RunFiles(config.out)
    state = StateFolder(files.state, identity)
    there = state.exists()
    files.check(resumable=there, overwrite=overwrite)
    resuming = there and not overwrite
    if resuming:
        state.check()
    return Plan(config, files, world, data, start, identity, state, resuming)


def _identity(config: TrainingConfig, data: TrainingData, start: Start, world: World) -> Identity:
    """What makes the numbers of a run: a state with another identity is not gone on from."""
    settings = config.model_dump(mode="json", exclude=FREE_TO_CHANGE)
    model = {"start": "none" if start.origin is None else start.origin.sha256}
    processes = {"number": world.size}
    return {"settings": dict(_leaves(settings)), "data": dict(data.hashes), "model": model, "processes": processes}


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values that are not mappings, by their dotted keys."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
