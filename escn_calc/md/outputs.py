"""The files of a run, and how much of them belongs to a state."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from escn_calc.errors import InputError
from escn_calc.md.log import LogFile, LogMark
from escn_calc.md.trajectory import TrajectoryFile, TrajectoryMark

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.md.frame import Frame


class OutputError(Exception):
    """A file of the run cannot be written; the message says which and why."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Give errors of the operating system the name of the file that is written."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Mark:
    """A point to which the outputs can be cut back.

    Attributes
    ----------
    rows : int
        Number of logged steps.
    trajectory : TrajectoryMark
        The frames of them.
    log : LogMark
        The rows of them.
    """

    rows: int = 0
    trajectory: TrajectoryMark = field(default_factory=TrajectoryMark)
    log: LogMark = field(default_factory=LogMark)

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Mark:
        """Make a mark of what ``dataclasses.asdict`` made of it."""
        return cls(values["rows"], TrajectoryMark(**values["trajectory"]), LogMark(**values["log"]))


@dataclass(frozen=True)
class Paths:
    """Where a run writes; None leaves a file out."""

    trajectory: Path | None
    log: Path | None
    state: Path | None

    @property
    def named(self) -> dict[str, Path]:
        """The files that are wanted, by the name of their option."""
        return {name: path for name, path in vars(self).items() if path is not None}

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Make sure that the run can write its files, and that nothing is lost by it.

        Parameters
        ----------
        resume : bool
            Whether the run in the files is to be continued.
        overwrite : bool
            Whether files of another run may be replaced.

        Raises
        ------
        InputError
            Both are wanted; there is no state to resume from; a file is in the way; two names are the same file; or
            a folder does not exist.
        """
        if resume and overwrite:
            raise InputError("resume and overwrite exclude each other: continue the files, or replace them")
        if resume and self.state is None:
            raise InputError("resume needs the state file of the run; pass state=PATH")
        files = self.named
        if len({path.resolve() for path in files.values()}) < len(files):
            raise InputError(f"{', '.join(files)} must be different files")
        for name, path in files.items():
            if not path.parent.is_dir():
                raise InputError(f"{name}: there is no folder {str(path.parent)!r}")
            if path.is_dir():
                raise InputError(f"{name}: {str(path)!r} is a folder")
        existing = [path for path in files.values() if path.exists()]
        if resume and existing and self.state not in existing:
            raise InputError(
                f"{str(existing[0])!r} is there, but its state {str(self.state)!r} is not, so that it cannot be "
                "continued; choose other files, or overwrite"
            )
        if existing and not resume and not overwrite:
            raise InputError(f"{str(existing[0])!r} exists; choose another name, resume its run, or overwrite it")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from the state, and so from the run, until this one leaves or dies.

        Raises
        ------
        InputError
            Another process has it, or the lock beside it cannot be made.
        """
        if self.state is None:
            yield
            return
        path = self.state.with_name(f"{self.state.name}.lock")
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"another process runs {str(self.state)!r}; wait until it ends, or choose other files"
            ) from error
        except OSError as error:
            raise InputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
        try:
            yield
        finally:
            with suppress(OSError):  # where open files cannot be removed, it stays and does no harm
                path.unlink()
            lock.release()

    def check_writable(self) -> None:
        """Make sure that every file can be written, without touching one.

        Raises
        ------
        InputError
            One of them cannot.
        """
        for path in self.named.values():
            try:
                if os.path.lexists(path):
                    path.open("r+b").close()
                elif not os.access(path.parent, os.W_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            except OSError as error:
                raise InputError(f"cannot write {str(path)!r}: {error.strerror}") from error

    def check_content(self, mark: Mark) -> None:
        """Make sure that trajectory and log are those of the state.

        Raises
        ------
        InputError
            One of them is missing, too short, or that of another run.
        """
        wanted: dict[str, TrajectoryMark | LogMark] = {"trajectory": mark.trajectory, "log": mark.log}
        for name, part in wanted.items():
            path = self.named.get(name)
            if path is None:
                continue
            found = path.stat().st_size if path.exists() else 0
            if found < part.size:
                raise InputError(
                    f"the {name} {str(path)!r} has {found} bytes, but the state {str(self.state)!r} counts on "
                    f"{part.size}; it is not the file of this run, or was cut"
                )
            if part.size and not part.fits(path):
                raise InputError(
                    f"the {name} {str(path)!r} is not that of the state {str(self.state)!r}: what the run wrote "
                    "is not there; bring back the right file, or start a new run in other files"
                )


class Outputs:
    """Trajectory and log of a run, open for the next frame.

    Parameters
    ----------
    paths : Paths
        The files.
    mark : Mark
        What to keep of them.
    atoms : Atoms
        The structure.
    npt : bool
        Whether the log has columns for the cell.

    Raises
    ------
    InputError
        A file cannot be written.
    """

    def __init__(self, paths: Paths, mark: Mark, atoms: Atoms, npt: bool) -> None:
        self.mark = mark
        try:
            self._trajectory = TrajectoryFile(paths.trajectory, mark.trajectory, atoms) if paths.trajectory else None
            self._log = LogFile(paths.log, mark.log, npt) if paths.log else None
        except OSError as error:
            raise InputError(f"cannot write {str(error.filename)!r}: {error.strerror}") from error

    def write(self, frame: Frame) -> None:
        """Append a frame to all files; it counts once all of them have it.

        Raises
        ------
        OutputError
            A file cannot be written.
        """
        trajectory, log = self.mark.trajectory, self.mark.log
        if self._trajectory:
            with writing(self._trajectory.path):
                trajectory = self._trajectory.write(frame)
        if self._log:
            with writing(self._log.path):
                log = self._log.write(frame.thermodynamics)
        self.mark = Mark(self.mark.rows + 1, trajectory, log)

    def sync(self) -> None:
        """Make sure that all that was written is on the disk.

        Raises
        ------
        OutputError
            It cannot be brought there.
        """
        for file in (self._trajectory, self._log):
            if file:
                with writing(file.path):
                    file.sync()

    def close(self) -> None:
        """Close all files, without what was written of an unfinished frame.

        Raises
        ------
        OutputError
            A file could not be closed as it should; the others are.
        """
        with ExitStack() as stack:
            if self._trajectory:
                stack.enter_context(writing(self._trajectory.path))
                stack.callback(self._trajectory.close, self.mark.trajectory)
            if self._log:
                stack.enter_context(writing(self._log.path))
                stack.callback(self._log.close, self.mark.log)
