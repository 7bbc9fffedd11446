"""ASE databases as stores of results: one writer at a time, and a row that is written is on the disk.

A row is one transaction, which is there or not at all whenever the process is killed. ASE's own lock file is not used:
it would stay behind a killed process and stop every later one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

from ase.db.sqlite import SQLite3Database
from filelock import FileLock, Timeout

from escn_calc.errors import InputError
from escn_calc.records import remove_unfinished, write_atomically

ADVISORY_LOCK = 0x6573636E
"""Number of the lock of PostgreSQL that the writer of a database holds."""


@dataclass(frozen=True)
class DatabaseFile:
    """An SQLite database in the file ``path``."""

    path: Path

    @property
    def name(self) -> str:
        """For messages."""
        return repr(str(self.path))

    def exists(self) -> bool:
        """Whether there is such a file."""
        return self.path.exists()

    def open(self) -> SQLite3Database:
        """Return the database as ASE has it; the file is made if it is not there."""
        return SQLite3Database(str(self.path.absolute()), serial=True)

    def create(self, write: Callable[[SQLite3Database], object]) -> None:
        """Make the database and let ``write`` fill it, complete or not at all.

        Raises
        ------
        InputError
            It cannot be written.
        """

        def fill(unfinished: Path) -> None:
            with DatabaseFile(unfinished).open() as database:
                write(database)

        with self.errors_named():
            write_atomically(self.path, fill)

    @contextmanager
    def locked(self, alternative: str) -> Iterator[None]:
        """Keep other processes from this database until this one leaves or dies.

        What a killed process left of making it is removed.

        Parameters
        ----------
        alternative : str
            What the user can choose instead, for the message.

        Raises
        ------
        InputError
            Another process has it, or the lock beside it cannot be made.
        """
        path = self.path.with_name(f".{self.path.name}.lock")
        lock = FileLock(path, timeout=0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise _written_by_another(self.name, alternative) from error
        except OSError as error:
            raise InputError(f"cannot write to the folder {str(path.parent)!r}: {error.strerror or error}") from error
        try:
            remove_unfinished(self.path)
            yield
        finally:
            with suppress(OSError):  # where open files cannot be removed, it stays and does no harm
                path.unlink()
            lock.release()

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Turn errors of SQLite into ``InputError`` with the name of the file."""
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(f"cannot use the database {self.name}: {error}") from error


@dataclass(frozen=True)
class DatabaseServer:
    """A database of a PostgreSQL server, ``url`` being ``postgresql://user@host/name``; needs ``ase-db-backends``."""

    url: str

    @property
    def name(self) -> str:
        """For messages and records, without the password."""
        parts = urlsplit(self.url)
        options = urlencode([pair for pair in parse_qsl(parts.query) if pair[0] != "password"], safe="/")
        host = parts.netloc.rpartition("@")[2]
        return repr(f"{parts.scheme}://{host}{parts.path}{f'?{options}' if options else ''}")

    def exists(self) -> bool:
        """Whether ASE has made its tables there.

        Raises
        ------
        InputError
            The server cannot be reached.
        """
        with self.errors_named(), self._connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('systems') IS NOT NULL")
            return bool(cursor.fetchone()[0])

    def open(self) -> SQLite3Database:
        """Return the database as ASE has it; its tables are made if they are not there."""
        from ase_db_backends.postgresql import PostgreSQLDatabase

        return cast("SQLite3Database", PostgreSQLDatabase(self.url, serial=True))  # its methods are the same

    def create(self, write: Callable[[SQLite3Database], object]) -> None:
        """Make the tables and let ``write`` fill them.

        Raises
        ------
        InputError
            They cannot be written.
        """
        with self.errors_named(), self.open() as database:
            write(database)

    @contextmanager
    def locked(self, alternative: str) -> Iterator[None]:
        """Keep other processes from this database until this one leaves or dies.

        Parameters
        ----------
        alternative : str
            What the user can choose instead, for the message.

        Raises
        ------
        InputError
            Another process has it, or the server cannot be reached.
        """
        with self.errors_named():
            connection = self._connect()
        try:
            with self.errors_named(), connection.cursor() as cursor:
                cursor.execute("SELECT pg_try_advisory_lock(%s)", [ADVISORY_LOCK])
                has_it = bool(cursor.fetchone()[0])
            connection.commit()  # the lock belongs to the session, not to a transaction that would stay open
            if not has_it:
                raise _written_by_another(self.name, alternative)
            try:
                yield
            finally:
                with suppress(_psycopg2().Error), connection.cursor() as cursor:  # a lost session has lost the lock too
                    cursor.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])
        finally:
            connection.close()

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Turn errors of the server into ``InputError`` with the name of the database."""
        psycopg2 = _psycopg2()
        try:
            yield
        except psycopg2.Error as error:
            raise InputError(f"cannot use the database {self.name}: {' '.join(str(error).split())}") from error

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        connection = self._connect()
        try:
            yield connection
        finally:
            connection.close()

    def _connect(self) -> Any:
        return _psycopg2().connect(self.url)


def database_at(place: str | Path) -> DatabaseFile | DatabaseServer:
    """Return the database of a PostgreSQL URL or in a file."""
    if isinstance(place, str) and place.startswith(("postgresql://", "postgres://")):
        return DatabaseServer(place)
    return DatabaseFile(Path(place))


def _psycopg2() -> Any:
    try:
        import ase_db_backends  # noqa: F401
        import psycopg2
    except ImportError as error:
        raise InputError(
            f"PostgreSQL databases need ase-db-backends ({error}); pip install 'escn-calc[postgresql]'"
        ) from error
    return psycopg2


def _written_by_another(name: str, alternative: str) -> InputError:
    return InputError(f"another process writes {name}; wait until it ends, or choose {alternative}")
