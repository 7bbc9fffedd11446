"""``escn evaluate``: how good a model is on labelled structures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from escn_calc import ESCNCalculator
from escn_calc.cli.evaluate_outputs import EvaluationFiles, print_report, write_results
from escn_calc.cli.model_options import evaluation_options
from escn_calc.cli.outputs import model_record, settings_record
from escn_calc.errors import InputError
from escn_calc.options import ENERGY_REFERENCES
from escn_calc.records import versions

if TYPE_CHECKING:
    from collections.abc import Callable

    from escn_calc.evaluation import Report
    from escn_calc.labels import LabelKeys

LABELS = ("energy", "forces", "stress")


@click.command(
    epilog="Exit status: 0 success, 1 error, 2 wrong usage, 130 interrupted with Ctrl-C, 143 with SIGTERM.",
)
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path), nargs=-1, required=True)
@evaluation_options
@click.option(
    "--labels",
    default="",
    metavar="WHAT=KEY,...",
    help="Names of the labels in the files, where they are not the results of a calculator: "
    "energy=dft_energy,forces=dft_forces,stress=dft_stress. Units eV, eV/Å and eV/Å³.",
)
@click.option("--index", default=":", show_default=True, help="Structures of each file, a slice as in Python: ::10.")
@click.option(
    "--group-by",
    default="composition",
    show_default=True,
    metavar="KEY",
    help="What structures of one group share: composition, file, frame (every structure is alone), or the name of an "
    "entry of the files, such as sid.",
)
@click.option("--all-atoms", is_flag=True, help="Count the forces on fixed atoms too. OC20 counts those on free atoms.")
@click.option(
    "--fix-tags",
    type=int,
    multiple=True,
    metavar="TAG",
    help="Atoms with this tag count as fixed (in OC20 files, 0 is the subsurface). Can be given several times.",
)
@click.option(
    "--energy-reference",
    type=click.Choice(ENERGY_REFERENCES),
    default="as-is",
    show_default=True,
    help="Where model and labels count energies from different zeros. shift-per-group: remove the mean error of each "
    "group. fit-elements: remove one fitted energy for each element. as-is: compare, and warn if it looks wrong.",
)
@click.option("--skip-unsupported", is_flag=True, help="Leave out structures with elements that the model refuses.")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results.  [default: runs/evaluate-NAME, NAME being the first file without its suffix]",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run in the output folder.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    model: str,
    data: tuple[Path, ...],
    device: str,
    dtype: str,
    matmul: str,
    forces: str | None,
    frames: str,
    labels: str,
    index: str,
    group_by: str,
    all_atoms: bool,
    fix_tags: tuple[int, ...],
    energy_reference: str,
    skip_unsupported: bool,
    output_dir: Path | None,
    overwrite: bool,
) -> None:
    """Compare MODEL with the labelled structures in the files DATA.

    MODEL is 'default' (shipped with the package), the name of a published checkpoint (see 'escn models list'), or the
    path of a model. DATA are files that ASE can read (extxyz, .traj, .db, ...) with energies in eV, forces in eV/Å
    and stresses in eV/Å³, or some of them.

    The metrics have the names and definitions of OC20: energy and force MAE, cosine similarity and magnitude error of
    forces, EwT, EFwT; AEwT over relaxed structures (docs/evaluation.md).

    Results, in the output folder: metrics.json (everything, with what was run), errors.csv (a row for each structure)
    and parity.png (predictions against labels).
    """
    from escn_calc.labels import DataSource, file_hashes, read_frames

    files = EvaluationFiles.in_folder(output_dir or Path("runs") / f"evaluate-{data[0].stem}")
    for path in data:
        files.check(path, replace=overwrite)
    keys = _label_keys(labels)
    sources = [DataSource(path, index) for path in data]
    console = Console(stderr=True, highlight=False)
    with console.status("Reading the structures"):
        labelled = read_frames(sources, keys, group_by)
        hashes = file_hashes(sources)
    with console.status("Loading the model"):
        from escn_calc.evaluation import evaluate_model

        calculator = ESCNCalculator(model, device=device, dtype=dtype, matmul=matmul, forces=forces, frames=frames)
        potential = calculator.potential
    with _progress_bar(console) as progress:
        report = evaluate_model(
            potential,
            labelled,
            energy_reference=energy_reference,
            all_atoms=all_atoms,
            fixed_tags=fix_tags,
            skip_unsupported=skip_unsupported,
            progress=progress,
        )
    write_results(report, potential.card, files, _record(ctx.params, hashes, calculator, report))
    print_report(report, potential.card, Console(highlight=False))
    click.echo(f"Results are in {files.folder}/")


def _label_keys(text: str) -> LabelKeys:
    """Read ``energy=…,forces=…``."""
    from escn_calc.labels import LabelKeys

    keys: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        label, _, key = part.partition("=")
        if label not in LABELS or not key or label in keys:
            raise InputError(
                f"--labels is {text!r}; it must name each of energy, forces and stress at most once: "
                "energy=dft_energy,forces=dft_forces"
            )
        keys[label] = key
    return LabelKeys(energy=keys.get("energy"), forces=keys.get("forces"), stress=keys.get("stress"))


@contextmanager
def _progress_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Draw a bar in a terminal, and nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Structures", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _record(
    settings: dict[str, Any], hashes: dict[str, str], calculator: ESCNCalculator, report: Report
) -> dict[str, Any]:
    """Collect what was run and what came out, as values that JSON can hold."""
    from escn_calc.evaluation.metrics import UNITS

    settings = {**settings, "data": [str(path) for path in settings["data"]]}
    return {
        "command": "escn evaluate",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": [{"file": path, "sha256": digest} for path, digest in hashes.items()],
        "settings": settings_record(settings),
        "model": model_record(calculator),
        "versions": versions(),
        "wall_time_s": report.seconds,
        "notes": list(report.notes),
        "skipped": list(report.skipped),
        "element_shifts_eV": report.element_shifts,
        "units": UNITS,
        "overall": asdict(report.overall),
        "elements": [asdict(row) for row in report.elements],
        "groups": [{"group": row.group, **asdict(row.metrics)} for row in report.groups],
    }
