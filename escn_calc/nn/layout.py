"""Which coefficients an edge keeps, and in which order.

Nodes store coefficients l-major (m = -l ... l inside each l). In the edge frame only |m| <= mmax is kept and the
SO(2) maps act on one |m| at a time, so edges store them m-major:

    m = 0: l = 0 ... lmax;   then for each m = 1 ... mmax:  +m for l = m ... lmax,  -m for l = m ... lmax.

With several resolutions each sign block runs over the resolutions first, then over l.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from escn_calc.nn.config import ESCNConfig


def kept_coefficients(lmax: int, mmax: int) -> list[tuple[int, int]]:
    """Return the (l, m) pairs one resolution keeps on an edge, m-major."""
    kept = [(degree, 0) for degree in range(lmax + 1)]
    for m in range(1, mmax + 1):
        kept += [(degree, m) for degree in range(m, lmax + 1)]
        kept += [(degree, -m) for degree in range(m, lmax + 1)]
    return kept


def node_index(lmax: int, mmax: int) -> list[int]:
    """Return where the kept coefficients of one resolution sit in the l-major node order."""
    return [degree * (degree + 1) + m for degree, m in kept_coefficients(lmax, mmax)]


@dataclass(frozen=True, eq=False)
class EdgeLayout:
    """Coefficient bookkeeping of the edge features.

    Attributes
    ----------
    resolution_sizes : kept coefficients of each resolution.
    degrees : n_m, the number of (resolution, l) pairs that carry order m, for m = 0 ... max(mmax).
    block_sizes : lengths of the consecutive blocks m = 0, +1, -1, +2, -2, ...
    order : position in "resolution after resolution" of each coefficient of the joint m-major order;
        None for one resolution, where the two orders are the same.
    inverse : the inverse permutation of ``order``.
    """

    resolution_sizes: tuple[int, ...]
    degrees: tuple[int, ...]
    block_sizes: tuple[int, ...]
    order: Tensor | None
    inverse: Tensor | None

    @classmethod
    def of(cls, config: ESCNConfig) -> "EdgeLayout":
        """Build the layout of a network."""
        kept = [kept_coefficients(lmax, mmax) for lmax, mmax in zip(config.lmax_list, config.mmax_list, strict=True)]
        flat = [m for resolution in kept for _, m in resolution]
        signed_orders = [0] + [sign * m for m in range(1, max(config.mmax_list) + 1) for sign in (1, -1)]
        block_sizes = tuple(flat.count(m) for m in signed_orders)
        order = torch.tensor([i for m in signed_orders for i, other in enumerate(flat) if other == m])
        single = len(kept) == 1
        return cls(
            resolution_sizes=tuple(len(resolution) for resolution in kept),
            degrees=block_sizes[:1] + block_sizes[1::2],
            block_sizes=block_sizes,
            order=None if single else order,
            inverse=None if single else order.argsort(),
        )
