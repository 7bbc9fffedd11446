r"""The first stage of the SO(2) maps once per node: fewer operations than once per edge, the same numbers.

An SO(2) map of the network has two stages with a gate between them (:mod:`escn_calc.nn.so2`). With W the first one of
order m, C channels to H, and F the frame of edge e, whose node is s(e), it computes

    h[e, m] = sum_l W[m, l] (D^l(F) x^(l)[s(e)])_m.

W mixes channels, D mixes orders: they commute. So W may act on the node, for every order m' that D can bring to m,

    h[e, m] = sum_l sum_m' D^l(F)[m, m'] (W[m, l] x^(l)_m'[s(e)]),

once for all edges of the node, and the edge contracts (l, m') with one row of D. The sum over (l, m') has
K_m = (lmax+1)^2 - m^2 terms. Multiply-adds, with n_m = lmax + 1 - m:

    on edges   C H [ n_0 + 4 sum_(m > 0) n_m ]  per edge, after rotating the node into the frame,
    on nodes   C H [ K_0 + 2 sum_(m > 0) K_m ]  per node and  H [ K_0 + 4 sum_(m > 0) K_m ]  per edge, no rotation.

The factors: W_r and W_i for m > 0, each for both signs of m on an edge. These functions are references in plain torch,
for one resolution; :class:`escn_calc.nn.so2.SO2Block` works on edges.
"""

from typing import cast

import torch
from torch import Tensor

from escn_calc.nn.incidence import Incidence
from escn_calc.nn.so2 import GatedConvolution, SO2Block


def first_maps(block: SO2Block) -> list[Tensor]:
    """Return W of all orders: (H, n_0 C) for m = 0, and W_r above W_i, (2H, n_m C), for m > 0."""
    convolutions = (cast(GatedConvolution, convolution) for convolution in block.so2_conv)
    signed = [torch.cat((convolution.fc1_r.weight, convolution.fc1_i.weight)) for convolution in convolutions]
    return [block.fc1_m0.weight, *signed]


def hidden_on_edges(block: SO2Block, x: Tensor, rows: Tensor, end: Incidence) -> list[Tensor]:
    """Return h of all orders by rotating first, as the network does.

    Parameters
    ----------
    x : (N, (lmax+1)^2, C) node features.
    rows : (E, M, (lmax+1)^2), kept rows of the Wigner matrices, m-major (:mod:`escn_calc.nn.layout`).
    end : the end of the edges whose node is taken.

    Returns
    -------
    list of (E, 1, H) for m = 0 and (E, 2, 2H) for m > 0: +m before -m, W_r before W_i.
    """
    rotated = rows @ end.take(x)
    return [part.flatten(2) @ w.T for part, w in zip(_by_order(block, rotated), first_maps(block), strict=True)]


def hidden_on_nodes(block: SO2Block, x: Tensor, rows: Tensor, end: Incidence) -> list[Tensor]:
    """Return the same as :func:`hidden_on_edges`, mixing channels on the nodes.

    The edges of a node are multiplied together, so that what was mixed there is read once; nodes with fewer edges than
    others are filled up with zeros.
    """
    slot = _place_among_edges_of_node(end)
    slots = int(slot.max()) + 1 if len(slot) else 0
    hidden = []
    for m, (w, of_order) in enumerate(zip(first_maps(block), _by_order(block, rows), strict=True)):
        contracted = of_order.sum(dim=2)[..., m * m :]
        grouped = contracted.new_zeros(end.num_nodes, slots, *contracted.shape[1:])
        grouped = grouped.index_put((end.nodes, slot), contracted)
        product = grouped.flatten(1, 2) @ _mixed_on_nodes(w, x, m)
        hidden.append(product.unflatten(1, (slots, -1))[end.nodes, slot])
    return hidden


def _place_among_edges_of_node(end: Incidence) -> Tensor:
    """Number the edges of each node from 0, (E,)."""
    order = end.nodes.argsort(stable=True)
    counts = end.nodes.bincount(minlength=end.num_nodes)
    first = counts.cumsum(0) - counts
    slot = torch.empty_like(order)
    slot[order] = torch.arange(len(order), device=order.device) - first[end.nodes[order]]
    return slot


def _mixed_on_nodes(w: Tensor, x: Tensor, m: int) -> Tensor:
    """W[m, l] x^(l)_m' for all (l, m') with l >= m, (N, K_m, H or 2H)."""
    channels = x.shape[-1]
    degrees = w.shape[1] // channels
    parts = [
        x[:, degree**2 : (degree + 1) ** 2] @ by_degree.T
        for degree, by_degree in zip(range(m, m + degrees), w.split(channels, dim=1), strict=True)
    ]
    return torch.cat(parts, dim=1)


def _by_order(block: SO2Block, values: Tensor) -> list[Tensor]:
    """Split (E, M, ...), m-major, into (E, 1, n_0, ...) and (E, 2, n_m, ...).

    Rows of D of different degrees have no column in common, so that their sum over l loses nothing.
    """
    zero, *signed = values.split(block.block_sizes, dim=1)
    pairs = zip(signed[::2], signed[1::2], strict=True)
    return [zero[:, None], *(torch.stack(pair, dim=1) for pair in pairs)]
