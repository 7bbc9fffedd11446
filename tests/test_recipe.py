"""The recipe of the shipped model runs: labels in, a model folder out, a stopped training goes on."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import fcc111
from ase.calculators.emt import EMT

from escn_calc.potential import load_potential

RECIPE = Path(__file__).parents[1] / "pretrained" / "recipe"


def labelled_slabs(count):
    for seed in range(count):
        slab = fcc111("Cu", (2, 2, 3), vacuum=6.0, periodic=True)
        slab.rattle(0.02, seed=seed)
        slab.calc = EMT()
        yield slab


def write_labels(folder):
    slabs = list(labelled_slabs(12))
    splits = ["train"] * 8 + ["valid", "test", "test", "test"]
    np.savez_compressed(
        folder / "chunk-00000.npz",
        natoms=np.array([len(slab) for slab in slabs]),
        numbers=np.concatenate([slab.numbers for slab in slabs]),
        positions=np.concatenate([slab.positions for slab in slabs]),
        cell=np.stack([slab.cell.array for slab in slabs]),
        pbc=np.stack([slab.pbc for slab in slabs]),
        energy=np.array([slab.get_potential_energy() for slab in slabs]),
        forces=np.concatenate([slab.get_forces() for slab in slabs]),
        group=np.array(["a"] * 9 + ["b"] * 3),
        split=np.array(splits),
        kind=np.array(["gas"] + ["surface"] * 11),
    )
    return slabs


def run_recipe(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(RECIPE / script), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    slabs = write_labels(folder)
    for minutes in (0.05, 0.15):
        run_recipe("train.py", "--labels", folder, "--out", folder / "run", "--minutes", minutes)
    output = run_recipe("export.py", "--run", folder / "run" / "run.pt", "--labels", folder, "--out", folder / "model")
    return folder / "model", output, slabs


def test_exported_model_learned_something(trained):
    model, _, slabs = trained
    predictions = load_potential(model, device="cpu").evaluate(slabs)
    energies = np.array([prediction.energy for prediction in predictions])
    labels = np.array([slab.get_potential_energy() for slab in slabs])
    assert np.abs(energies - labels).max() / len(slabs[0]) < 0.2


def test_card_carries_the_measured_errors(trained):
    model, output, _ = trained
    card = load_potential(model, device="cpu").card
    assert card.metrics["test structures"] == 3
    assert f"force MAE, eV/Å: {card.metrics['force MAE, eV/Å']}" in output
    assert card.training_data.startswith("8 structures")
    assert card.refuse_unseen_elements
