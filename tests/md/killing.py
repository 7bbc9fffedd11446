"""Runs, kills and resumes molecular dynamics in forked processes; prints as JSON what happened.

python -m tests.md.killing FOLDER random RUNS SEED      kill runs of all ensembles at random moments
python -m tests.md.killing FOLDER writes ENSEMBLE       kill one run before and after each of its writes
python -m tests.md.killing FOLDER resume ENSEMBLE STEPS take up a run, in this process
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io.ulm
import numpy as np

import escn_calc.md.state
import escn_calc.md.trajectory
from escn_calc.md import ENSEMBLES, run_md
from escn_calc.md.log import LogFile
from tests.md.conftest import contents, files_in
from tests.md.potentials import PairPotential, crystal

START = crystal()


def options(ensemble: str, steps: int) -> dict[str, Any]:
    """Settings under which a run writes much."""
    fast = {"thermostat_time_fs": 20.0, "barostat_time_fs": 100.0, "every": 2, "state_every": 3}
    return {"ensemble": ensemble, "steps": steps, **fast}


def start(folder: Path, settings: dict[str, Any]) -> None:
    """Begin a run or take it up, whichever the files ask for."""
    result = run_md(START, PairPotential(), **settings, **files_in(folder), resume=True)
    assert result.finished, result.message


def in_a_fork(work: Callable[[], None]) -> int:
    """Start a process that works and ends without any clean-up; return its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def was_killed(child: int) -> bool:
    """Wait for a process; it must have been killed, or have succeeded."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status) != 0:
        raise SystemExit("a run failed")
    return False


def kill_at_random_moments(folder: Path, runs: int, seed: int) -> dict[str, int]:
    """Kill every run once or more, at a moment drawn from the time that the whole run takes."""
    rng = np.random.default_rng(seed)
    kills = different = 0
    whole = {}
    run_md(START, PairPotential(), steps=1)  # imports what is imported late, so that it is not timed
    for ensemble in ENSEMBLES:
        (folder / ensemble).mkdir()
        begin = time.perf_counter()
        start(folder / ensemble, options(ensemble, 40))
        whole[ensemble] = contents(folder / ensemble), time.perf_counter() - begin
    for number in range(runs):
        ensemble = ENSEMBLES[number % len(ENSEMBLES)]
        expected, duration = whole[ensemble]
        parts = folder / f"run{number}"
        parts.mkdir()
        wanted = kills + int(rng.integers(1, 4))
        while kills < wanted:
            child = in_a_fork(lambda parts=parts, ensemble=ensemble: start(parts, options(ensemble, 40)))
            time.sleep(float(rng.uniform(0, duration)))
            os.kill(child, signal.SIGKILL)
            if was_killed(child):
                kills += 1
            else:  # too late: begin the run anew
                shutil.rmtree(parts)
                parts.mkdir()
        start(parts, options(ensemble, 40))
        different += contents(parts) != expected
    return {"runs": runs, "kills": kills, "different": different}


class Countdown:
    """Kills this process at the ``number``-th call of one of the functions it has been put around."""

    def __init__(self, number: int) -> None:
        self.left = number

    def tick(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def around(self, owner: Any, name: str) -> None:
        """Count before and after every call of ``owner.name``."""
        inner = getattr(owner, name)

        def outer(*arguments: Any, **keywords: Any) -> Any:
            self.tick()
            result = inner(*arguments, **keywords)
            self.tick()
            return result

        setattr(owner, name, outer)


def kill_at_every_write(folder: Path, ensemble: str) -> dict[str, int]:
    """Kill a run in the middle of every frame, row and state; kill its first resumption there once more."""
    settings = options(ensemble, 4)
    (folder / "whole").mkdir()
    start(folder / "whole", settings)
    expected = contents(folder / "whole")

    def counted(parts: Path, number: int) -> None:
        countdown = Countdown(number)
        for owner, name in (
            (ase.io.ulm, "align"),
            (ase.io.ulm, "writeint"),
            (LogFile, "_write"),
            (os, "replace"),
            (os, "fsync"),
            (escn_calc.md.trajectory, "cut_trajectory"),
            (escn_calc.md.state, "save_state"),
            (np, "savez"),
        ):
            countdown.around(owner, name)
        start(parts, settings)

    kills = different = 0
    for number in range(10_000):
        parts = folder / f"write{number}"
        parts.mkdir()
        killed = was_killed(in_a_fork(lambda parts=parts, number=number: counted(parts, number)))
        kills += killed
        kills += was_killed(in_a_fork(lambda parts=parts, number=number: counted(parts, number // 2)))
        start(parts, settings)
        different += contents(parts) != expected
        if not killed:
            break
    return {"kills": kills, "different": different}


def main(folder: str, task: str, *arguments: str) -> None:
    """Do one of the three tasks.

    A process that is killed leaves its data to the operating system; waiting for the disk would only take time.
    """
    os.fsync = lambda descriptor: None
    if task == "random":
        print(json.dumps(kill_at_random_moments(Path(folder), int(arguments[0]), int(arguments[1]))))
    elif task == "writes":
        print(json.dumps(kill_at_every_write(Path(folder), arguments[0])))
    else:
        start(Path(folder), options(arguments[0], int(arguments[1])))


if __name__ == "__main__":
    main(*sys.argv[1:])
