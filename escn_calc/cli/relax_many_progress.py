"""Progress of ``escn relax`` on many structures: a bar in a terminal, lines now and then anywhere else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

LINES_PER_RUN = 20
LONGEST_SILENCE_S = 60.0


class Tally:
    """How many relaxations ended in which way, and how fast.

    Parameters
    ----------
    total : int
        Number of structures.
    states : iterable of str
        States of those that were finished before; they do not count for the speed.
    """

    def __init__(self, total: int, states: Iterable[str]) -> None:
        self.total = total
        self._states = Counter(states)
        self._before = self.finished
        self._began = time.perf_counter()

    def add(self, state: str) -> None:
        """Count one more."""
        self._states[state] += 1

    @property
    def finished(self) -> int:
        """Number of relaxations that have ended in any way."""
        return self._states.total()

    @property
    def converged(self) -> int:
        """Number of those that converged."""
        return self._states["converged"]

    @property
    def failed(self) -> int:
        """Number of those that failed."""
        return self._states["failed"]

    @property
    def seconds(self) -> float:
        """Time since this run began, in s."""
        return time.perf_counter() - self._began

    @property
    def per_second(self) -> float:
        """Structures finished per second since this run began."""
        return (self.finished - self._before) / max(self.seconds, 1e-9)

    @property
    def remaining(self) -> str:
        """Time left at this speed, as hours, minutes and seconds; empty while nothing is known."""
        if self.finished == self._before:
            return ""
        minutes, seconds = divmod(round((self.total - self.finished) / self.per_second), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


@contextmanager
def progress_display(console: Console, tally: Tally) -> Iterator[Callable[[], None]]:
    """Show how many structures are finished, converged and failed, structures per second and the time that is left.

    Yields
    ------
    callable
        To be called after every structure.
    """
    if not console.is_terminal:
        yield Lines(console, tally)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), console=console) as bar:
        yield MovingBar(bar, tally)


class MovingBar:
    """One line that changes."""

    def __init__(self, bar: Bar, tally: Tally) -> None:
        self._bar, self._tally = bar, tally
        self._task = bar.add_task("", total=tally.total)
        self()

    def __call__(self) -> None:
        """Move the bar."""
        tally = self._tally
        words = f"{tally.converged} converged  {tally.failed} failed"
        if tally.remaining:
            words += f"  {tally.per_second:.3g} structures/s  {tally.remaining} left"
        self._bar.update(self._task, completed=tally.finished, description=words)


class Lines:
    """A table that grows by a line now and then."""

    def __init__(self, console: Console, tally: Tally) -> None:
        self._console, self._tally = console, tally
        self._printed = tally.finished, 0.0
        self._print("structures", "converged", "failed", "structures/s", "time left")

    def __call__(self) -> None:
        """Print a line if it is time to."""
        tally = self._tally
        finished, seconds = self._printed
        due = (tally.finished - finished) * LINES_PER_RUN >= tally.total or tally.finished == tally.total
        if due or tally.seconds - seconds > LONGEST_SILENCE_S:
            self._printed = tally.finished, tally.seconds
            of_all = f"{tally.finished}/{tally.total}"
            self._print(of_all, str(tally.converged), str(tally.failed), f"{tally.per_second:.3g}", tally.remaining)

    def _print(self, *cells: str) -> None:
        widths = (13, 11, 8, 14, 11)
        line = "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        self._console.print(line.rstrip(), soft_wrap=True, highlight=False)
