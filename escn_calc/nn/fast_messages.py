r"""The messages of one layer in fewer operations: the numbers of :class:`escn_calc.nn.blocks.MessageBlock`.

- The first stage of the SO(2) maps mixes channels on the nodes (:mod:`escn_calc.nn.node_side`).
- The outputs of both ends are added, so the products of the second stage add to one another.
- Grid activation, rotation back and the sum over the edges of a node follow one another while a few edges are in the
  caches; rotation and sum are one batched product over the nodes.
- In the first layer only l = 0 is non-zero. A scalar is the same in every frame and has no part with m > 0, so neither
  has the message in the frame of its edge: it is axial, and one longitude tells all of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from escn_calc.nn.blocks import MessageBlock
from escn_calc.nn.blockwise import blockwise, rows_at_once
from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.fast_edges import End, FastEdges, degrees_of_order, joined
from escn_calc.nn.grid_activation import EdgeActivation
from escn_calc.nn.layout import EdgeLayout, kept_coefficients
from escn_calc.nn.neighbourhoods import Block
from escn_calc.nn.products import product, sum_of_products
from escn_calc.nn.so2 import GatedConvolution, SO2Block
from escn_calc.nn.sphere_grid import edge_grid_shape

Hidden = list[list[Tensor]]
"""Values between the two stages: per order and map (e, signs, H)."""


@dataclass(frozen=True, eq=False)
class EdgeGrids:
    """The activations in the frame of an edge.

    Attributes
    ----------
    activations : per resolution, what maps (e, M_i, C) to the same shape.
    sizes : M_i of each.
    points : samples of all together, for one edge and channel.
    inverse : from the joint order of several resolutions to resolution after resolution, or None.
    """

    activations: list[Callable[[Tensor], Tensor]]
    sizes: list[int]
    points: int
    inverse: Tensor | None

    @classmethod
    def of(cls, block: MessageBlock, config: ESCNConfig, layout: EdgeLayout) -> "EdgeGrids":
        """All orders."""
        parts = [cast(EdgeActivation, part) for part in block.activations]
        shapes = zip(config.lmax_list, config.mmax_list, strict=True)
        sizes = [len(kept_coefficients(lmax, mmax)) for lmax, mmax in shapes]
        return cls(list(parts), sizes, sum(part.points for part in parts), layout.inverse)

    @classmethod
    def axial(cls, block: MessageBlock, config: ESCNConfig) -> "EdgeGrids":
        """For functions that are the same on all longitudes: order 0 only."""
        parts = [cast(EdgeActivation, part).axial for part in block.activations]
        sizes = [lmax + 1 for lmax in config.lmax_list]
        return cls(list(parts), sizes, sum(sizes), None)

    def activated(self, parts: list[Tensor]) -> list[Tensor]:
        """Apply SiLU to edge features, split by order, on the grids; per resolution (e, M_i, C)."""
        joint = torch.cat(parts, dim=1)
        ordered = joint if self.inverse is None else joint[:, self.inverse]
        by_resolution = zip(self.activations, ordered.split(self.sizes, dim=1), strict=True)
        return [activation(part) for activation, part in by_resolution]


def orders_vanish_with_scalars(config: ESCNConfig) -> bool:
    """Whether an axial function on the edge grids has coefficients of order 0 only.

    A sum of cos(m a) over the longitudes vanishes unless it has as few of them as there are orders.
    """
    return all(edge_grid_shape(config, i)[1] > mmax for i, mmax in enumerate(config.mmax_list))


def first_maps(block: SO2Block) -> list[list[Tensor]]:
    """Return the first maps of each order, (H, n_m C): the only one for m = 0, W_r and W_i for m > 0."""
    return [[block.fc1_m0.weight], *([c.fc1_r.weight, c.fc1_i.weight] for c in _convolutions(block))]


def second_maps(block: SO2Block) -> list[list[Tensor]]:
    """Return the second maps of each order, (n_m C, H), likewise."""
    return [[block.fc2_m0.weight], *([c.fc2_r.weight, c.fc2_i.weight] for c in _convolutions(block))]


def gate_maps(block: SO2Block) -> list[nn.Linear]:
    """Return the maps of the edge embedding to the gates of each order."""
    return [block.fc1_dist0, *(c.fc1_dist for c in _convolutions(block))]


def _convolutions(block: SO2Block) -> list[GatedConvolution]:
    return [cast(GatedConvolution, convolution) for convolution in block.so2_conv]


def messages(
    block: MessageBlock, config: ESCNConfig, grids: EdgeGrids, x: Tensor, numbers: Tensor, edges: FastEdges
) -> Tensor:
    """Return the messages summed on their targets, (N, K, C_all), of node features x of the same shape."""
    by_coefficient = x.transpose(0, 1)
    from_source = _hidden_of_all(block.so2_block_source, config, by_coefficient, edges.source)
    of_targets = edges.target.around.by_block(by_coefficient)
    parts = []
    for targets, which, edge, nodes in _blocks(block, numbers, edges, of_targets):
        places = edges.source_place[which]
        at_source = [[half.index_select(0, places) for half in halves] for halves in from_source]
        at_target = _hidden(block.so2_block_target, config, nodes, edges.target, targets)
        ends = (block.so2_block_source, at_source), (block.so2_block_target, at_target)
        parts += _summed(config, grids, _second_stage(ends, edge), targets, edges)
    return edges.target.around.to_nodes(parts)


def axial_messages(
    block: MessageBlock, config: ESCNConfig, grids: EdgeGrids, scalars: Tensor, numbers: Tensor, edges: FastEdges
) -> Tensor:
    """Return the same for features that are zero but for their scalars, (N, C_all); ``grids`` are axial."""
    ends = (edges.source, block.so2_block_source), (edges.target, block.so2_block_target)
    mixed = [_mixed_scalars(so2, config, scalars) for _, so2 in ends]
    parts = []
    for targets, which, edge, _ in _blocks(block, numbers, edges, [None] * len(edges.target.around.blocks)):
        original = edges.target.around.edge_order[which]
        hidden = [
            (so2, [[of_nodes.index_select(0, end.nodes[original])[:, None]]])
            for (end, so2), of_nodes in zip(ends, mixed, strict=True)
        ]
        parts += _summed(config, grids, _second_stage(hidden, edge), targets, edges)
    return edges.target.around.to_nodes(parts)


def _blocks(
    block: MessageBlock, numbers: Tensor, edges: FastEdges, of_targets: Sequence[Any]
) -> Iterator[tuple[Block, slice, Tensor, Any]]:
    """Blocks of targets, where their edges stand, their edge embedding (e, edge_channels), and what is theirs."""
    source, target = (numbers[end.nodes[edges.target.around.edge_order]] for end in (edges.source, edges.target))
    start = 0
    for targets, basis, own in zip(edges.target.around.blocks, edges.basis, of_targets, strict=True):
        which = slice(start, start + targets.edges)
        yield targets, which, block.edge_block(basis, source[which], target[which]), own
        start += targets.edges


def _mixed_scalars(so2: SO2Block, config: ESCNConfig, scalars: Tensor) -> Tensor:
    """First map of m = 0 applied to l = 0 of all resolutions, (N, H)."""
    channels = config.sphere_channels
    columns = so2.fc1_m0.weight.split(channels, dim=1)
    terms = zip(degrees_of_order(config, 0), columns, strict=True)
    weights = [column for (_, degree), column in terms if degree == 0]
    return product(scalars, torch.cat(weights, dim=1))


def _hidden_of_all(so2: SO2Block, config: ESCNConfig, x: Tensor, end: End) -> Hidden:
    """First stage for all edges by node, of x (K, N, C_all): per order and map (E, signs, H)."""
    parts = zip(end.around.blocks, end.around.by_block(x), strict=True)
    by_block = [_hidden(so2, config, nodes, end, block) for block, nodes in parts]
    orders = zip(*by_block, strict=True)
    return [[joined(list(half)) for half in zip(*of_order, strict=True)] for of_order in orders]


def _hidden(so2: SO2Block, config: ESCNConfig, x: Tensor, end: End, block: Block) -> Hidden:
    """First stage for the edges of a block of nodes, of their x (K, n, C_all): per order and map (e, signs, H)."""
    sizes = [2 * degree + 1 for degree in range(max(config.lmax_list) + 1)]
    factors = x.to(so2.fc1_m0.weight.dtype)
    by_degree = [part.split(config.sphere_channels, dim=-1) for part in factors.split(sizes)]
    hidden = []
    for order, weights in enumerate(first_maps(so2)):
        features = [by_degree[degree][i] for i, degree in degrees_of_order(config, order)]
        mixed = (_mixed(weight, features).to(x.dtype) for weight in weights)
        hidden.append([end.contracted(block, order, half, part) for half, part in enumerate(mixed)])
    return hidden


def _mixed(weight: Tensor, features: list[Tensor]) -> Tensor:
    """W[m, l] x^(l)_m' for all (l, m') with l >= m, (K_m, n, H), of x^(l) (2l+1, n, C)."""
    by_degree = weight.split(features[0].shape[-1], dim=1)
    return torch.cat([x @ w.T for x, w in zip(features, by_degree, strict=True)])


def _second_stage(ends: Sequence[tuple[SO2Block, Hidden]], edge: Tensor) -> list[Tensor]:
    """Gate the hidden values of both ends, apply the second maps and add; per order (e signs, n_m C)."""
    orders = range(len(ends[0][1]))
    return [sum_of_products(_gated(ends, order, edge)) for order in orders]


def _gated(ends: Sequence[tuple[SO2Block, Hidden]], order: int, edge: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Gated hidden values of one order, (e signs, H), each with its second map."""
    for so2, hidden in ends:
        gates = F.silu(gate_maps(so2)[order](edge))[:, None].chunk(len(hidden[order]), dim=-1)
        for half, gate, weight in zip(hidden[order], gates, second_maps(so2)[order], strict=True):
            yield (half * gate).flatten(0, 1), weight


def _summed(
    config: ESCNConfig, grids: EdgeGrids, orders: list[Tensor], targets: Block, edges: FastEdges
) -> list[Tensor]:
    """Activation, rotation back and sum for a block of targets: (n, K, C_all) of each of its groups."""
    sizes = [group.edges for group in targets.groups]
    features = [part.view(targets.edges, -1, config.sphere_channels).split(sizes) for part in orders]
    samples = grids.points * config.sphere_channels
    found = []
    for number, group in enumerate(targets.groups):
        inputs = [part[number] for part in features]
        inputs += [of_resolution[targets.first + number] for of_resolution in edges.wigner]
        if edges.envelope is not None:
            inputs.append(edges.envelope[targets.first + number])
        function = _RotatedBack(grids, len(orders), group.degree, edges.envelope is not None)
        rows = max(1, rows_at_once(samples, inputs[0]) // group.degree) * group.degree
        found.append(blockwise(function, rows, *inputs))
    return found


@dataclass(frozen=True, eq=False)
class _RotatedBack:
    """What follows the SO(2) maps, for edges of nodes with equally many."""

    grids: EdgeGrids
    orders: int
    degree: int
    enveloped: bool

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Map edge features by order, Wigner rows by resolution and the envelope to (n, K, C_all)."""
        features, rest = list(inputs[: self.orders]), inputs[self.orders :]
        parts = self.grids.activated(features)
        if self.enveloped:
            parts = [part * rest[-1][:, None, None] for part in parts]
        sums = [self._sum(rows[:, : part.shape[1]], part) for rows, part in zip(rest, parts, strict=False)]
        size = max(total.shape[1] for total in sums)
        return torch.cat([F.pad(total, (0, 0, 0, size - total.shape[1])) for total in sums], dim=-1)

    def _sum(self, rows: Tensor, values: Tensor) -> Tensor:
        rotations, features = (part.unflatten(0, (-1, self.degree)).flatten(1, 2) for part in (rows, values))
        return rotations.transpose(1, 2) @ features
