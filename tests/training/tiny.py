"""A tiny training run: rattled slabs of one atom a layer, labelled with ASE's EMT, and a network for them.

python -m tests.training.tiny CONFIG step NUMBER            train, and kill this process in the step of that number
python -m tests.training.tiny CONFIG validation NUMBER      the same, after the models of a validation are written
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import yaml
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from escn_calc.training import load_config, train
from escn_calc.training.callbacks import Callback, StepReport, ValidationReport

NETWORK = {
    "lmax_list": [1],
    "mmax_list": [1],
    "num_layers": 2,
    "sphere_channels": 8,
    "hidden_channels": 8,
    "edge_channels": 8,
    "cutoff": 3.5,
    "max_neighbors": 0,
    "max_num_elements": 80,
    "distance_resolution": 0.1,
    "grids": "resolved",
    "num_sphere_samples": 32,
    "resolution": 4,
    "edge_longitudes": 17,
    "cutoff_envelope": 5,
}


def slab(metal: str, adsorbate: str, seed: int) -> Atoms:
    """A slab with an atom on it, its bottom fixed, with energy (eV), forces (eV/Å) and its kind in ``info["sid"]``."""
    atoms = fcc111(metal, size=(1, 1, 3), vacuum=6.0, periodic=True)
    add_adsorbate(atoms, adsorbate, 1.6, "fcc")
    atoms.info = {"sid": f"{metal}-{adsorbate}", "number": f"{metal}-{adsorbate}-{seed}"}
    atoms.set_constraint(FixAtoms([0]))
    atoms.set_positions(atoms.positions, apply_constraint=False)
    atoms.rattle(0.1, seed=seed)
    return labelled(atoms)


def labelled(atoms: Atoms) -> Atoms:
    """Put energy, unconstrained forces and stress of EMT into the structure."""
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=atoms.get_stress())
    return atoms


def write_data(folder: Path, kinds: tuple[str, ...] = ("Cu-H", "Cu-O", "Pd-H", "Pd-O"), copies: int = 10) -> Path:
    """Write ``data.extxyz`` with some structures of each kind."""
    frames = [
        slab(*kind.split("-"), seed=100 * number + copy) for number, kind in enumerate(kinds) for copy in range(copies)
    ]
    write(folder / "data.extxyz", frames)
    return folder / "data.extxyz"


def settings(**changes: Any) -> dict[str, Any]:
    """Content of a configuration file; sections are merged with ``changes``."""
    content: dict[str, Any] = {
        "out": "run",
        "model": {"network": NETWORK, "forces": "gradient", "name": "tiny"},
        "data": {"train": "data.extxyz", "validation_fraction": 0.25, "group_by": "sid"},
        "loss": {"energy": 1, "forces": 10},
        "optimizer": {"learning_rate": 1e-2, "ema": 0.9},
        "schedule": {"epochs": 3, "warm_up_steps": 4},
        "batch": {"edges": 450},
        "device": "cpu",
        "card": {"energy_kind": "total", "energy_reference": "EMT"},
    }
    for section, values in changes.items():
        both = isinstance(values, dict) and isinstance(content.get(section), dict)
        content[section] = {**content[section], **values} if both else values
    return content


def write_config(folder: Path, **changes: Any) -> Path:
    """Write ``config.yaml``."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings(**changes)), encoding="utf-8")
    return path


class Killer(Callback):
    """Kills this process."""

    def __init__(self, moment: str, number: int) -> None:
        self.moment, self.left = moment, number

    def on_step(self, report: StepReport) -> None:
        if self.moment == "step":
            self._count()

    def on_validation(self, report: ValidationReport) -> None:
        if self.moment == "validation":
            self._count()

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    train(load_config(sys.argv[1]), callbacks=[Killer(sys.argv[2], int(sys.argv[3]))])
