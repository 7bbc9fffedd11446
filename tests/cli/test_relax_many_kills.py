"""``escn relax`` on many structures, killed at any moment and on full disks: nothing is lost, nothing done twice."""

from __future__ import annotations

import os
import pkgutil
import random
import resource
import shutil
import signal
import sqlite3
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import read, write

from escn_calc.cli import main
from escn_calc.cli.relax_database import ResultDatabase
from escn_calc.cli.relax_members import Members
from tests.smooth import write_smooth_model

PRELOADED = [
    "escn_calc.cli.relax",
    "escn_calc.cli.relax_many",
    "escn_calc.potential",
    "tests.cli.test_relax_many_kills",
]
TIMES_AND_IDENTIFIERS = ("id", "unique_id", "ctime", "mtime", "username")
OUTPUT = Path("output.txt")
ENDED_WITH_FAILURES = 1

LOADED_PROCESSES = get_context("forkserver")
"""Processes that have loaded all modules when they start, and share nothing with the one of the tests."""

LOADED_PROCESSES.set_forkserver_preload(PRELOADED)


@dataclass(frozen=True)
class Accident:
    """What happens to a process: killed at a call of ``module:function``, or unable to write large files."""

    function: str = ""
    call: int = 0
    largest_file: int | None = None


def structures(number: int) -> list[Atoms]:
    """Small molecules and thin slabs, distorted; one of every twelve cannot be evaluated."""
    found = []
    for index in range(number):
        if index % 12 == 5:
            found.append(Atoms("CuH2", [[0, 0, 0], [2, 0, 0], [2, 0, 0]], cell=[8, 8, 8], pbc=True))
            continue
        if index % 4 == 0:
            atoms = fcc111("Cu", (1, 1, 2), vacuum=5.0, periodic=True)
            atoms.set_constraint(FixAtoms([0]))
        else:
            atoms = molecule(("CO", "H2O", "N2")[index % 4 - 1], vacuum=4.0)
        atoms.rattle(0.08, seed=index)
        atoms.info.clear()
        found.append(atoms)
    return found


def start(*options: str, accident: Accident = Accident()) -> BaseProcess:
    process = LOADED_PROCESSES.Process(target=child, args=(["relax", "many.xyz", "--index", ":", *options], accident))
    process.start()
    return process


def run(*options: str, accident: Accident = Accident()) -> int | None:
    process = start(*options, accident=accident)
    process.join()
    return process.exitcode


def child(arguments: list[str], accident: Accident) -> None:
    """The command, with its output in a file."""
    output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    if accident.largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (accident.largest_file, accident.largest_file))
    with pytest.MonkeyPatch.context() as patch:
        if accident.function:
            kill_at_call(patch, accident)
        main(arguments)


def kill_at_call(patch: pytest.MonkeyPatch, accident: Accident) -> None:
    calls = 0
    module, name = accident.function.split(":")
    owner: Any = pkgutil.resolve_name(module)
    original = getattr(owner, name)

    def function(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == accident.call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    patch.setattr(owner, name, function)


@dataclass(frozen=True)
class Reference:
    """A run without interruption, of which there are ``number`` structures, in the folder ``out``."""

    folder: Path
    number: int
    options: tuple[str, ...]
    seconds: float
    seconds_to_start: float

    @property
    def database(self) -> Path:
        return self.folder / "out/many.db"


def run_alone(folder: Path, model: Path, number: int, *options: str) -> Reference:
    """Run and return what came out; the working directory is ``folder``, prepared for further runs."""
    os.chdir(folder)
    Path("model").symlink_to(model)
    write("many.xyz", structures(number), format="extxyz")
    options = ("--model", "model", *options)
    run("--help")
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        status = run(*options, "--output-dir", "out", "--resume")
        assert status == ENDED_WITH_FAILURES, OUTPUT.read_text()
        seconds.append(time.monotonic() - began)
    return Reference(folder, number, options, *seconds)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_smooth_model(tmp_path_factory.mktemp("model") / "smooth")


@pytest.fixture(scope="module")
def eight(tmp_path_factory, model) -> Reference:
    before = Path.cwd()
    options = ("--batch-size", "1", "--trajectories", "--steps", "3", "--fmax", "0.5")
    yield run_alone(tmp_path_factory.mktemp("eight"), model, 8, *options)
    os.chdir(before)


def kill_at_random(reference: Reference, times: int, target: str) -> list[int]:
    """Start and kill again and again, before the work or in its middle; return how many rows there were each time."""
    chance = random.Random(reference.number)
    rows = []
    for number in range(times):
        process = start(*reference.options, "--output-dir", target, "--resume")
        if number % 3 == 0:
            process.join(chance.uniform(0, 1.2 * reference.seconds_to_start))
        else:
            wanted = count(target) + chance.randint(1, reference.number // times)
            while process.is_alive() and count(target) < wanted:
                time.sleep(0.01)
            process.join(chance.uniform(0, reference.seconds / reference.number))
        process.kill()
        process.join()
        rows.append(count_in_copy(target))
    return rows


def count(target: str) -> int:
    """Number of rows; 0 without a database or while another process has it for itself."""
    try:
        with sqlite3.connect(f"file:{target}/many.db?mode=ro", uri=True) as connection:
            return connection.execute("SELECT COUNT(*) FROM systems").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def count_in_copy(target: str) -> int:
    """The same after a kill: a write that was cut short has to be undone first, which is left to the next run."""
    copy = Path(f"{target}-copy")
    copy.mkdir()
    for file in Path(target).glob("many.db*"):
        shutil.copy(file, copy)
    if (copy / "many.db").exists():
        sqlite3.connect(copy / "many.db").execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    found = count(str(copy))
    shutil.rmtree(copy)
    return found


def states(path: Path) -> list[tuple[str, str]]:
    return sorted((row.structure, row.state) for row in connect(path, use_lock_file=False).select())


def contents(path: Path) -> dict[str, Any]:
    """Every bit of a database but for row identifiers and times."""
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row

        def table(name: str) -> list[dict[str, Any]]:
            return [dict(row) for row in connection.execute(f"SELECT * FROM {name}")]

        names = {row["id"]: row["value"] for row in table("text_key_values") if row["key"] == "structure"}
        found: dict[str, Any] = {"information": table("information")}
        for name in ("systems", "species", "keys", "text_key_values", "number_key_values"):
            rows = [(names[row["id"]], sorted(row.items())) for row in table(name)]
            kept = [(of, [item for item in row if item[0] not in TIMES_AND_IDENTIFIERS]) for of, row in rows]
            found[name] = sorted(kept, key=repr)
    return found


def check_same(reference: Reference, target: str, *, bit_identical: bool) -> None:
    database = Path(target, "many.db")
    names = sorted(f"many.xyz@{index}" for index in range(reference.number))
    found = states(database)
    assert [name for name, _ in found] == names
    assert found == states(reference.database)
    assert {state for _, state in found} >= {"converged", "failed"}
    if bit_identical:
        assert contents(database) == contents(reference.database)
    expected = {row.structure: row for row in connect(reference.database, use_lock_file=False).select()}
    for row in connect(database, use_lock_file=False).select():
        if row.state == "converged":
            assert row.energy == pytest.approx(expected[row.structure].energy, abs=1e-3)
        if row.get("trajectory"):
            assert len(read(Path(target, row.trajectory), ":")) == row.steps + 1
    assert sorted(os.listdir(target)) == sorted(os.listdir(reference.folder / "out"))
    assert not list(Path(target).rglob(".*"))


def test_three_kills_at_random(eight):
    options = (*eight.options, "--output-dir", "three", "--resume")
    rows = kill_at_random(eight, 3, "three")
    assert sorted(rows) == rows and any(0 < number < 8 for number in rows)
    assert run(*options) == ENDED_WITH_FAILURES, OUTPUT.read_text()
    check_same(eight, "three", bit_identical=True)


def test_kills_at_the_worst_moments(eight):
    """Before the database has its name, before the first record, amid rows, and between a trajectory and its row."""
    options = (*eight.options, "--output-dir", "worst", "--resume")
    commit, insert = "ase.db.sqlite.SQLite3Database:__exit__", "ase.db.sqlite.SQLite3Database:blob"
    for function, call in (("os:fsync", 1), ("os:fsync", 2), ("os:fsync", 4), (commit, 1), (commit, 3), (insert, 20)):
        assert run(*options, accident=Accident(function, call)) == -signal.SIGKILL, OUTPUT.read_text()
    assert 0 < count("worst") < 8
    assert run(*options) == ENDED_WITH_FAILURES, OUTPUT.read_text()
    check_same(eight, "worst", bit_identical=True)


def test_a_full_disk_costs_nothing_that_was_written(eight):
    options = (*eight.options, "--output-dir", "full", "--resume")
    ResultDatabase(Path("empty.db")).create({}, Members((), {}))
    largest = Path("empty.db").stat().st_size + 4096
    assert run(*options, accident=Accident(largest_file=largest)) == 1
    output = " ".join(OUTPUT.read_text().split())
    kept = contents(Path("full/many.db"))["systems"]
    assert "Error: cannot use the database 'full/many.db': " in output
    assert f"{len(kept)} of 8 structures are finished. The same command with --resume goes on from here" in output
    assert 0 < len(kept) < 8
    assert run(*options) == ENDED_WITH_FAILURES, OUTPUT.read_text()
    assert all(row in contents(Path("full/many.db"))["systems"] for row in kept)
    check_same(eight, "full", bit_identical=True)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [["--batch-size", "1"], []])
def test_thirty_kills(tmp_path, monkeypatch, model, batch_size):
    monkeypatch.chdir(tmp_path)
    alone = run_alone(tmp_path, model, 100, *batch_size, "--steps", "60", "--fmax", "0.01")
    rows = kill_at_random(alone, 30, "thirty")
    assert sorted(rows) == rows and len({number for number in rows if 0 < number < 100}) > 5
    assert run(*alone.options, "--output-dir", "thirty", "--resume") == ENDED_WITH_FAILURES, OUTPUT.read_text()
    check_same(alone, "thirty", bit_identical=bool(batch_size))
