"""``escn evaluate``: options, outputs, exit status and error messages."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from click.testing import CliRunner, Result

from escn_calc import load_potential
from escn_calc.cli import main
from escn_calc.potential import Potential
from tests.smooth import rattled_slab, write_smooth_model

RESULTS = ["errors.csv", "metrics.json", "parity.png"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A model and labelled structures: two slabs with fixed atoms, and carbon monoxide."""
    folder = tmp_path_factory.mktemp("inputs")
    potential = load_potential(write_smooth_model(folder / "model"), dtype="float64", device="cpu")
    structures = [rattled_slab(1), rattled_slab(2), molecule("CO", vacuum=4)]
    for number, atoms in enumerate(structures):
        (prediction,) = potential.evaluate([atoms])
        noise = np.random.default_rng(number)
        atoms.info = {"sid": f"system{min(number, 1)}"}
        energy = prediction.energy + 0.1
        forces = prediction.forces + 0.05 * noise.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        if len(atoms) > 2:
            atoms.set_constraint(FixAtoms(indices=[0, 1, 2, 3]))
    write(folder / "slabs.extxyz", structures[:2], format="extxyz")
    write(folder / "gas.traj", structures[2])
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch, inputs) -> Path:
    """A working directory with model, slabs.extxyz and gas.traj."""
    monkeypatch.chdir(tmp_path)
    for path in inputs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def escn(*arguments: str) -> Result:
    options = ["--device", "cpu", "--dtype", "float64"]
    return CliRunner().invoke(
        main, ["evaluate", *arguments, *options], env={"COLUMNS": "140", "NO_COLOR": "1"}, catch_exceptions=False
    )


def record(folder: str = "runs/evaluate-slabs") -> dict:
    return json.loads(Path(folder, "metrics.json").read_text())


def words(result: Result) -> str:
    return " ".join(result.stdout.replace("│", " ").replace("┃", " ").split())


def test_results(folder):
    result = escn("model", "slabs.extxyz", "gas.traj")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path("runs/evaluate-slabs").iterdir()) == RESULTS
    run = record()
    assert run["command"] == "escn evaluate" and run["model"]["name"] == "smooth-0"
    assert run["data"] == [
        {"file": name, "sha256": hashlib.sha256(Path(name).read_bytes()).hexdigest()}
        for name in ("slabs.extxyz", "gas.traj")
    ]
    assert run["settings"]["data"] == ["slabs.extxyz", "gas.traj"] and run["settings"]["energy_reference"] == "as-is"
    assert run["versions"]["escn-calc"] and run["wall_time_s"] > 0
    overall = run["overall"]
    assert overall["structures"] == 3 and overall["atoms_with_forces"] == 10 + 10 + 2
    assert overall["energy_mae"] == pytest.approx(0.1, abs=1e-6)
    assert overall["forces_mae"] == pytest.approx(0.05 * np.sqrt(2 / np.pi), rel=0.3)
    assert overall["stress_mae"] is None and run["units"]["energy_mae_per_atom"] == "eV/atom"
    assert [row["element"] for row in run["elements"]] == ["C", "O", "Cu"]
    assert {row["group"] for row in run["groups"]} == {"CCu12O", "CO"}
    with Path("runs/evaluate-slabs/errors.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["origin"] for row in rows] == ["slabs.extxyz@0", "slabs.extxyz@1", "gas.traj@0"]
    assert [row["atoms_counted"] for row in rows] == ["10", "10", "2"]
    assert np.mean([abs(float(row["energy_error_eV"])) for row in rows]) == pytest.approx(overall["energy_mae"])
    assert Path("runs/evaluate-slabs/parity.png").read_bytes().startswith(b"\x89PNG")


def test_tables_say_what_the_numbers_are(folder):
    text = words(escn("model", "slabs.extxyz", "gas.traj", "--group-by", "sid"))
    overall = record()["overall"]
    copper = record()["elements"][2]
    for row in (
        "note forces: 22 of 30 atoms count, those that are not fixed",
        "energy MAE 0.1000 eV (3 structures)",
        f"energy MAE per atom {overall['energy_mae_per_atom']:.5f} eV/atom",
        "EwT 0.00 % (|ΔE| < 0.02 eV)",
        "EFwT 0.00 % (|ΔE| < 0.02 eV, each |ΔF| < 0.03 eV/Å)",
        f"force MAE {overall['forces_mae']:.4f} eV/Å (x, y, z: {overall['forcesx_mae']:.4f}, ",
        f"force cosine {overall['forces_cosine_similarity']:.4f}",
        "energy total energy, compared as-is",
        f"Cu {copper['forces_mae']:.4f} 16 {copper['energy_mae_per_atom']:.5f} 2",
        "By group, worst first",
        "Results are in runs/evaluate-slabs/",
    ):
        assert row in text, row
    assert [row["structures"] for row in record()["groups"] if row["group"] == "system1"] == [2]
    assert "AEwT" not in text and "stress" not in text


def test_options_reach_the_evaluation(folder):
    result = escn(
        *("model", "slabs.extxyz", "--all-atoms", "--index", "1:", "--output-dir", "here"),
        *("--energy-reference", "shift-per-group", "--group-by", "frame"),
    )
    assert result.exit_code == 0, result.output
    run = record("here")
    assert run["overall"]["structures"] == 1 and run["overall"]["atoms_with_forces"] == 14
    assert run["overall"]["energy_mae"] is None
    assert run["notes"][1] == "energies: 1 in groups of one were not compared, no error would be left of them"
    assert [row["group"] for row in run["groups"]] == ["slabs.extxyz@1"]


def test_forces_of_tags(folder):
    escn("model", "slabs.extxyz", "--fix-tags", "3", "--fix-tags", "2")
    assert record()["overall"]["atoms_with_forces"] == 2 * 6


def test_named_labels(folder):
    atoms = read("gas.traj")
    named = Atoms(atoms, info={"dft": atoms.get_potential_energy() - 0.2})
    named.arrays["dft_forces"] = np.ones((2, 3))
    write("named.extxyz", named, format="extxyz")
    assert escn("model", "named.extxyz", "--labels", "energy=dft,forces=dft_forces").exit_code == 0
    overall = record("runs/evaluate-named")["overall"]
    assert overall["energy_mae"] == pytest.approx(0.1, abs=1e-6) and overall["forces_mean_absolute_label"] == 1


def test_another_zero_of_energy_is_one_yellow_line(folder):
    atoms = read("gas.traj")
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy() + 9)
    write("shifted.traj", atoms)
    result = escn("model", "shifted.traj")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Note: the mean energy error is -9.1 eV (-4.55 eV/atom)")
    assert "labels and model seem to count energies from different zeros" in line
    assert record("runs/evaluate-shifted")["notes"][0] in line


def test_refused_elements(folder):
    write("gold.traj", Atoms("Au", cell=[9, 9, 9], pbc=True, calculator=None))
    gold = Atoms("AuU", positions=[[0, 0, 0], [0, 0, 3]])
    gold.calc = SinglePointCalculator(gold, energy=0.0)
    write("gold.traj", gold)
    result = escn("model", "gas.traj", "gold.traj")
    assert result.exit_code == 1 and not Path("runs").exists()
    assert result.stderr.splitlines()[-1].startswith(
        "Error: model smooth-0 does not take U, which occur in 1 of 2 structures: gold.traj@0; use a model"
    )
    result = escn("model", "gas.traj", "gold.traj", "--skip-unsupported")
    assert result.exit_code == 0 and record("runs/evaluate-gas")["skipped"] == ["gold.traj@0"]
    assert "1 structures skipped for elements that the model does not take: gold.traj@0" in words(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model", "missing.xyz"], "data file missing.xyz does not exist"),
        (["nonsense", "gas.traj"], "there is no model 'nonsense'"),
        (["model", "gas.traj", "--group-by", "bulk"], "gas.traj@0: no entry 'bulk' in its info to group by"),
        (["model", "gas.traj", "--index", "5:"], "gas.traj has no frames (index '5:')"),
        (["model", "gas.traj", "--labels", "energy"], "--labels is 'energy'; it must name each of energy, forces and"),
        (["model", "gas.traj", "--labels", "charge=q"], "--labels is 'charge=q'; it must name each of"),
        (["model", "gas.traj", "--labels", "energy=a,energy=b"], "--labels is 'energy=a,energy=b'; it must name each"),
        (["model", "gas.traj", "--labels", "energy=dft"], "gas.traj@0: no entry 'dft' for the energy"),
        (["model", "gas.traj", "--fix-tags", "5"], "no atom has the tag 5; the tags are 0"),
        (["model", "gas.traj", "--energy-reference", "fit-elements"], "1 energies are too few to fit 1 independent"),
    ],
)
def test_errors_are_one_line_without_traceback(folder, arguments, message):
    result = escn(*arguments)
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1 and errors[0].startswith(f"Error: {message}"), result.stderr
    assert not Path("runs").exists()


def test_wrong_usage(folder):
    for arguments in (["model"], ["model", "gas.traj", "--energy-reference", "shift"]):
        assert escn(*arguments).exit_code == 2
    assert not Path("runs").exists()


def test_results_are_not_overwritten(folder, monkeypatch):
    escn("model", "slabs.extxyz")
    before = {path: path.read_bytes() for path in Path("runs/evaluate-slabs").iterdir()}
    result = escn("model", "slabs.extxyz", "--all-atoms")
    assert result.exit_code == 1
    assert "Error: 'runs/evaluate-slabs/metrics.json' exists; choose another --output-dir, or give --overwrite" in (
        result.stderr
    )
    assert escn("nonsense", "slabs.extxyz", "--overwrite").exit_code == 1
    assert {path: path.read_bytes() for path in Path("runs/evaluate-slabs").iterdir()} == before
    assert escn("model", "slabs.extxyz", "--all-atoms", "--overwrite").exit_code == 0
    assert record()["settings"]["all_atoms"] is True


def test_data_are_never_replaced(folder):
    Path("errors.csv").write_bytes(Path("slabs.extxyz").read_bytes())
    result = escn("model", "gas.traj", "errors.csv", "--output-dir", ".", "--overwrite")
    assert result.exit_code == 1 and "the result 'errors.csv' would replace the structure file" in result.stderr


def test_interrupt_leaves_nothing(folder, monkeypatch):
    def interrupted(self, structures, search=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(Potential, "iter_evaluate", interrupted)
    result = escn("model", "slabs.extxyz")
    assert result.exit_code == 130 and result.stderr.splitlines()[-1] == "Interrupted."
    assert not Path("runs").exists()


def test_help_is_light_and_names_units():
    code = (
        "import sys\nfrom escn_calc.cli import main\n"
        "try:\n    main(['evaluate', '--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "print(sorted({'torch', 'matplotlib', 'pymatgen'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[]"
    text = " ".join(done.stdout.split())
    for phrase in ("MODEL DATA...", "eV, eV/Å and eV/Å³", "--energy-reference", "EFwT", "0 success"):
        assert phrase in text, phrase
