"""What :mod:`escn_calc.nn.fast_messages` needs to know about the edges of one call, arranged for batched products.

Tensors are divided with ``split``, whose derivative joins the parts once; that of slices would add as many tensors of
full size as there are slices.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.layout import kept_coefficients
from escn_calc.nn.neighbourhoods import Block, Neighbourhoods
from escn_calc.nn.rotations import kept_wigner

#: Edges whose hidden values are worked on together for each thread of a CPU. Several times as many leave the caches.
EDGES_PER_THREAD = 1000


@dataclass(frozen=True, eq=False)
class End:
    """One end of the edges, source or target.

    Attributes
    ----------
    nodes : (E,) node of each edge.
    around : the edges by node.
    rows : per order m the rows of the Wigner matrices that bring node coefficients to order m, of each group of nodes:
        one list of (n, degree, K_m) for m = 0; for m > 0 two lists of (n, 2 degree, K_m), the rows +m and -m, to which
        the real map is applied, and -(-m) and +m, where the imaginary map has the sign and the place of
        :mod:`escn_calc.nn.so2`.
    """

    nodes: Tensor
    around: Neighbourhoods
    rows: list[list[list[Tensor]]]

    @classmethod
    def of(cls, config: ESCNConfig, nodes: Tensor, num_nodes: int, matrices: list[Tensor]) -> "End":
        """Arrange the edges with the nodes (E,) at this end and Wigner ``matrices``, (E, 2l+1, 2l+1) for every l."""
        around = Neighbourhoods.of(nodes, num_nodes, edges_at_once(nodes))
        arranged = [matrix.index_select(0, around.edge_order) for matrix in matrices]
        orders = (_rows_of_order(config, arranged, m) for m in range(max(config.mmax_list) + 1))
        return cls(nodes, around, [[around.by_node(rows) for rows in halves] for halves in orders])

    def contracted(self, block: Block, order: int, half: int, mixed: Tensor) -> Tensor:
        """Sum what was mixed on the nodes of a block (K_m, n, H) with the rows of their edges, (e, signs, H)."""
        rows = self.rows[order][half][block.first : block.first + len(block.groups)]
        features = mixed.split([group.nodes for group in block.groups], dim=1)
        products = [r @ f.transpose(0, 1) for r, f in zip(rows, features, strict=True)]
        return joined([product.flatten(0, 1) for product in products]).unflatten(0, (-1, 2 if order else 1))


@dataclass(frozen=True, eq=False)
class FastEdges:
    """The edges of one call, or some of them.

    Attributes
    ----------
    source, target : the two ends.
    source_place : (E,) where the edges by target stand among the edges by source.
    basis : radial basis (e, G) of each block of targets.
    envelope : (e,) of each group of targets, or None.
    wigner : per resolution (e, M_i, K_i) of each group of targets, rows m-major.
    """

    source: End
    target: End
    source_place: Tensor
    basis: list[Tensor]
    envelope: list[Tensor] | None
    wigner: list[list[Tensor]]

    @classmethod
    def of(
        cls,
        config: ESCNConfig,
        num_nodes: int,
        source: Tensor,
        target: Tensor,
        matrices: list[Tensor],
        basis: Tensor,
        envelope: Tensor | None,
    ) -> "FastEdges":
        """Arrange edges given in any order."""
        at_source, at_target = (End.of(config, nodes, num_nodes, matrices) for nodes in (source, target))
        around, by_target = at_target.around, at_target.around.edge_order
        groups, blocks = [group.edges for group in around.groups], [block.edges for block in around.blocks]
        arranged = [matrix.index_select(0, by_target) for matrix in matrices]
        shapes = zip(config.lmax_list, config.mmax_list, strict=True)
        rows = [kept_wigner(arranged[: lmax + 1], kept_coefficients(lmax, mmax)) for lmax, mmax in shapes]
        return cls(
            at_source,
            at_target,
            source_place=at_source.around.edge_order.argsort()[by_target],
            basis=list(basis.index_select(0, by_target).split(blocks)),
            envelope=None if envelope is None else list(envelope.index_select(0, by_target).split(groups)),
            wigner=[list(of_resolution.split(groups)) for of_resolution in rows],
        )


def edges_at_once(like: Tensor) -> int:
    """Edges of one block: as many as suit the caches of a CPU, all of them elsewhere."""
    return EDGES_PER_THREAD * torch.get_num_threads() if like.device.type == "cpu" else max(1, len(like))


def degrees_of_order(config: ESCNConfig, order: int) -> list[tuple[int, int]]:
    """Return (resolution, l) of everything that carries ``order``, in the order of the SO(2) maps."""
    shapes = enumerate(zip(config.lmax_list, config.mmax_list, strict=True))
    return [(i, degree) for i, (lmax, mmax) in shapes if mmax >= order for degree in range(order, lmax + 1)]


def joined(parts: list[Tensor]) -> Tensor:
    """Join along the first dimension, without a copy where there is one part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _rows_of_order(config: ESCNConfig, matrices: list[Tensor], order: int) -> list[Tensor]:
    """(E, 1, K_m), or two of (E, 2, K_m)."""
    by_row = [matrix.unbind(1) for matrix in matrices]

    def rows(m: int) -> Tensor:
        return torch.cat([by_row[degree][degree + m] for _, degree in degrees_of_order(config, order)], dim=1)

    if order == 0:
        return [rows(0)[:, None]]
    plus, minus = rows(order), rows(-order)
    return [torch.stack((plus, minus), dim=1), torch.stack((-minus, plus), dim=1)]
