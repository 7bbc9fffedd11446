"""The files and the table that ``escn relax`` leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import units

from escn_calc.cli.outputs import ResultFiles, energy_words
from escn_calc.records import write_atomically, write_json
from escn_calc.relax_result import CellStep

if TYPE_CHECKING:
    from rich.table import Table

    from escn_calc.checkpoints import ModelCard
    from escn_calc.relax_result import RelaxResult


CUBIC_LATTICES = {"CUB": "primitive cubic", "FCC": "face-centred cubic", "BCC": "body-centred cubic"}
"""Bravais lattices of one length, as ASE names them."""


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
    result: RelaxResult, card: ModelCard, fmax: float, smax: float, files: OutputFiles, record: dict[str, Any]
) -> None:
    """Write final structure, plot and record, each complete or not at all.

    Parameters
    ----------
    result : RelaxResult
        The relaxation.
    card : ModelCard
        The model, for the kind of energy.
    fmax, smax : float
        The largest force (eV/Å) and, if the cell relaxed, stress (eV/Å³) below which the relaxation was to end.
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
    write_atomically(files.plot, lambda path: plot_history(result, card.energy_kind, fmax, smax, path))
    write_json(files.record, record)


def cell_record(result: RelaxResult) -> dict[str, Any] | None:
    """Describe a relaxed cell for the record; None if the cell was fixed."""
    last = result.history[-1]
    if not isinstance(last, CellStep):
        return None
    parameters = result.atoms.cell.cellpar().tolist()
    return {
        "lengths_angstrom": parameters[:3],
        "angles_degree": parameters[3:],
        "volume_angstrom3": last.volume,
        "smax_eV_per_angstrom3": last.smax,
        "stress_eV_per_angstrom3": list(last.stress),
        "enthalpy_eV": last.enthalpy,
    }


def plot_history(result: RelaxResult, energy_kind: str, fmax: float, smax: float, path: Path) -> None:
    """Draw energy (eV), largest force (eV/Å) and, if the cell relaxed, stress (eV/Å³) against the step, as PNG.

    Force and stress are drawn on a logarithmic scale, with the value below which the relaxation was to end.
    """
    from matplotlib.figure import Figure

    curves = [([step.fmax for step in result.history], fmax, "largest force", "eV/Å", "tab:red")]
    stresses = [step.smax for step in result.history if isinstance(step, CellStep)]
    if stresses:
        curves.append((stresses, smax, "largest stress", "eV/Å³", "tab:green"))
    index = [step.index for step in result.history]
    marker = "o" if len(index) < 60 else ""
    figure = Figure(figsize=(6.4, 2.8 * (1 + len(curves))), layout="constrained")
    top, *below = figure.subplots(1 + len(curves), 1, sharex=True)
    top.plot(index, [step.energy for step in result.history], marker=marker, markersize=3, color="tab:blue")
    top.set_ylabel(f"{energy_words(energy_kind)} (eV)")
    top.ticklabel_format(axis="y", useOffset=False)
    for axes, (values, threshold, what, unit, colour) in zip(below, curves, strict=True):
        axes.plot(index, values, marker=marker, markersize=3, color=colour)
        axes.set_yscale("log" if max(values) > 0 else "linear")  # symmetry may leave no force at all
        label = f"converged below {threshold:g} {unit}"
        axes.axhline(threshold, linestyle="--", linewidth=1, color="tab:gray", label=label)
        axes.legend()
        axes.set_ylabel(f"{what} ({unit})")
    below[-1].set_xlabel("optimiser step")
    below[-1].xaxis.get_major_locator().set_params(integer=True)
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
    if result.energy_above_lowest > 5e-7:
        table.add_row("above the lowest", f"{result.energy_above_lowest:.6f} eV (step {result.lowest.index})")
    table.add_row("energy reference", escape(card.energy_reference))
    table.add_row("largest force", f"{result.fmax:.4f} eV/Å (after constraints)")
    for name, value in _cell_rows(result):
        table.add_row(name, value)
    table.add_row("largest displacement", f"{result.max_displacement:.4f} Å")
    table.add_row("wall time", f"{result.wall_time_s:.1f} s")
    table.add_row("model", escape(card.name))
    table.add_row("model sha256", card.sha256)
    return table


def _cell_rows(result: RelaxResult) -> list[tuple[str, str]]:
    """Say what became of the cell; nothing if it was fixed."""
    first, last = result.history[0], result.history[-1]
    if not (isinstance(first, CellStep) and isinstance(last, CellStep)):
        return []
    a, b, c, alpha, beta, gamma = result.atoms.cell.cellpar()
    rows = [
        ("largest stress", f"{last.smax:.6f} eV/Å³ ({last.smax / units.GPa:.4f} GPa; of what the cell can relax)"),
        ("stress before", _stress_words(first)),
        ("stress after", _stress_words(last)),
        ("cell", f"{a:.4f} {b:.4f} {c:.4f} Å, {alpha:.3f} {beta:.3f} {gamma:.3f}°"),
        ("volume", f"{last.volume:.4f} Å³ ({100 * (last.volume / first.volume - 1):+.3f} %)"),
    ]
    if last.enthalpy != last.energy:
        rows.insert(0, ("enthalpy", f"{last.enthalpy:.6f} eV (energy plus pressure times volume)"))
    lattice = result.atoms.cell.get_bravais_lattice()
    if lattice.name in CUBIC_LATTICES:
        rows.append(("cubic lattice constant", f"{lattice.a:.4f} Å ({CUBIC_LATTICES[lattice.name]} cell)"))
    return rows


def _stress_words(step: CellStep) -> str:
    components = " ".join(f"{component / units.GPa:.3f}" for component in step.stress)
    return f"{components} GPa (xx yy zz yz xz xy, positive under tension)"


def _ending(result: RelaxResult) -> str:
    words = {
        "converged": "[green]converged[/green]",
        "step limit": "[yellow]not converged: step limit reached[/yellow]",
        "stopped": "[yellow]not converged: stopped[/yellow]",
        "interrupted": "[yellow]not converged: interrupted[/yellow]",
        "failed": "[red]not converged: an evaluation failed[/red]",
    }
    return words[result.reason]
