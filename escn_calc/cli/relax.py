"""``escn relax``: relax positions, and cells if asked to, and keep what explains the result.

One structure is relaxed here, many in :mod:`escn_calc.cli.relax_many`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from escn_calc import ESCNCalculator
from escn_calc.cell_relaxation import CELLS, Cell, check_cell_options
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.cli.model_options import fixing_options, model_options, output_options
from escn_calc.cli.outputs import model_record, settings_record
from escn_calc.cli.relax_members import frame_index, matching_files
from escn_calc.cli.relax_outputs import OutputFiles, cell_record, summary_table, write_results
from escn_calc.errors import CalculationError, InputError
from escn_calc.records import versions
from escn_calc.relax import (
    DEFAULT_SMAX,
    OPTIMIZERS,
    CellStep,
    EnergyRiseWarning,
    RelaxResult,
    RelaxStep,
    check_limits,
    optimizer_name,
)
from escn_calc.relax import relax as run_relaxation
from escn_calc.structure_input import fix_atoms, fixed_atoms, read_structure

NOT_CONVERGED = 3
FOR_MANY = ("batch_size", "trajectories", "resume")
MANY_OPTIMIZER = "LBFGS"


def _as_usage_error(parse: Callable[[Any], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Turn what refuses a value with ``InputError`` into a callback of click."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            return parse(value)
        except InputError as error:
            raise click.BadParameter(str(error)) from error

    return callback


@click.command(
    epilog="Exit status: 0 converged, 1 error, 2 wrong usage, 3 step limit reached before convergence, 130 interrupted "
    "with Ctrl-C, 143 with SIGTERM (in both cases what was computed until then is kept). Of many structures: 0 all "
    "converged, 1 some failed, 3 some reached the step limit."
)
@click.argument(
    "structures",
    metavar="STRUCTURE...",
    type=click.Path(path_type=Path),
    nargs=-1,
    required=True,
    callback=_as_usage_error(matching_files),
)
@model_options
@click.option(
    "--optimizer",
    callback=_as_usage_error(optimizer_name),
    default="BFGS",
    show_default=True,
    metavar="NAME",
    help=f"Optimiser of ASE: {', '.join(OPTIMIZERS)}. For many structures {MANY_OPTIMIZER} is the default.",
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
    "--cell",
    type=click.Choice(CELLS),
    default="fixed",
    show_default=True,
    help="fixed: the cell stays. full: its three vectors relax too. isotropic: only its size, for cubic crystals. "
    "in-plane: the plane of its first two vectors, for slabs. Needs the stress, so gradient forces.",
)
@click.option(
    "--smax",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_SMAX,
    show_default=True,
    metavar="EV_PER_CUBIC_ANGSTROM",
    help="With --cell: converged when the largest principal stress, too, is below this value in eV/Å³ "
    "(0.0005 is 0.08 GPa).",
)
@click.option(
    "--pressure",
    type=float,
    default=0.0,
    show_default=True,
    metavar="GPA",
    help="With --cell full or isotropic: pressure from outside in GPa.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of many structures: relax at most N at the same time; 1 is one after the other.  [default: what fills the "
    "device]",
)
@click.option("--trajectories", is_flag=True, help="Of many structures: write every step of each into a trajectory.")
@click.option(
    "--resume",
    is_flag=True,
    help="Of many structures: go on with the run in the output folder, however it ended. Starts from the beginning if "
    "there is none.",
)
@fixing_options
@click.option(
    "--index",
    default="-1",
    show_default=True,
    callback=_as_usage_error(frame_index),
    help="Which structure of a file with several: 0 is the first, -1 the last. A slice as in Python takes many: "
    "':' is all, '::10' every tenth.",
)
@output_options("NAME")
@click.pass_context
def relax(
    ctx: click.Context,
    structures: list[Path],
    model: str,
    device: str,
    dtype: str,
    matmul: str,
    forces: str | None,
    frames: str,
    optimizer: str,
    fmax: float,
    steps: int,
    cell: Cell,
    smax: float,
    pressure: float,
    batch_size: int | None,
    trajectories: bool,
    resume: bool,
    fix_tags: tuple[int, ...],
    fix_below_height: float | None,
    index: int | slice,
    output_dir: Path | None,
    overwrite: bool,
) -> None:
    """Relax the atomic positions in the file STRUCTURE and, with --cell, its cell; or those of many structures.

    STRUCTURE is any file that ASE can read (extxyz, POSCAR, CIF, .traj, ...); pymatgen is tried where ASE fails.
    Constraints in the file are kept; --fix-tags and --fix-below-height fix further atoms. Fixed atoms go along with a
    cell that relaxes.

    Results, in the output folder: NAME.traj (every step), NAME_relaxed.extxyz (the last frame, with energy in eV,
    forces in eV/Å and, where the model has it, stress in eV/Å³), NAME.png (energy, largest force and, with --cell,
    stress against step) and NAME.json (what was run: model and its
    sha256, versions, settings, result).

    Several files, a quoted pattern such as 'slabs/*.xyz', or one file with a slice as its --index are many structures,
    which are relaxed together. Results, in runs/NAME_many: NAME.db, an ASE database with a row for each structure as
    soon as it has ended, and NAME.json; with --trajectories NAME_trajectories. A structure that fails does not cost the
    others.
    """
    _refuse_meaningless(ctx, cell)
    if len(structures) > 1 or isinstance(index, slice):
        ctx.exit(0 if _relax_many(ctx) else NOT_CONVERGED)
    _refuse_what_is_for_many(ctx)
    (structure,) = structures
    name = structure.stem
    files = OutputFiles.in_folder(output_dir or Path("runs") / name, name)
    files.check(structure, replace=overwrite)
    check_limits(fmax, steps)
    check_cell_options(cell, smax, pressure)
    start = fix_atoms(read_structure(structure, index), fix_tags, fix_below_height)
    source = {"file": str(structure), "sha256": file_sha256(structure)}
    progress = Console(stderr=True, highlight=False)
    calculator = ESCNCalculator(model, device=device, dtype=dtype, matmul=matmul, forces=forces, frames=frames)
    run = partial(run_relaxation, start, calculator, cell=cell, smax=smax, pressure_GPa=pressure)
    with progress.status("Loading the model"):
        card = calculator.potential.card
        run(steps=0)  # what the model refuses is refused before a file is touched
    files.make_room()
    progress.print(_progress_head(cell))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EnergyRiseWarning)  # the summary says it
        result = run(
            optimizer=optimizer,
            fmax=fmax,
            steps=steps,
            trajectory=files.trajectory,
            progress=lambda step: progress.print(_progress_line(step)),
        )
    settings = {key: value for key, value in ctx.params.items() if key not in (*FOR_MANY, "structures")}
    record = _record({**settings, "structure": structure}, source, calculator, result)
    write_results(result, card, fmax, smax, files, record)
    Console(highlight=False).print(summary_table(result, card))
    click.echo(f"Results are in {files.trajectory.parent}/")
    if result.reason == "failed":
        raise CalculationError(f"the relaxation {result.message}. The frames before that are kept")
    if result.reason == "interrupted":
        raise KeyboardInterrupt
    ctx.exit(0 if result.converged else NOT_CONVERGED)


def _relax_many(ctx: click.Context) -> bool:
    """Relax many structures as the options say, and return whether all of them converged."""
    from escn_calc.cli.relax_many import ManyRequest, relax_many

    options = dict(ctx.params)
    if options["resume"] and options["overwrite"]:
        raise click.UsageError("--resume continues the files that --overwrite replaces; give only one of them")
    if ctx.get_parameter_source("optimizer") is not ParameterSource.COMMANDLINE:
        options["optimizer"] = MANY_OPTIMIZER
    check_limits(options["fmax"], options["steps"])
    check_cell_options(options["cell"], options["smax"], options["pressure"])
    model = {key: options[key] for key in ("device", "dtype", "matmul", "forces", "frames")}
    return relax_many(ManyRequest.of_options(options), ESCNCalculator(options["model"], **model))


def _refuse_what_is_for_many(ctx: click.Context) -> None:
    for name in FOR_MANY:
        if ctx.params[name]:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(
                f"{option} is for many structures: several files, or one with a slice as its --index, such as ':'"
            )


def _refuse_meaningless(ctx: click.Context, cell: Cell) -> None:
    """Refuse an option that was given although it means nothing for a fixed cell."""
    for name in ("smax", "pressure"):
        if cell == "fixed" and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} means nothing with a fixed cell; choose another --cell")


def _progress_head(cell: Cell) -> str:
    head = f"{'step':>5}  {'energy / eV':>15}  {'fmax / eV/Å':>12}"
    return head if cell == "fixed" else f"{head}  {'smax / eV/Å³':>13}  {'volume / Å³':>12}"


def _progress_line(step: RelaxStep) -> str:
    line = f"{step.index:5d}  {step.energy:15.6f}  {step.fmax:12.4f}"
    return f"{line}  {step.smax:13.6f}  {step.volume:12.4f}" if isinstance(step, CellStep) else line


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
            "energy_above_lowest_eV": result.energy_above_lowest,
            "lowest_step": result.lowest.index,
            "fmax_eV_per_angstrom": result.fmax,
            "max_displacement_angstrom": result.max_displacement,
            "cell": cell_record(result),
            "wall_time_s": result.wall_time_s,
            "fixed_atoms": fixed_atoms(result.atoms).tolist(),
            "history": [asdict(step) for step in result.history],
        },
    }
