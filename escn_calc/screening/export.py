"""Tables of results for other programs: CSV and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from escn_calc.errors import InputError
from escn_calc.records import write_atomically
from escn_calc.screening.results import Result

SUFFIXES = (".csv", ".parquet")

COLUMNS = (
    "surface",
    "bulk",
    "miller",
    "adsorbate",
    "coverage_ML",
    "molecules",
    "site",
    "energy_eV",
    "best",
    "valid",
    "state",
    "anomalies",
    "steps",
    "fmax_eV_per_A",
    "raw_energy_eV",
    "reaction",
    "duplicate_of",
    "why_no_energy",
    "failure",
    "doubts",
    "formula",
    "row",
    "task",
)


def check_table_path(path: Path) -> None:
    """Make sure that a table can have this name.

    Raises
    ------
    InputError
        Another suffix than those of ``SUFFIXES``; a Parquet file without pyarrow.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{str(path)!r} is neither a .csv nor a .parquet file; choose one of them")
    if path.suffix == ".parquet":
        _pyarrow()


def write_table(found: Sequence[Result], path: Path) -> None:
    """Write one line for each placement, complete or not at all.

    Parameters
    ----------
    found : sequence of Result
        From :func:`escn_calc.screening.results`.
    path : Path
        Its suffix, ``.csv`` or ``.parquet``, is the format.

    Raises
    ------
    InputError
        As :func:`check_table_path`, or the file cannot be written.
    """
    check_table_path(path)
    lines = [_line(result) for result in found]
    write = _write_csv if path.suffix == ".csv" else _write_parquet
    write_atomically(path, lambda unfinished: write(lines, unfinished))


def _line(result: Result) -> dict[str, Any]:
    return {
        "surface": result.surface,
        "bulk": result.bulk,
        "miller": "" if result.miller is None else " ".join(map(str, result.miller)),
        "adsorbate": result.adsorbate,
        "coverage_ML": result.coverage,
        "molecules": result.molecules,
        "site": result.site,
        "energy_eV": result.energy,
        "best": result.best,
        "valid": result.valid,
        "state": result.state,
        "anomalies": "; ".join(anomaly.kind for anomaly in result.anomalies),
        "steps": result.steps,
        "fmax_eV_per_A": result.fmax,
        "raw_energy_eV": result.raw_energy,
        "reaction": result.reaction,
        "duplicate_of": result.duplicate_of,
        "why_no_energy": result.why_no_energy,
        "failure": result.failure,
        "doubts": "; ".join(result.doubts),
        "formula": result.atoms.get_chemical_formula(),
        "row": result.row,
        "task": result.key,
    }


def _write_csv(lines: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(lines)


def _write_parquet(lines: Sequence[dict[str, Any]], path: Path) -> None:
    pyarrow = _pyarrow()
    from pyarrow import parquet

    kinds = {
        "coverage_ML": pyarrow.float64(),
        "energy_eV": pyarrow.float64(),
        "fmax_eV_per_A": pyarrow.float64(),
        "raw_energy_eV": pyarrow.float64(),
        "molecules": pyarrow.int64(),
        "steps": pyarrow.int64(),
        "row": pyarrow.int64(),
        "best": pyarrow.bool_(),
        "valid": pyarrow.bool_(),
    }
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    parquet.write_table(pyarrow.Table.from_pylist(list(lines), schema), path)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise InputError(f"Parquet files need pyarrow ({error}); pip install pyarrow, or write a .csv file") from error
    return pyarrow
