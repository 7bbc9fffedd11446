"""Edges and the nodes at one of their ends: taking node values to edges, and summing edge values on nodes.

Each is the derivative of the other. Torch's own derivative of indexing adds with atomic operations where several
threads work on it, in an order that changes from run to run. Here both directions have a fixed order on every device,
so that gradients are as reproducible as energies, to the last bit.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Incidence:
    """Which node each edge has at one end.

    Attributes
    ----------
    nodes : (E,) node of each edge.
    slot : (E,) place of each edge in a table of ``degree`` edges per node: node * degree + rank, the edges of a node
        ranked in the order in which they are given.
    num_nodes : number of nodes N.
    degree : largest number of edges of one node.
    """

    nodes: Tensor
    slot: Tensor
    num_nodes: int
    degree: int

    @classmethod
    def of(cls, nodes: Tensor, num_nodes: int) -> "Incidence":
        """Lay out edges with the given ``nodes`` (E,), in any order."""
        counts = torch.bincount(nodes, minlength=num_nodes)
        degree = int(counts.max()) if num_nodes else 0
        first = counts.cumsum(0) - counts
        order = torch.argsort(nodes, stable=True)
        rank = torch.empty_like(nodes)
        rank[order] = torch.arange(len(nodes), device=nodes.device) - first[nodes[order]]
        return cls(nodes, nodes * degree + rank, num_nodes, degree)

    def take(self, values: Tensor) -> Tensor:
        """Take node values (N, ...) to the edges, (E, ...)."""
        taken: Tensor = _Take.apply(values, self)
        return taken

    def table(self, values: Tensor) -> Tensor:
        """Put edge values (E, ...) into their slots, zero in unused ones: (N, degree, ...)."""
        empty = values.new_zeros(self.num_nodes * self.degree, *values.shape[1:])
        return empty.index_copy(0, self.slot, values).view(self.num_nodes, self.degree, *values.shape[1:])

    def sum(self, values: Tensor) -> Tensor:
        """Sum edge values (E, ...) on their nodes, (N, ...)."""
        return self.table(values).sum(dim=1)


class _Take(torch.autograd.Function):
    """Indexing whose derivative is :meth:`Incidence.sum`; differentiable as often as needed."""

    @staticmethod
    def forward(values: Tensor, incidence: Incidence) -> Tensor:
        return values[incidence.nodes]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Incidence], output: Tensor) -> None:
        ctx.incidence = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.incidence.sum(gradient), None
