"""``escn relax`` on many structures: one database, failures of single structures, going on, what is refused."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import read, write
from click.testing import CliRunner, Result
from filelock import FileLock

from escn_calc import ESCNCalculator
from escn_calc.cli import main
from escn_calc.cli.relax_many_progress import Tally
from escn_calc.cli.relax_members import frame_index, matching_files, read_members, structure_digest
from escn_calc.errors import ESCNError, InputError
from escn_calc.relax import relax
from tests.toy_potential import SHA256, ToyPotential

DATABASE = Path("out/dimers.db")


def dimer(number: int) -> Atoms:
    """Two copper atoms, stretched more or less; the first is fixed in every other structure."""
    atoms = Atoms("Cu2", [[4, 4, 4], [4.1, 4, 6.1 + 0.1 * number]], cell=[9, 9, 10], pbc=True, tags=[0, 1])
    if number % 2:
        atoms.set_constraint(FixAtoms([0]))
    return atoms


def evaluate_each(self: ToyPotential, structures: list[Atoms]) -> list:
    """What ``Potential.evaluate_each`` does: errors in the places of results, naming those places."""
    self.calls += 1
    self.evaluated = [*getattr(self, "evaluated", []), *(atoms.get_chemical_formula() for atoms in structures)]
    found = []
    for place, atoms in enumerate(structures):
        try:
            found.append(self._evaluate(atoms))
        except ESCNError as error:
            found.append(type(error)(str(error).replace("structure 0", f"structure {place}")))
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch, loader) -> Path:
    """A working directory with a file of six dimers and three files of one, where commands use toy models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ToyPotential, "evaluate_each", evaluate_each, raising=False)
    write("dimers.xyz", [dimer(number) for number in range(6)], format="extxyz")
    for number in range(3):
        write(f"{number}.xyz", dimer(number), format="extxyz")
    return tmp_path


def escn(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments], env={"COLUMNS": "120", "NO_COLOR": "1"})


def relax_dimers(*arguments: str) -> Result:
    return escn("relax", "dimers.xyz", "--index", ":", "--output-dir", "out", *arguments)


def rows(path: Path = DATABASE) -> dict:
    found = list(connect(path, use_lock_file=False).select())
    by_name = {row.structure: row for row in found}
    assert len(by_name) == len(found)
    return by_name


def states(path: Path = DATABASE) -> dict[str, str]:
    return {name: row.state for name, row in sorted(rows(path).items())}


def record(path: Path = DATABASE) -> dict:
    return json.loads(path.with_suffix(".json").read_text())


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


ALL_CONVERGED = {f"dimers.xyz@{number}": "converged" for number in range(6)}


@pytest.mark.parametrize("batch_size", [[], ["--batch-size", "1"], ["--batch-size", "4"]])
def test_every_structure_gets_a_row(folder, batch_size):
    result = relax_dimers(*batch_size)
    assert result.exit_code == 0, result.output
    assert states() == ALL_CONVERGED
    for number in range(6):
        row, alone = rows()[f"dimers.xyz@{number}"], relax(dimer(number), ESCNCalculator(), optimizer="LBFGS")
        found = row.toatoms()
        np.testing.assert_allclose(found.positions, alone.atoms.positions, atol=1e-9)
        assert row.energy == pytest.approx(alone.energy, abs=1e-9)
        assert (row.steps, row.natoms) == (alone.steps, 2)
        assert row.energy_change == pytest.approx(alone.energy_change, abs=1e-9)
        assert row.max_displacement == pytest.approx(alone.max_displacement, abs=1e-9)
        assert row.data["history"]["energy"] == pytest.approx([step.energy for step in alone.history])
        assert row.data["history"]["fmax"] == pytest.approx([step.fmax for step in alone.history])
        assert row.fmax < 0.05 and len(found.constraints) == number % 2
    assert sorted(os.listdir("out")) == ["dimers.db", "dimers.json"]


def test_summary_progress_and_record(folder):
    result = relax_dimers("--model", "other", "--dtype", "float64")
    for row in ("structures 6", "converged 6", "wall time", "structures/s", "model other", SHA256["other"]):
        assert row in words(result.stdout), row
    assert "Results are in out/" in result.stdout
    head, *lines = (line.split() for line in result.stderr.splitlines())
    assert head == ["structures", "converged", "failed", "structures/s", "time", "left"]
    assert lines[-1][:3] == ["6/6", "6", "0"] and lines[-1][-1] == "0:00:00"
    run = record()
    assert run["result"] == {
        "reason": "finished",
        "structures": 6,
        "converged": 6,
        "step_limit": [],
        "failed": {},
        "doubtful": [],
    }
    assert (run["settings"]["optimizer"], run["settings"]["index"]) == ("LBFGS", ":")
    assert (run["model"]["name"], run["settings"]["dtype"]) == ("other", "float64")
    assert [source["file"] for source in run["structures"]] == ["dimers.xyz"]
    (start,) = run["starts"]
    assert start["reason"] == "finished" and start["structures_per_s"] > 0 and "torch" in start["versions"]


def test_files_give_their_last_frame(folder):
    write("1.xyz", [dimer(5), dimer(1)], format="extxyz")
    assert escn("relax", "0.xyz", "1.xyz", "2.xyz").exit_code == 0
    found = rows(Path("runs/0_many/0.db"))
    assert sorted(found) == ["0.xyz@0", "1.xyz@1", "2.xyz@0"]
    assert found["1.xyz@1"].data["sha256_of_input"] == structure_digest(read("1.xyz", 1))


@pytest.mark.parametrize(
    ("index", "frames"), [(":", range(6)), ("::2", (0, 2, 4)), ("4:", (4, 5)), ("-2:", (4, 5)), ("2:3", (2,))]
)
def test_slices(folder, index, frames):
    assert escn("relax", "dimers.xyz", "--index", index, "--output-dir", "out").exit_code == 0
    assert list(states()) == [f"dimers.xyz@{frame}" for frame in frames]


def test_patterns_are_expanded(folder):
    assert matching_files([Path("?.xyz")]) == [Path("0.xyz"), Path("1.xyz"), Path("2.xyz")]
    Path("[1].xyz").touch()
    assert matching_files([Path("[1].xyz")]) == [Path("[1].xyz")]
    assert escn("relax", "?.xyz", "--output-dir", "out").exit_code == 0
    assert list(states(Path("out/0.db"))) == ["0.xyz@0", "1.xyz@0", "2.xyz@0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'STRUCTURE...'"),
        (["no*.xyz"], "no file matches 'no*.xyz'"),
        (["0.xyz", "./0.xyz"], "the file '0.xyz' is given twice"),
        (["0.xyz", "?.xyz"], "the file '0.xyz' is given twice"),
        (["dimers.xyz", "--index", "x"], "'x' is neither a number nor a slice such as ':' or '::10'"),
        (["dimers.xyz", "--index", ":", "--batch-size", "0"], "0 is not in the range x>=1"),
        (["dimers.xyz", "--index", ":", "--resume", "--overwrite"], "--resume continues the files that --overwrite"),
        (["dimers.xyz", "--index", ":", "--smax", "1"], "--smax means nothing with a fixed cell"),
        (["0.xyz", "--resume"], "--resume is for many structures: several files, or one with a slice as its --index"),
        (["0.xyz", "--batch-size", "3"], "--batch-size is for many structures"),
        (["0.xyz", "--trajectories"], "--trajectories is for many structures"),
    ],
)
def test_wrong_usage(folder, loader, arguments, message):
    result = escn("relax", *arguments)
    assert result.exit_code == 2
    assert message in words(result.stderr)
    assert not Path("runs").exists() and not loader.requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0.xyz", "missing.xyz"], "structure file 'missing.xyz' does not exist; give the path of a structure file"),
        (["0.xyz", "."], "structure file '.' is a folder"),
        (["dimers.xyz", "--index", ":", "--model", "typo"], "there is no model 'typo'; known are default"),
        (["dimers.xyz", "--index", ":", "--model", "energy-only"], "a relaxation needs forces, and"),
        (["dimers.xyz", "--index", ":", "--optimizer", "GPMin"], "optimizer GPMin asks for several evaluations a step"),
        (["dimers.xyz", "--index", ":", "--cell", "full"], "a relaxation of the cell needs the stress, and"),
        (["dimers.xyz", "--index", ":", "--fmax", "inf"], "fmax is inf eV/Å; it must be a positive number"),
        (["dimers.xyz", "--index", "7:"], "there is no structure to relax. dimers.xyz: it has 6 structure(s), none of"),
        (
            ["?.xyz", "--fix-tags", "5"],
            "there is no structure to relax. 0.xyz@0: no atom has the tag 5; the tags are 0, 1 (and",
        ),
    ],
)
def test_refused_before_any_work(folder, arguments, message):
    result = escn("relax", *arguments)
    assert result.exit_code == 1
    assert f"Error: {message}" in words(result.stderr)
    assert "Traceback" not in result.output
    assert not Path("runs").exists()


def test_a_broken_structure_does_not_cost_the_others(folder):
    write("helium.xyz", Atoms("HeH", cell=[9, 9, 9], tags=[0, 1]), format="extxyz")
    lines = Path("dimers.xyz").read_text().splitlines()
    lines[6] = lines[6].replace("4.0", "four", 1)
    Path("broken.xyz").write_text("\n".join(lines) + "\n")
    Path("empty.xyz").touch()
    untagged = dimer(0)
    untagged.arrays.pop("tags")
    write("untagged.xyz", untagged, format="extxyz")
    names = ["helium.xyz", "broken.xyz", "empty.xyz", "untagged.xyz", "0.xyz"]
    result = escn("relax", *names, "--index", ":2", "--fix-tags", "0", "--output-dir", "out")
    assert result.exit_code == 1
    failed = record(Path("out/helium.db"))["result"]["failed"]
    assert failed == {
        "broken.xyz@1": "cannot be read (ValueError: could not convert string to float: 'four0000000')",
        "empty.xyz@0": failed["empty.xyz@0"],
        "untagged.xyz@0": "the structure has no tags, so no atoms can be fixed by tag; fix by height instead",
        "helium.xyz@0": "helium.xyz@0: atom 0 is He, which the model does not know; remove it",
    }
    assert "no reader understands 'empty.xyz'" in failed["empty.xyz@0"]
    assert "Error: 4 of 6 structures failed (" in result.stderr and "and 1 more). The others are not" in result.stderr
    assert states(Path("out/helium.db")) == {
        "0.xyz@0": "converged",
        "broken.xyz@0": "converged",
        "helium.xyz@0": "failed",
    }


def test_a_failure_names_its_structure_whatever_its_place(folder):
    frames = [dimer(0), Atoms("He", cell=[9, 9, 9]), dimer(1)]
    write("mixed.xyz", frames, format="extxyz")
    results = [
        escn("relax", "mixed.xyz", "--index", ":", "--output-dir", size, "--batch-size", size) for size in ("1", "3")
    ]
    for result, size in zip(results, ("1", "3"), strict=True):
        assert result.exit_code == 1
        row = rows(Path(size, "mixed.db"))["mixed.xyz@1"]
        assert row.failure == "mixed.xyz@1: atom 0 is He, which the model does not know; remove it"
        assert row.state == "failed" and row.get("energy") is None and row.formula == "He"
        message = f"1 of 3 structures failed (mixed.xyz@1: {row.failure}). The others are not affected"
        assert message in words(result.stderr)


def test_a_failure_midway_keeps_the_last_good_frame(folder, monkeypatch):
    def evaluate(self, atoms, original=ToyPotential._evaluate):
        if self.calls == 3 and atoms.constraints:
            raise InputError("structure 0: the energy is nan")
        return original(self, atoms)

    monkeypatch.setattr(ToyPotential, "_evaluate", evaluate)
    result = escn("relax", "0.xyz", "1.xyz", "--output-dir", "out")
    assert result.exit_code == 1
    row = rows(Path("out/0.db"))["1.xyz@0"]
    assert row.failure == "stopped after step 1: 1.xyz@0: the energy is nan" and row.steps == 1
    assert row.energy == row.data["history"]["energy"][-1]
    assert states(Path("out/0.db"))["0.xyz@0"] == "converged"


def test_step_limit_has_its_own_exit_status(folder):
    result = relax_dimers("--steps", "1", "--fmax", "0.2")
    assert result.exit_code == 3
    limited = [name for name, state in states().items() if state == "step limit"]
    assert limited and record()["result"]["step_limit"] == limited
    assert f"step limit reached {len(limited)}" in words(result.stdout)


def test_doubts_are_counted(folder):
    write("far.xyz", [dimer(14), dimer(0)], format="extxyz")
    result = escn("relax", "far.xyz", "--index", ":", "--output-dir", "out", "--fix-tags", "0", "--fmax", "0.01")
    found = rows(Path("out/far.db"))
    assert [found[f"far.xyz@{frame}"].doubts for frame in (0, 1)] == [2, 0]
    assert "atom 1 (Cu) moved by" in found["far.xyz@0"].data["notes"][-1]
    assert "doubtful 1" in words(result.stdout)
    assert record(Path("out/far.db"))["result"]["doubtful"] == ["far.xyz@0"]


def test_cells_relax(folder):
    write("crystals.xyz", [bulk("Cu", a=a, cubic=True) for a in (3.5, 3.7)], format="extxyz")
    options = ["--index", ":", "--forces", "gradient", "--cell", "isotropic", "--output-dir", "out", "--smax", "1e-4"]
    assert escn("relax", "crystals.xyz", *options).exit_code == 0
    small, large = rows(Path("out/crystals.db")).values()
    assert small.volume == pytest.approx(large.volume, rel=1e-3)
    assert small.data["history"]["smax"][-1] < 1e-4 < small.data["history"]["smax"][0]


def test_what_is_there_is_kept(folder, loader):
    relax_dimers()
    before = DATABASE.read_bytes()
    loader.requests.clear()
    result = relax_dimers()
    assert result.exit_code == 1 and not loader.requests
    assert "'out/dimers.db' exists; give --resume to go on with that run, choose another" in words(result.stderr)
    assert DATABASE.read_bytes() == before


def leave_journal(database: Path) -> None:
    """Leave what a process leaves that is killed in the middle of a large transaction."""
    journal = database.with_name(f"{database.name}-journal")
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE information SET value = upper(value)")  # which model it is, among others
    connection.execute("UPDATE systems SET positions = zeroblob(20000)")  # more than its cache holds
    left = journal.read_bytes()
    connection.execute("ROLLBACK")
    connection.close()
    journal.write_bytes(left)


def test_overwrite_begins_again_and_touches_nothing_else(folder):
    relax_dimers("--trajectories")
    Path("out/notes.txt").touch()
    leave_journal(DATABASE)
    result = relax_dimers("--overwrite", "--model", "other")
    assert result.exit_code == 0, result.output
    assert states() == ALL_CONVERGED
    assert sqlite3.connect(DATABASE).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert sorted(os.listdir("out")) == ["dimers.db", "dimers.json", "dimers_trajectories", "notes.txt"]
    assert os.listdir("out/dimers_trajectories") == []
    assert record()["model"]["name"] == "other" and len(record()["starts"]) == 1
    assert relax_dimers("--resume", "--model", "other").exit_code == 0


def test_resume_of_a_finished_run_evaluates_nothing(folder, loader):
    relax_dimers("--steps", "1", "--fmax", "0.2")
    before = DATABASE.read_bytes()
    assert relax_dimers("--steps", "1", "--fmax", "0.2", "--resume").exit_code == 3
    assert loader.potentials[-1].calls == 0
    assert DATABASE.read_bytes() == before
    assert [start["reason"] for start in record()["starts"]] == ["finished", "finished"]


def test_resume_without_a_run_begins_one(folder):
    assert relax_dimers("--resume").exit_code == 0
    assert states() == ALL_CONVERGED


@pytest.mark.parametrize(("send", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_keeps_what_is_finished(folder, loader, monkeypatch, send, status):
    def evaluate(self, structures, original=evaluate_each):
        if len(self.evaluated if hasattr(self, "evaluated") else []) == 12:
            os.kill(os.getpid(), send)
        return original(self, structures)

    with monkeypatch.context() as patch:
        patch.setattr(ToyPotential, "evaluate_each", evaluate)
        result = relax_dimers("--batch-size", "1")
    assert result.exit_code == status
    assert "The same command with --resume goes on from here" in result.stderr
    assert "interrupted" in words(result.stdout) and record()["result"]["reason"] == "interrupted"
    kept = states()
    assert 0 < len(kept) < 6
    done = len(loader.potentials[-1].evaluated)
    assert relax_dimers("--batch-size", "1", "--resume").exit_code == 0
    assert states() == ALL_CONVERGED
    assert [start["reason"] for start in record()["starts"]] == ["interrupted", "finished"]
    relax_dimers("--batch-size", "1", "--overwrite")
    alone = len(loader.potentials[-1].evaluated)
    assert done + len(loader.potentials[-2].evaluated) < 2 * alone
    assert record()["result"]["converged"] == 6


def part_of_a_run() -> None:
    """A run of all six dimers of which the last three are not finished."""
    frames = [dimer(number) for number in range(6)]
    write("dimers.xyz", frames[:3], format="extxyz")
    relax_dimers()
    write("dimers.xyz", frames, format="extxyz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--fmax", "0.02"], "belongs to another run (settings fmax: 0.05 there, 0.02 here)"),
        (["--steps", "9"], "belongs to another run (settings steps: 500 there, 9 here)"),
        (["--optimizer", "fire"], "settings optimizer: 'LBFGS' there, 'FIRE' here"),
        (["--trajectories"], "settings trajectories: False there, True here"),
        (["--model", "other"], "model name: 'default' there, 'other' here; model sha256: 'aaaaaaaaa…' there"),
        (["--dtype", "float64"], "model dtype: 'float32' there, 'float64' here"),
        (["--forces", "gradient"], "model forces: 'direct' there, 'gradient' here"),
        (["--fix-tags", "1"], "dimers.xyz@0, which is in 'out/dimers.db', is another structure now; give the files"),
        (["--index", "1:"], "dimers.xyz@0, which is in 'out/dimers.db', is not among those given; give the files of"),
    ],
)
def test_resume_refuses_another_run(folder, loader, change, message):
    part_of_a_run()
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    result = relax_dimers("--resume", *change)
    assert result.exit_code == 1
    assert message in words(result.stderr)
    assert loader.potentials[-1].calls == 0
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


def test_resume_refuses_another_structure_that_was_not_finished(folder, monkeypatch):
    def evaluate(self, structures, original=evaluate_each):
        if self.calls == 3:
            raise KeyboardInterrupt
        return original(self, structures)

    with monkeypatch.context() as patch:
        patch.setattr(ToyPotential, "evaluate_each", evaluate)
        assert relax_dimers("--batch-size", "1").exit_code == 130
    assert "dimers.xyz@5" not in states()
    write("dimers.xyz", [dimer(number) for number in (0, 1, 2, 3, 4, 9)], format="extxyz")
    assert "dimers.xyz@5, which is in 'out/dimers.db', is another structure now" in words(
        relax_dimers("--resume").stderr
    )


def test_resume_takes_up_more_structures(folder, loader):
    part_of_a_run()
    assert relax_dimers("--resume", "--batch-size", "2").exit_code == 0
    assert states() == ALL_CONVERGED
    write("dimers.xyz", [dimer(number) for number in (0, 1, 2, 3, 4, 9)], format="extxyz")
    assert "is another structure now" in relax_dimers("--resume").stderr


def test_resume_takes_up_a_repaired_file(folder):
    text = Path("1.xyz").read_text()
    Path("1.xyz").write_text(text.replace("4.0", "four", 1))
    names = ["0.xyz", "1.xyz", "2.xyz", "--output-dir", "out"]
    assert escn("relax", *names).exit_code == 1
    assert list(states(Path("out/0.db"))) == ["0.xyz@0", "2.xyz@0"]
    Path("1.xyz").write_text(text)
    assert escn("relax", *names, "--resume").exit_code == 0
    assert list(states(Path("out/0.db"))) == ["0.xyz@0", "1.xyz@0", "2.xyz@0"]


def test_resume_goes_on_elsewhere(folder):
    part_of_a_run()
    Path("out").rename("moved")
    result = escn("relax", "dimers.xyz", "--index", ":", "--output-dir", "moved", "--resume", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert states(Path("moved/dimers.db")) == ALL_CONVERGED


@pytest.mark.parametrize("content", [b"not a database, but long enough to look at" * 100, b""])
def test_resume_refuses_what_is_no_database(folder, content):
    Path("out").mkdir()
    DATABASE.write_bytes(content)
    result = relax_dimers("--resume")
    assert result.exit_code == 1 and "out/dimers.db" in result.stderr and "database" in result.stderr
    assert DATABASE.read_bytes() == content or content == b""


def test_resume_refuses_the_database_of_somebody_else(folder):
    Path("out").mkdir()
    with connect(DATABASE, use_lock_file=False) as database:
        database.write(dimer(0))
    result = relax_dimers("--resume")
    assert "'out/dimers.db' is not a database that escn relax has made" in words(result.stderr)
    assert len(connect(DATABASE)) == 1


def test_a_record_without_its_database(folder):
    relax_dimers()
    DATABASE.unlink()
    result = relax_dimers("--resume")
    assert "'out/dimers.json' is there, but its database 'out/dimers.db' is not" in words(result.stderr)


def test_a_lost_record_is_written_anew(folder):
    relax_dimers()
    DATABASE.with_suffix(".json").write_text('{"half')
    assert relax_dimers("--resume").exit_code == 0
    assert record()["result"]["converged"] == 6 and len(record()["starts"]) == 1


def test_two_runs_in_one_folder(folder):
    Path("out").mkdir()
    with FileLock("out/.dimers.db.lock"):
        result = relax_dimers("--overwrite")
    assert result.exit_code == 1
    assert "another process writes 'out/dimers.db'; wait until it ends, or choose another" in words(result.stderr)
    Path("out/.dimers.db.lock").touch()  # as a killed process leaves it
    assert relax_dimers().exit_code == 0


def test_trajectories_are_complete(folder):
    Path("out/dimers_trajectories").mkdir(parents=True)
    Path("out/dimers_trajectories/.dimers-0-x.traj.99.tmp").touch()  # as a killed process leaves it
    assert relax_dimers("--trajectories", "--resume").exit_code == 0
    assert sorted(os.listdir("out")) == ["dimers.db", "dimers.json", "dimers_trajectories"]
    assert len(os.listdir("out/dimers_trajectories")) == 6
    for row in rows().values():
        frames = read(Path("out", row.trajectory), ":")
        assert [frame.get_potential_energy() for frame in frames] == row.data["history"]["energy"].tolist()
        np.testing.assert_array_equal(frames[-1].positions, row.positions)
        assert len(frames[0].constraints) == len(row.constraints)


def test_a_trajectory_that_cannot_be_written_is_no_failure_of_the_structure(folder, monkeypatch):
    def full(path, frames):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("ase.io.trajectory.write_traj", full)
        result = relax_dimers("--trajectories", "--batch-size", "1")
    assert result.exit_code == 1
    assert "No space left on device. 0 of 6 structures are finished. The same command with --resume goes" in words(
        result.stderr
    )
    assert states() == {} and os.listdir("out/dimers_trajectories") == []
    assert relax_dimers("--trajectories", "--batch-size", "1", "--resume").exit_code == 0
    assert states() == ALL_CONVERGED


def test_names_that_look_like_numbers(folder):
    for name in ("42", "1e5", "a,b=c.xyz", "nan"):
        write(name, dimer(0), format="extxyz")
    assert escn("relax", "42", "1e5", "a,b=c.xyz", "nan", "--output-dir", "out", "--trajectories").exit_code == 0
    assert list(rows(Path("out/42.db"))) == ["42@0", "1e5@0", "a,b=c.xyz@0", "nan@0"]


def test_namesakes_in_different_folders(folder):
    for name in ("a", "b"):
        Path(name).mkdir()
        write(f"{name}/POSCAR", dimer(0))
    assert escn("relax", "a/POSCAR", "b/POSCAR", "--trajectories").exit_code == 0
    assert list(rows(Path("runs/POSCAR_many/POSCAR.db"))) == ["a/POSCAR@0", "b/POSCAR@0"]
    assert len(os.listdir("runs/POSCAR_many/POSCAR_trajectories")) == 2


def test_a_structure_file_is_never_replaced(folder):
    relax_dimers("--trajectories")
    (trajectory, *_) = Path("out/dimers_trajectories").iterdir()
    before = trajectory.read_bytes()
    result = escn("relax", "dimers.xyz", str(trajectory), "--output-dir", "out", "--overwrite")
    assert "is in the folder of the trajectories; choose another --output-dir" in words(result.stderr)
    assert trajectory.read_bytes() == before
    write("dimers.db", dimer(0))
    result = escn("relax", "dimers.db", "0.xyz", "--output-dir", ".", "--overwrite")
    assert "'dimers.db' would replace the structure file 'dimers.db'; choose another" in words(result.stderr)


def test_files_of_others_in_the_folder_stay(folder):
    Path("out/dimers_trajectories").mkdir(parents=True)
    foreign = [Path("out/notes.txt"), Path("out/dimers_trajectories/mine.traj")]
    for path in foreign:
        path.touch()
    for options in ([], ["--resume"], ["--overwrite"]):
        assert relax_dimers("--steps", "0", *options).exit_code == 3
        assert all(path.exists() for path in foreign)


LINES = ["2", 'Lattice="9 0 0 0 9 0 0 0 9" pbc="T T T"', "Cu 0 0 0", "Cu 0 0 2.5"]


@pytest.mark.parametrize(
    ("lines", "readable", "reasons"),
    [
        (LINES * 3, [0, 1, 2], []),
        ([*LINES, *LINES[:3], "Cu 0 zero 2.5", *LINES], [0, 2], ["ValueError: could not convert string"]),
        ([*LINES, *LINES[:3], "Qq 0 0 2.5", *LINES], [0, 2], ["KeyError: 'Qq'"]),
        ([*LINES, *LINES, *LINES[:3]], [0, 1], ["Frame has 1 atoms, expected 2"]),
        ([*LINES[:3], "Cu 0 zero 2.5"] * 2, [], ["ValueError", "ValueError"]),
    ],
)
def test_frames_are_read_one_by_one(tmp_path, lines, readable, reasons):
    path = tmp_path / "frames.xyz"
    write(tmp_path / "good.xyz", dimer(0), format="extxyz")
    path.write_text("\n".join(lines) + "\n")
    members = read_members([path, tmp_path / "good.xyz"], slice(None), lambda atoms: atoms)
    assert [member.name for member in members.usable] == [
        *(f"{path}@{frame}" for frame in readable),
        f"{tmp_path}/good.xyz@0",
    ]
    assert len(members.unusable) == len(reasons)
    for reason, found in zip(reasons, members.unusable.values(), strict=True):
        assert reason in found


@pytest.mark.parametrize("suffix", ["traj", "cif", "vasp", "json"])
def test_files_cut_short(tmp_path, suffix):
    whole, cut, good = (tmp_path / f"{name}.{suffix}" for name in ("whole", "cut", "good"))
    write(whole, [dimer(0), dimer(2), dimer(4)] if suffix == "traj" else dimer(0))
    write(good, dimer(0))
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size - 150])
    members = read_members([cut, good], slice(None), lambda atoms: atoms)
    assert members.usable[-1].name == f"{good}@0"
    assert list(members.unusable) == [f"{cut}@{len(members.usable) - 1}"]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("3", 3),
        ("-1", -1),
        (":", slice(None)),
        ("2:", slice(2, None)),
        ("-3:-1", slice(-3, -1)),
        ("::5", slice(None, None, 5)),
    ],
)
def test_index(text, index):
    assert frame_index(text) == index


@pytest.mark.parametrize("text", ["", "a", "1.5", "1:2:3:4", "::0", "1:b"])
def test_what_is_no_index(text):
    with pytest.raises(InputError, match="is neither a number nor a slice such as"):
        frame_index(text)


def test_digest_changes_with_all_that_matters():
    def changed(change) -> str:
        atoms = dimer(0)
        change(atoms)
        return structure_digest(atoms)

    changes = [
        lambda atoms: None,
        lambda atoms: atoms.positions.__setitem__((1, 0), np.nextafter(atoms.positions[1, 0], 9)),
        lambda atoms: atoms.numbers.__setitem__(0, 47),
        lambda atoms: atoms.set_pbc([True, True, False]),
        lambda atoms: atoms.set_cell([9, 9, 10.1]),
        lambda atoms: atoms.set_constraint(FixAtoms([0])),
        lambda atoms: atoms.set_constraint(FixAtoms([1])),
    ]
    assert len({changed(change) for change in changes}) == len(changes)
    assert structure_digest(dimer(1)) == structure_digest(dimer(1))


def test_a_constraint_that_cannot_be_written_is_refused_before_the_relaxation():
    class Foreign:
        def adjust_positions(self, atoms, new): ...
        def adjust_forces(self, atoms, forces): ...

    atoms = dimer(0)
    atoms.set_constraint(Foreign())
    with pytest.raises(InputError, match="the constraint Foreign cannot be written to a file"):
        structure_digest(atoms)


def test_tally(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    tally = Tally(20, ["converged", "failed"])
    assert (tally.finished, tally.per_second, tally.remaining) == (2, 0, "")
    now[0] = 1000.0
    for state in ("converged", "step limit", "failed"):
        tally.add(state)
    assert (tally.finished, tally.converged, tally.failed) == (5, 2, 2)
    assert tally.per_second == pytest.approx(3 / 900)
    assert tally.remaining == "1:15:00"


def test_a_terminal_gets_one_line(monkeypatch):
    from io import StringIO

    from rich.console import Console

    from escn_calc.cli.relax_many_progress import progress_display

    screen = Console(file=StringIO(), force_terminal=True, width=120)
    tally = Tally(3, ["converged"])
    with progress_display(screen, tally) as show:
        for state in ("converged", "failed"):
            tally.add(state)
            show()
    text = screen.file.getvalue()
    assert "3/3" in text and "2 converged  1 failed" in text and "structures/s  0:00:00 left" in text
    assert text.count("\n") == 1


def test_one_structure_has_the_record_it_had(folder):
    assert escn("relax", "0.xyz").exit_code == 0
    run = json.loads(Path("runs/0/0.json").read_text())
    settings = "cell device dtype fix_below_height fix_tags fmax forces frames index matmul model optimizer output_dir"
    assert sorted(run["settings"]) == [*settings.split(), "overwrite", "pressure", "smax", "steps", "structure"]
    assert (run["settings"]["structure"], run["settings"]["index"]) == ("0.xyz", -1)
    assert run["settings"]["optimizer"] == "BFGS"
    assert sorted(os.listdir("runs/0")) == ["0.json", "0.png", "0.traj", "0_relaxed.extxyz"]
