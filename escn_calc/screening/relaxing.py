"""Relaxing tasks in one process, together as far as they fit: what every engine does in the end."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from escn_calc.adsorption.anomalies import Thresholds, stop_on_anomalies
from escn_calc.batch_relaxation import iter_relax_batch
from escn_calc.batch_relaxation.driver import ACTIVE_ATOMS
from escn_calc.errors import CalculationError, ESCNError, InputError, renamed
from escn_calc.familiarity import UnfamiliarAtom, unfamiliar_atoms
from escn_calc.relax_result import EnergyRiseWarning, RelaxResult
from escn_calc.screening.calculators import CalculatorPotential
from escn_calc.screening.config import CalculatorSection, ModelSection
from escn_calc.screening.model import load

if TYPE_CHECKING:
    from escn_calc.potential import Potential
    from escn_calc.screening.tasks import Task

ON_A_CPU = 4
"""Structures that are relaxed together on a CPU: more are no faster, and more are lost with the process."""


class LostError(CalculationError):
    """The processes that relaxed a structure died; it has not been relaxed, and nothing is known of it."""


@dataclass(frozen=True)
class Work:
    """What a process has to know before it can relax tasks.

    Attributes
    ----------
    model : ModelSection or CalculatorSection
        What to load.
    sha256 : str or None
        Of the weights that it must have.
    stop_at : Thresholds or None
        What ends a relaxation early; None for nothing.
    batch_size : int or None
        Structures that are relaxed together; None for what suits the device.
    """

    model: ModelSection | CalculatorSection
    sha256: str | None
    stop_at: Thresholds | None
    batch_size: int | None

    def load(self) -> Potential | CalculatorPotential:
        """Make the model ready, in each process once.

        Raises
        ------
        InputError, CheckpointError, DownloadError
            It cannot be loaded here, or is another one than where the campaign was planned.
        """
        potential = load(self.model)
        here = None if isinstance(potential, CalculatorPotential) else potential.card.sha256
        if here != self.sha256:
            raise InputError(
                f"the weights of the model have the sha256 {here} here, and {self.sha256} where the campaign was "
                "planned; give every machine the same file"
            )
        return potential

    def together(self, device: str) -> int | None:
        """Structures that are relaxed together on a device; None for as many as have ``ACTIVE_ATOMS`` atoms."""
        if self.batch_size is not None:
            return self.batch_size
        if isinstance(self.model, CalculatorSection):
            return 1
        return None if device == "cuda" else ON_A_CPU


@dataclass(frozen=True, eq=False)
class Ended:
    """A task that has ended.

    Attributes
    ----------
    task : Task
    end : RelaxResult or ESCNError
        How; an error if the structure could not be evaluated even once.
    versions : dict
        Of the software that relaxed it.
    unfamiliar : tuple of UnfamiliarAtom
        Atoms of the last frame that the model does not know the like of; empty where that cannot be judged.
    """

    task: Task
    end: RelaxResult | ESCNError
    versions: dict[str, str]
    unfamiliar: tuple[UnfamiliarAtom, ...] = ()

    @property
    def state(self) -> str:
        """``"converged"``, ``"step limit"``, ``"stopped"`` or ``"failed"``."""
        return "failed" if isinstance(self.end, ESCNError) else self.end.reason

    @property
    def message(self) -> str:
        """What failed, or why it was stopped; else empty."""
        words = str(self.end) if isinstance(self.end, ESCNError) else self.end.message
        return renamed(words, self.task.name)


class Relaxed(NamedTuple):
    """The place of a task among those that were given, and what :class:`Ended` says of it."""

    place: int
    end: RelaxResult | ESCNError
    unfamiliar: tuple[UnfamiliarAtom, ...]


def relax_tasks(tasks: Sequence[Task], work: Work) -> Iterator[Relaxed]:
    """Relax tasks and yield each when it has ended.

    Raises
    ------
    InputError, CheckpointError, DownloadError
        The model cannot be loaded.
    KeyboardInterrupt
        Ctrl-C; what was under way is not yielded.
    """
    potential = work.load()
    places = sorted(range(len(tasks)), key=lambda place: _alike(tasks[place]))
    for (kind, _), group in groupby(places, key=lambda place: _alike(tasks[place])):
        members = list(group)
        settings = tasks[members[0]].settings
        callbacks = [stop_on_anomalies(work.stop_at)] if kind == "adslab" and work.stop_at is not None else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EnergyRiseWarning)  # the notes of every result say it
            for index, end in iter_relax_batch(
                [tasks[place].atoms for place in members],
                potential,  # type: ignore[arg-type]  # a calculator has what is needed of a potential
                optimizer=settings.optimizer,
                fmax=settings.fmax,
                steps=settings.steps,
                cell=settings.cell,
                smax=settings.smax,
                callbacks=callbacks,
                max_active=1 if kind == "bulk" else work.together(potential.device),
            ):
                if isinstance(end, ESCNError):
                    yield Relaxed(members[index], end, ())
                elif end.reason != "interrupted":
                    yield _judged(members[index], end, kind, potential)


def batches(tasks: Sequence[Task], together: int | None) -> Iterator[list[Task]]:
    """Divide tasks into what is relaxed together.

    Bulks are relaxed alone, so that lattices, and with them all structures, do not depend on the division.

    Parameters
    ----------
    tasks : sequence of Task
    together : int or None
        So many; None for as many as have ``ACTIVE_ATOMS`` atoms.
    """
    batch: list[Task] = []
    for task in tasks:
        is_full = len(batch) == together if together is not None else _atoms(batch) >= ACTIVE_ATOMS
        if batch and (is_full or task.kind == "bulk" or _alike(task) != _alike(batch[0])):
            yield batch
            batch = []
        batch.append(task)
    if batch:
        yield batch


def _judged(place: int, end: RelaxResult, kind: str, potential: Potential | CalculatorPotential) -> Relaxed:
    """Ask the model whether it knows the like of a relaxed slab with adsorbate."""
    if kind != "adslab" or isinstance(potential, CalculatorPotential):
        return Relaxed(place, end, ())
    try:
        found = unfamiliar_atoms(potential, [end.atoms])
    except ESCNError as error:
        return Relaxed(
            place, replace(end, notes=(*end.notes, f"not known whether its atoms are familiar: {error}")), ()
        )
    return Relaxed(place, end, () if found is None else found[0])


def _alike(task: Task) -> tuple[str, str]:
    """Tasks of which this is the same can be relaxed by one call."""
    return task.kind, repr(task.settings)


def _atoms(tasks: Sequence[Task]) -> int:
    return sum(len(task.atoms) for task in tasks)
