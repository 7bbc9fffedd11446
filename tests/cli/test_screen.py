"""``escn screen`` and ``escn export``: what they print, leave behind and refuse, and their exit status."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from escn_calc.cli import main
from escn_calc.cli.screen_outputs import duration
from escn_calc.screening import open_store
from escn_calc.screening.local import LocalEngine
from escn_calc.screening.relaxing import Ended, LostError
from escn_calc.screening.results import results
from tests.screening.campaigns import KNOWN, write_campaign

EXAMPLES = Path(__file__).parents[2] / "examples"


def escn(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments], env={"COLUMNS": "160", "NO_COLOR": "1"})


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Folder of a campaign that has run; its output is in ``stdout.txt`` and ``stderr.txt``."""
    folder = tmp_path_factory.mktemp("finished")
    result = escn("screen", str(write_campaign(folder)))
    assert result.exit_code == 0, result.output
    (folder / "stdout.txt").write_text(result.stdout)
    (folder / "stderr.txt").write_text(result.stderr)
    return folder


def test_plan(finished):
    plan = words((finished / "stderr.txt").read_text())
    for line in (
        "model tests.screening.calculators:Known: total energy, as the calculator defines it",
        "references oc20",
        "gas molecules 2: 2 to 3 atoms; H2, H2O",
        "clean slabs 2: 3 atoms; Cu(111), Pt(111)",
        "slabs with adsorbates 16: 4 atoms",
        "placements 16, the best of 4 systems",
        "finished 0",
        "to do 20",
        "if all relaxations go to the step limit",
    ):
        assert line in plan, line
    assert "20/20 20 0" in plan


def test_results(finished):
    output = words((finished / "stdout.txt").read_text())
    for result in results(open_store(finished / "out/results.db")):
        if result.best:
            assert f"{result.surface} {result.adsorbate} {result.site} {result.energy:.3f}" in words(
                output.replace("┃", " ").replace("│", " ")
            )
    assert f"Results are in '{finished}/out/results.db'" in output


def test_record(finished):
    record = json.loads((finished / "out/screen.json").read_text())
    assert record["result"]["reason"] == "finished" and record["result"]["states"] == {"converged": 20}
    assert record["planned"] == {"bulk": 0, "gas": 2, "slab": 2, "adslab": 16}
    assert record["model"]["energy_kind"] == "total" and record["versions"]["ase"]
    assert record["cost"]["seconds"] > 0 and record["config"].startswith("out: out")
    assert sorted(os.listdir(finished / "out")) == ["results.db", "screen.json"]


def test_again(finished):
    before = (finished / "out/results.db").stat().st_size
    result = escn("screen", str(finished / "campaign.yaml"))
    assert result.exit_code == 0, result.output
    assert "finished 20 to do 0" in words(result.stderr)
    assert (finished / "out/results.db").stat().st_size == before


def test_dry_run_writes_nothing(tmp_path):
    result = escn("screen", str(write_campaign(tmp_path)), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "to do 20" in words(result.stderr) and result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["campaign.yaml"]


def test_csv(finished, tmp_path):
    table = tmp_path / "table.csv"
    result = escn("export", str(finished / "out/results.db"), "-o", str(table))
    assert result.exit_code == 0, result.output
    assert "16 placements are in" in result.stdout
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    expected = results(open_store(finished / "out/results.db"))
    assert [line["task"] for line in lines] == [one.key for one in expected]
    assert [float(line["energy_eV"]) for line in lines] == [one.energy for one in expected]
    assert lines[0]["miller"] == "1 1 1" and lines[0]["coverage_ML"] == "" and lines[0]["state"] == "converged"
    again = escn("export", str(finished / "out/results.db"), "-o", str(table))
    assert again.exit_code == 1 and "exists; choose another --output, or give --overwrite" in words(again.stderr)


def test_parquet(finished, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = tmp_path / "table.parquet"
    assert escn("export", str(finished / "out/results.db"), "-o", str(table)).exit_code == 0
    found = parquet.read_table(table).to_pylist()
    expected = results(open_store(finished / "out/results.db"))
    assert [(line["task"], line["energy_eV"], line["best"]) for line in found] == [
        (one.key, one.energy, one.best) for one in expected
    ]
    assert found[0]["coverage_ML"] is None


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["screen", "none.yaml"], 1, "cannot read 'none.yaml': No such file or directory"),
        (["screen", "campaign.yaml", "--dask", "local"], 1, "'local' is no address of Dask workers"),
        (["screen", "campaign.yaml", "--batch-size", "0"], 2, "0 is not in the range x>=1"),
        (["screen", "campaign.yaml", "--device", "cpu"], 1, "a device means nothing for a calculator"),
        (["screen", "broken.yaml"], 1, "broken.yaml:17: adsorbates[0]: adsorbate 'HH' is not in the catalogue"),
        (["screen", "model.yaml"], 1, "model.yaml:17: model: there is no model 'nosuch'; known are default"),
        (
            ["screen", "failing.yaml"],
            1,
            "cannot be evaluated: Cu(111) H bridge: RuntimeError: no convergence with H",
        ),
        (["export", "none.db", "-o", "a.csv"], 1, "there is no database 'none.db'"),
        (["export", "none.db", "-o", "a.txt"], 1, "'a.txt' is neither a .csv nor a .parquet file"),
        (["export", "none.db"], 2, "Missing option '-o' / '--output'"),
    ],
)
def test_refused(tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    write_campaign(tmp_path, adsorbates=["HH"], bulks=["Cu"]).rename("broken.yaml")
    write_campaign(tmp_path, calculator=None, out="out", model="nosuch").rename("model.yaml")
    failing = {**KNOWN["calculator"], "arguments": {"fails_for": "H"}}
    write_campaign(tmp_path, calculator=failing, adsorbates=["H"], bulks=["Cu"]).rename("failing.yaml")
    write_campaign(tmp_path)
    before = sorted(os.listdir())
    result = escn(*arguments)
    assert result.exit_code == status, result.output
    assert message in words(result.stderr)
    assert sorted(os.listdir()) == before


def test_what_still_fails_does_not_keep_the_rest_from_being_tried_again(tmp_path):
    failing = {**KNOWN["calculator"], "arguments": {"fails_for": "O"}}
    path = write_campaign(tmp_path, calculator=failing, bulks=["Cu"])
    assert escn("screen", str(path)).exit_code == 0
    again = escn("screen", str(path), "--retry-failed")
    assert again.exit_code == 0, again.output
    assert "to do 5" in words(again.stderr)
    assert "Note: no estimate of the time: cannot be evaluated: Cu(111) O " in words(again.stderr)


def relax_but(monkeypatch, change) -> None:
    """Let the engine do something else with each task that has ended, by its number."""
    original = LocalEngine.relax

    def relax(self, tasks):
        for number, ended in enumerate(original(self, tasks)):
            yield change(number, ended)

    monkeypatch.setattr(LocalEngine, "relax", relax)


def test_lost_tasks(tmp_path, monkeypatch):
    relax_but(monkeypatch, lambda number, ended: Ended(ended.task, LostError("gone"), {}) if number == 3 else ended)
    result = escn("screen", str(write_campaign(tmp_path)))
    assert result.exit_code == 3, result.output
    assert "2 relaxations were lost with their workers; run the command again" in result.stderr
    assert json.loads((tmp_path / "out/screen.json").read_text())["result"]["reason"] == "incomplete"


def test_interrupt(tmp_path, monkeypatch):
    def change(number, ended):
        if number == 3:
            raise KeyboardInterrupt
        return ended

    relax_but(monkeypatch, change)
    result = escn("screen", str(write_campaign(tmp_path)))
    assert result.exit_code == 130, result.output
    assert "The same command goes on from here" in result.stderr
    record = json.loads((tmp_path / "out/screen.json").read_text())
    assert record["result"]["reason"] == "interrupted" and record["result"]["finished"] == 3


def test_an_error_says_how_far_it_got(tmp_path, monkeypatch):
    import sqlite3

    from ase.db.sqlite import SQLite3Database

    original = SQLite3Database._write

    def write(self, atoms, *arguments):
        if "O" in atoms.get_chemical_symbols():
            raise sqlite3.OperationalError("database or disk is full")
        return original(self, atoms, *arguments)

    monkeypatch.setattr(SQLite3Database, "_write", write)
    result = escn("screen", str(write_campaign(tmp_path)))
    assert result.exit_code == 1
    assert "database or disk is full. 1 of 20 relaxations have a row. The same command goes on from here" in words(
        result.stderr
    )


@pytest.mark.filterwarnings("ignore:model escn-small-fcc")
def test_small_example(tmp_path, monkeypatch):
    """The reduced campaign, with the shipped model."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "screen_small.yaml", tmp_path)
    result = escn("screen", "screen_small.yaml", "--device", "cpu")
    assert result.exit_code == 0, result.output
    found = results(open_store("runs/screen_small/results.db"))
    best = {(one.surface, one.adsorbate): one for one in found if one.best}
    assert len(found) == 16 and set(best) == {(s, a) for s in ("Cu(111)", "Pt(111)") for a in ("H", "O")}
    assert all(-2 < one.energy < 3 for one in best.values())


def test_durations():
    assert [duration(seconds) for seconds in (0.5, 90, 1500, 9000, 864000)] == [
        "0.5 s",
        "90 s",
        "25 min",
        "2.5 h",
        "10 days",
    ]
