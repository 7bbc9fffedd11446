"""Expansion of edge lengths into a basis of smooth functions.

The scale s (mu_1 - mu_0), or its inverse, is formed in float32 from the stored centres mu_k as the published code
does: in float64 it is that float32 number, widened.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.parameters import linear


class CentredBasis(nn.Module):
    """Functions around fixed centres mu_k, with t_k = s (d - mu_k) / (mu_1 - mu_0).

    gaussian: exp(-((d - mu_k) / (s (mu_1 - mu_0)))^2 / 2);
    sigmoid: sigma(t_k);  linearsigmoid: sigma(t_k) + 0.001 t_k.
    """

    offset: Tensor

    def __init__(self, config: ESCNConfig) -> None:
        super().__init__()
        self.kind = config.distance_function
        self.scalar = config.basis_width_scalar
        self.register_buffer("offset", torch.linspace(0.0, config.cutoff, config.num_distances, dtype=torch.float32))

    def forward(self, distances: Tensor) -> Tensor:
        """Map (E,) Å to (E, G)."""
        spacing = self.offset[1].float() - self.offset[0].float()
        shifted = distances[:, None] - self.offset
        if self.kind == "gaussian":
            width = (self.scalar * spacing).to(distances.dtype)
            return torch.exp(-0.5 * (shifted / width).square())
        scaled = (self.scalar / spacing).to(distances.dtype) * shifted
        if self.kind == "sigmoid":
            return torch.sigmoid(scaled)
        return torch.sigmoid(scaled) + 0.001 * scaled


class LearnedBasis(nn.Module):
    """SiLU(w_k1 d + w_k2 + b_k): the published "silu" basis, a linear layer of the two inputs (d, 1)."""

    def __init__(self, config: ESCNConfig) -> None:
        super().__init__()
        self.fc1 = linear(2, config.num_distances)

    def forward(self, distances: Tensor) -> Tensor:
        """Map (E,) Å to (E, G)."""
        return F.silu(self.fc1(torch.stack((distances, torch.ones_like(distances)), -1)))


def radial_basis(config: ESCNConfig) -> CentredBasis | LearnedBasis:
    """Return the basis named by ``config.distance_function``."""
    return LearnedBasis(config) if config.distance_function == "silu" else CentredBasis(config)
