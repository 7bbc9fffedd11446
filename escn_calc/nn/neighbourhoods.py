"""The edges of each node at one end, in blocks of nodes whose edges are multiplied together.

Nodes are sorted by their number of edges, so that those with equally many stand together and a batched matrix product
over them fills nothing up with zeros.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Consecutive nodes with equally many edges, at least one."""

    nodes: int
    degree: int

    @property
    def edges(self) -> int:
        """Of all nodes together."""
        return self.nodes * self.degree


@dataclass(frozen=True)
class Block:
    """Consecutive groups with few enough edges to be worked on together; ``first`` is the number of the first one."""

    first: int
    groups: tuple[Group, ...]

    @property
    def nodes(self) -> int:
        """Of all groups."""
        return sum(group.nodes for group in self.groups)

    @property
    def edges(self) -> int:
        """Of all groups."""
        return sum(group.edges for group in self.groups)


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """Which edges meet each node at one end.

    Attributes
    ----------
    node_order : (N,) nodes by number of edges; the first ``lonely`` have none.
    edge_order : (E,) edges by node, in that order.
    lonely : number of nodes without edges.
    blocks : all other nodes.
    """

    node_order: Tensor
    edge_order: Tensor
    lonely: int
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, nodes: Tensor, num_nodes: int, edges_at_once: int) -> "Neighbourhoods":
        """Arrange edges.

        Parameters
        ----------
        nodes : (E,) node of each edge at this end, in any order.
        num_nodes : N.
        edges_at_once : most edges of a block, unless a single node has more.
        """
        counts = nodes.bincount(minlength=num_nodes)
        node_order = counts.argsort(stable=True)
        edge_order = node_order.argsort()[nodes].argsort(stable=True)
        degrees = counts[node_order].tolist()
        lonely = degrees.count(0)
        blocks = tuple(_blocks(list(_groups(degrees[lonely:], edges_at_once)), edges_at_once))
        return cls(node_order, edge_order, lonely, blocks)

    @property
    def groups(self) -> list[Group]:
        """Of all blocks."""
        return [group for block in self.blocks for group in block.groups]

    def by_node(self, values: Tensor) -> list[Tensor]:
        """Divide edge values (E, r, ...), edges by node, into those of each group, (n, degree r, ...)."""
        parts = zip(self.groups, values.split([group.edges for group in self.groups]), strict=True)
        return [part.unflatten(0, (group.nodes, group.degree)).flatten(1, 2) for group, part in parts]

    def by_block(self, values: Tensor) -> list[Tensor]:
        """Divide node values (K, N, ...) into those of each block, (K, n, ...)."""
        ordered = values.index_select(1, self.node_order)
        return list(ordered.split([self.lonely, *(block.nodes for block in self.blocks)], dim=1))[1:]

    def to_nodes(self, parts: list[Tensor]) -> Tensor:
        """Put values of each group (n, ...) into the order of the nodes, (N, ...), zero for lonely ones."""
        zeros = parts[0].new_zeros(self.lonely, *parts[0].shape[1:])
        return torch.cat([zeros, *parts]).index_select(0, self.node_order.argsort())


def _groups(degrees: list[int], edges_at_once: int) -> Iterator[Group]:
    """Equal degrees together, at most ``edges_at_once`` edges or one node."""
    for degree, equal in groupby(degrees):
        count, most = len(list(equal)), max(1, edges_at_once // degree)
        for start in range(0, count, most):
            yield Group(min(most, count - start), degree)


def _blocks(groups: list[Group], edges_at_once: int) -> Iterator[Block]:
    first = edges = 0
    for number, group in enumerate(groups):
        if number > first and edges + group.edges > edges_at_once:
            yield Block(first, tuple(groups[first:number]))
            first, edges = number, 0
        edges += group.edges
    if groups:
        yield Block(first, tuple(groups[first:]))
