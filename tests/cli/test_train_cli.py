"""``escn train``: what it prints, its exit status, and what it does with Ctrl-C and SIGTERM."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from escn_calc.cli import main
from tests.training.tiny import write_config, write_data

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def escn(*arguments: object):
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data, a configuration and a finished run of it; the output is in ``output.txt``."""
    folder = tmp_path_factory.mktemp("train")
    write_data(folder, copies=4)
    result = escn(write_config(folder, schedule={"epochs": 2}), "--device", "cpu")
    assert result.exit_code == 0, result.output
    (folder / "output.txt").write_text(result.output)
    return folder


def test_output(folder):
    output = (folder / "output.txt").read_text()
    assert re.search(r"epoch +step +train loss +valid\. loss +energy MAE / eV/atom +force MAE / eV/Å +s/step", output)
    assert len(re.findall(r"^ +[12] +\d+ +\S+ +\S+\*? ", output, flags=re.MULTILINE)) == 2
    assert re.search(r"result +│ finished: epoch 2 of 2, step \d+", output)
    assert re.search(r"validation force MAE, eV/Å +│ \d", output)
    assert "Reading data" in output and str(folder / "run") in output.replace("\n", "")


def test_settings_in_the_record_are_those_of_the_file(folder):
    record = json.loads((folder / "run/record.json").read_text())
    assert record["config"]["device"] == "cpu"
    assert record["result"]["reason"] == "finished"


def test_finished_run_says_so_again(folder):
    result = escn(folder / "config.yaml")
    assert result.exit_code == 0, result.output
    assert "Going on at step" in result.output
    assert "finished: epoch 2 of 2" in result.output


def test_overwrite_begins_again(folder, tmp_path):
    write_data(tmp_path, copies=3)
    config = write_config(tmp_path, schedule={"epochs": 1})
    assert escn(config).exit_code == 0
    config = write_config(tmp_path, schedule={"epochs": 1}, seed=1)
    refused = escn(config)
    assert refused.exit_code == 1
    assert "belongs to another run" in refused.output and "settings seed: 0 there, 1 here" in refused.output
    assert escn(config, "--overwrite").exit_code == 0


def test_mistake_is_one_line_with_file_line_and_key(folder, tmp_path):
    config = write_config(tmp_path, optimiser={})
    result = escn(config)
    assert result.exit_code == 1
    assert re.fullmatch(
        r"Error: \S+/config\.yaml:\d+: optimiser: there is no such key; did you mean optimizer\?\n", result.output
    )


def test_wrong_usage():
    assert escn().exit_code == 2
    assert escn("config.yaml", "--device", "abacus").exit_code == 2


def test_help_names_results_units_and_exit_status():
    result = escn("--help")
    assert result.exit_code == 0
    for words in ("best/ and last/", "log.csv", "eV/Å", "torchrun", "143 with SIGTERM", "--overwrite"):
        assert words in result.output


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_signal_keeps_the_state(folder, tmp_path, number, status):
    (tmp_path / "data.extxyz").write_bytes((folder / "data.extxyz").read_bytes())
    config = write_config(tmp_path, schedule={"epochs": 100_000})
    command = [sys.executable, "-c", "from escn_calc.cli import main; main()", "train", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run/last").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    assert "The same command goes on from here" in errors
    assert (tmp_path / "run/state/state.json").exists()
    assert json.loads((tmp_path / "run/record.json").read_text())["result"]["reason"] == "interrupted"


def test_other_processes_of_torchrun_say_nothing(monkeypatch):
    from escn_calc.cli.train import _console

    monkeypatch.setenv("RANK", "1")
    with _console().capture() as captured:
        _console().print("a word")
    assert captured.get() == ""
    monkeypatch.setenv("RANK", "0")
    assert _console().stderr
