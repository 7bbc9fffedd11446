"""A tiny smooth network and a few labelled frames, for tests of training that take milliseconds per step."""

from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from escn_calc.checkpoints.card import Normalizers
from escn_calc.labels import LabelledFrame
from escn_calc.nn import ESCN
from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.parameters import initialise
from escn_calc.training.graphs import FrameDataset
from escn_calc.training.objective import LossWeights, Objective, trainable
from tests.smooth import smooth_config

CONFIG = replace(
    smooth_config(
        lmax=1, mmax=1, layers=1, channels=3, cutoff=3.4, repulsion=None, num_sphere_samples=18, resolution=4
    ),
    max_num_elements=30,
    edge_longitudes=5,
    distance_resolution=0.8,
)
HEADED = replace(CONFIG, regress_forces=True)
NORMALIZERS = Normalizers(energy_mean=0.7, energy_std=300.0, force_std=0.5)
REFERENCES = -3.0 - 0.1 * torch.arange(119, dtype=torch.float64)
WEIGHTS = LossWeights(energy=2.0, forces=10.0, stress=5.0)


def cells(count: int = 6) -> list[Atoms]:
    """Distorted cells of copper with one nickel atom, of 8 or 4 atoms in turn."""
    random = np.random.default_rng(0)
    found = []
    for index in range(count):
        atoms = bulk("Cu", cubic=True) * ((1, 1, 1) if index % 2 else (2, 1, 1))
        atoms.numbers[0] = 28
        atoms.positions += random.normal(scale=0.1, size=atoms.positions.shape)
        found.append(atoms)
    return found


def dataset(count: int = 6) -> FrameDataset:
    """Cells with labels of every kind, as graphs; most of the energy can be learned, the rest is random."""
    random = np.random.default_rng(1)
    frames = [
        LabelledFrame(
            atoms=atoms,
            energy=float(REFERENCES[atoms.numbers].sum()) + 0.3 * len(atoms) + random.normal(scale=0.2),
            forces=random.normal(size=(len(atoms), 3)),
            stress=random.normal(scale=0.05, size=6),
            group=str(index),
            origin=f"cells@{index}",
            repeat=1,
        )
        for index, atoms in enumerate(cells(count))
    ]
    return FrameDataset(frames, CONFIG.cutoff, 0, only_free_atoms=False)


def network(config: ESCNConfig = CONFIG, dtype: torch.dtype = torch.float64, seed: int = 0) -> ESCN:
    """A network with weights that tell the two elements apart."""
    made = ESCN(config, roll_in_derivative=False)
    initialise(made, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.mul_(300.0 if "edge_block" in name and "embedding" in name else 1.5)
    wanted = ESCN(config, dtype, roll_in_derivative=False)
    wanted.load_state_dict(made.state_dict(), strict=False)
    return trainable(wanted)


def objective(
    forces: str = "gradient", weights: LossWeights | None = None, dtype: torch.dtype = torch.float64
) -> Objective:
    """An objective for the frames of :func:`dataset`; direct forces come without stress."""
    if weights is None:
        weights = WEIGHTS if forces == "gradient" else replace(WEIGHTS, stress=0.0)
    config = HEADED if forces == "direct" else CONFIG
    precision = "float64" if dtype == torch.float64 else "float32"
    return Objective(network(config, dtype), NORMALIZERS, REFERENCES, weights, forces, precision)
