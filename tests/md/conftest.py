"""Runs of one small crystal that the tests of molecular dynamics share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from escn_calc.md import MDResult, run_md
from tests.md.potentials import PairPotential, crystal

FILES = ("a.traj", "a.csv", "a.npz")


def files_in(folder: Path) -> dict[str, Path]:
    """Name the files of a run in a folder as ``run_md`` takes them."""
    return dict(zip(("trajectory", "log", "state"), (folder / name for name in FILES), strict=True))


def contents(folder: Path) -> dict[str, bytes]:
    """Read the files of runs in a folder, without locks, which stay, and what killed processes left unfinished."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix not in {".lock", ".tmp"}}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Leave the data to the operating system: that is enough for a process that dies, and much faster."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def run(tmp_path) -> Callable[..., MDResult]:
    """A run of 40 steps at 300 K with all three files in ``tmp_path``, unless told otherwise."""

    def call(atoms=None, calculator=None, **options) -> MDResult:
        options = {"steps": 40, "every": 4, "state_every": 10, **files_in(tmp_path), **options}
        return run_md(crystal() if atoms is None else atoms, calculator or PairPotential(), **options)

    return call
