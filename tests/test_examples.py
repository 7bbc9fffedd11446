"""The example structure is what the README says, and the example scripts run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(script: str, *arguments: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_script_is_tested():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    tested = set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text(encoding="utf-8")))
    assert tested == scripts


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_scripts_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


def test_structure():
    atoms = read(EXAMPLES / "co_on_cu111.xyz")
    assert atoms.get_chemical_formula() == "CCu36O"
    assert atoms.pbc.all()
    layers = np.unique(np.round(atoms.positions[atoms.get_tags() == 0, 2], 3))
    assert len(layers) == 2
    assert atoms.positions[atoms.get_tags() == 0, 2].max() < atoms.positions[atoms.get_tags() == 1, 2].min()
    assert atoms[atoms.get_tags() == 2].get_chemical_formula() == "CO"
    carbon, oxygen = np.flatnonzero(atoms.get_tags() == 2)
    assert 1.10 < atoms.get_distance(carbon, oxygen) < 1.25
    nearest = atoms.get_distances(carbon, np.flatnonzero(atoms.numbers == 29), mic=True).min()
    assert 1.8 < nearest < 2.2
    assert atoms.cell[2, 2] - np.ptp(atoms.positions[:, 2]) > 15


def test_attach_calculator(tmp_path):
    output = run("attach_calculator.py", folder=tmp_path)
    assert re.search(r"^energy +-?\d+\.\d{4} eV \((adsorption|total); .+\)$", output, flags=re.MULTILINE)
    assert re.search(r"^largest force +\d+\.\d{4} eV/Å$", output, flags=re.MULTILINE)


def test_relax_with_constraints(tmp_path):
    output = run("relax_with_constraints.py", folder=tmp_path)
    assert re.search(r"^converged after \d+ steps", output, flags=re.MULTILINE)
    distance = float(re.search(r"C-O distance (\d\.\d{3}) Å", output)[1])
    assert 1.10 <= distance <= 1.25
    assert list(tmp_path.iterdir()) == []


def test_adsorbate_vibrations(tmp_path):
    output = run("adsorbate_vibrations.py", folder=tmp_path)
    frequencies = [float(word) for word in re.search(r"^frequencies (.+) cm⁻¹$", output, flags=re.MULTILINE)[1].split()]
    assert len(frequencies) == 3 and all(200 < frequency < 700 for frequency in frequencies)
    assert re.search(r"^zero-point energy 0\.0\d{3} eV$", output, flags=re.MULTILINE)
    assert re.search(r"^500 K: F [+-]\d\.\d{4} eV, T S \d\.\d{4} eV$", output, flags=re.MULTILINE)
    assert "note:" not in output


@pytest.mark.parametrize("model", [None, "l2m1"])
def test_read_fair_checkpoint(tmp_path, model):
    arguments = [] if model is None else [str(ROOT / "tests/data/parity" / model / "checkpoint.pt")]
    output = run("read_fair_checkpoint.py", *arguments, folder=tmp_path)
    assert ("lmax (4,), mmax (2,)" if model is None else "lmax (2,), mmax (1,)") in output
    assert re.search(r"^energy -?\d+\.\d{6} eV \((adsorption|total|unknown)\)$", output, flags=re.MULTILINE)


def test_so2_convolution(tmp_path):
    page = (ROOT / "docs" / "so2-convolution.md").read_text(encoding="utf-8")
    script = (EXAMPLES / "so2_convolution.py").read_text(encoding="utf-8")
    output = run("so2_convolution.py", folder=tmp_path)
    assert f"```python\n{script}```" in page
    assert textwrap.indent(output, "    ") in page


def test_md_nve(tmp_path):
    output = run("md_nve.py", folder=tmp_path)
    for timestep in (2, 1):
        assert re.search(
            rf"^steps of {timestep} fs, 0\.04 ps at \d+\.\d{{3}} ns/day: finished$", output, flags=re.MULTILINE
        )
    changes = re.findall(r"total energy since the start / meV/atom: (.+)$", output, flags=re.MULTILINE)
    assert [len(values.split()) for values in changes] == [11, 11]
    assert all(values.startswith("0.000 ") for values in changes)
    assert len(re.findall(r"drift -?\d+\.\d\d ± \d+\.\d\d meV/atom/ps", output)) == 2
    assert list(tmp_path.iterdir()) == []


def test_md_langevin(tmp_path):
    output = run("md_langevin.py", folder=tmp_path)
    assert re.findall(r"^finished at step (\d+), mean temperature \d+ K$", output, flags=re.MULTILINE) == ["15", "30"]
    assert re.findall(r"^step +(\d+) +\d+\.\d K", output, flags=re.MULTILINE) == [
        "0",
        "5",
        "10",
        "15",
        "20",
        "25",
        "30",
    ]
    assert len(read(tmp_path / "md_langevin.traj", ":")) == 7
    temperatures = [float(value) for value in re.findall(r"^step .* (\d+\.\d) K", output, flags=re.MULTILINE)]
    assert all(100 < temperature < 600 for temperature in temperatures)


def test_neb_batched(tmp_path):
    output = run("neb_batched.py", folder=tmp_path)
    assert re.search(r"^converged after \d+ steps$", output, flags=re.MULTILINE)
    barrier = re.search(r"^barrier (\d\.\d{3}) eV, energy of the end [+-]\d\.\d{3} eV$", output, flags=re.MULTILINE)[1]
    assert 0.1 < float(barrier) < 1.0
    assert (tmp_path / "neb_batched.png").read_bytes().startswith(b"\x89PNG")


def test_saddle_search(tmp_path):
    output = run("saddle_search.py", folder=tmp_path)
    assert re.search(r"^(Sella|MinModeTranslate): converged after \d+ steps$", output, flags=re.MULTILINE)
    assert re.search(r"^imaginary modes \[\d+\.\d?\] cm⁻¹; real ones \[\S+ +\S+\] cm⁻¹$", output, flags=re.MULTILINE)


def test_training_data(tmp_path):
    output = run("training_data.py", "1", folder=tmp_path)
    assert output == "training_data.extxyz: 18 structures in 9 groups\n"
    frames = read(tmp_path / "training_data.extxyz", ":")
    assert all(abs(frame.calc.results["forces"]).max() < 10 for frame in frames)
    assert any(abs(frame.calc.results["forces"][frame.constraints[0].index]).max() > 0.1 for frame in frames)
    assert len({frame.info["sid"] for frame in frames}) == 9


def test_compare_with_literature(tmp_path):
    """Energies in the published order correlate by one; Cu first instead of fifth leaves 1 - 6 (16 + 4) / (7 * 48)."""
    published = json.loads((EXAMPLES / "screen_metals_literature.json").read_text(encoding="utf-8"))
    energies = {metal: energy + 2.5 for metal, energy in published["sets"]["rmg-pbe-d3"]["values"]["H"].items()}
    for changed, expected in (({}, "1.00"), ({"Cu": -2.93}, "0.64")):
        rows = [f"{metal},H,{energy},True\n{metal},H,-9.0,False" for metal, energy in (energies | changed).items()]
        (tmp_path / "table.csv").write_text("\n".join(["bulk,adsorbate,energy_eV,best", *rows]), encoding="utf-8")
        output = run("compare_with_literature.py", "table.csv", folder=tmp_path)
        assert f"H: rank correlation {expected} over 7 metals with rmg-pbe-d3" in output
