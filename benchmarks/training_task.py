"""The task of benchmarks/training.py: networks, weights, batches, loss and optimiser, in files that both sides read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.emt import EMT
from torch_geometric.data import Batch

from escn_calc.labels import LabelledFrame
from escn_calc.nn import ESCN, ESCNConfig
from escn_calc.nn.parameters import initialise
from escn_calc.nn.rotations import edge_frames
from escn_calc.training.graphs import FrameDataset

COMMON = {"cutoff": 12.0, "max_neighbors": 20, "basis_width_scalar": 2.0, "num_sphere_samples": 128}
SMALL = {"lmax_list": [4], "mmax_list": [2], "sphere_channels": 32, "hidden_channels": 64, "edge_channels": 64}
PUBLISHED = {"lmax_list": [6], "mmax_list": [2], "sphere_channels": 128, "hidden_channels": 256, "edge_channels": 128}
MODELS = {"small": SMALL | COMMON, "L6-M2": PUBLISHED | COMMON}
PUBLISHED_LAYERS = 12
#: Loss and optimiser; normalisation and weights of the loss are those of the models published for OC20 2M.
TRAINING = {
    "mean": -0.7554450631141663,
    "std": 2.887317180633545,
    "energy_weight": 2.0,
    "force_weight": 100.0,
    "learning_rate": 2e-4,
    "weight_decay": 1e-3,
    "clip": 20.0,
    "ema": 0.999,
}
#: Factors on initial weights, so that activations are not linear, and energies and forces not tiny.
AMPLIFIED = {"so2_block": 7.0, "_embedding": 300.0, "energy_block.fc3": 1000.0, "force_block.fc3": 20.0}
DISTINCT_BATCHES = 3


def slab(seed: int) -> Atoms:
    """CO on Cu(111), 38 atoms, rattled."""
    atoms = fcc111("Cu", size=(3, 3, 4), vacuum=10.0, periodic=True)
    add_adsorbate(atoms, molecule("CO"), 1.9, "ontop")
    atoms.rattle(0.05, seed=seed)
    atoms.wrap(eps=0)
    return atoms


def labelled(atoms: Atoms, number: int) -> LabelledFrame:
    """Labels of ASE's EMT."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = None
    return LabelledFrame(atoms, energy, forces, None, group="slab", origin=f"slab {number}", repeat=1)


def make_batches(config: ESCNConfig, structures: int) -> list[Batch]:
    """Batches with graphs, labels and canonical edge frames."""
    frames = [labelled(slab(number), number) for number in range(DISTINCT_BATCHES * structures)]
    dataset = FrameDataset(frames, config.cutoff, config.max_neighbors, only_free_atoms=False)
    batches = []
    for first in range(0, len(dataset), structures):
        batch = Batch.from_data_list([dataset[number] for number in range(first, first + structures)])
        vectors = batch.edge_distance_vec
        batch.frames = edge_frames(vectors / vectors.norm(dim=-1, keepdim=True)).float()
        batches.append(batch)
    return batches


def make_weights(config: ESCNConfig) -> dict[str, torch.Tensor]:
    """Weights drawn at random, and the tables that follow from the configuration, by FAIR's names."""
    network = ESCN(config)
    initialise(network, torch.Generator().manual_seed(0))
    state = network.state_dict()
    for name, weight in state.items():
        for part, factor in AMPLIFIED.items():
            if part in name and name.endswith("weight") and name != "sphere_embedding.weight":
                weight *= factor
    return state


def write_task(folder: Path, settings: dict[str, Any], structures: int) -> None:
    """Write what both implementations read: setting, weights and batches."""
    config = ESCNConfig(**settings)
    (folder / "setting.json").write_text(json.dumps({"config": settings} | TRAINING))
    np.savez(folder / "weights.npz", **{name: tensor.numpy() for name, tensor in make_weights(config).items()})
    fields = ("atomic_numbers", "natoms", "batch", "pos", "cell", "volume", "energy", "forces")
    edges = ("edge_index", "cell_offsets", "edge_distance_vec", "frames")
    for number, batch in enumerate(make_batches(config, structures)):
        np.savez(folder / f"batch-{number}.npz", **{name: batch[name].numpy() for name in fields + edges})
