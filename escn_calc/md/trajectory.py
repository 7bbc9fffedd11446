"""The trajectory of a run: an ASE ``.traj`` file that can be cut back to an earlier number of frames.

A ``.traj`` file is an ULM file (``ase.io.ulm``): data, then at bytes 32 and 40 of its start the number of frames and
the place of the table with their offsets, little endian. A new frame is appended, entered into the table (a larger copy
of it, if it is full, at the end of the file), and counted last. What belongs to n frames is never written again: so the
number of frames, the place of the table and the length of the file, noted after n frames, suffice to return to them,
however the file was torn afterwards. Cutting first sets the two numbers, then the length; after a kill between the two
it is simply done again.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ase.io.trajectory import TrajectoryWriter, get_header_data

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.md.frame import Frame

COUNT_AT = 32
"""Byte at which an ULM file counts its frames; the place of the table of offsets follows."""

ARRAYS_AT = 56
"""Byte at which the arrays of the first frame begin, behind the first table, which has one entry."""

MAGIC = b"- of UlmASE-Trajectory".ljust(24)


@dataclass(frozen=True)
class TrajectoryMark:
    """A point to which a trajectory can be cut back.

    Attributes
    ----------
    frames, table, size : int
        Number of frames, place of their table, and length in bytes.
    arrays, end, crc : int
        Place of the arrays of the last frame (positions, momenta, forces), the byte behind them, and their CRC-32.
    """

    frames: int = 0
    table: int = 0
    size: int = 0
    arrays: int = ARRAYS_AT
    end: int = ARRAYS_AT
    crc: int = 0

    def fits(self, path: Path) -> bool:
        """Whether a file is a trajectory that holds the last frame that was marked."""
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
        return self.frames == 0 or (magic == MAGIC and _crc(path, self.arrays, self.end) == self.crc)


class TrajectoryFile:
    """The trajectory of a run, open for new frames.

    Parameters
    ----------
    path : Path
        The file; made if there is none.
    mark : TrajectoryMark
        The frames to keep; what comes after them is cut off.
    atoms : Atoms
        The structure, for numbers, masses, boundary conditions and constraints, which all frames share.
    """

    def __init__(self, path: Path, mark: TrajectoryMark, atoms: Atoms) -> None:
        cut_trajectory(path, mark)
        self.path = path
        self._size = mark.size or ARRAYS_AT
        self._writer = TrajectoryWriter(path, "a")
        self._atoms = atoms.copy()
        if mark.frames:
            self._writer.header_data = get_header_data(self._atoms)

    def write(self, frame: Frame) -> TrajectoryMark:
        """Append a frame and return the point that the file has reached."""
        self._writer.write(frame.put_into(self._atoms))
        backend = self._writer.backend
        begin, self._size = self._size, backend.fd.tell()
        end = int(backend.offsets[backend.nitems - 1])
        crc = _crc(self.path, begin, end)
        return TrajectoryMark(int(backend.nitems), int(backend.pos0), self._size, begin, end, crc)

    def sync(self) -> None:
        """Make sure that the frames are on the disk."""
        os.fsync(self._writer.backend.fd.fileno())

    def close(self, mark: TrajectoryMark) -> None:
        """Close the file and keep the frames up to a mark, even if the last one cannot be brought to the disk."""
        try:
            self._writer.backend.fd.close()
        finally:
            cut_trajectory(self.path, mark)


def cut_trajectory(path: Path, mark: TrajectoryMark) -> None:
    """Cut a trajectory back to a mark; a file without frames is left empty."""
    with path.open("r+b" if mark.frames else "wb") as file:
        if mark.frames:
            file.seek(COUNT_AT)
            file.write(struct.pack("<qq", mark.frames, mark.table))
            file.flush()
            file.truncate(mark.size)


def _crc(path: Path, begin: int, end: int) -> int:
    with path.open("rb") as file:
        file.seek(begin)
        return zlib.crc32(file.read(end - begin))
