"""Progress of ``escn md``: a bar in a terminal, lines now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from escn_calc.md import MDStep

LINES_PER_RUN = 20
LONGEST_SILENCE_S = 60.0

Report = Callable[["MDStep"], None]


@contextmanager
def progress_display(console: Console, steps: int, timestep_fs: float) -> Iterator[Report]:
    """Show how far a run is: temperature, total energy, steps per second and ns per day.

    Parameters
    ----------
    console : Console
        A bar is drawn if it is a terminal. Otherwise a line is printed at the first and at the last frame, every
        twentieth of the run, and after a minute without one.
    steps : int
        Number of steps of the whole run.
    timestep_fs : float
        Length of a step in fs.

    Yields
    ------
    callable
        To be called with the ``MDStep`` of every logged frame.
    """
    speedometer = Speedometer(timestep_fs)
    if not console.is_terminal:
        yield Lines(console, steps, speedometer)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("first step", total=steps, start=False)

        def report(step: MDStep) -> None:
            speed = speedometer(step)
            words = "" if speed is None else f"  {speed[0]:.3g} steps/s  {speed[1]:.3g} ns/day"
            bar.start_task(task)
            bar.update(task, completed=step.step, description=f"{step.temperature_K:.0f} K  {step.total:.4f} eV{words}")

        yield report


class Speedometer:
    """Mean speed since the first frame it has seen."""

    def __init__(self, timestep_fs: float) -> None:
        self._fs = timestep_fs
        self._first: tuple[int, float] | None = None

    def __call__(self, step: MDStep) -> tuple[float, float] | None:
        """Return steps per second and ns per day; None at the first frame."""
        now = time.perf_counter()
        if self._first is None:
            self._first = (step.step, now)
            return None
        per_second = (step.step - self._first[0]) / (now - self._first[1])
        return per_second, per_second * self._fs * 1e-6 * 86400


class Lines:
    """A table that grows by a line now and then."""

    def __init__(self, console: Console, steps: int, speedometer: Speedometer) -> None:
        self._console, self._steps, self._speedometer = console, steps, speedometer
        self._printed: tuple[int, float] | None = None

    def __call__(self, step: MDStep) -> None:
        """Print the frame if it is time to."""
        speed = self._speedometer(step)
        if self._is_due(step.step):
            if self._printed is None:
                self._print("step", "time / ps", "T / K", "total energy / eV", "steps/s", "ns/day")
            rates = ("", "") if speed is None else (f"{speed[0]:.3g}", f"{speed[1]:.3g}")
            self._print(
                str(step.step), f"{step.time_fs / 1000:g}", f"{step.temperature_K:.1f}", f"{step.total:.6f}", *rates
            )
            self._printed = (step.step, time.perf_counter())

    def _is_due(self, step: int) -> bool:
        if self._printed is None or step == self._steps:
            return True
        last_step, last_time = self._printed
        return (step - last_step) * LINES_PER_RUN >= self._steps or time.perf_counter() - last_time > LONGEST_SILENCE_S

    def _print(self, *cells: str) -> None:
        widths = (8, 10, 9, 19, 9, 9)
        line = "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        self._console.print(line.rstrip(), soft_wrap=True)
