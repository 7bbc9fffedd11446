"""Files that are written complete or not at all, and what a record of a run says about the software."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from escn_calc import __version__
from escn_calc.errors import InputError

RECORDED_PACKAGES = ("ase", "numpy", "torch")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file complete or not at all, on the disk when this returns.

    Parameters
    ----------
    path : Path
        The file.
    write : callable
        Called with the path of a temporary file in the same folder, which then replaces ``path``.

    Raises
    ------
    InputError
        The file cannot be written; the message names it.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes have left of writing a file.

    Raises
    ------
    InputError
        The folder cannot be changed.
    """
    try:
        for leftover in path.parent.glob(f".{escape(path.name)}.*.tmp*"):
            leftover.unlink()
    except OSError as error:
        raise InputError(f"cannot write to the folder {str(path.parent)!r}: {error.strerror or error}") from error


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, complete or not at all."""
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python and of the packages that numbers depend on."""
    packages = {package: version(package) for package in RECORDED_PACKAGES}
    return {"escn-calc": __version__, "python": platform.python_version(), **packages}
