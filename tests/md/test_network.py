"""Exact restarts with the network itself: skin, gradient forces and several threads do not change a bit."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read

from escn_calc import ESCNCalculator
from escn_calc.md import run_md
from tests.finite_differences import triclinic_slab
from tests.md.conftest import contents, files_in
from tests.smooth import write_smooth_model

OPTIONS = {"ensemble": "langevin", "temperature_K": 600.0, "every": 2, "state_every": 5, "seed": 3}
THREADS = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_smooth_model(tmp_path_factory.mktemp("models") / "smooth")


def go_on(folder: Path, model: Path, steps: int, skin: float = 0.5) -> None:
    calculator = ESCNCalculator(model, skin=skin)
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        start = triclinic_slab(5.0, 0)
        result = run_md(start, calculator, steps=steps, **OPTIONS, **files_in(folder), resume=True)
    finally:
        torch.set_num_threads(threads)
    assert result.finished, result.message


def test_killed_and_resumed(tmp_path, model):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    go_on(whole, model, 80)
    command = [sys.executable, "-m", "tests.md.test_network", str(parts), str(model), "80"]
    for kill in range(2):
        process = subprocess.Popen(command)
        size = log_size(parts)
        while process.poll() is None and log_size(parts) <= size + 200:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"the run ended before kill {kill}"
    go_on(parts, model, 80)
    assert contents(parts) == contents(whole)


def test_the_skin_changes_no_bit(tmp_path, model):
    frames = {}
    for skin in (0.0, 0.3, 1.5):
        folder = tmp_path / str(skin)
        folder.mkdir()
        go_on(folder, model, 40, skin)
        frames[skin] = read(folder / "a.traj", ":")
    assert len(frames[0.0]) == 21
    for fresh, *others in zip(*frames.values(), strict=True):
        for other in others:
            assert np.array_equal(other.positions, fresh.positions)
            assert np.array_equal(other.get_forces(), fresh.get_forces())
            assert other.get_potential_energy() == fresh.get_potential_energy()


def log_size(folder: Path) -> int:
    path = folder / "a.csv"
    return path.stat().st_size if path.exists() else 0


if __name__ == "__main__":
    go_on(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
