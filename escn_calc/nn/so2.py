"""SO(2) convolutions: linear maps that commute with rotations about the edge.

In the edge frame the edge points along the polar axis and a rotation by phi about it only mixes +m with -m. The maps
that commute with it are, per order m, complex multiplications (arXiv 2302.03655): with p, q the +m and -m
coefficients of all degrees l >= m,

    out(+m) = f_r(p) - f_i(q),    out(-m) = f_r(q) + f_i(p),

and an unconstrained map for m = 0. Here f is two linear maps with a gate between them that depends on the invariant
edge embedding only.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.layout import EdgeLayout
from escn_calc.nn.parameters import linear


def complex_product(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """Return the +m and the -m coefficients of (f_r + i f_i)(p + i q), as in the module docstring.

    Parameters
    ----------
    real, imaginary : (E, 2, ...), f_r and f_i of p and of q, which are stacked in dimension 1.
    """
    return real[:, 0] - imaginary[:, 1], real[:, 1] + imaginary[:, 0]


class GatedConvolution(nn.Module):
    """The map of one order m >= 1."""

    def __init__(self, config: ESCNConfig, degrees: int) -> None:
        super().__init__()
        hidden, width = config.hidden_channels, degrees * config.sphere_channels
        self.fc1_dist = linear(config.edge_channels, 2 * hidden)
        self.fc1_r = linear(width, hidden, bias=False)
        self.fc2_r = linear(hidden, width, bias=False)
        self.fc1_i = linear(width, hidden, bias=False)
        self.fc2_i = linear(hidden, width, bias=False)

    def forward(self, plus: Tensor, minus: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        """Map the +m and -m coefficients, (E, n_m C) each, with the edge embedding (E, edge_channels)."""
        pair = torch.stack((plus, minus), dim=1)
        gate_r, gate_i = F.silu(self.fc1_dist(edge))[:, None].chunk(2, dim=-1)
        real = self.fc2_r(self.fc1_r(pair) * gate_r)
        imaginary = self.fc2_i(self.fc1_i(pair) * gate_i)
        return complex_product(real, imaginary)


class SO2Block(nn.Module):
    """The maps of all orders m = 0 ... max(mmax) for one end (source or target) of the edge."""

    def __init__(self, config: ESCNConfig, layout: EdgeLayout) -> None:
        super().__init__()
        self.block_sizes = layout.block_sizes
        width = layout.degrees[0] * config.sphere_channels
        self.fc1_dist0 = linear(config.edge_channels, config.hidden_channels)
        self.fc1_m0 = linear(width, config.hidden_channels, bias=False)
        self.fc2_m0 = linear(config.hidden_channels, width, bias=False)
        self.so2_conv = nn.ModuleList(GatedConvolution(config, degrees) for degrees in layout.degrees[1:])

    def forward(self, x: Tensor, edge: Tensor) -> Tensor:
        """Map m-major coefficients (E, M, C) to the same shape."""
        zero, *signed = x.split(self.block_sizes, dim=1)
        gate = F.silu(self.fc1_dist0(edge))
        out = [self.fc2_m0(self.fc1_m0(zero.flatten(1)) * gate).view_as(zero)]
        for convolution, plus, minus in zip(self.so2_conv, signed[::2], signed[1::2], strict=True):
            out += [part.view_as(plus) for part in convolution(plus.flatten(1), minus.flatten(1), edge)]
        return torch.cat(out, dim=1)
