"""The thermodynamic log: a CSV file with one row a logged step, units in the names of its columns.

Numbers are written as Python writes them, with as many digits as it takes to read back the same bits. A restart cuts
the file at the byte that the state remembers.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from escn_calc.errors import InputError
from escn_calc.md.results import MDStep

COLUMNS = ("step", "time_fs", "potential_eV", "kinetic_eV", "total_eV", "temperature_K")
CELL_COLUMNS = ("pressure_GPa", "volume_A3")


class LogFile:
    """The log of a run, open for new rows.

    Parameters
    ----------
    path : Path
        The file; made if there is none.
    size : int
        Number of bytes to keep; what comes after them is cut off. With 0 the names of the columns are written.
    npt : bool
        Whether there are columns for pressure and volume.
    """

    def __init__(self, path: Path, size: int, npt: bool) -> None:
        self._file = path.open("r+b" if size else "wb")
        self._file.truncate(size)
        self._file.seek(size)
        if not size:
            self._write(",".join((*COLUMNS, *CELL_COLUMNS) if npt else COLUMNS))

    def write(self, row: MDStep) -> int:
        """Append a row and return the number of bytes that the file now has."""
        values = [row.step, row.time_fs, row.potential, row.kinetic, row.total, row.temperature_K]
        cell = [value for value in (row.pressure_GPa, row.volume) if value is not None]
        self._write(",".join(map(repr, values + cell)))
        return self._file.tell()

    def sync(self) -> None:
        """Make sure that the rows are on the disk."""
        os.fsync(self._file.fileno())

    def close(self, size: int) -> None:
        """Close the file and keep its first ``size`` bytes."""
        self._file.truncate(size)
        self._file.close()

    def _write(self, line: str) -> None:
        self._file.write(line.encode("ascii") + b"\n")
        self._file.flush()


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
