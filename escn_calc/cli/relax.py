"""``escn relax``: relax the atomic positions of one structure and keep what is needed to understand the result."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from escn_calc import ESCNCalculator
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.cli.model_options import model_options, output_options, structure_options
from escn_calc.cli.outputs import model_record, settings_record, versions
from escn_calc.cli.relax_outputs import OutputFiles, summary_table, write_results
from escn_calc.cli.structure_input import fix_atoms, fixed_atoms, read_structure
from escn_calc.errors import CalculationError, InputError
from escn_calc.relax import OPTIMIZERS, RelaxResult, RelaxStep, check_limits, optimizer_name
from escn_calc.relax import relax as run_relaxation

NOT_CONVERGED = 3


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
@model_options
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
@structure_options
@output_options("NAME")
@click.pass_context
def relax(
    ctx: click.Context,
    structure: Path,
    model: str,
    device: str,
    dtype: str,
    forces: str | None,
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
    files.check(structure, replace=overwrite)
    check_limits(fmax, steps)
    start = fix_atoms(read_structure(structure, index), fix_tags, fix_below_height)
    source = {"file": str(structure), "sha256": file_sha256(structure)}
    progress = Console(stderr=True, highlight=False)
    calculator = ESCNCalculator(model, device=device, dtype=dtype, forces=forces, frames=frames)
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
    record = _record(ctx.params, source, calculator, result)
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
    settings: dict[str, Any], source: dict[str, str], calculator: ESCNCalculator, result: RelaxResult
) -> dict[str, Any]:
    """Collect what was run and what came out, as values that JSON can hold."""
    return {
        "command": "escn relax",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "structure": source,
        "settings": settings_record(settings),
        "model": model_record(calculator),
        "versions": versions(),
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
