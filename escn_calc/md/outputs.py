"""The files of a run, and how much of them belongs to a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escn_calc.errors import InputError
from escn_calc.md.log import LogFile
from escn_calc.md.trajectory import TrajectoryFile, TrajectoryMark

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.md.frame import Frame


@dataclass(frozen=True)
class Mark:
    """A point to which the outputs can be cut back.

    Attributes
    ----------
    rows : int
        Number of logged steps.
    trajectory : TrajectoryMark
        The frames of them.
    log_size : int
        Bytes of the log.
    """

    rows: int = 0
    trajectory: TrajectoryMark = field(default_factory=TrajectoryMark)
    log_size: int = 0

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Mark:
        """Make a mark of what ``dataclasses.asdict`` made of it."""
        return cls(values["rows"], TrajectoryMark(**values["trajectory"]), values["log_size"])


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
        if len({path.absolute() for path in files.values()}) < len(files):
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

    def check_sizes(self, mark: Mark) -> None:
        """Make sure that trajectory and log are as long as the state says.

        Raises
        ------
        InputError
            One of them is missing or too short.
        """
        wanted = {"trajectory": mark.trajectory.size, "log": mark.log_size}
        for name, size in wanted.items():
            path = self.named.get(name)
            found = path.stat().st_size if path is not None and path.exists() else 0
            if path is not None and found < size:
                raise InputError(
                    f"the {name} {str(path)!r} has {found} bytes, but the state {str(self.state)!r} counts on {size}; "
                    "it is not the file of this run, or was cut"
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
            self._log = LogFile(paths.log, mark.log_size, npt) if paths.log else None
        except OSError as error:
            raise InputError(f"cannot write {str(error.filename)!r}: {error.strerror}") from error

    def write(self, frame: Frame) -> None:
        """Append a frame to all files; it counts once all of them have it."""
        trajectory = self._trajectory.write(frame) if self._trajectory else self.mark.trajectory
        log_size = self._log.write(frame.thermodynamics) if self._log else self.mark.log_size
        self.mark = Mark(self.mark.rows + 1, trajectory, log_size)

    def sync(self) -> None:
        """Make sure that all that was written is on the disk."""
        if self._trajectory:
            self._trajectory.sync()
        if self._log:
            self._log.sync()

    def close(self) -> None:
        """Close the files, without what was written of an unfinished frame."""
        if self._trajectory:
            self._trajectory.close(self.mark.trajectory)
        if self._log:
            self._log.close(self.mark.log_size)
