"""The eSCN network of Passaro & Zitnick 2023 (arXiv 2302.03655), as published by FAIR.

Pure mathematics: tensors in, tensors out. Names of parameters are those of FAIR's checkpoints.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from escn_calc.nn.blocks import LayerBlock
from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.edges import Edges
from escn_calc.nn.harmonics import solid_harmonics
from escn_calc.nn.heads import PointNetwork
from escn_calc.nn.layout import EdgeLayout
from escn_calc.nn.parameters import embedding
from escn_calc.nn.radial_basis import radial_basis
from escn_calc.nn.rotations import edge_frames
from escn_calc.nn.sphere_points import golden_spiral

SUM_FACTOR = 0.001


@dataclass(frozen=True, eq=False)
class ESCNOutput:
    """Raw network output, before normalisers and references.

    Attributes
    ----------
    node_energy : (N,) contribution of each atom; the energy is their sum, or their mean for
        ``energy_reduce="mean"``.
    forces : (N, 3), or None for a network without force head.
    """

    node_energy: Tensor
    forces: Tensor | None


class ESCN(nn.Module):
    """Equivariant Spherical Channel Network.

    Weights are uninitialised: load a state or call :func:`escn_calc.nn.parameters.initialise`. Rotations of the
    input rotate the forces (SO(3)); mirror images may differ, because the imaginary maps carry odd paths.

    Parameters
    ----------
    config : shape of the network.
    dtype : of weights, sphere grids and all arithmetic. Choose it here: the grids are computed in float64 and
        rounded once, so a float32 network converted to float64 afterwards keeps rounded grids.
    """

    sphere_points: Tensor

    def __init__(self, config: ESCNConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.layout = EdgeLayout.of(config)
        points = golden_spiral(config.num_sphere_samples)
        self.register_buffer("sphere_points", points.float())
        self.sphharm_weights = nn.ParameterList(
            nn.Parameter(solid_harmonics(points, lmax).float(), requires_grad=False) for lmax in config.lmax_list
        )
        self.distance_expansion = radial_basis(config)
        self.sphere_embedding = embedding(config.max_num_elements, config.all_channels)
        self.layer_blocks = nn.ModuleList(LayerBlock(config, self.layout) for _ in range(config.num_layers))
        self.energy_block = PointNetwork(config)
        self.force_block = PointNetwork(config) if config.regress_forces else None
        self.to(dtype)

    def forward(
        self, numbers: Tensor, source: Tensor, target: Tensor, vectors: Tensor, frames: Tensor | None = None
    ) -> ESCNOutput:
        """Evaluate the network on a radius graph.

        Parameters
        ----------
        numbers : (N,) atomic numbers, below ``config.max_num_elements``.
        source, target : (E,) node indices of the edges, ``target`` ascending.
        vectors : (E, 3) Å, from target to source, in the dtype of the network.
        frames : (E, 3, 3) rotations that take each edge to +y; None for the canonical frames.

        Returns
        -------
        ESCNOutput
        """
        distances = vectors.norm(dim=-1)
        if frames is None:
            frames = edge_frames(vectors / distances[:, None])
        edges = Edges.of(self.config, self.layout, len(numbers), source, target, frames)
        basis = self.distance_expansion(distances)

        x = self.initial_features(numbers)
        for index, layer in enumerate(self.layer_blocks):
            update = layer(x, numbers, basis, edges)
            x = x + update if index else update

        samples = self.sphere_samples(x)
        node_energy = self.energy_block(samples).mean(dim=1)
        if self.config.energy_reduce == "sum":
            node_energy = SUM_FACTOR * node_energy
        if self.force_block is None:
            return ESCNOutput(node_energy, None)
        forces = self.force_block(samples) @ self.sphere_points / len(self.sphere_points)
        return ESCNOutput(node_energy, forces)

    def initial_features(self, numbers: Tensor) -> Tensor:
        """Element embeddings in l = 0, zero elsewhere: (N, K, C_all)."""
        scalars = self.sphere_embedding(numbers)[:, None]
        others = scalars.new_zeros(len(numbers), (max(self.config.lmax_list) + 1) ** 2 - 1, scalars.shape[-1])
        return torch.cat((scalars, others), dim=1)

    def sphere_samples(self, x: Tensor) -> Tensor:
        """Evaluate the node features on the output points: (N, Q, C_all)."""
        parts = x.split(self.config.sphere_channels, dim=-1)
        return torch.cat(
            [weights @ part[:, : weights.shape[1]] for weights, part in zip(self.sphharm_weights, parts, strict=True)],
            dim=-1,
        )
