"""The files and the table that ``escn relax`` leaves behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escn_calc.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from escn_calc.checkpoints import ModelCard
    from escn_calc.relax import RelaxResult


@dataclass(frozen=True)
class OutputFiles:
    """Paths of everything one relaxation writes."""

    trajectory: Path
    structure: Path
    plot: Path
    record: Path

    @classmethod
    def in_folder(cls, folder: Path, name: str) -> OutputFiles:
        """Name the files after the structure."""
        return cls(
            trajectory=folder / f"{name}.traj",
            structure=folder / f"{name}_relaxed.extxyz",
            plot=folder / f"{name}.png",
            record=folder / f"{name}.json",
        )

    def existing(self) -> list[Path]:
        """List the files that are there already."""
        return [path for path in (self.trajectory, self.structure, self.plot, self.record) if path.exists()]

    def check(self, source: Path, overwrite: bool) -> None:
        """Make sure that neither the structure file nor a result of another run would be lost.

        Parameters
        ----------
        source : Path
            File with the structure to relax.
        overwrite : bool
            Whether results of another run may be replaced.

        Raises
        ------
        InputError
            One of the files is ``source``, or it exists and ``overwrite`` is false.
        """
        existing = self.existing()
        for path in existing:
            if source.exists() and path.samefile(source):
                raise InputError(
                    f"the result {str(path)!r} would replace the structure file {str(source)!r}; "
                    "choose another --output-dir"
                )
        if existing and not overwrite:
            raise InputError(f"{str(existing[0])!r} exists; choose another --output-dir, or give --overwrite")

    def make_room(self) -> None:
        """Make the folder and remove the files of an earlier run, so that results of two runs never mix.

        Raises
        ------
        InputError
            The folder cannot be made or changed.
        """
        folder = self.trajectory.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in self.existing():
                path.unlink()
        except OSError as error:
            raise InputError(f"cannot write to the folder {str(folder)!r}: {error.strerror}") from error


def write_results(
    result: RelaxResult, card: ModelCard, threshold: float, files: OutputFiles, record: dict[str, Any]
) -> None:
    """Write final structure, plot and record, each complete or not at all.

    Parameters
    ----------
    result : RelaxResult
        The relaxation.
    card : ModelCard
        The model, for the kind of energy.
    threshold : float
        The largest force, in eV/Å, below which the relaxation was to end.
    files : OutputFiles
        Where to write.
    record : dict
        What was run and what came out; written as JSON.

    Raises
    ------
    InputError
        A file cannot be written; the message names it.
    """
    from ase.io import write

    _atomically(files.structure, lambda path: write(path, result.atoms, format="extxyz"))
    _atomically(files.plot, lambda path: plot_history(result, card.energy_kind, threshold, path))
    _atomically(files.record, lambda path: path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8"))


def plot_history(result: RelaxResult, energy_kind: str, threshold: float, path: Path) -> None:
    """Draw energy (eV) and fmax (eV/Å, logarithmic, with the threshold) against the step into a PNG file."""
    from matplotlib.figure import Figure

    index = [step.index for step in result.history]
    marker = "o" if len(index) < 60 else ""
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(index, [step.energy for step in result.history], marker=marker, markersize=3, color="tab:blue")
    above.set_ylabel(f"{energy_words(energy_kind)} (eV)")
    above.ticklabel_format(axis="y", useOffset=False)
    below.semilogy(index, [step.fmax for step in result.history], marker=marker, markersize=3, color="tab:red")
    below.axhline(threshold, linestyle="--", linewidth=1, color="tab:gray", label=f"converged below {threshold:g} eV/Å")
    below.legend()
    below.set_ylabel("largest force (eV/Å)")
    below.set_xlabel("optimiser step")
    below.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, format="png", dpi=150)


def energy_words(kind: str) -> str:
    """Name a kind of energy for people."""
    return {"adsorption": "adsorption energy", "total": "total energy"}.get(kind, "energy (kind unknown)")


def summary_table(result: RelaxResult, card: ModelCard) -> Table:
    """Lay out the result for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Relaxation", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("result", _ending(result))
    for note in result.notes:
        table.add_row("[yellow]warning[/yellow]", f"[yellow]{escape(note)}[/yellow]")
    table.add_row("steps", str(result.steps))
    table.add_row(energy_words(card.energy_kind), f"{result.energy:.6f} eV")
    table.add_row("energy change", f"{result.energy_change:+.6f} eV (last minus first)")
    table.add_row("energy reference", escape(card.energy_reference))
    table.add_row("largest force", f"{result.fmax:.4f} eV/Å (after constraints)")
    table.add_row("largest displacement", f"{result.max_displacement:.4f} Å")
    table.add_row("wall time", f"{result.wall_time_s:.1f} s")
    table.add_row("model", escape(card.name))
    table.add_row("model sha256", card.sha256)
    return table


def _ending(result: RelaxResult) -> str:
    words = {
        "converged": "[green]converged[/green]",
        "step limit": "[yellow]not converged: step limit reached[/yellow]",
        "interrupted": "[yellow]not converged: interrupted[/yellow]",
        "failed": "[red]not converged: an evaluation failed[/red]",
    }
    return words[result.reason]


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
