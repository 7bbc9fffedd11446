"""The files, the plot and the table that ``escn md`` leaves behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from escn_calc.cli.outputs import ResultFiles, energy_words
from escn_calc.errors import InputError
from escn_calc.records import versions, write_atomically, write_json
from escn_calc.structure_input import fixed_atoms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

    from escn_calc.checkpoints import ModelCard
    from escn_calc.md import MDResult, MDStep

ENSEMBLE_WORDS = {
    "nve": "NVE (velocity Verlet)",
    "langevin": "NVT (Langevin)",
    "nose-hoover": "NVT (Nosé-Hoover chain)",
    "bussi": "NVT (Bussi)",
    "npt": "NPT (isotropic volume)",
    "npt-anisotropic": "NPT (whole cell)",
}
"""The ensembles of :mod:`escn_calc.md`, which is not imported here: help texts need no integrators."""

Schedule = tuple[float, float, int]
"""Temperatures of a thermostat in K at the start and at the last step, and the number of that step."""

KILLED = "ended without a result, probably killed"

SETTLED_FRACTION = 0.25
"""The first part of a running fit is noise; the scale of its panel is set by what follows."""


@dataclass(frozen=True)
class MDFiles(ResultFiles):
    """Paths of everything one run of molecular dynamics writes."""

    trajectory: Path
    log: Path
    state: Path
    structure: Path
    plot: Path
    record: Path

    @classmethod
    def in_folder(cls, folder: Path, name: str) -> MDFiles:
        """Name the files after the structure."""
        return cls(
            trajectory=folder / f"{name}.traj",
            log=folder / f"{name}.csv",
            state=folder / f"{name}.state.npz",
            structure=folder / f"{name}_last.extxyz",
            plot=folder / f"{name}.png",
            record=folder / f"{name}.json",
        )


class RunRecord:
    """The record of a run: written when there is a first frame, so that a killed run has one too, and at the end.

    Every start and resume is a segment of it.

    Parameters
    ----------
    path : Path
        The JSON file.
    about : dict
        What is run: structure, model, settings.
    command : str
        The command line of this segment.
    resume : bool
        Whether to keep the segments that the file has.

    Raises
    ------
    InputError
        The file to be continued is not a record of ``escn md``.
    """

    def __init__(self, path: Path, about: dict[str, Any], command: str, resume: bool) -> None:
        self._path = path
        self._about = {"command": "escn md", **about}
        self._earlier = _earlier_segments(path) if resume and path.exists() else []
        self._segment: dict[str, Any] = {"command": command, "started": _now(), "versions": versions()}
        self._begun = False

    def begin(self, step: MDStep) -> None:
        """Write that the run goes on from the frame ``step``; later frames change nothing."""
        if not self._begun:
            self._begun = True
            self._segment["first_logged_step"] = step.step
            self._write({"reason": "running"}, {"reason": "running"})

    def finish(self, result: MDResult) -> None:
        """Write how the run ended."""
        ending = {
            "reason": result.reason,
            "last_step": result.steps,
            "finished": _now(),
            "wall_time_s": result.wall_time_s,
            "steps_per_s": result.steps_per_s,
        }
        self._write(ending, _result_record(result))

    def _write(self, ending: dict[str, Any], result: dict[str, Any]) -> None:
        segments = [*self._earlier, {**self._segment, **ending}]
        write_json(self._path, {**self._about, "result": result, "segments": segments})


def write_results(result: MDResult, files: MDFiles, title: str, schedule: Schedule | None) -> None:
    """Write last frame and plot, each complete or not at all.

    Parameters
    ----------
    result : MDResult
        The run.
    files : MDFiles
        Where to write; the log is read.
    title : str
        Title of the plot.
    schedule : Schedule or None
        What the thermostat is to do; None without thermostat.

    Raises
    ------
    InputError
        A file cannot be written; the message names it.
    """
    from ase.io import write

    from escn_calc.md import read_log

    write_atomically(files.structure, lambda path: write(path, result.atoms, format="extxyz"))
    log = read_log(files.log)
    if not len(log["step"]):
        return
    drift = drift_words(result)
    heading = f"{title}\nenergy drift {drift}" if drift else title
    write_atomically(files.plot, lambda path: plot_log(log, len(result.atoms), heading, schedule, path))


def plot_log(log: dict[str, np.ndarray], num_atoms: int, title: str, schedule: Schedule | None, path: Path) -> None:
    """Draw the course of a run into a PNG file: temperature, total energy, and what tells most of its ensemble.

    The third panel is the drift of the total energy at constant energy (``schedule`` is None), the volume where the log
    has one, and otherwise the potential energy.

    Parameters
    ----------
    log : dict of ndarray
        Columns of the log, see :func:`escn_calc.md.read_log`.
    num_atoms : int
        Number of atoms.
    title, schedule
        As in :func:`write_results`.
    path : Path
        The PNG file.
    """
    from matplotlib.figure import Figure

    time_ps = log["time_fs"] / 1000
    total = 1000 * (log["total_eV"] - log["total_eV"][0]) / num_atoms
    style = {"marker": "o" if len(time_ps) < 60 else "", "markersize": 3.0, "linewidth": 1.2}
    figure = Figure(figsize=(6.8, 7.2), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    first, second, third = figure.subplots(3, 1, sharex=True)
    first.plot(time_ps, log["temperature_K"], color="tab:red", **style)
    first.set_ylabel("temperature (K)")
    if schedule is not None:
        start, end, last_step = schedule
        first.plot(time_ps, np.interp(log["step"], [0, last_step], [start, end]), **_reference_line("target"))
        first.legend()
    second.plot(time_ps, total, color="tab:blue", **style)
    second.set_ylabel("total energy − start\n(meV/atom)")
    if schedule is None:
        _plot_drift(third, time_ps, total)
    elif "volume_A3" in log:
        third.plot(time_ps, log["volume_A3"], color="tab:green", **style)
        third.set_ylabel("volume (Å³)")
    else:
        potential = 1000 * (log["potential_eV"] - log["potential_eV"][0]) / num_atoms
        third.plot(time_ps, potential, color="tab:green", **style)
        third.set_ylabel("potential energy − start\n(meV/atom)")
    third.set_xlabel("time (ps)")
    for axes in (first, second, third):
        axes.ticklabel_format(axis="y", useOffset=False)
    figure.savefig(path, format="png", dpi=150)


def running_slope(time: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Slopes of the straight lines fitted to the first 3, 4, ... points.

    Parameters
    ----------
    time, values : ndarray (M,)
        Points, with ascending times.

    Returns
    -------
    ndarray (M - 2,), or (0,) for fewer points
        Slopes in units of ``values`` over those of ``time``.
    """
    count = np.arange(1, len(time) + 1)
    mean_time = np.cumsum(time) / count
    covariance = np.cumsum(time * values) / count - mean_time * np.cumsum(values) / count
    variance = np.cumsum(time**2) / count - mean_time**2
    return np.asarray(covariance[2:] / variance[2:])


def summary_table(result: MDResult, card: ModelCard, how: str, schedule: Schedule | None) -> Table:
    """Lay out the result for the terminal.

    Parameters
    ----------
    result : MDResult
        The run.
    card : ModelCard
        The model.
    how : str
        Ensemble and kind of forces in words.
    schedule : Schedule or None
        What the thermostat was to do; None without thermostat.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Molecular dynamics", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("result", _ending(result))
    if result.message:
        table.add_row("what happened", escape(result.message))
    for note in result.notes:
        table.add_row("[yellow]warning[/yellow]", f"[yellow]{escape(note)}[/yellow]")
    table.add_row("ensemble", how)
    table.add_row("steps", f"{result.steps} ({result.time_ps:g} ps)")
    spread = f"{result.mean_temperature_K:.1f} ± {result.std_temperature_K:.1f} K (mean ± standard deviation)"
    table.add_row("temperature", spread + _target_words(schedule))
    if result.drift is not None:
        table.add_row("energy drift", drift_words(result))
    if result.last.pressure_GPa is not None:
        table.add_row("last pressure", f"{result.last.pressure_GPa:.3f} GPa")
    if result.last.volume is not None:
        table.add_row("last volume", f"{result.last.volume:.2f} Å³")
    table.add_row("potential energy", f"{result.last.potential:.6f} eV (last frame; {energy_words(card.energy_kind)})")
    table.add_row("energy reference", escape(card.energy_reference))
    table.add_row("speed", f"{result.steps_per_s:.3g} steps/s, {result.ns_per_day:.3g} ns/day")
    table.add_row("wall time", f"{result.wall_time_s:.1f} s")
    table.add_row("model", escape(card.name))
    table.add_row("model sha256", card.sha256)
    return table


def drift_words(result: MDResult) -> str:
    """Write the drift of a run, with its error where that is known; empty without drift."""
    if result.drift is None:
        return ""
    error = "" if result.drift_error is None else f" ± {result.drift_error:.2g}"
    return f"{result.drift:+.3g}{error} meV/atom/ps"


def _ending(result: MDResult) -> str:
    words = {
        "finished": "[green]finished[/green]",
        "interrupted": "[yellow]interrupted[/yellow]",
        "exploded": "[red]stopped: exploded[/red]",
        "evaporated": "[red]stopped: atoms evaporated[/red]",
        "failed": "[red]stopped: an evaluation failed[/red]",
    }
    return words[result.reason]


def _target_words(schedule: Schedule | None) -> str:
    if schedule is None:
        return ""
    start, end, _ = schedule
    return f", target {start:g} K" if start == end else f", target {start:g} K to {end:g} K"


def _plot_drift(axes: Axes, time_ps: np.ndarray, total: np.ndarray) -> None:
    slopes = running_slope(time_ps, total)
    axes.set_ylabel("drift, fitted from start\n(meV/atom/ps)")
    axes.axhline(0.0, **_reference_line("no drift"))
    if not len(slopes):
        axes.text(0.5, 0.7, "too few frames to fit a drift", transform=axes.transAxes, ha="center")
        return
    axes.plot(time_ps[2:], slopes, color="tab:purple", linewidth=1.2)
    highest = np.abs(slopes[int(SETTLED_FRACTION * len(slopes)) :]).max()
    if highest > 0:
        axes.set_ylim(-1.3 * highest, 1.3 * highest)
    axes.legend()


def _reference_line(label: str) -> dict[str, Any]:
    return {"linestyle": "--", "linewidth": 1.0, "color": "tab:gray", "label": label}


def _earlier_segments(path: Path) -> list[dict[str, Any]]:
    """Return the segments of a record; one that was running when it was last written has been killed since."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not JSON ({error}); move it away to resume without its record") from error
    if not _is_record(record):
        raise InputError(f"{str(path)!r} is not a record of escn md; choose the --output-dir of the run to resume")
    segments: list[dict[str, Any]] = record["segments"]
    return [{**segment, "reason": KILLED} if segment["reason"] == "running" else segment for segment in segments]


def _is_record(record: object) -> bool:
    if not isinstance(record, dict) or record.get("command") != "escn md":
        return False
    segments = record.get("segments")
    return isinstance(segments, list) and all(isinstance(one, dict) and "reason" in one for one in segments)


def _result_record(result: MDResult) -> dict[str, Any]:
    return {
        "reason": result.reason,
        "message": result.message,
        "finished": result.finished,
        "steps": result.steps,
        "time_ps": result.time_ps,
        "notes": list(result.notes),
        "mean_temperature_K": result.mean_temperature_K,
        "std_temperature_K": result.std_temperature_K,
        "drift_meV_per_atom_per_ps": result.drift,
        "drift_error_meV_per_atom_per_ps": result.drift_error,
        "last": {
            "temperature_K": result.last.temperature_K,
            "potential_eV": result.last.potential,
            "kinetic_eV": result.last.kinetic,
            "total_eV": result.last.total,
            "pressure_GPa": result.last.pressure_GPa,
            "volume_A3": result.last.volume,
        },
        "wall_time_s": result.wall_time_s,
        "steps_per_s": result.steps_per_s,
        "ns_per_day": result.ns_per_day,
        "fixed_atoms": fixed_atoms(result.atoms).tolist(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
