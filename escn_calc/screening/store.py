"""The database of a campaign: a row for each relaxation, written as it ends, and never done again.

Every row says with what model, versions, settings and references it was made. The metadata say the same of all rows
together, so that a run with anything else is refused. Adsorption energies are not stored: they follow from the rows,
see :mod:`escn_calc.screening.results`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.db.sqlite import SQLite3Database

from escn_calc.adsorption.anomalies import Anomaly
from escn_calc.ase_database import DatabaseFile, DatabaseServer, database_at
from escn_calc.errors import ESCNError, InputError
from escn_calc.identity import Identity, check_identity
from escn_calc.screening.relaxing import Ended
from escn_calc.screening.rows import KEY_DESCRIPTIONS, data_of, keys_of

FORMAT = "escn screen 1"


@dataclass(frozen=True)
class Header:
    """What all rows of a database have in common, as values that JSON can hold.

    Attributes
    ----------
    identity : dict
        Model, settings and references; another value makes another database.
    bulks, adsorbates : dict of str
        Digests by name; more may come.
    about : dict
        For people and reports: the campaign, the model, the reference scheme.
    planned : dict of int
        Number of relaxations by kind.
    planned_systems : list
        Surface, adsorbate, coverage and number of placements of each system.
    """

    identity: Identity
    bulks: dict[str, str]
    adsorbates: dict[str, str]
    about: dict[str, Any]
    planned: dict[str, int]
    planned_systems: list[list[Any]]


@dataclass(frozen=True)
class Finished:
    """A relaxation of which there is a row."""

    row: int
    kind: str
    state: str
    steps: int | None


@dataclass(frozen=True, eq=False)
class Store:
    """The database of a campaign.

    Attributes
    ----------
    place : DatabaseFile or DatabaseServer
        Where it is.
    database : SQLite3Database
        The same as ASE has it.
    """

    place: DatabaseFile | DatabaseServer
    database: SQLite3Database

    @classmethod
    def at(cls, place: str | Path) -> Store:
        """Return the store in a file or at a URL, which need not be there yet."""
        found = database_at(place)
        return cls(found, found.open())

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from writing until this one leaves or dies.

        Raises
        ------
        InputError
            Another process has it, or it cannot be reached.
        """
        return self.place.locked("another 'out' or 'database'")

    def check_is_campaign(self) -> None:
        """Make sure that there is nothing, or the database of a campaign.

        Raises
        ------
        InputError
            There is something else.
        """
        if self.place.exists():
            self.metadata()

    def check(self, header: Header) -> None:
        """Make sure that a campaign may write here.

        Raises
        ------
        InputError
            There is something else, or a campaign with another model, other settings or other structures.
        """
        if not self.place.exists():
            return
        before = self.metadata()
        check_identity(self.place.name.strip("'"), before["identity"], header.identity)
        for what, known, wanted in (
            ("bulk", before["bulks"], header.bulks),
            ("adsorbate", before["adsorbates"], header.adsorbates),
        ):
            changed = [name for name, digest in wanted.items() if known.get(name, digest) != digest]
            if changed:
                raise InputError(
                    f"the {what} {changed[0]} is not the same as in {self.place.name}; give it another name, or choose "
                    "another 'out' or 'database'"
                )

    def begin(self, header: Header, run: dict[str, Any]) -> None:
        """Make the database, or note another run in it.

        Parameters
        ----------
        header : Header
            Checked by :meth:`check`.
        run : dict
            When, where and with which software, as values that JSON can hold.

        Raises
        ------
        InputError
            It cannot be written.
        """
        self._describe(header, [run])

    def describe(self, header: Header) -> None:
        """Write what is known now of the campaign.

        Raises
        ------
        InputError
            It cannot be written.
        """
        self._describe(header, [])

    def _describe(self, header: Header, runs: list[dict[str, Any]]) -> None:
        exists = self.place.exists()
        before = self.metadata() if exists else {"bulks": {}, "adsorbates": {}, "runs": []}
        content = {
            "format": FORMAT,
            **asdict(header),
            "bulks": {**before["bulks"], **header.bulks},
            "adsorbates": {**before["adsorbates"], **header.adsorbates},
            "runs": [*before["runs"], *runs],
        }
        metadata = {"title": "escn screen", "key_descriptions": KEY_DESCRIPTIONS, "escn_screen": content}

        def write(database: SQLite3Database) -> None:
            database.metadata = metadata

        if not exists:
            self.place.create(write)
            return
        with self.place.errors_named(), self.database:
            write(self.database)

    def metadata(self) -> dict[str, Any]:
        """Return what the database says about itself.

        Raises
        ------
        InputError
            It is not that of a campaign, or cannot be read.
        """
        with self.place.errors_named():
            try:
                found: dict[str, Any] = self.database.metadata["escn_screen"]
            except (OSError, KeyError) as error:
                raise InputError(f"{self.place.name} is not a database that escn screen has made") from error
        if found["format"] != FORMAT:
            raise InputError(f"{self.place.name} is of another version: {found['format']!r}, not {FORMAT!r}")
        return found

    def finished(self) -> dict[str, Finished]:
        """Return what there are rows of, by the keys of the tasks."""
        if not self.place.exists():
            return {}
        with self.place.errors_named():
            rows = self.database.select(columns=["id", "key_value_pairs"], include_data=False)
            return {row.task: Finished(row.id, row.kind, row.state, row.get("steps")) for row in rows}

    def relaxed_bulks(self) -> dict[str, Atoms]:
        """Return the crystals that have converged, by the keys of their tasks."""
        return {row.task: row.toatoms() for row in self._converged("bulk")}

    def relaxed_slabs(self) -> dict[str, Atoms]:
        """Return the clean slabs that have converged, by the names of the surfaces."""
        return {row.surface: row.toatoms() for row in self._converged("slab")}

    def rows(self) -> Iterator[Any]:
        """Return every row, with structures and data."""
        with self.place.errors_named():
            yield from self.database.select()

    def add(
        self, ended: Ended, anomalies: tuple[Anomaly, ...], references: str, replaces: Finished | None = None
    ) -> Finished:
        """Write the row of a task; it is on the disk when this returns.

        Parameters
        ----------
        ended : Ended
            The task.
        anomalies : tuple of Anomaly
            What was found in its end.
        references : str
            Name of the reference scheme.
        replaces : Finished, optional
            An earlier row of the same task.

        Raises
        ------
        InputError
            It cannot be written; what was written before stays.
        """
        task, end = ended.task, ended.end
        atoms = task.atoms if isinstance(end, ESCNError) else end.atoms
        keys, data = keys_of(ended, anomalies, references), data_of(ended, anomalies)
        with self.place.errors_named(), self.database:
            row = self.database.write(atoms, keys, data=data, id=None if replaces is None else replaces.row)
        return Finished(row, task.kind, ended.state, None if isinstance(end, ESCNError) else end.steps)

    def _converged(self, kind: str) -> list[Any]:
        if not self.place.exists():
            return []
        with self.place.errors_named():
            return list(self.database.select(kind=kind, state="converged", include_data=False))


def open_store(place: str | Path) -> Store:
    """Open the database of a campaign to read it.

    Parameters
    ----------
    place : str or Path
        A file, or a ``postgresql://`` URL.

    Raises
    ------
    InputError
        There is none, or it is not that of a campaign.
    """
    store = Store.at(place)
    if not store.place.exists():
        raise InputError(f"there is no database {store.place.name}")
    store.metadata()
    return store


def mean_evaluations(finished: Mapping[str, Finished]) -> dict[str, float]:
    """Return the mean number of evaluations of finished relaxations by kind."""
    total: Counter[str] = Counter()
    number: defaultdict[str, int] = defaultdict(int)
    for one in finished.values():
        if one.steps is not None:
            total[one.kind] += one.steps + 1
            number[one.kind] += 1
    return {kind: total[kind] / number[kind] for kind in number}
