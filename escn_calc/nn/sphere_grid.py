"""Latitude-longitude grids on which the point-wise non-linearities of eSCN act.

Latitudes b_j = pi (j + 1/2) / N_lat, longitudes a_k = 2 pi k / N_long, point (sin b sin a, cos b, sin b cos a).
Latitudes are integrated with the weights of Driscoll & Healy (1994), which sum to 2; longitudes with 2 pi / N_long.
"""

from math import pi

import torch
from torch import Tensor

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.harmonics import solid_harmonics


def published_shape(lmax: int, mmax: int, resolution: int | None) -> tuple[int, int]:
    """Return (latitudes, longitudes) of the published grid for coefficients l <= lmax, |m| <= mmax."""
    if resolution is not None:
        return resolution, resolution
    longitudes = 2 * mmax + 1 if mmax < lmax else 2 * (mmax + 1) + 1
    return 2 * (lmax + 1), longitudes


def edge_grid_shape(config: ESCNConfig, index: int) -> tuple[int, int]:
    """Return (latitudes, longitudes) of the edge grid of resolution ``index``."""
    latitudes, longitudes = published_shape(config.lmax_list[index], config.mmax_list[index], config.resolution)
    return latitudes, config.edge_longitudes or longitudes


def grid_matrices(lmax: int, latitudes: int, longitudes: int) -> tuple[Tensor, Tensor]:
    """Return float64 matrices (to_grid, from_grid), both (latitudes * longitudes, (lmax+1)^2).

    ``to_grid @ x`` samples the function with coefficients x; ``from_grid.T @ f`` integrates samples against Y_lm.
    """
    beta = pi * (torch.arange(latitudes, dtype=torch.float64) + 0.5) / latitudes
    alpha = 2 * pi * torch.arange(longitudes, dtype=torch.float64) / longitudes
    beta, alpha = beta[:, None], alpha[None, :]
    points = torch.stack(torch.broadcast_tensors(beta.sin() * alpha.sin(), beta.cos(), beta.sin() * alpha.cos()), -1)
    to_grid = solid_harmonics(points.reshape(-1, 3), lmax)
    weights = latitude_weights(latitudes).repeat_interleave(longitudes) * (2 * pi / longitudes)
    return to_grid, to_grid * weights[:, None]


def latitude_weights(latitudes: int) -> Tensor:
    """Quadrature weights of the latitudes b_j, float64, summing to 2; ``latitudes`` must be even."""
    half = latitudes // 2
    theta = pi * (2 * torch.arange(latitudes, dtype=torch.float64) + 1) / (2 * latitudes)
    k = 2 * torch.arange(half, dtype=torch.float64) + 1
    return (2 / half) * theta.sin() * ((theta[:, None] * k).sin() / k).sum(-1)
