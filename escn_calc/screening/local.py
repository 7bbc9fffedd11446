"""The engine of one process on one device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from escn_calc.records import versions
from escn_calc.screening.cost import Speed, measured_speed
from escn_calc.screening.relaxing import Ended, Work, relax_tasks

if TYPE_CHECKING:
    from escn_calc.screening.tasks import Task


class Engine(Protocol):
    """Where tasks are relaxed."""

    @property
    def words(self) -> str:
        """Where, for people and records."""

    @property
    def workers(self) -> int:
        """How many processes relax at the same time."""

    def speed(self, tasks: Sequence[Task]) -> Speed:
        """Time a few evaluations."""

    def relax(self, tasks: Sequence[Task]) -> Iterator[Ended]:
        """Relax tasks and yield each when it has ended, in any order."""


@dataclass(frozen=True)
class LocalEngine:
    """The process that runs the campaign.

    Attributes
    ----------
    work : Work
        What relaxes.
    """

    work: Work

    @property
    def words(self) -> str:
        """Where, for people and records."""
        return "this process"

    @property
    def workers(self) -> int:
        """How many processes relax at the same time."""
        return 1

    def speed(self, tasks: Sequence[Task]) -> Speed:
        """Time a few evaluations.

        Raises
        ------
        InputError, CheckpointError, DownloadError
            The model cannot be loaded.
        CalculationError
            A structure cannot be evaluated.
        """
        potential = self.work.load()
        return measured_speed(potential, tasks, self.work.together(potential.device))

    def relax(self, tasks: Sequence[Task]) -> Iterator[Ended]:
        """Relax tasks and yield each when it has ended, in any order.

        Raises
        ------
        InputError, CheckpointError, DownloadError
            The model cannot be loaded.
        KeyboardInterrupt
            Ctrl-C; what was under way is lost.
        """
        used = versions()
        for place, end, unfamiliar in relax_tasks(tasks, self.work):
            yield Ended(tasks[place], end, used, unfamiliar)
