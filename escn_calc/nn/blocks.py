"""The layers of eSCN: edge embedding, message block, node update (arXiv 2302.03655)."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.edges import Edges
from escn_calc.nn.grid_activation import edge_activation
from escn_calc.nn.layout import EdgeLayout
from escn_calc.nn.parameters import embedding, linear
from escn_calc.nn.so2 import SO2Block
from escn_calc.nn.sphere_grid import node_grid_matrices


class EdgeBlock(nn.Module):
    """The invariant edge embedding from distance and the two elements."""

    def __init__(self, config: ESCNConfig) -> None:
        super().__init__()
        width = config.edge_channels
        self.fc1_dist = linear(config.num_distances, width)
        self.source_embedding = embedding(config.max_num_elements, width)
        self.target_embedding = embedding(config.max_num_elements, width)
        self.fc1_edge_attr = linear(width, width)

    def forward(self, basis: Tensor, source_numbers: Tensor, target_numbers: Tensor) -> Tensor:
        """Map the radial basis (E, G) and atomic numbers (E,) to (E, edge_channels)."""
        elements = self.source_embedding(source_numbers) + self.target_embedding(target_numbers)
        return F.silu(self.fc1_edge_attr(F.silu(elements + self.fc1_dist(basis))))


class MessageBlock(nn.Module):
    """Messages over all edges, times their envelope where there is one, summed onto their target nodes."""

    def __init__(self, config: ESCNConfig, layout: EdgeLayout) -> None:
        super().__init__()
        self.edge_block = EdgeBlock(config)
        self.so2_block_source = SO2Block(config, layout)
        self.so2_block_target = SO2Block(config, layout)
        self.activations = nn.ModuleList(edge_activation(config, i) for i in range(len(config.lmax_list)))

    def in_parts(
        self, x: Tensor, numbers: Tensor, basis: Tensor, envelope: Tensor | None, edges: Edges, edges_at_once: int
    ) -> Tensor:
        """Do as ``forward`` for ``edges_at_once`` edges after the other; a derivative computes each part again."""
        message = torch.zeros_like(x)
        for start in range(0, len(basis), edges_at_once):
            which = slice(start, start + edges_at_once)
            fading = None if envelope is None else envelope[which]
            message = message + recomputed(self, x, numbers, basis[which], fading, edges.part(which))
        return message

    def forward(self, x: Tensor, numbers: Tensor, basis: Tensor, envelope: Tensor | None, edges: Edges) -> Tensor:
        """Map node features (N, K, C_all) to summed messages of the same shape."""
        edge = self.edge_block(basis, numbers[edges.source.nodes], numbers[edges.target.nodes])
        z = self.so2_block_source(edges.to_frame(x, edges.source), edge)
        z = z + self.so2_block_target(edges.to_frame(x, edges.target), edge)
        parts = [act(part) for act, part in zip(self.activations, edges.by_resolution(z), strict=True)]
        if envelope is not None:
            parts = [part * envelope[:, None, None] for part in parts]
        return edges.to_nodes(parts)


class LayerBlock(nn.Module):
    """One layer: messages, then a point-wise network on the sphere of each node.

    The first and the last channel map have no bias, so they commute with the grid transforms and act on the
    coefficients, which are fewer than the grid points.
    """

    to_grid: Tensor
    from_grid: Tensor
    owned: Tensor

    def __init__(self, config: ESCNConfig, layout: EdgeLayout) -> None:
        super().__init__()
        width = config.all_channels
        self.message_block = MessageBlock(config, layout)
        self.fc1_sphere = linear(2 * width, width, bias=False)
        self.fc2_sphere = linear(width, width, bias=False)
        self.fc3_sphere = linear(width, width, bias=False)
        to_grid, from_grid = node_grid_matrices(config)
        self.register_buffer("to_grid", to_grid, persistent=False)
        self.register_buffer("from_grid", from_grid.T.contiguous(), persistent=False)
        self.register_buffer("owned", _owned_coefficients(config), persistent=False)

    def forward(
        self,
        x: Tensor,
        numbers: Tensor,
        basis: Tensor,
        envelope: Tensor | None,
        edges: Edges,
        edges_at_once: int | None = None,
    ) -> Tensor:
        """Return the update of the node features x, (N, K, C_all)."""
        inputs = (x, numbers, basis, envelope, edges)
        if edges_at_once is None or len(basis) <= edges_at_once:
            message = self.message_block(*inputs)
        else:
            message = self.message_block.in_parts(*inputs, edges_at_once)
        samples = F.silu(self.to_grid @ self.fc1_sphere(torch.cat((x, message), dim=-1)))
        samples = F.silu(self.fc2_sphere(samples))
        return self.fc3_sphere(self.from_grid @ samples) * self.owned


def recomputed(block: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Return ``block(*inputs)``, whose intermediate values are computed again when a derivative needs them."""
    if not torch.is_grad_enabled():
        return block(*inputs)
    return cast(Tensor, checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False))


def _owned_coefficients(config: ESCNConfig) -> Tensor:
    """Ones where a resolution has a coefficient, zeros above its lmax; (K, C_all) float64."""
    owned = torch.zeros((max(config.lmax_list) + 1) ** 2, config.all_channels, dtype=torch.float64)
    for lmax, block in zip(config.lmax_list, owned.split(config.sphere_channels, dim=-1), strict=True):
        block[: (lmax + 1) ** 2] = 1.0
    return owned
