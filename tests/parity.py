"""The stored reference: FAIR-layout files and the numbers the published implementation computes from them."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from escn_calc.checkpoints.checkpoint import Checkpoint
from escn_calc.checkpoints.fair import read_fair

FOLDER = Path(__file__).parent / "data" / "parity"
MODELS = sorted(path.name for path in FOLDER.iterdir())


@dataclass(frozen=True)
class Stored:
    """One structure with the reference's graph, frames and results; edges sorted by target."""

    name: str
    atoms: Atoms
    source: torch.Tensor
    target: torch.Tensor
    vectors: torch.Tensor
    frames: torch.Tensor
    energy: float
    forces: np.ndarray
    sampled_energies: np.ndarray
    sampled_forces: np.ndarray


def checkpoint_path(model: str) -> Path:
    return FOLDER / model / "checkpoint.pt"


@cache
def checkpoint(model: str) -> Checkpoint:
    return read_fair(checkpoint_path(model))


def summary(model: str) -> dict:
    return json.loads((FOLDER / model / "info.json").read_text())


@cache
def structures(model: str) -> tuple[Stored, ...]:
    with np.load(FOLDER / model / "reference.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    names = sorted({name.split("/")[0] for name in arrays})
    return tuple(
        _stored(name, {k.split("/")[1]: v for k, v in arrays.items() if k.startswith(name + "/")}) for name in names
    )


def _stored(name: str, a: dict[str, np.ndarray]) -> Stored:
    order = np.argsort(a["edge_index"][1], kind="stable")
    return Stored(
        name=name,
        atoms=Atoms(a["numbers"], a["positions"], cell=a["cell"], pbc=a["pbc"]),
        source=torch.from_numpy(a["edge_index"][0][order]).long(),
        target=torch.from_numpy(a["edge_index"][1][order]).long(),
        vectors=torch.from_numpy(a["edge_vec"][order]).double(),
        frames=torch.from_numpy(a["frames"][order]).double(),
        energy=float(a["energy_f64"]),
        forces=a["forces_f64"],
        sampled_energies=a["energy_f32_random_frames"],
        sampled_forces=a["forces_f32_random_frames"],
    )
