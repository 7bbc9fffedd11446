"""The example structure is what the README says, and the example scripts run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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


@pytest.mark.parametrize("model", [None, "l2m1"])
def test_read_fair_checkpoint(tmp_path, model):
    arguments = [] if model is None else [str(ROOT / "tests/data/parity" / model / "checkpoint.pt")]
    output = run("read_fair_checkpoint.py", *arguments, folder=tmp_path)
    assert ("lmax (4,), mmax (2,)" if model is None else "lmax (2,), mmax (1,)") in output
    assert re.search(r"^energy -?\d+\.\d{6} eV \((adsorption|total|unknown)\)$", output, flags=re.MULTILINE)
