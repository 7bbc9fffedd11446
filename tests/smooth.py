"""A small smooth model with random weights: continuous forces, free of frames and orientation, for tests of dynamics.

Its numbers mean nothing, but they vary like those of a real surface: forces of the order of 1 eV/Å, atoms that come
close repel each other.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule

from escn_calc.checkpoints.card import ModelCard, Normalizers
from escn_calc.checkpoints.checkpoint import NUM_ELEMENT_REFERENCES, Checkpoint, plain_config
from escn_calc.checkpoints.native import write_native
from escn_calc.graph import radius_graph
from escn_calc.nn import ESCN, ESCNConfig
from escn_calc.nn.parameters import initialise
from escn_calc.structures import StructureBatch

TYPICAL_FORCE = 1.0
"""eV/Å: root mean square component of the network's forces on :func:`rattled_slab`."""

WEIGHT_FACTORS = (
    ("bias", 0.0),
    ("source_embedding", 1100.0),
    ("target_embedding", 1100.0),
    ("fc1_dist", 2.2),
    ("fc1_edge_attr", 2.2),
    ("so2_block", 3.3),
    ("", 1.65),
)
"""What to multiply a weight by, from the first part that its name contains."""


def smooth_config(
    *,
    lmax: int = 2,
    mmax: int = 1,
    layers: int = 2,
    channels: int = 8,
    cutoff: float = 5.0,
    cutoff_envelope: int | None = 6,
    repulsion: str | None = "zbl",
    resolution: int | None = 8,
    edge_longitudes: int | None = None,
    num_sphere_samples: int = 128,
) -> ESCNConfig:
    """Shape of a smooth network with a broad radial basis, for elements up to bismuth.

    Its grids are coarser than the default ones, and fine enough for the weights of gain 1.
    """
    return ESCNConfig(
        lmax_list=(lmax,),
        mmax_list=(mmax,),
        num_layers=layers,
        sphere_channels=channels,
        hidden_channels=2 * channels,
        edge_channels=2 * channels,
        cutoff=cutoff,
        max_neighbors=0,
        max_num_elements=84,
        num_sphere_samples=num_sphere_samples,
        basis_width_scalar=2.0,
        distance_resolution=0.25,
        resolution=resolution,
        edge_longitudes=edge_longitudes,
        regress_forces=False,
        grids="resolved",
        cutoff_envelope=cutoff_envelope,
        repulsion=repulsion,
    )


def smooth_checkpoint(
    seed: int = 0, *, gain: float = 1.0, energy_kind: str = "total", **shape: int | float | str | None
) -> Checkpoint:
    """A smooth model in memory; ``shape`` goes to :func:`smooth_config`, ``gain`` to :func:`random_weights`."""
    return checkpoint_of(smooth_config(**shape), seed, gain, energy_kind)


def write_smooth_model(folder: Path, seed: int = 0) -> Path:
    """Write :func:`smooth_checkpoint` as a native model folder and return its path."""
    write_native(smooth_checkpoint(seed), folder)
    return folder


@cache
def checkpoint_of(config: ESCNConfig, seed: int, gain: float, energy_kind: str) -> Checkpoint:
    state = random_weights(config, seed, gain)
    return Checkpoint(
        config=config,
        state=state,
        normalizers=Normalizers(energy_std=energy_scale(config, state)),
        element_references=-1.0 - 0.05 * torch.arange(NUM_ELEMENT_REFERENCES, dtype=torch.float64),
        card=ModelCard(
            name=f"smooth-{seed}",
            sha256=sha256(repr((config, seed, gain)).encode()).hexdigest(),
            licence="MIT",
            elements=None,
            cutoff=config.cutoff,
            energy_kind=energy_kind,
            energy_reference="none: the weights are random",
            training_data="none",
            citation="none",
            forces="gradient",
            config=plain_config(config),
        ),
    )


def random_weights(config: ESCNConfig, seed: int, gain: float = 1.0) -> dict[str, torch.Tensor]:
    """Weights that tell elements apart; the larger ``gain``, the further from linear the activations work."""
    network = ESCN(config)
    initialise(network, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.mul_(gain * next(factor for part, factor in WEIGHT_FACTORS if part in name))
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def energy_scale(config: ESCNConfig, state: dict[str, torch.Tensor]) -> float:
    """The ``energy_std`` that makes forces typical, to two digits."""
    network = ESCN(config, torch.float64, roll_in_derivative=not config.resolved)
    network.load_state_dict(state, strict=False)
    forces = -energy_and_gradient(network.requires_grad_(False), rattled_slab())[1]
    return float(f"{TYPICAL_FORCE / forces.square().mean().sqrt().item():.1e}")


def energy_and_gradient(network: ESCN, atoms: Atoms) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw summed energy of one structure and its derivative with respect to the positions, (N, 3)."""
    batch = StructureBatch.from_atoms([atoms])
    graph = radius_graph(batch, network.config.cutoff, network.config.max_neighbors)
    vectors = graph.vectors.requires_grad_()
    energy = network(batch.numbers, graph.source, graph.target, vectors).node_energy.sum()
    (slope,) = torch.autograd.grad(energy, vectors)
    gradient = torch.zeros(len(atoms), 3, dtype=slope.dtype)
    gradient = gradient.index_add(0, graph.source, slope).index_add(0, graph.target, slope, alpha=-1)
    return energy.detach(), gradient


def rattled_slab(seed: int = 1) -> Atoms:
    """Cu(111) with carbon monoxide on top, 14 atoms, away from any symmetry."""
    atoms = fcc111("Cu", size=(2, 2, 3), vacuum=8.0, periodic=True)
    add_adsorbate(atoms, molecule("CO"), 1.9, "ontop", mol_index=1)
    atoms.positions += np.random.default_rng(seed).normal(scale=0.1, size=(len(atoms), 3))
    return atoms
