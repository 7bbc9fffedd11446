"""The files and the table that ``escn relax`` leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escn_calc.cli.outputs import ResultFiles, energy_words, write_atomically, write_json

if TYPE_CHECKING:
    from rich.table import Table

    from escn_calc.checkpoints import ModelCard
    from escn_calc.relax import RelaxResult


@dataclass(frozen=True)
class OutputFiles(ResultFiles):
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

    write_atomically(files.structure, lambda path: write(path, result.atoms, format="extxyz"))
    write_atomically(files.plot, lambda path: plot_history(result, card.energy_kind, threshold, path))
    write_json(files.record, record)


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
