"""The two forms of one equivariant convolution that ``benchmarks/so2_convolution.py`` compares, and what each costs.

Both map features of E edges, (E, (L+1)^2, C), to messages of the same shape with the same path weights, filters of all
degrees l_f <= L as networks write them, one matrix (C, C) per path.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from escn_calc.nn import EdgeRotation, SO2Convolution
from escn_calc.nn.harmonics import solid_harmonics
from tests.nn.tensor_products import all_paths, coupling


@dataclass(frozen=True)
class Operations:
    """Multiply-adds of one edge, in units that do not depend on the number of channels C.

    Attributes
    ----------
    per_edge : done once.
    per_channel : done for every channel.
    per_pair : done for every pair of an input and an output channel.
    """

    per_edge: int
    per_channel: int
    per_pair: int

    def total(self, channels: int) -> int:
        """Multiply-adds of one edge."""
        return self.per_edge + channels * self.per_channel + channels**2 * self.per_pair


def operations_of_tensor_product(degree: int) -> Operations:
    """Path by path: couple the filter, apply the coupling to the features, mix channels."""
    sizes = [tuple(2 * part + 1 for part in path) for path in all_paths(degree, degree)]
    return Operations(
        per_edge=sum(l_in * l_filter * l_out for l_in, l_filter, l_out in sizes),
        per_channel=sum(l_in * l_out for l_in, _, l_out in sizes),
        per_pair=sum(l_out for _, _, l_out in sizes),
    )


def operations_of_so2_form(degree: int) -> Operations:
    """Rotate there and back, degree by degree, and one linear map per order: 1 for m = 0, 4 products for m > 0."""
    rotation = sum((2 * part + 1) ** 2 for part in range(degree + 1))
    maps = (degree + 1) ** 2 + 4 * sum(n * n for n in range(1, degree + 1))
    return Operations(per_edge=0, per_channel=2 * rotation, per_pair=maps)


class TensorProduct:
    """The explicit form. Tables of Clebsch-Gordan coefficients are made beforehand, harmonics outside.

    Parameters
    ----------
    weights : (paths, C, C) in the order of ``all_paths(degree, degree)``.
    """

    def __init__(self, degree: int, weights: Tensor) -> None:
        self.degree, self.weights = degree, weights
        self.paths = all_paths(degree, degree)
        self.tables = [
            coupling(*path).permute(1, 2, 0).flatten(1).contiguous().to(weights.dtype) for path in self.paths
        ]

    def harmonics(self, directions: Tensor) -> Tensor:
        """Return Y of all filters, (E, (L+1)^2)."""
        return solid_harmonics(directions, self.degree)

    def __call__(self, x: Tensor, harmonics: Tensor) -> Tensor:
        """Return the messages."""
        totals: list[Tensor | float] = [0.0] * (self.degree + 1)
        for path, table, weight in zip(self.paths, self.tables, self.weights, strict=True):
            l_in, l_filter, l_out = path
            of_filter = harmonics[:, l_filter**2 : (l_filter + 1) ** 2]
            coupled = (of_filter @ table).view(len(x), 2 * l_out + 1, 2 * l_in + 1)
            product = coupled @ x[:, l_in**2 : (l_in + 1) ** 2]
            totals[l_out] = totals[l_out] + product @ weight.T
        return torch.cat([total for total in totals if isinstance(total, Tensor)], dim=1)

    def table_bytes(self) -> int:
        """Size of the tables."""
        return sum(table.nbytes for table in self.tables)


@dataclass(frozen=True, eq=False)
class Setting:
    """One degree: features, edges and the two forms with the same weights."""

    degree: int
    x: Tensor
    vectors: Tensor
    product: TensorProduct
    convolution: SO2Convolution

    @classmethod
    def of(cls, degree: int, edges: int, channels: int, dtype: torch.dtype) -> "Setting":
        """Draw one, from a fixed seed."""
        generator = torch.Generator().manual_seed(degree)
        paths = all_paths(degree, degree)

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        x, vectors = randn(edges, (degree + 1) ** 2, channels), randn(edges, 3)
        weights = randn(len(paths), channels, channels)
        convolution = SO2Convolution(degree, degree, channels, channels).to(dtype)
        convolution.load_path_weights(dict(zip(paths, weights.to(dtype), strict=True)))
        product = TensorProduct(degree, weights.to(dtype).requires_grad_())
        return cls(degree, x.to(dtype), vectors.to(dtype), product, convolution)

    def directions(self) -> Tensor:
        """Return unit vectors of the edges."""
        return self.vectors / self.vectors.norm(dim=-1, keepdim=True)

    def calls(self) -> dict[str, Callable[[], Tensor]]:
        """Return both forms as functions without arguments; harmonics and Wigner matrices are made here, once."""
        rotation = EdgeRotation.of(self.vectors, self.degree)
        harmonics = self.product.harmonics(self.directions())
        return {
            "tensor product": lambda: self.product(self.x, harmonics),
            "SO(2) form": lambda: self.convolution.messages(self.x, rotation),
        }

    def preparations(self) -> dict[str, Callable[[], object]]:
        """Return what each form needs beforehand for a new geometry."""
        return {
            "tensor product": lambda: self.product.harmonics(self.directions()),
            "SO(2) form": lambda: EdgeRotation.of(self.vectors, self.degree),
        }
