"""``escn vibrations``: which atoms move, outputs, exit status and error messages."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.vibrations import VibrationsData
from click.testing import CliRunner, Result

from escn_calc.cli import main
from escn_calc.cli.vibrations_outputs import FRAMES_OF_A_MODE, LARGEST_DISPLACEMENT_SHOWN
from escn_calc.relax import relax
from escn_calc.vibrations import vibrations
from tests.toy_potential import SHA256, ToyPotential

FILES = ["n_on_cu_hessian.json", "n_on_cu_modes.extxyz", "n_on_cu_vibrations.json"]


@pytest.fixture(scope="module")
def relaxed() -> Atoms:
    """N in the hollow of Cu(111), relaxed with EMT, tagged as in OC20."""
    atoms = fcc111("Cu", (2, 2, 2), vacuum=8.0, periodic=True)
    add_adsorbate(atoms, "N", 1.0, "fcc")
    atoms.set_tags([0] * 4 + [1] * 4 + [2])
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 0))
    atoms.info.clear()
    return relax(atoms, EMT(), fmax=0.002).atoms


@pytest.fixture
def folder(tmp_path, monkeypatch, relaxed, loader) -> Path:
    """A working directory with n_on_cu.xyz, where commands use toy models."""
    monkeypatch.chdir(tmp_path)
    write("n_on_cu.xyz", relaxed, format="extxyz")
    return tmp_path


def escn(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["vibrations", *arguments], env={"COLUMNS": "140", "NO_COLOR": "1"})


def record() -> dict:
    return json.loads(Path("runs/n_on_cu/n_on_cu_vibrations.json").read_text())


def words(result: Result) -> str:
    return " ".join(result.stdout.replace("│", " ").replace("┃", " ").split())


def test_record_and_files(folder, relaxed, loader):
    result = escn("n_on_cu.xyz", "--temperature", "300", "--temperature", "500")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir("runs/n_on_cu")) == FILES
    run = record()
    expected = vibrations(relaxed, EMT(), [8])
    found = run["result"]
    assert found["atoms"] == [8] and found["method"] == "finite-difference" and found["notes"] == []
    np.testing.assert_allclose(found["frequencies_per_cm"], expected.frequencies_cm1, rtol=1e-4)
    assert found["imaginary_frequencies_per_cm"] == []
    assert found["zero_point_energy_eV"] == pytest.approx(expected.zero_point_energy, rel=1e-4)
    assert found["energy_eV"] == pytest.approx(relaxed.get_potential_energy(), abs=1e-5)
    for row, temperature in zip(found["free_energies"], (300, 500), strict=True):
        exact = expected.free_energy(temperature)
        assert row["temperature_K"] == temperature
        assert row["free_energy_eV"] == pytest.approx(exact.free_energy, abs=1e-5)
        assert row["internal_energy_eV"] == pytest.approx(exact.internal_energy, abs=1e-5)
        assert row["entropy_eV_per_K"] == pytest.approx(exact.entropy, rel=1e-3)
    assert run["command"] == "escn vibrations" and run["model"]["sha256"] == SHA256["default"]
    assert run["settings"]["temperatures"] == [300, 500]
    digest = hashlib.sha256(Path("n_on_cu.xyz").read_bytes()).hexdigest()
    assert run["structure"] == {"file": "n_on_cu.xyz", "sha256": digest}
    (request,) = loader.requests
    assert request["dtype"] == "float32" and request["forces"] is None


def test_summary_says_what_the_numbers_are(folder):
    text = words(escn("n_on_cu.xyz"))
    run = record()["result"]
    (free,) = run["free_energies"]
    frequency = run["frequencies_per_cm"][0]
    for row in (
        "mode cm⁻¹ meV",
        f"0 {frequency:.1f} {1000 * frequency * units.invcm:.2f}",
        "atoms that move 1 of 9: N 8",
        f"adsorption energy {run['energy_eV']:.6f} eV (without vibrations)",
        "energy reference clean slab [relaxed] and gas references",
        f"zero-point energy {run['zero_point_energy_eV']:.4f} eV",
        f"at 298.15 K F {free['free_energy_eV']:+.4f} eV, U {free['internal_energy_eV']:.4f} eV, "
        f"S {1000 * free['entropy_eV_per_K']:.4f} meV/K (of the vibrations)",
        f"largest force {run['fmax_eV_per_angstrom']:.4f} eV/Å (on atoms that move)",
        f"Hessian finite-difference, asymmetry {run['hessian_asymmetry']:.1e}",
        f"model sha256 {SHA256['default']}",
        "Results are in runs/n_on_cu/",
    ):
        assert row in text, row
    assert "warning" not in text


def test_hessian_file_is_read_by_ase(folder, relaxed):
    escn("n_on_cu.xyz")
    data = VibrationsData.read("runs/n_on_cu/n_on_cu_hessian.json")
    assert data.get_indices().tolist() == [8]
    np.testing.assert_allclose(data.get_frequencies().real, record()["result"]["frequencies_per_cm"], rtol=1e-12)
    np.testing.assert_allclose(data.get_atoms().positions, relaxed.positions, atol=1e-7)


def test_animation_moves_the_atoms_along_each_mode(folder, relaxed):
    escn("n_on_cu.xyz", "--atoms", "7,8")
    frames = read("runs/n_on_cu/n_on_cu_modes.extxyz", ":")
    frequencies = record()["result"]["frequencies_per_cm"]
    modes = VibrationsData.read("runs/n_on_cu/n_on_cu_hessian.json").get_modes(all_atoms=True)
    assert len(frames) == 6 * FRAMES_OF_A_MODE
    for number in range(6):
        period = frames[number * FRAMES_OF_A_MODE : (number + 1) * FRAMES_OF_A_MODE]
        moved = np.array([frame.positions - relaxed.positions for frame in period])
        assert {frame.info["mode"] for frame in period} == {number}
        assert period[0].info["frequency_cm1"] == pytest.approx(frequencies[number]) and not period[0].info["imaginary"]
        np.testing.assert_allclose(moved[0], 0, atol=1e-7)
        assert np.linalg.norm(moved, axis=2).max() == pytest.approx(LARGEST_DISPLACEMENT_SHOWN)
        along = moved[FRAMES_OF_A_MODE // 4].ravel() @ modes[number].ravel()
        assert along == pytest.approx(np.linalg.norm(moved[FRAMES_OF_A_MODE // 4]) * np.linalg.norm(modes[number]))
        np.testing.assert_allclose(moved[FRAMES_OF_A_MODE // 4], -moved[3 * FRAMES_OF_A_MODE // 4], atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "moving"),
    [
        ([], [8]),
        (["--atoms", "free"], [4, 5, 6, 7, 8]),
        (["--atoms", "free", "--fix-tags", "1"], [8]),
        (["--atoms", "8,0"], [0, 8]),
    ],
)
def test_atoms_that_move(folder, arguments, moving):
    assert escn("n_on_cu.xyz", *arguments).exit_code == 0
    assert record()["result"]["atoms"] == moving


def test_settings_reach_the_calculation(folder, loader):
    escn("n_on_cu.xyz", "--dtype", "float64", "--displacement", "0.05", "--lowest", "3000", "--model", "other")
    run = record()
    assert loader.requests[0]["dtype"] == "float64" and run["model"]["name"] == "other"
    assert run["settings"]["displacement"] == 0.05
    assert run["result"]["notes"] == ["3 mode(s) below 3000 cm⁻¹ count as 3000 cm⁻¹ in the free energy"]


def test_autograd_with_gradient_forces(folder, monkeypatch):
    monkeypatch.setattr(ToyPotential, "hessian", lambda self, atoms, indices: np.eye(3), raising=False)
    assert escn("n_on_cu.xyz", "--forces", "gradient").exit_code == 0
    assert record()["result"]["method"] == "autograd" and record()["model"]["forces_kind"] == "gradient"


@pytest.mark.parametrize("eigenvalues", [[-1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]])
def test_imaginary_modes(folder, monkeypatch, eigenvalues):
    monkeypatch.setattr(ToyPotential, "hessian", lambda self, atoms, indices: np.diag(eigenvalues), raising=False)
    result = escn("n_on_cu.xyz", "--method", "autograd")
    assert result.exit_code == 0, result.output
    run = record()["result"]
    imaginary = sum(value < 0 for value in eigenvalues)
    assert len(run["imaginary_frequencies_per_cm"]) == imaginary and len(run["frequencies_per_cm"]) == 3 - imaginary
    assert f"warning {run['notes'][0]}" in words(result)
    assert f"0 {run['imaginary_frequencies_per_cm'][0]:.1f}i" in words(result)
    assert read("runs/n_on_cu/n_on_cu_modes.extxyz", "0").info["imaginary"]
    assert len(run["free_energies"]) == (1 if imaginary < 3 else 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.xyz"], "structure file 'missing.xyz' does not exist"),
        (["untagged.xyz"], "the structure has no tags, so its adsorbate is not known; give the adsorbate's atoms the"),
        (["n_on_cu.xyz", "--atoms", "9"], "there is no atom 9; the 9 atoms have the indices 0 to 8"),
        (["n_on_cu.xyz", "--atoms", "8,8"], "atom 8 is named more than once"),
        (
            ["n_on_cu.xyz", "--atoms", "top"],
            "--atoms is 'top'; it must be adsorbate, free, or indices with commas between",
        ),
        (["n_on_cu.xyz", "--atoms", ""], "--atoms is ''; it must be adsorbate, free, or indices"),
        (["n_on_cu.xyz", "--displacement", "0"], "the displacement is 0.0 Å; it must be positive and at most 0.2 Å"),
        (["n_on_cu.xyz", "--temperature", "0"], "the temperature is 0.0 K; it must be a positive number"),
        (["n_on_cu.xyz", "--temperature", "nan"], "the temperature is nan K; it must be a positive number"),
        (["n_on_cu.xyz", "--lowest", "nan"], "lowest_cm1 is nan cm⁻¹; it must be a positive number"),
        (["n_on_cu.xyz", "--model", "energy-only"], "vibrations need forces, and the model has none"),
        (["n_on_cu.xyz", "--model", "defualt"], "there is no model 'defualt'; did you mean default?"),
        (["helium.xyz", "--atoms", "free"], "structure 0: atom 0 is He, which the model does not know; remove it"),
    ],
)
def test_errors_are_one_line_without_traceback(folder, relaxed, arguments, message):
    write("helium.xyz", Atoms("He"))
    untagged = relaxed.copy()
    del untagged.arrays["tags"]
    write("untagged.xyz", untagged)
    result = escn(*arguments)
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1 and errors[0].startswith(f"Error: {message}"), result.stderr
    assert "Traceback" not in result.output and not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "forward"], "'forward' is not one of 'auto', 'autograd', 'finite-difference'"),
        (["--lowest", "0"], "Invalid value for '--lowest'"),
        (["--temperature", "hot"], "Invalid value for '--temperature'"),
    ],
)
def test_wrong_usage(folder, arguments, message):
    result = escn("n_on_cu.xyz", *arguments)
    assert result.exit_code == 2 and message in result.stderr and not Path("runs").exists()


def test_results_are_not_overwritten(folder, loader):
    escn("n_on_cu.xyz")
    before = {path: path.read_bytes() for path in Path("runs/n_on_cu").iterdir()}
    loader.requests.clear()
    result = escn("n_on_cu.xyz", "--model", "other")
    assert result.exit_code == 1 and loader.requests == []
    assert (
        "Error: 'runs/n_on_cu/n_on_cu_modes.extxyz' exists; choose another --output-dir, or give --over"
        in result.stderr
    )
    assert {path: path.read_bytes() for path in Path("runs/n_on_cu").iterdir()} == before
    assert escn("n_on_cu.xyz", "--overwrite", "--model", "energy-only").exit_code == 1
    assert {path: path.read_bytes() for path in Path("runs/n_on_cu").iterdir()} == before
    assert escn("n_on_cu.xyz", "--overwrite", "--model", "other").exit_code == 0
    assert record()["model"]["name"] == "other"


def test_results_may_lie_beside_those_of_a_relaxation(folder):
    CliRunner().invoke(main, ["relax", "n_on_cu.xyz", "--steps", "0"])
    before = {path: path.read_bytes() for path in Path("runs/n_on_cu").iterdir()}
    assert len(before) == 4 and escn("n_on_cu.xyz").exit_code == 0
    after = {path: path.read_bytes() for path in Path("runs/n_on_cu").iterdir()}
    assert before.items() <= after.items() and len(after) == 7


def test_interrupt_leaves_nothing(folder, monkeypatch):
    def evaluate(self, structures, search=None, original=ToyPotential.evaluate):
        if self.calls == 1:
            raise KeyboardInterrupt
        return original(self, structures)

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    result = escn("n_on_cu.xyz")
    assert result.exit_code == 130 and result.stderr.splitlines()[-1] == "Interrupted."
    assert not Path("runs").exists()


def test_help_is_light_and_names_units(folder):
    code = (
        "import sys\nfrom escn_calc.cli import main\n"
        "try:\n    main(['vibrations', '--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "print(sorted({'torch', 'matplotlib', 'pymatgen'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[]"
    text = " ".join(done.stdout.split())
    for phrase in ("--displacement ANGSTROM", "--temperature KELVIN", "cm⁻¹", "--forces", "0 success"):
        assert phrase in text, phrase
