"""The thermodynamic log: a CSV file with one row a logged step, units in the names of its columns.

Numbers are written as Python writes them, with as many digits as it takes to read back the same bits. A restart cuts
the file at the byte that the state remembers.
"""

from __future__ import annotations

import csv
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from escn_calc.errors import InputError
from escn_calc.md.results import MDStep

COLUMNS = ("step", "time_fs", "potential_eV", "kinetic_eV", "total_eV", "temperature_K")
CELL_COLUMNS = ("pressure_GPa", "volume_A3")

CHUNK = 1 << 20


@dataclass(frozen=True)
class LogMark:
    """A point to which a log can be cut back: its length in bytes, and the CRC-32 of them."""

    size: int = 0
    crc: int = 0

    def fits(self, path: Path) -> bool:
        """Whether a file begins with the bytes that were marked."""
        crc, left = 0, self.size
        with path.open("rb") as file:
            while data := file.read(min(CHUNK, left)):
                crc = zlib.crc32(data, crc)
                left -= len(data)
        return (left, crc) == (0, self.crc)


class LogFile:
    """The log of a run, open for new rows.

    Parameters
    ----------
    path : Path
        The file; made if there is none.
    mark : LogMark
        What to keep; what comes after it is cut off. With nothing to keep the names of the columns are written.
    npt : bool
        Whether there are columns for pressure and volume.
    """

    def __init__(self, path: Path, mark: LogMark, npt: bool) -> None:
        self.path = path
        self._crc = mark.crc
        self._file = path.open("r+b" if mark.size else "wb")
        self._file.truncate(mark.size)
        self._file.seek(mark.size)
        if not mark.size:
            self._write(",".join((*COLUMNS, *CELL_COLUMNS) if npt else COLUMNS))

    def write(self, row: MDStep) -> LogMark:
        """Append a row and return the point that the file has reached."""
        values = [row.step, row.time_fs, row.potential, row.kinetic, row.total, row.temperature_K]
        cell = [value for value in (row.pressure_GPa, row.volume) if value is not None]
        self._write(",".join(map(repr, values + cell)))
        return LogMark(self._file.tell(), self._crc)

    def sync(self) -> None:
        """Make sure that the rows are on the disk."""
        os.fsync(self._file.fileno())

    def close(self, mark: LogMark) -> None:
        """Close the file and keep what was marked, even if the last row cannot be brought to the disk."""
        try:
            self._file.close()
        finally:
            os.truncate(self.path, mark.size)

    def _write(self, line: str) -> None:
        data = line.encode("ascii") + b"\n"
        self._file.write(data)
        self._file.flush()
        self._crc = zlib.crc32(data, self._crc)


def read_log(path: str | Path) -> dict[str, np.ndarray]:
    """Read the log of a run.

    Parameters
    ----------
    path : str or Path
        The CSV file that ``run_md(log=...)`` wrote.

    Returns
    -------
    dict of str to ndarray, (rows,)
        The columns by name; ``step`` holds integers, all others float64. The unit is part of the name.

    Raises
    ------
    InputError
        The file cannot be read, or is not such a log.
    """
    try:
        with Path(path).open(encoding="ascii", newline="") as file:
            names, *rows = list(csv.reader(file)) or [[]]
        values = np.array([[float(value) for value in row] for row in rows]).reshape(len(rows), len(names))
    except OSError as error:
        raise InputError(f"cannot read the log {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not a log of a run: {error}") from error
    if tuple(names) not in (COLUMNS, (*COLUMNS, *CELL_COLUMNS)):
        raise InputError(f"{str(path)!r} is not a log of a run: its first line does not name the columns of one")
    columns = dict(zip(names, values.T, strict=True))
    return {**columns, "step": columns["step"].astype(int)}
