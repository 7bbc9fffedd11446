"""The ASE database of ``escn relax`` on many structures: a row for each finished one, written by itself.

The metadata say what is relaxed and how, so that nothing else is ever added.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escn_calc.ase_database import DatabaseFile
from escn_calc.errors import ESCNError, InputError, renamed
from escn_calc.identity import Identity, check_identity
from escn_calc.relax_result import history_arrays

if TYPE_CHECKING:
    from ase.db.sqlite import SQLite3Database

    from escn_calc.cli.relax_members import Member, Members
    from escn_calc.relax_result import RelaxResult

FORMAT = "escn relax 1"

KEY_DESCRIPTIONS = {
    "structure": ("Structure", "File and frame that the structure is from", ""),
    "state": ("State", "How the relaxation ended", ""),
    "steps": ("Steps", "Number of optimiser steps", ""),
    "energy_change": ("Energy change", "Last energy minus first", "eV"),
    "max_displacement": ("Displacement", "Largest displacement of an atom", "Å"),
    "doubts": ("Doubts", "Number of reasons to doubt the result", ""),
    "failure": ("Failure", "What failed", ""),
    "trajectory": ("Trajectory", "File with every step", ""),
}


@dataclass(frozen=True)
class Outcome:
    """How the relaxation of one structure ended.

    Attributes
    ----------
    state : str
        ``"converged"``, ``"step limit"`` or ``"failed"``.
    failure : str
        What failed; empty unless something did.
    doubts : int
        Number of reasons to doubt the result, which the data of its row name.
    """

    state: str
    failure: str = ""
    doubts: int = 0


@dataclass(frozen=True)
class ResultDatabase:
    """The database in the file ``path``."""

    path: Path

    @property
    def _file(self) -> DatabaseFile:
        return DatabaseFile(self.path)

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from this database until this one leaves or dies.

        Raises
        ------
        InputError
            Another process has it, or the lock beside it cannot be made.
        """
        return self._file.locked("another --output-dir")

    def create(self, identity: Identity, members: Members) -> None:
        """Make an empty database for these structures, complete or not at all.

        Raises
        ------
        InputError
            It cannot be written.
        """
        self._file.create(lambda database: _write_metadata(database, identity, members.digests))

    def go_on(self, identity: Identity, members: Members) -> dict[str, Outcome]:
        """Return how the finished relaxations ended, by name, and take up structures that are new.

        Raises
        ------
        InputError
            It is not such a database, or one of another model, of other settings or of other structures.
        """
        with self._file.errors_named():
            before = self._run()
            check_identity(self.path, before["identity"], identity)
            known, found = before["structures"], members.digests
            _check_same(self.path, known, found)
            if known != found:
                with self._file.open() as database:
                    _write_metadata(database, identity, found)
            with self._file.open() as database:
                rows = list(database.select(columns=["id", "key_value_pairs"], include_data=False))
            return {row.structure: Outcome(row.state, row.get("failure", ""), row.get("doubts", 0)) for row in rows}

    def add(self, member: Member, end: RelaxResult | ESCNError, trajectory: Path | None = None) -> Outcome:
        """Write the row of a structure; it is on the disk when this returns.

        Parameters
        ----------
        member : Member
            The structure.
        end : RelaxResult or ESCNError
            How its relaxation ended; an error if it could not even begin.
        trajectory : Path, optional
            File with every step.

        Raises
        ------
        InputError
            It cannot be written; what was written before stays.
        """
        outcome = outcome_of(member, end)
        row = {"structure": member.name, "state": outcome.state, **_numbers(end)}
        if outcome.failure:
            row["failure"] = outcome.failure
        if trajectory is not None:
            row["trajectory"] = f"{trajectory.parent.name}/{trajectory.name}"
        atoms = member.atoms if isinstance(end, ESCNError) else end.atoms
        with self._file.errors_named(), self._file.open() as database:
            database.write(atoms, row, data={"sha256_of_input": member.digest, **_course(end)})
        return outcome

    def _run(self) -> dict[str, Any]:
        try:
            with self._file.open() as database:
                run: dict[str, Any] = database.metadata["escn_relax"]
        except (OSError, KeyError) as error:
            raise InputError(f"{str(self.path)!r} is not a database that escn relax has made") from error
        if run["format"] != FORMAT:
            raise InputError(f"{str(self.path)!r} is of another version: {run['format']!r}, not {FORMAT!r}")
        return run


def _write_metadata(database: SQLite3Database, identity: Identity, digests: dict[str, str | None]) -> None:
    run = {"format": FORMAT, "identity": identity, "structures": digests}
    database.metadata = {"title": "escn relax", "key_descriptions": KEY_DESCRIPTIONS, "escn_relax": run}


def _check_same(path: Path, known: dict[str, str | None], found: dict[str, str | None]) -> None:
    """Refuse other structures than those begun with; ones that could not be used before may have changed."""
    for name, digest in known.items():
        if digest is None or found.get(name) == digest:
            continue
        problem = "is not among those given" if name not in found else "is another structure now"
        raise InputError(
            f"{name}, which is in {str(path)!r}, {problem}; give the files of that run as they were (more may be "
            "added), or choose another --output-dir"
        )


def outcome_of(member: Member, end: RelaxResult | ESCNError) -> Outcome:
    """Say how a relaxation ended; messages name the file and frame, as places in lists change with a resume."""
    if isinstance(end, ESCNError):
        return Outcome("failed", renamed(str(end), member.name))
    return Outcome(end.reason, renamed(end.message, member.name), len(end.notes))


def _numbers(end: RelaxResult | ESCNError) -> dict[str, str | float]:
    if isinstance(end, ESCNError):
        return {}
    return {
        "steps": end.steps,
        "energy_change": end.energy_change,
        "max_displacement": end.max_displacement,
        "doubts": len(end.notes),
    }


def _course(end: RelaxResult | ESCNError) -> dict[str, Any]:
    """What is known of every step, and reasons to doubt."""
    if isinstance(end, ESCNError):
        return {}
    return {"history": history_arrays(end.history), "notes": list(end.notes)}
