"""The splits of examples/oc20 are what its page says, and the settings of the worked examples can be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write

from escn_calc.training import load_config

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "oc20"
SYSTEMS = ("CuPdH", "CuPdO", "AgPtH", "AgPtO", "CuPtH", "AgPdO", "AuNiH", "AuNiO", "ZnPdH")


def frame(sid: str, number: int) -> Atoms:
    random = np.random.default_rng(number)
    atoms = Atoms(sid, positions=random.normal(size=(3, 3)), cell=[9, 9, 9], pbc=True)
    atoms.info |= {"sid": sid, "frame": 3 * number}
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=random.normal(), forces=random.normal(size=(3, 3)))
    return atoms


def run(script: str, argument: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / script), argument],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oc20")
    frames = [frame(sid, number) for sid in SYSTEMS for number in range(10)]
    write(folder / "frames.extxyz", frames)
    run("split.py", "frames.extxyz", folder)
    return folder


def read_split(folder: Path, kind: str) -> tuple[list[Atoms], list[Atoms]]:
    return tuple(read(folder / f"{kind}-{part}.extxyz", ":") for part in ("train", "held-out"))


def test_interpolation_holds_out_every_fifth_frame_of_every_system(split):
    train, held_out = read_split(split, "interpolation")
    assert len(train) == 72
    assert sorted((atoms.info["sid"], int(atoms.info["frame"])) for atoms in held_out) == sorted(
        (sid, frame) for sid in SYSTEMS for frame in (6, 21)
    )


def test_extrapolation_holds_out_systems_whose_elements_are_all_trained_on(split):
    train, held_out = read_split(split, "extrapolation")
    systems = {atoms.info["sid"] for atoms in held_out}
    assert len(systems) == 5
    assert len(train) + len(held_out) == 90
    assert not systems & {atoms.info["sid"] for atoms in train}
    assert {s for atoms in held_out for s in atoms.symbols} <= {s for atoms in train for s in atoms.symbols}


def test_labels_and_fixed_atoms_survive_the_split(split):
    original = read(split / "frames.extxyz", "13")
    (kept,) = [
        atoms
        for part in read_split(split, "extrapolation")
        for atoms in part
        if (atoms.info["sid"], atoms.info["frame"]) == (original.info["sid"], original.info["frame"])
    ]
    assert kept.get_potential_energy() == original.get_potential_energy()
    np.testing.assert_array_equal(kept.get_forces(apply_constraint=False), original.get_forces(apply_constraint=False))
    assert kept.constraints[0].index.tolist() == [0]


def test_forces_of_zero_err_by_the_mean_size_of_the_free_ones(split):
    _, held_out = read_split(split, "interpolation")
    expected = np.mean([np.abs(atoms.get_forces(apply_constraint=False)[1:]).mean() for atoms in held_out])
    assert f"forces, zero: {expected:.4f} eV/Å" in run("trivial.py", "interpolation", split)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/*.yaml")), ids=lambda path: path.stem)
def test_settings_of_the_worked_examples_are_valid(path):
    assert load_config(path).schedule.epochs > 0
