"""Files that are full, foreign, locked or closed to writing: nothing is lost, and the reason is named."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixedLine,
    FixedPlane,
    FixScaled,
    Hookean,
)
from ase.io import read

from escn_calc.errors import InputError
from escn_calc.md import MDStep, read_log
from escn_calc.md.state import load_state
from tests.md.conftest import contents, files_in
from tests.md.potentials import crystal

CONSTRAINTS = [
    FixAtoms([0]),
    FixCartesian([0, 1], [True, True, False]),
    FixScaled([0, 1], [True, False, False]),
    FixCom(),
    FixedLine([0], [0, 0, 1]),
    FixedPlane([0], [0, 0, 1]),
    FixBondLengths([[0, 1]]),
    Hookean(a1=0, a2=1, rt=2.5, k=1.0),
]


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda constraint: type(constraint).__name__)
def test_logs_of_constrained_runs_can_be_read(run, tmp_path, constraint):
    atoms = crystal()
    atoms.set_constraint(constraint)
    seen: list[MDStep] = []
    result = run(atoms, progress=seen.append, steps=8)
    log = read_log(tmp_path / "a.csv")
    np.testing.assert_array_equal(log["temperature_K"], [step.temperature_K for step in seen])
    assert {type(value) for value in vars(seen[1]).values()} == {int, float, type(None)}
    assert result.last.temperature_K == pytest.approx(result.atoms.get_temperature())


@contextmanager
def disk_full_at(size: int):
    """No file may grow beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(("missing", "full"), [("log", "a.traj"), ("trajectory", "a.csv")])
def test_disk_full_while_a_frame_is_written(run, tmp_path, missing, full):
    options = {missing: None, "every": 1, "steps": 200, "state_every": 20, "ensemble": "langevin"}
    run(**options)
    expected = contents(tmp_path)
    for size in np.linspace(8500, len(expected[full]) - 1, 7).astype(int):
        for name in expected:
            (tmp_path / name).unlink()
        with disk_full_at(int(size)):
            result = run(**options)
        assert result.reason == "failed"
        assert re.match(rf"stopped after step {result.steps}: cannot write '.*/{full}': File too large", result.message)
        assert list(tmp_path.glob(".*.tmp")) == []
        logged = read_log(tmp_path / full)["step"] if missing == "trajectory" else read(tmp_path / full, ":")
        assert len(logged) == result.steps
        mark = load_state(tmp_path / "a.npz").mark
        assert (tmp_path / full).stat().st_size == (mark.log if missing == "trajectory" else mark.trajectory).size
        assert run(**options, resume=True).finished
        assert contents(tmp_path) == expected


@pytest.mark.parametrize("name", ["trajectory", "log"])
def test_files_of_another_run_are_refused(run, tmp_path, name):
    """They are longer, and were written by a run with other random numbers."""
    run(ensemble="langevin", steps=20)
    other = tmp_path / "other"
    other.mkdir()
    run(ensemble="langevin", seed=1, **files_in(other))
    path = files_in(tmp_path)[name]
    path.write_bytes(files_in(other)[name].read_bytes())
    before = contents(tmp_path / "other"), path.read_bytes()
    with pytest.raises(InputError, match=f"the {name} '.*{path.name}' is not that of the state .*a.npz'"):
        run(ensemble="langevin", resume=True)
    assert (contents(tmp_path / "other"), path.read_bytes()) == before


def test_a_file_that_is_no_trajectory_is_refused(run, tmp_path):
    run()
    data = (tmp_path / "a.traj").read_bytes()
    (tmp_path / "a.traj").write_bytes(b"something else" + data[14:])
    with pytest.raises(InputError, match=r"the trajectory .* is not that of the state"):
        run(resume=True)


def test_every_mark_of_a_trajectory_fits(run, tmp_path):
    """Also behind new tables of offsets, which lie between frames 1 and 2 and between frames 42 and 43."""
    for steps in range(0, 60):
        assert run(steps=steps, every=1, resume=True).finished
    assert [frame.info["step"] for frame in read(tmp_path / "a.traj", ":")] == list(range(60))


RUN = """
import sys, time
from tests.md.conftest import files_in
from tests.md.potentials import PairPotential, crystal
from escn_calc.md import run_md
from pathlib import Path

def progress(step):
    print(step.step, flush=True)
    time.sleep(60)

run_md(crystal(), PairPotential(), steps=40, every=4, state_every=10, progress=progress, **files_in(Path(sys.argv[1])))
"""


def test_a_run_belongs_to_one_process(run, tmp_path):
    """Nothing else may take it up, however it asks, until the process has been killed."""
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"0\n"
        before = contents(tmp_path)
        for options in ({"resume": True}, {"overwrite": True}, {"resume": True, "trajectory": None}):
            with pytest.raises(InputError, match=r"another process runs '.*a\.npz'; wait until it ends"):
                run(**options)
        assert contents(tmp_path) == before
    finally:
        process.kill()
        process.wait()
    (tmp_path / ".a.npz.1.tmp").write_bytes(b"of someone else")
    assert run(resume=True).finished
    assert (tmp_path / ".a.npz.1.tmp").read_bytes() == b"of someone else"


def test_files_are_opened_before_one_is_cut(run, tmp_path):
    run()
    (tmp_path / "a.csv").unlink()
    (tmp_path / "a.csv").symlink_to("/nonexistent/a.csv")
    kept = {name: (tmp_path / name).read_bytes() for name in ("a.traj", "a.npz")}
    with pytest.raises(InputError, match=r"cannot write '.*a\.csv': No such file"):
        run(seed=5, overwrite=True)
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept


def test_outputs_are_on_the_disk_before_the_state_that_counts_on_them(run, tmp_path, monkeypatch):
    calls = []

    def fsync(descriptor):
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    def replace(source, target, original=os.replace):
        calls.append(f"-> {os.path.basename(target)}")
        original(source, target)

    monkeypatch.setattr("os.fsync", fsync)
    monkeypatch.setattr("os.replace", replace)
    run(steps=15, state_every=10)
    save = [f".a.npz.{os.getpid()}.tmp", "-> a.npz"]
    assert calls == [*save, "a.traj", "a.csv", *save, "a.traj", "a.csv", *save]
