"""SiLU on the sphere grid of an edge, for the coefficients (E, M_i, C) of one resolution, rows m-major.

A function with orders 0 and 1 only is, on every latitude, f(a) = p + q cos(a - a0): what SiLU makes of it has the same
phase a0, and only p and q decide about its size. Longitudes that are counted from the phase itself therefore give a
result that follows every roll of the frame exactly, however few they are, and half of the circle is enough.

The coefficients are multiplied with the new amplitude over q, for which there are two integrals:

    1/(pi q) int_0^2pi cos(t) SiLU(p + q cos t) dt = 1/pi int_0^2pi sin(t)^2 SiLU'(p + q cos t) dt.

The first takes fewer longitudes where q is large, because SiLU is smoother than its derivative; the second needs no
division by a q that may be nothing, which would drown derivatives in rounding. They are mixed, q^2 to ``SMALL``.

Where there are higher orders, longitudes are fixed in the frame and have to be many.
"""

from math import pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.layout import node_index
from escn_calc.nn.sphere_grid import aligned_with_phase, edge_grid_matrices, edge_grid_shape, edge_latitudes

#: What is added to the square of every amplitude q, so that the phase of nothing has derivatives of every order. What
#: depends on the amplitude is a smooth function of its square, which only moves by this.
FAINT = 1e-8

#: Square of the amplitude at which the two integrals for the new one count the same.
SMALL = 0.1


class FixedLongitudes(nn.Module):
    """On a grid that is fixed in the frame of the edge."""

    to_grid: Tensor
    from_grid: Tensor

    def __init__(self, config: ESCNConfig, index: int) -> None:
        super().__init__()
        to_grid, from_grid = edge_grid_matrices(config, index)
        kept = node_index(config.lmax_list[index], config.mmax_list[index])
        self.degrees, self.longitudes = config.lmax_list[index] + 1, edge_grid_shape(config, index)[1]
        self.register_buffer("to_grid", to_grid[:, kept], persistent=False)
        self.register_buffer("from_grid", from_grid[:, kept].T.contiguous(), persistent=False)

    @property
    def points(self) -> int:
        """Samples for every edge and channel."""
        return len(self.to_grid)

    def forward(self, x: Tensor) -> Tensor:
        """Map (E, M_i, C) to the same shape."""
        return self.from_grid @ F.silu(self.to_grid @ x)

    def axial(self, x: Tensor) -> Tensor:
        """Map functions of order 0 only, (E, lmax + 1, C), to the same shape; the first longitude stands for all."""
        to_grid = self.to_grid[:: self.longitudes, : self.degrees]
        from_grid = self.from_grid[: self.degrees].unflatten(1, (-1, self.longitudes)).sum(-1)
        return from_grid @ F.silu(to_grid @ x)


class AlignedLongitudes(nn.Module):
    """On longitudes counted from the phase of the function, where there are orders 0 and 1 only.

    Longitudes t_k = pi (k + 1/2) / n of the half circle are the nodes of Gauss & Chebyshev, exact up to
    cos((2 n - 1) t).
    """

    to_latitudes: Tensor
    from_latitudes: Tensor
    slopes_to_latitudes: Tensor
    slopes_from_latitudes: Tensor
    cosines: Tensor
    means: Tensor
    mean_slopes: Tensor

    def __init__(self, config: ESCNConfig, index: int) -> None:
        super().__init__()
        (zero, one), weights = edge_latitudes(config, index)
        angles = pi * (torch.arange(edge_grid_shape(config, index)[1], dtype=torch.float64) + 0.5)
        cosines = (angles / len(angles)).cos()
        means = torch.stack((torch.ones_like(cosines), 2 * cosines)) / len(angles)
        self.register_buffer("to_latitudes", zero, persistent=False)
        self.register_buffer("from_latitudes", (2 * pi * weights[:, None] * zero).T.contiguous(), persistent=False)
        self.register_buffer("slopes_to_latitudes", one, persistent=False)
        self.register_buffer("slopes_from_latitudes", (pi * weights[:, None] * one).T.contiguous(), persistent=False)
        self.register_buffer("cosines", cosines[:, None], persistent=False)
        self.register_buffer("means", means, persistent=False)
        self.register_buffer("mean_slopes", 2 * (1 - cosines.square()) / len(angles), persistent=False)

    @property
    def points(self) -> int:
        """Samples for every edge and channel."""
        return len(self.to_latitudes) * len(self.cosines)

    def forward(self, x: Tensor) -> Tensor:
        """Map (E, 3 lmax + 1, C) to the same shape."""
        degrees = self.to_latitudes.shape[1]
        shape = (len(x), 2, len(self.to_latitudes), x.shape[-1])
        mean = self.to_latitudes @ x[:, :degrees]
        slopes = x[:, degrees:].unflatten(1, (2, degrees - 1))
        cosine, sine = (self.slopes_to_latitudes @ slopes).unbind(1)
        square = cosine.square() + sine.square() + FAINT
        amplitude = square.sqrt()
        samples = torch.addcmul(mean.flatten(1)[:, None], amplitude.flatten(1)[:, None], self.cosines)
        sigmoid = samples.sigmoid()
        values = samples * sigmoid
        derivatives = torch.addcmul(sigmoid, values, 1 - sigmoid)
        average, first = (self.means @ values).view(shape).unbind(1)
        along = (amplitude * first + SMALL * (self.mean_slopes @ derivatives).view_as(first)) / (square + SMALL)
        new_slopes = self.slopes_from_latitudes @ torch.stack((cosine * along, sine * along), dim=1)
        return torch.cat((self.from_latitudes @ average, new_slopes.flatten(1, 2)), dim=1)

    def axial(self, x: Tensor) -> Tensor:
        """Map functions of order 0 only, (E, lmax + 1, C), to the same shape.

        Two longitudes are exact to the square of ``FAINT``.
        """
        mean, shift = self.to_latitudes @ x, (FAINT / 2) ** 0.5
        return self.from_latitudes @ (0.5 * (F.silu(mean + shift) + F.silu(mean - shift)))


EdgeActivation = FixedLongitudes | AlignedLongitudes


def edge_activation(config: ESCNConfig, index: int) -> EdgeActivation:
    """Return the activation of resolution ``index``."""
    return (AlignedLongitudes if aligned_with_phase(config, index) else FixedLongitudes)(config, index)
