"""The files and the table that ``escn relax`` leaves behind for many structures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escn_calc.cli.outputs import ResultFiles
from escn_calc.errors import InputError
from escn_calc.records import remove_unfinished, versions, write_atomically, write_json

if TYPE_CHECKING:
    from ase import Atoms
    from rich.table import Table

    from escn_calc.checkpoints import ModelCard
    from escn_calc.cli.relax_database import Outcome
    from escn_calc.cli.relax_many_progress import Tally
    from escn_calc.relax_result import RelaxStep

NAMED_FAILURES = 3

DIGITS = 12
"""Hexadecimal digits that tell trajectories of structures with the same name in different folders apart."""


@dataclass(frozen=True)
class ManyFiles(ResultFiles):
    """Paths of what the relaxation of many structures writes, but for the trajectories."""

    database: Path
    journal: Path
    record: Path

    @classmethod
    def in_folder(cls, folder: Path, name: str) -> ManyFiles:
        """Name the files after the first structure file."""
        return cls(folder / f"{name}.db", folder / f"{name}.db-journal", folder / f"{name}.json")

    @property
    def trajectories(self) -> Path:
        """Folder of the trajectories."""
        return self.folder / f"{self.database.stem}_trajectories"

    def trajectory(self, structure: str) -> Path:
        """Path of the trajectory of a structure: its file and frame, and what tells it from its namesakes elsewhere."""
        file, _, frame = structure.rpartition("@")
        digest = hashlib.sha256(structure.encode()).hexdigest()[:DIGITS]
        return self.trajectories / f"{Path(file).stem}-{frame}-{digest}.traj"

    def check_many(self, sources: list[Path], *, resume: bool, overwrite: bool) -> None:
        """Make sure that neither a structure file nor results of another run would be lost.

        Raises
        ------
        InputError
            One of the files is a source; results are there and are neither to be continued nor replaced; or what is to
            be continued has no database.
        """
        for source in sources:
            self.check(source, replace=True)
            if source.resolve().parent == self.trajectories.resolve():
                raise InputError(
                    f"the structure file {str(source)!r} is in the folder of the trajectories; choose another "
                    "--output-dir"
                )
        existing = [path for path in self.paths if path.exists()]
        if existing and not (resume or overwrite):
            raise InputError(
                f"{str(existing[0])!r} exists; give --resume to go on with that run, choose another --output-dir, or "
                "give --overwrite"
            )
        if existing and resume and not self.database.exists():
            raise InputError(
                f"{str(existing[0])!r} is there, but its database {str(self.database)!r} is not, so that it cannot be "
                "continued; choose another --output-dir, or give --overwrite"
            )

    def make_space(self, *, keep_results: bool) -> None:
        """Remove what a killed process left unfinished, and unless they are to be kept the results of an earlier run.

        The database goes first: its journal, left by a killed process, must not be applied to the next database.

        Raises
        ------
        InputError
            The folder cannot be changed.
        """
        self.make_room(keep_old=keep_results)
        for path in self.paths:
            remove_unfinished(path)
        leftovers = self.trajectories.glob(".*.traj.*.tmp")
        trajectories = [] if keep_results else self.trajectories.glob(f"*-{'[0-9a-f]' * DIGITS}.traj")
        try:
            for path in (*leftovers, *trajectories):
                path.unlink()
        except OSError as error:
            raise InputError(f"cannot write to the folder {str(self.folder)!r}: {error.strerror}") from error


class Frames:
    """Collects the frames of the structures under way, until each can be written as one trajectory.

    An instance is a callback of :func:`escn_calc.batch_relaxation.iter_relax_batch`. The frames are kept in memory: no
    file is ever unfinished, and none stays open while thousands of structures relax.
    """

    def __init__(self) -> None:
        self._frames: dict[int, list[Atoms]] = {}

    def __call__(self, index: int, step: RelaxStep, atoms: Atoms) -> None:
        """Keep a frame."""
        self._frames.setdefault(index, []).append(atoms)

    def write(self, index: int, path: Path) -> Path | None:
        """Write and forget what there is of a structure; None if there is nothing.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        from ase.io.trajectory import write_traj

        frames = self._frames.pop(index, None)
        if frames is None:
            return None
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to the folder {str(path.parent)!r}: {error.strerror}") from error
        write_atomically(path, lambda unfinished: write_traj(unfinished, frames))
        return path


class ManyRecord:
    """The record of a run: written at its start, so that a killed run has one too, and at its end.

    Parameters
    ----------
    path : Path
        The JSON file; the starts that it knows are kept if ``resume``.
    about : dict
        What is run: structure files, model, settings.
    resume : bool
        Whether earlier work is continued.
    """

    def __init__(self, path: Path, about: dict[str, Any], resume: bool) -> None:
        self._path, self._about = path, about
        self._earlier = _earlier_starts(path) if resume else []
        self._start: dict[str, Any] = {"started": _now(), "versions": versions()}

    def write(self, ending: str, outcomes: Mapping[str, Outcome], tally: Tally) -> None:
        """Write how the run stands.

        Parameters
        ----------
        ending : str
            ``"running"``, ``"finished"`` or ``"interrupted"``.
        outcomes : mapping
            What is known of each structure by its name.
        tally : Tally
            The speed of this start.
        """
        start = {**self._start, "reason": ending, "written": _now(), "wall_time_s": tally.seconds}
        result = {
            "reason": ending,
            "structures": tally.total,
            "converged": tally.converged,
            "step_limit": _named(outcomes, "step limit"),
            "failed": {name: outcomes[name].failure for name in _named(outcomes, "failed")},
            "doubtful": [name for name, outcome in outcomes.items() if outcome.doubts],
        }
        start["structures_per_s"] = tally.per_second
        write_json(self._path, {**self._about, "result": result, "starts": [*self._earlier, start]})


def summary_table(outcomes: Mapping[str, Outcome], tally: Tally, card: ModelCard) -> Table:
    """Lay out the result for the terminal."""
    from rich.markup import escape as plain
    from rich.table import Table

    table = Table(title="Relaxations", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("structures", str(tally.total))
    table.add_row("converged", f"[green]{tally.converged}[/green]")
    for what, number, colour in (
        ("step limit reached", len(_named(outcomes, "step limit")), "yellow"),
        ("failed", tally.failed, "red"),
        ("interrupted", tally.total - tally.finished, "yellow"),
        ("doubtful", sum(outcome.doubts > 0 for outcome in outcomes.values()), "yellow"),
    ):
        if number:
            table.add_row(what, f"[{colour}]{number}[/{colour}]")
    table.add_row("wall time", f"{tally.seconds:.1f} s")
    table.add_row("structures/s", f"{tally.per_second:.3g}")
    table.add_row("energy reference", plain(card.energy_reference))
    table.add_row("model", plain(card.name))
    table.add_row("model sha256", card.sha256)
    return table


def _named(outcomes: Mapping[str, Outcome], state: str) -> list[str]:
    return [name for name, outcome in outcomes.items() if outcome.state == state]


def failures_in_words(failures: Mapping[str, str], total: int) -> str:
    """Name the first failures, and say how many more there are."""
    named = [f"{name}: {reason.rstrip('.')}" for name, reason in list(failures.items())[:NAMED_FAILURES]]
    more = f", and {len(failures) - NAMED_FAILURES} more" if len(failures) > NAMED_FAILURES else ""
    return f"{len(failures)} of {total} structures failed ({'; '.join(named)}{more}). The others are not affected"


def _earlier_starts(path: Path) -> list[dict[str, Any]]:
    """Starts that an earlier record knows; none if it cannot be read, for the results are in the database."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        starts: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["starts"]
        return starts
    return []


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
