"""The network in fewer operations, for weights that stay: the numbers of :class:`escn_calc.nn.ESCN` up to rounding.

Nothing is derived from the weights and kept, so that a weight that is changed counts from the next call on. Derivatives
by the positions are those of the network, of any order; of those by weights there are none.
"""

from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from escn_calc.nn.blocks import LayerBlock, recomputed
from escn_calc.nn.blockwise import blockwise, rows_at_once
from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.escn import ESCN, ESCNOutput
from escn_calc.nn.fast_edges import FastEdges, degrees_of_order
from escn_calc.nn.fast_messages import EdgeGrids, axial_messages, messages, orders_vanish_with_scalars
from escn_calc.nn.layout import kept_coefficients
from escn_calc.nn.rotations import wigner_d


class FastESCN:
    """Evaluates a network whose weights need no derivatives.

    Parameters
    ----------
    network : keeps the weights; its own ``forward`` is the definition, and takes over where it has fewer operations
        (:func:`mixing_on_nodes_pays`), on devices other than the CPU, and under ``torch.autocast``.
    """

    def __init__(self, network: ESCN) -> None:
        self.network, self.config = network, network.config

    def __call__(
        self,
        numbers: Tensor,
        source: Tensor,
        target: Tensor,
        vectors: Tensor,
        frames: Tensor | None = None,
        checkpoint_layers: bool = False,
        edges_at_once: int | None = None,
    ) -> ESCNOutput:
        """Evaluate as :meth:`escn_calc.nn.ESCN.forward`, with the same arguments."""
        device = vectors.device.type
        if torch.is_autocast_enabled(device) or not self.takes(len(numbers), len(source), device):
            return self.network(numbers, source, target, vectors, frames, checkpoint_layers, edges_at_once)
        parts = self._edges(len(numbers), source, target, vectors, frames, edges_at_once)
        x = self.network.initial_features(numbers)
        for index, layer in enumerate(self.network.layer_blocks):
            update = partial(self._updated, cast(LayerBlock, layer), index == 0)
            inputs = (x, numbers, parts)
            new = recomputed(update, *inputs) if checkpoint_layers else update(*inputs)
            x = x + new if index else new
        return self._read_out(x)

    def takes(self, nodes: int, edges: int, device: str) -> bool:
        """Whether a call with so many nodes and edges takes the fast path."""
        return device == "cpu" and mixing_on_nodes_pays(self.config, nodes, edges)

    def _edges(
        self,
        num_nodes: int,
        source: Tensor,
        target: Tensor,
        vectors: Tensor,
        frames: Tensor | None,
        edges_at_once: int | None,
    ) -> list[FastEdges]:
        """Arrange the edges, ``edges_at_once`` after the other."""
        frames, basis, fading = self.network.geometry(vectors, frames)
        matrices = wigner_d(frames, max(self.config.lmax_list))
        size = edges_at_once or max(1, len(source))
        arranged = []
        for start in range(0, len(source), size):
            which = slice(start, start + size)
            part = [matrix[which] for matrix in matrices]
            envelope = None if fading is None else fading[which]
            arranged.append(
                FastEdges.of(self.config, num_nodes, source[which], target[which], part, basis[which], envelope)
            )
        return arranged

    def _updated(self, layer: LayerBlock, first: bool, x: Tensor, numbers: Tensor, parts: list[FastEdges]) -> Tensor:
        """Return the update of the node features x, (N, K, C_all)."""
        message = torch.zeros_like(x)
        for edges in parts:
            function = partial(self._messages, layer, first)
            inputs = (x, numbers, edges)
            message = message + (recomputed(function, *inputs) if len(parts) > 1 else function(*inputs))
        coefficients = layer.fc1_sphere(torch.cat((x, message), dim=-1))
        rows = rows_at_once(len(layer.to_grid) * self.config.all_channels, coefficients)
        return layer.fc3_sphere(blockwise(partial(_on_node_grid, layer), rows, coefficients)) * layer.owned

    def _messages(self, layer: LayerBlock, first: bool, x: Tensor, numbers: Tensor, edges: FastEdges) -> Tensor:
        block = layer.message_block
        if first and orders_vanish_with_scalars(self.config):
            return axial_messages(block, self.config, EdgeGrids.axial(block, self.config), x[:, 0], numbers, edges)
        grids = EdgeGrids.of(block, self.config, self.network.layout)
        return messages(block, self.config, grids, x, numbers, edges)

    def _read_out(self, x: Tensor) -> ESCNOutput:
        rows = rows_at_once(self.config.num_sphere_samples * self.config.all_channels, x)
        energy_and_forces = blockwise(self._of_nodes, rows, x)
        forces = energy_and_forces[:, 1:] if self.config.regress_forces else None
        return ESCNOutput(energy_and_forces[:, 0], forces, x[:, 0])

    def _of_nodes(self, x: Tensor) -> Tensor:
        output = self.network.read_out(x)
        energy = output.node_energy[:, None]
        return energy if output.forces is None else torch.cat((energy, output.forces), dim=1)


def _on_node_grid(layer: LayerBlock, coefficients: Tensor) -> Tensor:
    return layer.from_grid @ F.silu(layer.fc2_sphere(F.silu(layer.to_grid @ coefficients)))


def mixing_on_nodes_pays(config: ESCNConfig, nodes: int, edges: int) -> bool:
    """Whether the first stage on nodes takes fewer multiply-adds than rotation and first stage on edges."""
    orders = [degrees_of_order(config, m) for m in range(max(config.mmax_list) + 1)]
    n = [len(terms) for terms in orders]
    k = [sum(2 * degree + 1 for _, degree in terms) for terms in orders]
    channels, hidden = config.sphere_channels, config.hidden_channels
    shapes = zip(config.lmax_list, config.mmax_list, strict=True)
    rotation = sum(len(kept_coefficients(lmax, mmax)) * (lmax + 1) ** 2 for lmax, mmax in shapes)
    on_nodes = nodes * channels * hidden * (k[0] + 2 * sum(k[1:])) + edges * hidden * (k[0] + 4 * sum(k[1:]))
    on_edges = edges * channels * (hidden * (n[0] + 4 * sum(n[1:])) + rotation)
    return on_nodes < on_edges
