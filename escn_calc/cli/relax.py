"""``escn relax``: relax the atomic positions of one structure and keep what is needed to understand the result."""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from escn_calc import ESCNCalculator, __version__
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.cli.relax_outputs import OutputFiles, summary_table, write_results
from escn_calc.cli.structure_input import fix_atoms, fixed_atoms, read_structure
from escn_calc.errors import CalculationError, InputError
from escn_calc.options import DEVICES, DTYPE_NAMES, FRAMES
from escn_calc.relax import OPTIMIZERS, RelaxResult, RelaxStep, check_limits, optimizer_name
from escn_calc.relax import relax as run_relaxation

if TYPE_CHECKING:
    from escn_calc.checkpoints import ModelCard

NOT_CONVERGED = 3
RECORDED_PACKAGES = ("ase", "numpy", "torch")


def _optimizer_as_ase_writes_it(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return optimizer_name(value)
    except InputError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    epilog="Exit status: 0 converged, 1 error, 2 wrong usage, 3 step limit reached before convergence, 130 interrupted "
    "with Ctrl-C, 143 with SIGTERM (in both cases what was computed until then is kept)."
)
@click.argument("structure", type=click.Path(path_type=Path))
@click.option(
    "--model",
    default="default",
    show_default=True,
    help="'default' (shipped with the package), the name of a published checkpoint (see 'escn models list'), "
    "or the path of a model.",
)
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="auto: CUDA if there is one, else the CPU.",
)
@click.option(
    "--dtype",
    type=click.Choice(DTYPE_NAMES),
    default="float32",
    show_default=True,
    help="Precision of the model's arithmetic.",
)
@click.option(
    "--frames",
    type=click.Choice(FRAMES),
    default="canonical",
    show_default=True,
    help="canonical: the model's own grid. converged: a finer grid, on which edge frames matter "
    "less than 5e-8 (relative) where the model allows it (slower).",
)
@click.option(
    "--optimizer",
    callback=_optimizer_as_ase_writes_it,
    default="BFGS",
    show_default=True,
    metavar="NAME",
    help=f"Optimiser of ASE: {', '.join(OPTIMIZERS)}.",
)
@click.option(
    "--fmax",
    type=click.FloatRange(min=0, min_open=True),
    default=0.05,
    show_default=True,
    metavar="EV_PER_ANGSTROM",
    help="Converged when the largest force on an atom, after constraints, is below this value in eV/Å.",
)
@click.option(
    "--steps", type=click.IntRange(min=0), default=500, show_default=True, help="Largest number of optimiser steps."
)
@click.option(
    "--fix-tags",
    type=int,
    multiple=True,
    metavar="TAG",
    help="Fix the atoms with this tag (in OC20 files, 0 is the subsurface). Can be given several times.",
)
@click.option(
    "--fix-below-height",
    type=float,
    metavar="ANGSTROM",
    help="Fix the atoms less than this many Å above the lowest atom, measured along the surface normal "
    "(perpendicular to the first two cell vectors; z without a cell).",
)
@click.option(
    "--index",
    type=int,
    default=-1,
    show_default=True,
    help="Which structure of a file with several: 0 is the first, -1 the last.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the results.  [default: runs/NAME, NAME being the structure file without its suffix]",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run in the output folder.")
@click.pass_context
def relax(
    ctx: click.Context,
    structure: Path,
    model: str,
    device: str,
    dtype: str,
    frames: str,
    optimizer: str,
    fmax: float,
    steps: int,
    fix_tags: tuple[int, ...],
    fix_below_height: float | None,
    index: int,
    output_dir: Path | None,
    overwrite: bool,
) -> None:
    """Relax the atomic positions in the file STRUCTURE; the cell stays as it is.

    STRUCTURE is any file that ASE can read (extxyz, POSCAR, CIF, .traj, ...); pymatgen is tried where ASE fails.
    Constraints in the file are kept; --fix-tags and --fix-below-height fix further atoms.

    Results, in the output folder: NAME.traj (every step), NAME_relaxed.extxyz (the last frame, with energy in eV and
    forces in eV/Å), NAME.png (energy and largest force against step) and NAME.json (what was run: model and its
    sha256, versions, settings, result).
    """
    name = structure.stem
    files = OutputFiles.in_folder(output_dir or Path("runs") / name, name)
    files.check(structure, overwrite)
    check_limits(fmax, steps)
    start = fix_atoms(read_structure(structure, index), fix_tags, fix_below_height)
    source = {"file": str(structure), "sha256": file_sha256(structure)}
    progress = Console(stderr=True, highlight=False)
    calculator = ESCNCalculator(model, device=device, dtype=dtype, frames=frames)
    with progress.status("Loading the model"):
        card = calculator.potential.card
        run_relaxation(start, calculator, steps=0)  # what the model refuses is refused before a file is touched
    files.make_room()
    progress.print(f"{'step':>5}  {'energy / eV':>15}  {'fmax / eV/Å':>12}")
    result = run_relaxation(
        start,
        calculator,
        optimizer=optimizer,
        fmax=fmax,
        steps=steps,
        trajectory=files.trajectory,
        progress=lambda step: progress.print(_progress_line(step)),
    )
    record = _record(ctx.params, source, calculator, card, result)
    write_results(result, card, fmax, files, record)
    Console(highlight=False).print(summary_table(result, card))
    click.echo(f"Results are in {files.trajectory.parent}/")
    if result.reason == "failed":
        raise CalculationError(f"the relaxation {result.message}. The frames before that are kept")
    if result.reason == "interrupted":
        raise KeyboardInterrupt
    ctx.exit(0 if result.converged else NOT_CONVERGED)


def _progress_line(step: RelaxStep) -> str:
    return f"{step.index:5d}  {step.energy:15.6f}  {step.fmax:12.4f}"


def _record(
    settings: dict[str, Any], source: dict[str, str], calculator: ESCNCalculator, card: ModelCard, result: RelaxResult
) -> dict[str, Any]:
    """Collect what was run and what came out, as values that JSON can hold."""
    return {
        "command": "escn relax",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "structure": source,
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in sorted(settings.items())},
        "model": {
            "name": card.name,
            "sha256": card.sha256,
            "energy_kind": card.energy_kind,
            "energy_reference": card.energy_reference,
            "device": str(calculator.potential.device),
        },
        "versions": {
            "escn-calc": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in RECORDED_PACKAGES},
        },
        "result": {
            "reason": result.reason,
            "message": result.message,
            "converged": result.converged,
            "steps": result.steps,
            "notes": list(result.notes),
            "energy_eV": result.energy,
            "energy_change_eV": result.energy_change,
            "fmax_eV_per_angstrom": result.fmax,
            "max_displacement_angstrom": result.max_displacement,
            "wall_time_s": result.wall_time_s,
            "fixed_atoms": fixed_atoms(result.atoms).tolist(),
            "history": [asdict(step) for step in result.history],
        },
    }
