"""What a training run shows of itself: a table, curves, and scalars for TensorBoard where that is installed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escn_calc.errors import InputError
from escn_calc.records import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class LogRow:
    """One validation, with the names and units of the columns of ``log.csv``; None where nothing is labelled.

    Losses and errors of the training data are means over the steps since the last row, before each of them; those of
    the validation data belong to the averaged weights.
    """

    step: int
    epoch: int
    seconds: float
    learning_rate: float
    train_loss: float | None
    train_energy_mae_eV_per_atom: float | None  # noqa: N815
    train_force_mae_eV_per_A: float | None  # noqa: N815
    validation_loss: float | None
    validation_energy_mae_eV_per_atom: float | None  # noqa: N815
    validation_force_mae_eV_per_A: float | None  # noqa: N815
    validation_stress_mae_eV_per_A3: float | None  # noqa: N815


COLUMNS = tuple(field.name for field in fields(LogRow))
WHOLE_NUMBERS = ("step", "epoch")


class TrainingLog:
    """The table of a run, one row a validation; every row is in the file as soon as it is there.

    Parameters
    ----------
    path : Path
        The CSV file; made if there is none.
    epoch : int
        Epochs that the run had done at its last validation; later rows belong to a future that did not happen, because
        the run was killed before its state was saved, and are removed.

    Attributes
    ----------
    rows : list of LogRow
        All rows in the file.

    Raises
    ------
    InputError
        The file is there, but not such a table, or cannot be written.
    """

    def __init__(self, path: Path, epoch: int) -> None:
        self.path = path
        found = read_log(path) if path.exists() else []
        self.rows = [row for row in found if row.epoch <= epoch]
        write_atomically(path, lambda unfinished: _write_table(unfinished, self.rows))

    def append(self, row: LogRow) -> None:
        """Add a row."""
        self.rows.append(row)
        with self.path.open("a", encoding="ascii", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(_cells(row))


def read_log(path: Path) -> list[LogRow]:
    """Read the table of a run; a last line that is not complete, because the run was killed there, is left out.

    Raises
    ------
    InputError
        The file cannot be read, or is not such a table.
    """
    try:
        text = path.read_text(encoding="ascii")
        complete = text[: text.rfind("\n") + 1]
        names, *lines = list(csv.reader(complete.splitlines())) or [[]]
        if tuple(names) != COLUMNS:
            raise InputError(f"{str(path)!r} is not the log of a training run: its first line has other columns")
        return [_row(line) for line in lines]
    except OSError as error:
        raise InputError(f"cannot read the log {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} is not the log of a training run: {error}") from error


def plot_curves(rows: Sequence[LogRow], title: str, path: Path) -> None:
    """Draw loss, errors and learning rate against the epoch into a PNG file, the best validation marked.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    write_atomically(path, lambda unfinished: _draw(rows, title, unfinished))


class Scalars:
    """Scalars for TensorBoard; does nothing where TensorBoard is not installed.

    Parameters
    ----------
    folder : Path
        Where the event files go.
    step : int
        Number of steps that the run has done; what an earlier process wrote beyond is hidden.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, row: LogRow) -> None:
        """Write all numbers of a row."""
        if self._writer is None:
            return
        for name, value in zip(COLUMNS, astuple(row), strict=True):
            if value is not None and name != "step":
                self._writer.add_scalar(name, value, row.step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


def _write_table(path: Path, rows: Sequence[LogRow]) -> None:
    with path.open("w", encoding="ascii", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(_cells(row) for row in rows)


def _cells(row: LogRow) -> list[str]:
    return ["" if value is None else repr(value) for value in astuple(row)]


def _row(cells: Sequence[str]) -> LogRow:
    values: dict[str, Any] = {}
    for name, cell in zip(COLUMNS, cells, strict=True):
        values[name] = None if cell == "" else int(cell) if name in WHOLE_NUMBERS else float(cell)
    return LogRow(**values)


def _draw(rows: Sequence[LogRow], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    panels = [panel for panel in _PANELS if any(_series(rows, name) for name in panel[1])]
    figure = Figure(figsize=(6.8, 2.3 * len(panels) + 0.6), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    best = _best(rows)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, names) in zip(all_axes, panels, strict=True):
        for name in names:
            _plot(axes, rows, name)
        if best is not None:
            axes.axvline(best.epoch, color="tab:green", linestyle=":", linewidth=1.2, label=f"best: epoch {best.epoch}")
        axes.set_ylabel(label)
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    all_axes[0].legend(fontsize="small")
    all_axes[-1].set_xlabel("epoch")
    figure.savefig(path, format="png", dpi=150)


_PANELS = (
    ("loss", ("train_loss", "validation_loss")),
    ("energy MAE\n(eV/atom)", ("train_energy_mae_eV_per_atom", "validation_energy_mae_eV_per_atom")),
    ("force MAE\n(eV/Å)", ("train_force_mae_eV_per_A", "validation_force_mae_eV_per_A")),
    ("stress MAE\n(eV/Å³)", ("validation_stress_mae_eV_per_A3",)),
    ("learning rate", ("learning_rate",)),
)


def _plot(axes: Axes, rows: Sequence[LogRow], name: str) -> None:
    points = _series(rows, name)
    part = name.split("_")[0]
    colour = {"train": "tab:blue", "validation": "tab:orange"}.get(part, "tab:gray")
    label = {"train": "training", "validation": "validation (averaged weights)"}.get(part)
    marker = "o" if len(points) < 60 else ""
    axes.plot(*zip(*points, strict=True), color=colour, label=label, marker=marker, markersize=3, linewidth=1.2)


def _series(rows: Sequence[LogRow], name: str) -> list[tuple[int, float]]:
    """Epochs and positive values of a column; a logarithm has no place for others."""
    pairs = [(row.epoch, getattr(row, name)) for row in rows]
    return [(epoch, value) for epoch, value in pairs if value is not None and value > 0]


def _best(rows: Sequence[LogRow]) -> LogRow | None:
    measured = [row for row in rows if row.validation_loss is not None]
    return min(measured, key=lambda row: row.validation_loss or 0.0, default=None)
