r"""The equivariant convolution of eSCN by itself, for use in any network (arXiv 2302.03655).

The message of an edge is the tensor product of the features of its source with the spherical harmonics of its
direction, every path with its own matrix of weights between channels. It is computed as

    y = D(F)^T  W  D(F) x,

D(F) the rotation into the frame of the edge and W a linear map per order |m|, complex for m > 0
(:mod:`escn_calc.nn.so2`). :mod:`escn_calc.nn.tensor_product_weights` says which W is which tensor product.

Multiply-adds per edge and pair of channels, mmax = lmax = L: (L+1)^2 + 4 sum_(n <= L) n^2 = O(L^3) for W, and per
channel sum_l (2l+1)^2 = O(L^3) for each rotation; the tensor product path by path takes O(L^6).
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from escn_calc.errors import InputError
from escn_calc.nn.edge_rotation import EdgeRotation
from escn_calc.nn.incidence import Incidence
from escn_calc.nn.so2 import complex_product
from escn_calc.nn.tensor_product_weights import Path, SO2Weights, path_weights, so2_weights


class SO2Convolution(nn.Module):
    """Tensor product of node features with the harmonics of the edges, summed over the edges into each node.

    Equivariant under rotations, for any weights and any mmax. Under inversion exactly where the imaginary maps vanish;
    they carry the odd paths, which an inversion turns into their negative.

    Parameters
    ----------
    lmax : highest degree of input and output.
    mmax : highest order that is mixed in the edge frames, 0 <= mmax <= lmax; lmax for the whole tensor product.
    in_channels, out_channels : C and C' of every coefficient.
    edge_channels : width of an invariant embedding of each edge, such as of its length; a linear map of it scales every
        (|m|, l_in, in channel) in the edge frame, which makes all path weights functions of the edge. None for weights
        shared by all edges.

    Attributes
    ----------
    real : linear maps W_r for m = 0 ... mmax, weights ((lmax+1-m) C', (lmax+1-m) C), degree before channel; drawn at
        first as torch draws those of any ``nn.Linear``.
    imaginary : linear maps W_i for m = 1 ... mmax, likewise.
    scale : the linear map of the edge embedding, or None.

    Examples
    --------
    >>> rotation = EdgeRotation.of(positions[source] - positions[target], lmax=4)
    >>> convolution = SO2Convolution(lmax=4, mmax=2, in_channels=16, out_channels=16)
    >>> y = convolution(x, torch.stack((source, target)), rotation)
    """

    def __init__(
        self, lmax: int, mmax: int, in_channels: int, out_channels: int, edge_channels: int | None = None
    ) -> None:
        super().__init__()
        if not 0 <= mmax <= lmax:
            raise InputError(f"lmax={lmax}, mmax={mmax} violates 0 <= mmax <= lmax")
        self.lmax, self.mmax = lmax, mmax
        self.in_channels, self.out_channels = in_channels, out_channels
        self.degrees = [lmax + 1 - m for m in range(mmax + 1)]
        maps = [nn.Linear(n * in_channels, n * out_channels, bias=False) for n in self.degrees]
        self.real = nn.ModuleList(maps)
        maps = [nn.Linear(n * in_channels, n * out_channels, bias=False) for n in self.degrees[1:]]
        self.imaginary = nn.ModuleList(maps)
        self.scale = None if edge_channels is None else nn.Linear(edge_channels, sum(self.degrees) * in_channels)

    def forward(self, x: Tensor, edge_index: Tensor, rotation: EdgeRotation, edge: Tensor | None = None) -> Tensor:
        """Return the sum of the messages into each node.

        Parameters
        ----------
        x : (N, (lmax+1)^2, C) l-major coefficients, m = -l ... l, of the harmonics :mod:`escn_calc.nn.harmonics`.
        edge_index : (2, E), sources and targets as in PyTorch Geometric.
        rotation : of the edges, with this lmax.
        edge : (E, edge_channels) invariant embedding, where the convolution was made for one.

        Returns
        -------
        (N, (lmax+1)^2, C'), zero for a node without edges; sums are taken in a fixed order.
        """
        source, target = (Incidence(nodes, len(x)) for nodes in edge_index)
        return target.sum(self.messages(source.take(x), rotation, edge))

    def messages(self, x: Tensor, rotation: EdgeRotation, edge: Tensor | None = None) -> Tensor:
        """Map the features of the sources, (E, (lmax+1)^2, C), to messages, (E, (lmax+1)^2, C').

        This is the ``message`` of a ``torch_geometric.nn.MessagePassing`` with ``node_dim=0``.
        """
        self._check(x, rotation, edge)
        orders = rotation.to_frame(x, self.mmax)
        if self.scale is not None:
            factors = self.scale(edge).split([n * self.in_channels for n in self.degrees], dim=-1)
            orders = [order * factor.view_as(order[:, :1]) for order, factor in zip(orders, factors, strict=True)]
        return rotation.from_frame([self._map(m, order) for m, order in enumerate(orders)])

    def so2_weights(self) -> SO2Weights:
        """Return the weights by degree: entries (out_channels, in_channels), which share memory with the maps."""
        return SO2Weights(
            real=tuple(self._by_degree(layer) for layer in self.real),
            imaginary=tuple(self._by_degree(layer) for layer in self.imaginary),
        )

    def path_weights(self) -> dict[Path, Tensor]:
        """Return the tensor product this convolution is: a matrix (out_channels, in_channels) for every path."""
        return path_weights(self.so2_weights())

    @torch.no_grad()
    def load_path_weights(self, weights: Mapping[Path, Tensor]) -> None:
        """Become the tensor product with these weights, as far as orders up to mmax carry it.

        Parameters
        ----------
        weights : (out_channels, in_channels) of each path (l_in, l_filter, l_out); paths left out count as zero.

        Raises
        ------
        InputError
            A path does not exist, or a matrix has another shape.
        """
        own_kind = cast(Tensor, self.real[0].weight)
        new = so2_weights({path: w.to(own_kind) for path, w in weights.items()}, self.lmax, self.mmax)
        shape, expected = tuple(new.real[0].shape[2:]), (self.out_channels, self.in_channels)
        if shape != expected:
            raise InputError(f"path weights have the shape {shape}, this convolution needs {expected}")
        own = self.so2_weights()
        for mine, theirs in zip((*own.real, *own.imaginary), (*new.real, *new.imaginary), strict=True):
            mine.copy_(theirs)

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"lmax={self.lmax}, mmax={self.mmax}, channels={self.in_channels} -> {self.out_channels}"

    def _map(self, m: int, order: Tensor) -> Tensor:
        flat = order.flatten(2)
        if m == 0:
            mapped = self.real[0](flat)
        else:
            mapped = torch.stack(complex_product(self.real[m](flat), self.imaginary[m - 1](flat)), dim=1)
        return mapped.unflatten(-1, (self.degrees[m], self.out_channels))

    def _by_degree(self, layer: nn.Module) -> Tensor:
        """View the weights of a linear map as (l_out, l_in, out_channels, in_channels)."""
        weight = cast(Tensor, layer.weight)
        degrees = len(weight) // self.out_channels
        return weight.view(degrees, self.out_channels, degrees, self.in_channels).transpose(1, 2)

    def _check(self, x: Tensor, rotation: EdgeRotation, edge: Tensor | None) -> None:
        expected = ((self.lmax + 1) ** 2, self.in_channels)
        if x.ndim != 3 or x.shape[1:] != expected:
            raise InputError(f"features have the shape {tuple(x.shape)}, expected (…, {expected[0]}, {expected[1]})")
        if rotation.lmax != self.lmax:
            raise InputError(f"the rotation goes up to degree {rotation.lmax}, this convolution to {self.lmax}")
        if len(x) != rotation.edges:
            raise InputError(f"there are features of {len(x)} edges, and the rotation of {rotation.edges}")
        if (self.scale is None) != (edge is None):
            wanted = "no edge embedding" if self.scale is None else "an edge embedding"
            raise InputError(f"this convolution needs {wanted}, as edge_channels says")
