"""Parameters without side effects: creating a network draws no random numbers and ignores the default dtype."""

from math import sqrt

import torch
from torch import nn


class UnsetLinear(nn.Linear):
    """A linear layer that leaves its weights as allocated."""

    def reset_parameters(self) -> None:
        """Do nothing: weights are loaded, or set by :func:`initialise`."""


class UnsetEmbedding(nn.Embedding):
    """An embedding table that leaves its weights as allocated."""

    def reset_parameters(self) -> None:
        """Do nothing: weights are loaded, or set by :func:`initialise`."""


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Return a float32 linear layer with uninitialised weights."""
    return UnsetLinear(inputs, outputs, bias=bias, dtype=torch.float32)


def embedding(entries: int, width: int) -> nn.Embedding:
    """Return a float32 embedding table with uninitialised weights."""
    return UnsetEmbedding(entries, width, dtype=torch.float32)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Fill all weights for training from scratch, in the manner of the published code.

    Linear layers: uniform in +-1/sqrt(fan in); embeddings inside edge blocks: uniform in +-0.001; the node embedding:
    standard normal.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            bound = 1 / sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.Embedding):
            if "edge_block" in name:
                nn.init.uniform_(module.weight, -0.001, 0.001, generator=generator)
            else:
                nn.init.normal_(module.weight, generator=generator)
