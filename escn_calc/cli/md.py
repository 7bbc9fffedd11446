"""``escn md``: molecular dynamics of one structure, in files that can be continued after whatever ended the run."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from rich.console import Console

from escn_calc import ESCNCalculator
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.cli.md_outputs import ENSEMBLE_WORDS, MDFiles, RunRecord, summary_table, write_results
from escn_calc.cli.md_progress import progress_display
from escn_calc.cli.model_options import model_options, output_options, structure_options
from escn_calc.cli.outputs import model_record, settings_record
from escn_calc.errors import CalculationError
from escn_calc.structure_input import fix_atoms, fixed_atoms, read_structure

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.md import MDResult, MDStep

STOPPED = 3

NOT_CONSERVED = (
    "direct forces are not the gradient of the energy, so the total energy will not be conserved; "
    "--forces gradient gives forces that are"
)

THERMOSTATTED = tuple(name for name in ENSEMBLE_WORDS if name != "nve")
BAROSTATTED = tuple(name for name in ENSEMBLE_WORDS if name.startswith("npt"))
ENSEMBLES_OF_OPTIONS = {
    "temperature_end": THERMOSTATTED,
    "thermostat_time": THERMOSTATTED,
    "pressure": BAROSTATTED,
    "barostat_time": BAROSTATTED,
}
"""Options that mean something in some ensembles only."""


@click.command(
    epilog="Exit status: 0 finished, 1 error, 2 wrong usage, 3 stopped because the structure exploded or atoms "
    "evaporated, 130 interrupted with Ctrl-C, 143 with SIGTERM (in both cases the state is kept, go on with --resume)."
)
@click.argument("structure", type=click.Path(path_type=Path))
@model_options
@click.option(
    "--ensemble",
    type=click.Choice(tuple(ENSEMBLE_WORDS)),
    default="nve",
    show_default=True,
    help="nve: constant energy (velocity Verlet). langevin, nose-hoover, bussi: constant temperature. npt: constant "
    "temperature and pressure, the cell keeps its shape. npt-anisotropic: the same, the whole cell moves.",
)
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Steps of the whole run.")
@click.option(
    "--timestep",
    type=float,
    default=1.0,
    show_default=True,
    metavar="FS",
    help="Length of a step in fs. 1 fs suits structures with hydrogen, 2 fs those without.",
)
@click.option(
    "--temperature",
    type=float,
    default=300.0,
    show_default=True,
    metavar="K",
    help="Temperature in K: of the initial velocities, where STRUCTURE has none, and of the thermostat.",
)
@click.option(
    "--temperature-end",
    type=float,
    metavar="K",
    help="Change the temperature of the thermostat linearly to this one, in K, until the last step.",
)
@click.option(
    "--thermostat-time",
    type=float,
    default=100.0,
    show_default=True,
    metavar="FS",
    help="Time constant of the thermostat in fs; shorter is tighter.",
)
@click.option(
    "--pressure", type=float, default=0.0, show_default=True, metavar="GPA", help="Pressure of the barostat in GPa."
)
@click.option(
    "--barostat-time",
    type=float,
    default=1000.0,
    show_default=True,
    metavar="FS",
    help="Time constant of the barostat in fs; shorter is tighter.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="STEPS",
    help="Steps between two frames of the trajectory and rows of the table.",
)
@click.option(
    "--state-every",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="STEPS",
    help="Steps between two states from which a killed run can go on.",
)
@click.option(
    "--let-atoms-leave",
    is_flag=True,
    help="Go on when an atom has no other within 6 Å any more; without it the run stops there.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of initial velocities and thermostat.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the run in the output folder from its last state, in the same files, bit by bit as if it had never "
    "ended. Starts from the beginning if there is none.",
)
@structure_options
@output_options("NAME_md")
@click.pass_context
def md(
    ctx: click.Context,
    structure: Path,
    model: str,
    device: str,
    dtype: str,
    matmul: str,
    forces: str | None,
    frames: str,
    ensemble: str,
    steps: int,
    timestep: float,
    temperature: float,
    temperature_end: float | None,
    thermostat_time: float,
    pressure: float,
    barostat_time: float,
    every: int,
    state_every: int,
    let_atoms_leave: bool,
    seed: int,
    resume: bool,
    fix_tags: tuple[int, ...],
    fix_below_height: float | None,
    index: int,
    output_dir: Path | None,
    overwrite: bool,
) -> None:
    """Run molecular dynamics of the structure in the file STRUCTURE.

    STRUCTURE is any file that ASE can read (extxyz, POSCAR, CIF, .traj, ...); pymatgen is tried where ASE fails.
    Constraints in the file are kept; --fix-tags and --fix-below-height fix further atoms.

    Results, in the output folder: NAME.traj (a frame every --every steps), NAME.csv (time in fs, energies in eV,
    temperature in K; with a barostat pressure in GPa and volume in Å³), NAME_last.extxyz (the last frame, with
    velocities), NAME.png (temperature, total energy, and drift, volume or potential energy against time), NAME.json
    (what was run: model and its sha256, versions, settings, result, every resume) and NAME.state.npz (for --resume).
    """
    from escn_calc.md import EnergyDriftWarning, run_md

    _refuse_meaningless(ctx, ensemble)
    if resume and overwrite:
        raise click.UsageError("--resume continues the files that --overwrite replaces; give only one of them")
    name = structure.stem
    files = MDFiles.in_folder(output_dir or Path("runs") / f"{name}_md", name)
    files.check(structure, replace=overwrite or resume)
    start = fix_atoms(read_structure(structure, index), fix_tags, fix_below_height)
    source = {"file": str(structure), "sha256": file_sha256(structure)}
    calculator = ESCNCalculator(model, device=device, dtype=dtype, matmul=matmul, forces=forces, frames=frames)
    run = partial(
        run_md,
        start,
        calculator,
        ensemble=ensemble,
        timestep_fs=timestep,
        temperature_K=temperature if temperature_end is None else (temperature, temperature_end),
        pressure_GPa=pressure,
        thermostat_time_fs=thermostat_time,
        barostat_time_fs=barostat_time,
        seed=seed,
        every=every,
        state_every=state_every,
        stop_on_evaporation=not let_atoms_leave,
    )
    console = Console(stderr=True, highlight=False)
    with console.status("Loading the model"):
        _check(run)
    potential = calculator.potential
    resuming = _command_line(ctx, resume=True)
    about = {"structure": source, "model": model_record(calculator), "settings": settings_record(ctx.params)}
    record = RunRecord(files.record, about, resuming if resume else _command_line(ctx), resume)
    files.make_room(keep_old=resume)
    how = f"{ENSEMBLE_WORDS[ensemble]}, {potential.forces} forces"
    console.print(_opening(start, how, steps, timestep), soft_wrap=True)
    if start.get_momenta().any() and not resume:
        console.print("[yellow]Note: the run starts with the velocities of the structure file[/yellow]")
    if ensemble == "nve" and potential.forces == "direct":
        console.print(f"[yellow]Note: {NOT_CONSERVED}[/yellow]", soft_wrap=True)
    with progress_display(console, steps, timestep) as show, warnings.catch_warnings():
        warnings.simplefilter("ignore", EnergyDriftWarning)  # the summary says it

        def report(step: MDStep) -> None:
            record.begin(step)
            show(step)

        result = run(
            steps=steps,
            trajectory=files.trajectory,
            log=files.log,
            state=files.state,
            resume=resume,
            progress=report,
        )
    end = temperature if temperature_end is None else temperature_end
    schedule = None if ensemble == "nve" else (temperature, end, steps)
    record.finish(result)
    Console(highlight=False).print(summary_table(result, potential.card, how, schedule))
    if result.reason in ("interrupted", "failed"):
        click.echo(f"Go on with: {resuming}", err=True)
    write_results(result, files, f"{name}: {how}, {potential.card.name}", schedule)
    click.echo(f"Results are in {files.folder}/")
    if result.reason == "failed":
        raise CalculationError(f"the run {result.message}. The frames before that are kept")
    if result.reason == "interrupted":
        raise KeyboardInterrupt
    ctx.exit(0 if result.finished else STOPPED)


def _check(run: Callable[..., MDResult]) -> None:
    """Evaluate the start without a file: what cannot be run is refused before one is touched."""
    from escn_calc.md import TimestepWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TimestepWarning)  # comes again with the run itself
        run(steps=0)


def _refuse_meaningless(ctx: click.Context, ensemble: str) -> None:
    """Refuse an option that was given although the ensemble has no use for it."""
    for name, ensembles in ENSEMBLES_OF_OPTIONS.items():
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE and ensemble not in ensembles:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} means nothing with --ensemble {ensemble}, only with {_listed(ensembles)}")


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _command_line(ctx: click.Context, resume: bool = False) -> str:
    """Write the command as it was given, or as it has to be given to continue the run."""
    words = ["escn", "md"]
    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        value = ctx.params[parameter.name or ""]
        if not given or parameter.name == "resume" or (resume and parameter.name == "overwrite"):
            continue
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[0])
        else:
            values = value if parameter.multiple else [value]
            words += [word for one in values for word in (parameter.opts[0], str(one))]
    return shlex.join([*words, "--resume"] if resume else words)


def _opening(atoms: Atoms, how: str, steps: int, timestep_fs: float) -> str:
    fixed = len(fixed_atoms(atoms))
    atoms_in_words = f"{len(atoms)} atoms, {fixed} of them fixed" if fixed else f"{len(atoms)} atoms, none fixed"
    return f"{how}: {steps} steps of {timestep_fs:g} fs ({steps * timestep_fs / 1000:g} ps), {atoms_in_words}"
