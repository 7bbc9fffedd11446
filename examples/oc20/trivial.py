"""Print the errors of predictions that need no network, on the held-out frames of a split.

Run ``python trivial.py interpolation`` after split.py.

Energies: a least-squares energy for each element, fitted to the training frames. Forces: zero. Where the training
frames hold the same system: both copied from the training frame before. Forces on free atoms count, as in OC20.
"""

import sys

import numpy as np
from ase import Atoms
from ase.io import read


def composition(frames: list[Atoms]) -> np.ndarray:
    """Numbers of atoms of each element, (frames, 119)."""
    return np.array([np.bincount(atoms.numbers, minlength=119) for atoms in frames])


def energies(frames: list[Atoms]) -> np.ndarray:
    return np.array([atoms.get_potential_energy() for atoms in frames])


def frame_before(atoms: Atoms, train: list[Atoms]) -> Atoms:
    """The latest frame of the same system before this one."""
    earlier = [
        other for other in train if other.info["sid"] == atoms.info["sid"] and other.info["frame"] < atoms.info["frame"]
    ]
    return max(earlier, key=lambda other: other.info["frame"])


def print_energy_errors(name: str, predicted: np.ndarray, frames: list[Atoms]) -> None:
    errors = predicted - energies(frames)
    sids = np.array([atoms.info["sid"] for atoms in frames])
    shifted = errors - np.array([errors[sids == sid].mean() for sid in sids])
    per_atom = np.abs(errors) / [len(atoms) for atoms in frames]
    print(f"{name}: as-is {np.abs(errors).mean():.3f} eV, {1000 * per_atom.mean():.1f} meV/atom; ", end="")
    print(f"shift-per-group {np.abs(shifted).mean():.3f} eV")


def print_force_errors(name: str, predicted: list[np.ndarray], frames: list[Atoms]) -> None:
    errors = [
        np.delete(forces - atoms.get_forces(apply_constraint=False), fixed_atoms(atoms), axis=0)
        for forces, atoms in zip(predicted, frames, strict=True)
    ]
    print(f"{name}: {np.abs(np.concatenate(errors)).mean():.4f} eV/Å")


def fixed_atoms(atoms: Atoms) -> list[int]:
    return [index for constraint in atoms.constraints for index in constraint.get_indices()]


split = sys.argv[1]
train, held_out = (read(f"{split}-{part}.extxyz", ":") for part in ("train", "held-out"))

references = np.linalg.lstsq(composition(train), energies(train), rcond=None)[0]
print_energy_errors("energy, element references", composition(held_out) @ references, held_out)
print_force_errors("forces, zero", [np.zeros_like(atoms.positions) for atoms in held_out], held_out)
if {atoms.info["sid"] for atoms in held_out} <= {atoms.info["sid"] for atoms in train}:
    copied = [frame_before(atoms, train) for atoms in held_out]
    print_energy_errors("energy, frame before", energies(copied), held_out)
    print_force_errors("forces, frame before", [atoms.get_forces(apply_constraint=False) for atoms in copied], held_out)
