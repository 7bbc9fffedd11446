"""How much the energy (meV) and forces of a model change when a structure is turned, over random rotations."""

from __future__ import annotations

import argparse

import numpy as np
from ase import Atoms
from building import random_rotation
from checks import Setting, read_setting, write_result
from matplotlib.figure import Figure
from structures import WIDE, draw_start

from escn_calc import load_potential

STRUCTURES = 12
SEED = 97
CHUNK = 10


def turned(atoms: Atoms, rotation: np.ndarray) -> Atoms:
    """Copy with positions and cell multiplied by a rotation matrix."""
    copy = atoms.copy()
    copy.set_constraint()
    copy.set_cell(atoms.cell @ rotation.T)
    copy.positions = atoms.positions @ rotation.T
    return copy


def run(setting: Setting, count: int) -> None:
    """Turn, evaluate, write."""
    potential = load_potential(setting.model, dtype="float64")
    rng = np.random.default_rng(SEED)
    structures = {}
    index = 0
    while len(structures) < STRUCTURES:
        start = draw_start(SEED, index, setting.lattice, WIDE)
        index += 1
        structures.setdefault(f"{start.kind.name}: {start.group}", start.atoms)
    rows = []
    for name, atoms in structures.items():
        rotations = [np.eye(3), *(random_rotation(rng) for _ in range(count))]
        energies, forces = [], []
        for first in range(0, len(rotations), CHUNK):
            some = rotations[first : first + CHUNK]
            for rotation, prediction in zip(
                some, potential.evaluate([turned(atoms, each) for each in some]), strict=True
            ):
                energies.append(prediction.energy)
                forces.append(prediction.forces @ rotation)
        spread = 1000 * (np.array(energies) - np.mean(energies))
        force_errors = np.linalg.norm(np.array(forces) - np.mean(forces, axis=0), axis=2)
        rows.append(
            {
                "structure": name,
                "atoms": len(atoms),
                "largest_energy_error_meV": round(float(np.abs(spread).max()), 5),
                "rms_energy_error_meV": round(float(np.sqrt((spread**2).mean())), 5),
                "largest_force_error_meV_per_A": round(1000 * float(force_errors.max()), 4),
            }
        )
        print(rows[-1], flush=True)
    figure = Figure(figsize=(6, 0.3 * len(rows) + 1.2))
    axes = figure.subplots()
    axes.barh([row["structure"] for row in rows], [row["largest_energy_error_meV"] for row in rows])
    axes.set(xlabel=f"largest energy error over {count} rotations, meV", xscale="log")
    axes.axvline(1.0, color="k", lw=0.8)
    largest = max(row["largest_energy_error_meV"] for row in rows)
    write_result(setting, "rotation", {"rotations": count, "largest_meV": largest, "structures": rows}, figure)


def main() -> None:
    """Read the command line and check."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--rotations", type=int, default=100, help="rotations per structure (default 100)")
    setting, arguments = read_setting(__doc__, options)
    run(setting, arguments.rotations)


if __name__ == "__main__":
    main()
