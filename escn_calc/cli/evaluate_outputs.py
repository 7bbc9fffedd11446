"""The files and the tables that ``escn evaluate`` leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escn_calc.cli.outputs import ResultFiles, energy_words
from escn_calc.records import write_atomically, write_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from escn_calc.checkpoints import ModelCard
    from escn_calc.evaluation import Metrics, Report
    from escn_calc.evaluation.tables import ElementRow, GroupRow

GROUPS_SHOWN = 10


@dataclass(frozen=True)
class EvaluationFiles(ResultFiles):
    """Paths of everything one evaluation writes."""

    metrics: Path
    errors: Path
    parity: Path

    @classmethod
    def in_folder(cls, folder: Path) -> EvaluationFiles:
        """Name the files after what they hold."""
        return cls(metrics=folder / "metrics.json", errors=folder / "errors.csv", parity=folder / "parity.png")


def write_results(report: Report, card: ModelCard, files: EvaluationFiles, record: dict[str, Any]) -> None:
    """Write plot, table of structures and record, each complete or not at all, the record last.

    Parameters
    ----------
    report : Report
        The evaluation.
    card : ModelCard
        The model, for the kind of energy.
    files : EvaluationFiles
        Where to write; files of an earlier run are removed first.
    record : dict
        What was run and what came out; written as JSON.

    Raises
    ------
    InputError
        A file cannot be written; the message names it.
    """
    from escn_calc.evaluation.plots import plot_parity
    from escn_calc.evaluation.tables import write_structure_table

    words = energy_words(card.energy_kind)
    if report.energy_reference != "as-is":
        words = f"{words}, {report.energy_reference}"
    files.make_room()
    write_atomically(files.parity, lambda path: plot_parity(report.comparisons, words, path))
    write_atomically(files.errors, lambda path: write_structure_table(report.comparisons, path))
    write_json(files.metrics, record)


def print_report(report: Report, card: ModelCard, console: Console) -> None:
    """Show the metrics of all structures, of the elements and of the worst groups."""
    console.print(overall_table(report, card))
    console.print(element_table(report.elements))
    if len(report.groups) > 1:
        console.print(group_table(report.groups))


def overall_table(report: Report, card: ModelCard) -> Table:
    """Lay out the metrics of all structures, without those that do not apply."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Evaluation", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for note in report.notes:
        table.add_row("[yellow]note[/yellow]", f"[yellow]{escape(note)}[/yellow]")
    for name, value in _metric_rows(report.overall):
        table.add_row(name, value)
    table.add_row("energy", f"{energy_words(card.energy_kind)}, compared {report.energy_reference}")
    table.add_row("energy reference", escape(card.energy_reference))
    per_second = report.overall.structures / report.seconds
    table.add_row("wall time", f"{report.seconds:.1f} s, {per_second:.3g} structures/s")
    table.add_row("model", escape(card.name))
    table.add_row("model sha256", card.sha256)
    return table


def _metric_rows(metrics: Metrics) -> list[tuple[str, str]]:
    """Name and value of the metrics that apply."""
    rows = [("structures", str(metrics.structures))]
    if metrics.energy_mae is not None:
        rows.append(("energy MAE", f"{metrics.energy_mae:.4f} eV ({metrics.structures_with_energy} structures)"))
        rows.append(("energy MAE per atom", f"{_number(metrics.energy_mae_per_atom, 5)} eV/atom"))
        rows.append(("energy mean error", f"{metrics.energy_mean_error:+.4f} eV"))
        rows.append(("EwT", f"{_percent(metrics.energy_within_threshold)} (|ΔE| < 0.02 eV)"))
    if metrics.average_energy_within_threshold is not None:
        share = _percent(metrics.average_energy_within_threshold)
        rows.append(("AEwT", f"{share} (of {metrics.relaxed_structures} relaxed structures)"))
    if metrics.energy_forces_within_threshold is not None:
        share = _percent(metrics.energy_forces_within_threshold)
        rows.append(("EFwT", f"{share} (|ΔE| < 0.02 eV, each |ΔF| < 0.03 eV/Å)"))
    if metrics.forces_mae is not None:
        parts = (metrics.forcesx_mae, metrics.forcesy_mae, metrics.forcesz_mae)
        rows.append(
            ("force MAE", f"{metrics.forces_mae:.4f} eV/Å (x, y, z: {', '.join(_number(part, 4) for part in parts)})")
        )
        rows.append(("mean size of a label", f"{_number(metrics.forces_mean_absolute_label, 4)} eV/Å (component)"))
        rows.append(("force cosine", _number(metrics.forces_cosine_similarity, 4)))
        rows.append(("force magnitude error", f"{_number(metrics.forces_magnitude_error, 4)} eV/Å"))
    if metrics.stress_mae is not None:
        rows.append(("stress MAE", f"{metrics.stress_mae:.3g} eV/Å³ ({metrics.structures_with_stress} structures)"))
    return rows


def element_table(rows: tuple[ElementRow, ...]) -> Table:
    """Lay out the metrics of the elements."""
    table = _table("By element", ("element", "force MAE, eV/Å", "atoms", "energy MAE, eV/atom", "structures"))
    for row in rows:
        table.add_row(
            row.element,
            _number(row.forces_mae, 4),
            str(row.atoms_with_forces),
            _number(row.energy_mae_per_atom, 5),
            str(row.structures_with_energy),
        )
    return table


def group_table(rows: tuple[GroupRow, ...]) -> Table:
    """Lay out the metrics of the worst groups."""
    from rich.markup import escape

    title = f"By group, worst {GROUPS_SHOWN} of {len(rows)}" if len(rows) > GROUPS_SHOWN else "By group, worst first"
    table = _table(title, ("group", "force MAE, eV/Å", "energy MAE, eV", "eV/atom", "EFwT", "structures"))
    for row in rows[:GROUPS_SHOWN]:
        metrics = row.metrics
        table.add_row(
            escape(row.group),
            _number(metrics.forces_mae, 4),
            _number(metrics.energy_mae, 4),
            _number(metrics.energy_mae_per_atom, 5),
            _percent(metrics.energy_forces_within_threshold),
            str(metrics.structures),
        )
    return table


def _table(title: str, headings: tuple[str, ...]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"
