"""``escn bench``: the record, what the tables say, and what is refused before any work."""

from __future__ import annotations

import json
import os
import re
import statistics
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from click.testing import CliRunner, Result

from escn_calc.bench import arithmetic
from escn_calc.bench.accuracy import Difference
from escn_calc.bench.slabs import known_slab
from escn_calc.checkpoints.card import read_document
from escn_calc.cli import main
from escn_calc.cli.bench import BATCH_ON_CPU, SIZES
from escn_calc.cli.bench_outputs import difference_table
from escn_calc.potential import Potential
from tests.smooth import rattled_slab, write_smooth_model


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory with a model and structures, where matrix products are small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arithmetic, "CPU_SIZE", 16)
    write_smooth_model(tmp_path / "model")
    slab = rattled_slab()
    slab.info.clear()
    write("slab.xyz", slab)
    write("co.xyz", molecule("CO"))
    return tmp_path


def escn(*arguments: str) -> Result:
    options = ("--device", "cpu", "--seconds", "0")
    return CliRunner().invoke(main, ["bench", *options, *arguments], env={"COLUMNS": "160", "NO_COLOR": "1"})


def words(result: Result) -> str:
    return " ".join(re.sub("[│┃|]", " ", result.stdout).split())


def test_record_and_tables(folder):
    result = escn("slab.xyz", "co.xyz", "--model", "model", "--batch", "2", "--json", "speed.json")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir()) == ["co.xyz", "model", "slab.xyz", "speed.json"]
    record = json.loads(Path("speed.json").read_text())
    assert record["command"] == "escn bench" and record["finished"].startswith("20")
    assert record["machine"]["name"] and record["versions"]["torch"]
    card = read_document(Path("model")).card
    assert record["model"]["name"] == card.name and record["model"]["sha256"] == card.sha256
    assert record["settings"]["batch"] == 2 and record["settings"]["structures"] == ["slab.xyz", "co.xyz"]
    slab, co = record["structures"]
    assert (slab["name"], slab["atoms"], slab["batch"]) == ("slab.xyz", 14, 2)
    assert (co["name"], co["atoms"], co["edges"]) == ("co.xyz", 2, 2)
    assert record["differences"]["atoms"] == 2
    assert [row["against"] for row in record["differences"]["largest"]] == ["one by one", "float64"]
    rate = record["matrix_product_multiply_adds_per_second"]
    text = words(result)
    assert f"slab.xyz 14 {1 / statistics.median(slab['call_seconds']):.3g} (" in text
    assert f"{2 / statistics.median(slab['batch_seconds']):.3g} (" in text
    reached = slab["multiply_adds"] / statistics.median(slab["call_seconds"]) / rate
    assert (
        f"slab.xyz {slab['edges']} {slab['peak_bytes'] / 1e6:.3g} {slab['most_atoms']} "
        f"{slab['multiply_adds'] / 1e9:.3g} {reached:.1%}"
    ) in text
    assert "structures/s, 2 together" in text and "float32, gradient forces, canonical frames, cpu" in text
    assert f"model sha256 {record['model']['sha256']}" in text and "All figures are in speed.json" in text


def test_standard_slabs(folder, monkeypatch):
    monkeypatch.setattr("escn_calc.cli.bench.SIZES", (6,))
    for arguments, sizes in (((), [6]), (("--size", "6", "--size", "10"), [6, 10])):
        result = escn("--model", "model", "--json", "speed.json", "--overwrite", *arguments)
        assert result.exit_code == 0, result.output
        structures = json.loads(Path("speed.json").read_text())["structures"]
        slabs = [known_slab(size, None) for size in sizes]
        assert [(row["name"], row["atoms"]) for row in structures] == [(slab.name, len(slab.atoms)) for slab in slabs]
        assert {row["batch"] for row in structures} == {BATCH_ON_CPU}


def test_sizes_in_the_help_are_those_taken():
    assert f"[default: {', '.join(map(str, SIZES))}]" in " ".join(escn("--help").output.split())


def test_other_precision_is_compared_with_float32(folder):
    assert " float32 " in words(escn("co.xyz", "--model", "model", "--dtype", "float64", "--batch", "1"))


def test_differences_are_shown_in_their_units():
    table = difference_table((Difference("float32", 2e-3, 5e-3, 1e-2), Difference("float64", 0.0, None, None)), 18)
    cells = [list(column.cells) for column in table.columns]
    assert cells == [["float32", "float64"], ["2.0e+00", "0.0e+00"], ["5.0e+00", ""], ["1.0e-02", ""]]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--model", "modle"), 1, "there is no model 'modle'"),
        (("absent.xyz",), 1, "structure file 'absent.xyz' does not exist"),
        (("uranium.xyz", "--model", "model"), 1, "atom 0 (U) of uranium.xyz (U)"),
        (("slab.xyz", "--size", "20"), 2, "--size is for the standard slabs; give it or structure files, not both"),
        (("--size", "0"), 2, "0 is not in the range"),
        (("--size", "1000000000"), 2, "1000000000 is not in the range"),
        (("--batch", "0"), 2, "0 is not in the range"),
        (("--seconds", "-1"), 2, "-1.0 is not in the range"),
        (("--json", "co.xyz"), 1, "'co.xyz' exists; choose another --json, or give --overwrite"),
        (("co.xyz", "--json", "co.xyz", "--overwrite"), 1, "the figures would replace the structure file 'co.xyz'"),
        (("--json", "absent/speed.json"), 1, "there is no folder 'absent' for the file 'speed.json'"),
    ],
)
def test_bad_input_is_refused_before_any_work(folder, monkeypatch, arguments, status, message):
    write("uranium.xyz", Atoms("U"))
    before = sorted(os.listdir())
    monkeypatch.setattr(Potential, "evaluate", lambda *_: pytest.fail("evaluated"))
    result = escn(*arguments)
    assert result.exit_code == status, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert sorted(os.listdir()) == before


def test_slab_that_no_memory_holds_is_refused(folder, monkeypatch):
    monkeypatch.setattr(Potential, "evaluate", lambda *_: pytest.fail("evaluated"))
    monkeypatch.setattr("escn_calc.energy_model.affordable_bytes", lambda device: 6e7)
    result = escn("--size", "5000", "--model", "model")
    assert result.exit_code == 1
    assert re.search(r"CO on Cu\(111\) has 50\d\d atoms, but about \d+ fit into the free memory", result.stderr)
