"""The eSCN network of Passaro & Zitnick 2023 (arXiv 2302.03655), as published by FAIR, and its smooth variant.

Pure mathematics: tensors in, tensors out. Names of parameters are those of FAIR's checkpoints. The variant has the same
weights; an envelope on the messages and finer grids make its energy a smooth, rotationally invariant function of the
positions (``cutoff_envelope`` and ``grids`` of the configuration).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from escn_calc.nn.blocks import LayerBlock, recomputed
from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.edges import Edges
from escn_calc.nn.envelope import envelope
from escn_calc.nn.heads import PointHarmonics, PointNetwork, register_table
from escn_calc.nn.layout import EdgeLayout
from escn_calc.nn.parameters import embedding
from escn_calc.nn.radial_basis import radial_basis
from escn_calc.nn.rotations import carried_frames, edge_frames
from escn_calc.nn.sphere_points import output_points

SUM_FACTOR = 0.001


@dataclass(frozen=True, eq=False)
class ESCNOutput:
    """Raw network output, before normalisers and references.

    Attributes
    ----------
    node_energy : (N,) contribution of each atom; the energy is their sum, or their mean for
        ``energy_reduce="mean"``.
    forces : (N, 3), or None for a network without force head.
    invariants : (N, C_all) node features with l = 0 after the last layer.
    """

    node_energy: Tensor
    forces: Tensor | None
    invariants: Tensor


class ESCN(nn.Module):
    """Equivariant Spherical Channel Network.

    Weights are uninitialised: load a state or call :func:`escn_calc.nn.parameters.initialise`. Rotations of the
    input rotate the forces (SO(3)); mirror images may differ, because the imaginary maps carry odd paths.

    Under ``torch.autocast`` only the layers and heads use its type: edges, sums over edges and over the sphere
    keep the dtype of the network.

    Parameters
    ----------
    config : shape of the network.
    dtype : of weights, sphere grids and all arithmetic. Choose it here: the grids are computed in float64 and
        rounded once, so a float32 network converted to float64 afterwards keeps rounded grids.
    roll_in_derivative : False leaves the roll of the canonical frames out of the derivatives, for a network whose
        energy does not depend on it; values are the same.
    """

    sphere_points: Tensor
    point_weights: Tensor

    def __init__(self, config: ESCNConfig, dtype: torch.dtype = torch.float32, roll_in_derivative: bool = True) -> None:
        super().__init__()
        self.config = config
        self.layout = EdgeLayout.of(config)
        self.roll_in_derivative = roll_in_derivative
        points, weights = output_points(config)
        register_table(self, "sphere_points", points, config)
        self.register_buffer("point_weights", weights, persistent=False)
        self.sphharm_weights = PointHarmonics(config, points)
        self.distance_expansion = radial_basis(config)
        self.sphere_embedding = embedding(config.max_num_elements, config.all_channels)
        self.layer_blocks = nn.ModuleList(LayerBlock(config, self.layout) for _ in range(config.num_layers))
        self.energy_block = PointNetwork(config)
        self.force_block = PointNetwork(config) if config.regress_forces else None
        self.to(dtype)

    def forward(
        self,
        numbers: Tensor,
        source: Tensor,
        target: Tensor,
        vectors: Tensor,
        frames: Tensor | None = None,
        checkpoint_layers: bool = False,
        edges_at_once: int | None = None,
    ) -> ESCNOutput:
        """Evaluate the network on a radius graph.

        Parameters
        ----------
        numbers : (N,) atomic numbers, below ``config.max_num_elements``.
        source, target : (E,) node indices of the edges, in any order.
        vectors : (E, 3) Å, from target to source, in the dtype of the network.
        frames : (E, 3, 3) rotations that take each edge to +y, carried along with the edges in derivatives; None for
            the canonical frames.
        checkpoint_layers : where derivatives are recorded, keep the input of each layer only and compute the layer
            again for its derivative: less memory, more time, the same numbers.
        edges_at_once : messages are computed for this many edges after the other, and again for their derivative; None
            for all at once. Less memory; sums are taken in another order.

        Returns
        -------
        ESCNOutput
        """
        with torch.autocast(vectors.device.type, enabled=False):
            frames, basis, fading = self.geometry(vectors, frames)
            edges = Edges.of(self.config, self.layout, len(numbers), source, target, frames)

        x = self.initial_features(numbers)
        for index, layer in enumerate(self.layer_blocks):
            inputs = (x, numbers, basis, fading, edges, edges_at_once)
            update = recomputed(layer, *inputs) if checkpoint_layers else layer(*inputs)
            x = x + update if index else update
        return self.read_out(x)

    def geometry(self, vectors: Tensor, frames: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return frames (E, 3, 3), radial basis (E, G), and envelope (E,) where there is one, of the edges."""
        distances = vectors.norm(dim=-1)
        directions = vectors / distances[:, None]
        carried = frames is not None or not self.roll_in_derivative
        if frames is None:
            frames = edge_frames(directions)
        if carried:
            frames = carried_frames(frames, directions)
        exponent = self.config.cutoff_envelope
        fading = None if exponent is None else envelope(distances, self.config.cutoff, exponent)
        return frames, self.distance_expansion(distances), fading

    def read_out(self, x: Tensor) -> ESCNOutput:
        """Evaluate both heads on the node features (N, K, C_all)."""
        samples = self.sphharm_weights(x)
        node_energy = self.over_the_sphere(self.energy_block(samples), self.point_weights)
        if self.config.energy_reduce == "sum":
            node_energy = SUM_FACTOR * node_energy
        if self.force_block is None:
            return ESCNOutput(node_energy, None, x[:, 0])
        forces = self.over_the_sphere(self.force_block(samples), self.point_weights[:, None] * self.sphere_points)
        return ESCNOutput(node_energy, forces, x[:, 0])

    def over_the_sphere(self, values: Tensor, weights: Tensor) -> Tensor:
        """Sum values (N, Q) on the output points with weights (Q, ...) of the network's dtype, also under autocast."""
        with torch.autocast(values.device.type, enabled=False):
            return values.to(weights.dtype) @ weights

    def initial_features(self, numbers: Tensor) -> Tensor:
        """Element embeddings in l = 0, zero elsewhere: (N, K, C_all)."""
        scalars = self.sphere_embedding(numbers)[:, None]
        others = scalars.new_zeros(len(numbers), (max(self.config.lmax_list) + 1) ** 2 - 1, scalars.shape[-1])
        return torch.cat((scalars, others), dim=1)
