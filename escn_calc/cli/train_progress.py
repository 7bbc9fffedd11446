"""Progress of ``escn train``: a bar in a terminal, and one line a validation everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from escn_calc.training.callbacks import Callback

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from escn_calc.training.callbacks import StepReport, ValidationReport
    from escn_calc.training.state import Progress

WIDTHS = (6, 8, 12, 12, 20, 16, 12)


class Display(Callback):
    """What a run shows while it goes on.

    Parameters
    ----------
    console : Console
        Where lines are printed.
    bar : rich.progress.Progress or None
        Bar to be moved; None where there is no terminal.
    epochs : int
        Of the whole run.
    """

    def __init__(self, console: Console, bar: Bar | None, epochs: int) -> None:
        self._console, self._bar, self._epochs = console, bar, epochs
        self._structures, self._first = 0, (0, 0.0)

    def on_start(self, progress: Progress, batches: int) -> None:
        """Print the head of the table."""
        self._first = (progress.step, progress.seconds)
        if progress.step:
            self._console.print(f"Going on at step {progress.step}, epoch {progress.epoch} of {self._epochs}")
        self._print("epoch", "step", "train loss", "valid. loss", "energy MAE / eV/atom", "force MAE / eV/Å", "s/step")
        if self._bar is not None:
            self._task = self._bar.add_task("first step", total=self._epochs)
            self._bar.update(self._task, completed=progress.epoch + progress.batch / batches)

    def on_step(self, report: StepReport) -> None:
        """Move the bar."""
        self._structures += report.structures
        if self._bar is None:
            return
        seconds = report.seconds - self._first[1]
        words = f"loss {report.loss:.4g}  {self._pace(report.step, report.seconds)} s/step  "
        words += f"{self._structures / max(seconds, 1e-9):.3g} structures/s"
        self._bar.update(self._task, completed=report.epoch + report.batch / report.batches, description=words)

    def on_validation(self, report: ValidationReport) -> None:
        """Print a line."""
        train, validation = report.train, report.validation
        self._print(
            str(report.epoch),
            str(report.step),
            _number(train.get("loss")),
            _number(validation.get("loss")) + ("*" if report.improved else " "),
            _number(validation.get("energy_mae_per_atom")),
            _number(validation.get("force_mae")),
            self._pace(report.step, report.seconds),
        )

    def _pace(self, step: int, seconds: float) -> str:
        steps = step - self._first[0]
        return f"{(seconds - self._first[1]) / steps:.3g}" if steps else ""

    def _print(self, *cells: str) -> None:
        line = "".join(cell.rjust(width + 1) for cell, width in zip(cells, WIDTHS, strict=True))
        self._console.print(line.rstrip(), soft_wrap=True, highlight=False)


@contextmanager
def training_display(console: Console, epochs: int) -> Iterator[Display]:
    """Show loss, seconds a step, structures a second and the time that is left; the best validation has a star."""
    if not console.is_terminal:
        yield Display(console, None, epochs)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    numbers = TextColumn("epoch {task.completed:.1f}/{task.total:.0f}  {task.description}")
    columns = (BarColumn(), numbers, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        yield Display(console, bar, epochs)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
