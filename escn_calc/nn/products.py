"""Products x W^T of features x with the weights W of a channel map, in the dtype of the network or with fewer bits.

The dtype of a weight says how it is multiplied. In bfloat16 both factors are rounded to 8 significant bits, their
products are added in float32, and the sum goes on in the dtype of the features. In TF32, on CUDA, both factors stay in
float32 and are multiplied with 11 significant bits.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from escn_calc.nn.escn import ESCN

TAKING_TURNS = threading.RLock()
"""Held during every evaluation on CUDA, because torch's switch for TF32 belongs to the process, not to a thread."""


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return x W^T in the dtype of x.

    Parameters
    ----------
    x : (..., C).
    weight : (H, C), in the dtype in which to multiply.
    """
    return (x.to(weight.dtype) @ weight.T).to(x.dtype)


def sum_of_products(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the sum of x W^T, (R, H) in the dtype of x, over pairs of x (R, C) and W (H, C).

    In a reduced dtype they are joined to one product, whose result is rounded once.
    """
    remaining = iter(pairs)
    x, weight = next(remaining)
    if x.dtype != weight.dtype:
        factors, weights = zip((x, weight), *remaining, strict=True)
        return product(torch.cat(factors, dim=1), torch.cat(weights, dim=1))
    total = x @ weight.T
    for x, weight in remaining:
        total.addmm_(x, weight.T)
    return total


class BFloat16Linear(nn.Module):
    """A linear layer that multiplies in bfloat16, for features and a bias of another dtype."""

    def __init__(self, exact: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(exact.weight.to(torch.bfloat16), requires_grad=False)
        self.bias = exact.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., H)."""
        mapped = product(x, self.weight)
        return mapped if self.bias is None else mapped + self.bias


class TF32Linear(nn.Module):
    """A linear layer of float32 that multiplies in TF32, whatever torch is set to."""

    def __init__(self, exact: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = exact.weight, exact.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., H)."""
        mapped: Tensor = _TF32Product.apply(x, self.weight)
        return mapped if self.bias is None else mapped + self.bias


class _TF32Product(torch.autograd.Function):
    """x W^T with derivatives of any order by x. Torch's switch is on for this product alone."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        with _tf32():
            return x @ weight.T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.weight = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _TF32Product.apply(gradient, ctx.weight.T), None


@contextmanager
def _tf32() -> Iterator[None]:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        matmul.fp32_precision = before


REDUCED = {"bfloat16": BFloat16Linear, "tf32": TF32Linear}


def reduce_products(network: ESCN, matmul: str) -> None:
    """Have the channel maps of the layers multiply with fewer bits.

    Radial basis and element embeddings are not features, and the output heads have no share in the time: their
    products stay as they are.

    Parameters
    ----------
    network : of float32, for evaluation only.
    matmul : key of ``REDUCED``.
    """
    for name, module in list(network.layer_blocks.named_modules()):
        if isinstance(module, nn.Linear) and "edge_block" not in name:
            network.layer_blocks.set_submodule(name, REDUCED[matmul](module))
