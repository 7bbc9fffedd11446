"""Runs killed with SIGKILL and resumed leave the same bytes as runs that were left alone.

The killing is done in a process of its own, ``tests/md/killing.py``, which imports everything once and then forks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.md.conftest import contents
from tests.md.killing import options, start

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def killing(tmp_path, *arguments: str) -> dict[str, int]:
    """Run ``tests.md.killing``; its output is the count of what happened."""
    command = [sys.executable, "-m", "tests.md.killing", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_fifty_runs_killed_at_random_moments(tmp_path, record_figure):
    counts = killing(tmp_path, "random", "50", "2024")
    record_figure("runs killed and resumed", f"{counts['runs']} with {counts['kills']} kills, all bit-identical")
    assert counts["runs"] == 50 and counts["different"] == 0
    assert counts["kills"] >= 50


@pytest.mark.parametrize("ensemble", ["langevin", "npt"])
def test_killed_at_every_write(tmp_path, ensemble):
    counts = killing(tmp_path, "writes", ensemble)
    assert counts["different"] == 0
    assert counts["kills"] > 40


def test_killed_and_resumed_in_new_processes(tmp_path):
    """Nothing survives in memory: every resumption is a new interpreter."""
    (tmp_path / "whole").mkdir()
    start(tmp_path / "whole", options("bussi", steps=500))
    parts = tmp_path / "parts"
    parts.mkdir()
    command = [sys.executable, "-m", "tests.md.killing", str(parts), "resume", "bussi", "500"]
    for kill in range(3):
        process = subprocess.Popen(command)
        size = log_size(parts)
        while process.poll() is None and log_size(parts) <= size + 1000:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"the run ended before kill {kill}"
    subprocess.run(command, check=True)
    assert contents(parts) == contents(tmp_path / "whole")


def log_size(folder) -> int:
    path = folder / "a.csv"
    return path.stat().st_size if path.exists() else 0
