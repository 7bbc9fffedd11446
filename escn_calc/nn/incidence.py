"""Edges and the nodes at one of their ends: taking node values to edges, and summing edge values on nodes.

Each is the derivative of the other. Torch's own derivative of indexing adds with atomic operations where several
threads work on it, in an order that changes from run to run. Here the sums have a fixed order on CPU and CUDA, also in
derivatives of any order, so that gradients are as reproducible as energies, to the last bit.
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
    nodes : (E,) node of each edge, in any order.
    num_nodes : number of nodes N.
    """

    nodes: Tensor
    num_nodes: int

    def take(self, values: Tensor) -> Tensor:
        """Take node values (N, ...) to the edges, (E, ...)."""
        taken: Tensor = _Take.apply(values, self)
        return taken

    def sum(self, values: Tensor) -> Tensor:
        """Sum edge values (E, ...) on their nodes, (N, ...)."""
        total: Tensor = _Sum.apply(values, self)
        return total


class _Take(torch.autograd.Function):
    """Indexing, whose derivative is a sum."""

    @staticmethod
    def forward(values: Tensor, incidence: Incidence) -> Tensor:
        return values[incidence.nodes]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Incidence], output: Tensor) -> None:
        ctx.incidence = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.incidence.sum(gradient), None


class _Sum(torch.autograd.Function):
    """The sum, whose derivative is indexing.

    On a CPU ``index_add_`` adds in the order of the edges, on CUDA it would add in any order. There
    ``index_put_`` sorts first.
    """

    @staticmethod
    def forward(values: Tensor, incidence: Incidence) -> Tensor:
        total = values.new_zeros(incidence.num_nodes, *values.shape[1:])
        if values.is_cuda:
            return total.index_put_((incidence.nodes,), values, accumulate=True)
        return total.index_add_(0, incidence.nodes, values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Incidence], output: Tensor) -> None:
        ctx.incidence = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.incidence.take(gradient), None
