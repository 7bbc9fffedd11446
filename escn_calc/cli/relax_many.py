"""``escn relax`` on many structures: relaxed together, kept as they end, continued where a run stopped."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from escn_calc.batch_relaxation import iter_relax_batch
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.cli.outputs import model_record, settings_record
from escn_calc.cli.relax_database import Outcome, ResultDatabase
from escn_calc.cli.relax_many_outputs import Frames, ManyFiles, ManyRecord, failures_in_words, summary_table
from escn_calc.cli.relax_many_progress import Tally, progress_display
from escn_calc.cli.relax_members import Member, index_text, read_members
from escn_calc.errors import CalculationError, ESCNError, InputError
from escn_calc.md.state import model_identity
from escn_calc.relax import EnergyRiseWarning
from escn_calc.relax_result import RelaxResult
from escn_calc.structure_input import fix_atoms

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.calculator import ESCNCalculator
    from escn_calc.cell_relaxation import Cell
    from escn_calc.potential import Potential

GO_ON = "The same command with --resume goes on from here"


@dataclass(frozen=True)
class ManySettings:
    """What all relaxations have in common; another value makes another run."""

    optimizer: str
    fmax: float
    steps: int
    cell: Cell
    smax: float
    pressure_GPa: float  # noqa: N815 (a unit)
    trajectories: bool


@dataclass(frozen=True)
class ManyRequest:
    """Which structures are to be relaxed, how, and what becomes of earlier results.

    Attributes
    ----------
    sources : list of Path
        Structure files.
    index : int or slice
        Frames of each file.
    prepare : callable
        Fixes atoms of a structure.
    settings : ManySettings
        How to relax.
    batch_size : int or None
        Largest number of structures that are relaxed at the same time; None: as many as fit.
    files : ManyFiles
        Where the results go.
    resume, overwrite : bool
        Go on with the results that are there, or replace them.
    options : dict
        The options of the command, for the record.
    """

    sources: list[Path]
    index: int | slice
    prepare: Callable[[Atoms], Atoms]
    settings: ManySettings
    batch_size: int | None
    files: ManyFiles
    resume: bool
    overwrite: bool
    options: dict[str, Any]

    @classmethod
    def of_options(cls, options: dict[str, Any]) -> ManyRequest:
        """Read the options of the command; without an output folder the first file names it."""
        sources: list[Path] = options["structures"]
        name = sources[0].stem
        return cls(
            sources=sources,
            index=options["index"],
            prepare=partial(fix_atoms, tags=options["fix_tags"], below_height=options["fix_below_height"]),
            settings=ManySettings(
                optimizer=options["optimizer"],
                fmax=options["fmax"],
                steps=options["steps"],
                cell=options["cell"],
                smax=options["smax"],
                pressure_GPa=options["pressure"],
                trajectories=options["trajectories"],
            ),
            batch_size=options["batch_size"],
            files=ManyFiles.in_folder(options["output_dir"] or Path("runs") / f"{name}_many", name),
            resume=options["resume"],
            overwrite=options["overwrite"],
            options=options,
        )


def relax_many(request: ManyRequest, calculator: ESCNCalculator) -> bool:
    """Relax many structures and return whether all of them converged.

    Raises
    ------
    InputError
        Nothing can be relaxed; results that are there would be lost or belong to another run; or results cannot be
        written. Those written before are kept.
    CalculationError
        Some structures failed; all others are finished.
    KeyboardInterrupt
        Interrupted; what was finished is kept.
    """
    files = request.files
    files.check_many(request.sources, resume=request.resume, overwrite=request.overwrite)
    console = Console(stderr=True, highlight=False)
    with console.status("Reading the structures"):
        members = read_members(request.sources, request.index, request.prepare)
        hashes = [{"file": str(path), "sha256": file_sha256(path)} for path in request.sources]
    with console.status("Loading the model"):
        potential = calculator.potential
        _relaxations([], request, potential, Frames())  # what it refuses is refused before a file is touched
    identity = {"model": model_identity(calculator), "settings": asdict(request.settings)}
    database = ResultDatabase(files.database)
    with database.locked():
        # again: another process may have been here in the meantime
        files.check_many(request.sources, resume=request.resume, overwrite=request.overwrite)
        resuming = request.resume and files.database.exists()
        finished = database.go_on(identity, members) if resuming else {}
        files.make_space(keep_results=not request.overwrite)
        if not resuming:
            database.create(identity, members)
        outcomes = {name: Outcome("failed", reason) for name, reason in members.unusable.items()} | finished
        record = ManyRecord(files.record, {**_about(request, calculator), "structures": hashes}, resuming)
        tally = Tally(len(members.digests), (outcome.state for outcome in outcomes.values()))
        record.write("running", outcomes, tally)
        waiting = [member for member in members.usable if member.name not in outcomes]
        interrupted = not Run(request, database, outcomes, tally).finish(waiting, potential, console)
        record.write("interrupted" if interrupted else "finished", outcomes, tally)
    Console(highlight=False).print(summary_table(outcomes, tally, potential.card))
    click.echo(f"Results are in {files.folder}/")
    if interrupted:
        click.echo(GO_ON, err=True)
        raise KeyboardInterrupt
    failures = {name: outcome.failure for name, outcome in outcomes.items() if outcome.state == "failed"}
    if failures:
        raise CalculationError(failures_in_words(failures, tally.total))
    return tally.converged == tally.total


def _about(request: ManyRequest, calculator: ESCNCalculator) -> dict[str, Any]:
    """Collect what is run, as values that JSON can hold."""
    options = {key: value for key, value in request.options.items() if key not in ("structures", "resume", "overwrite")}
    settings = settings_record({**options, "index": index_text(request.index)})
    return {"command": "escn relax", "settings": settings, "model": model_record(calculator)}


def _relaxations(
    waiting: Sequence[Member], request: ManyRequest, potential: Potential, frames: Frames
) -> Iterator[tuple[int, RelaxResult | ESCNError]]:
    """Check how to relax, and return the ends of relaxations of which none has begun."""
    settings = request.settings
    return iter_relax_batch(
        [member.atoms for member in waiting],
        potential,
        optimizer=settings.optimizer,
        fmax=settings.fmax,
        steps=settings.steps,
        cell=settings.cell,
        smax=settings.smax,
        pressure_GPa=settings.pressure_GPa,
        callbacks=[frames] if settings.trajectories else [],
        max_active=request.batch_size,
    )


@dataclass(frozen=True)
class Run:
    """Where the results of relaxations go.

    Attributes
    ----------
    request : ManyRequest
        How to relax.
    database : ResultDatabase
        Where every structure gets its row.
    outcomes : dict
        What is known of each structure by its name; grows.
    tally : Tally
        The same in numbers.
    """

    request: ManyRequest
    database: ResultDatabase
    outcomes: dict[str, Outcome]
    tally: Tally

    def finish(self, waiting: Sequence[Member], potential: Potential, console: Console) -> bool:
        """Relax what is waiting and keep each result as it comes; return False if interrupted.

        Raises
        ------
        InputError
            A result cannot be written. The message says how to go on.
        """
        frames = Frames()
        try:
            with progress_display(console, self.tally) as show, warnings.catch_warnings():
                warnings.simplefilter("ignore", EnergyRiseWarning)  # the notes in the database say it
                for index, end in _relaxations(waiting, self.request, potential, frames):
                    self._keep(waiting[index], end, frames, index)
                    show()
        except KeyboardInterrupt:
            return False
        except InputError as error:
            finished = f"{self.tally.finished} of {self.tally.total} structures are finished"
            raise InputError(f"{error}. {finished}. {GO_ON}") from error
        return True

    def _keep(self, member: Member, end: RelaxResult | ESCNError, frames: Frames, index: int) -> None:
        """Write a result, unless it is none; first the trajectory, so that every row has a complete one."""
        if isinstance(end, RelaxResult) and end.reason == "interrupted":
            return
        trajectory = frames.write(index, self.request.files.trajectory(member.name))
        self.outcomes[member.name] = self.database.add(member, end, trajectory)
        self.tally.add(self.outcomes[member.name].state)
