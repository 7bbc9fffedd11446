"""Latitude-longitude grids on which the point-wise non-linearities of eSCN act.

Points (sin b sin a, cos b, sin b cos a) at longitudes a_k = 2 pi k / N_long, integrated with 2 pi / N_long. Latitudes
follow one of two rules, whose weights sum to 2:

- published: b_j = pi (j + 1/2) / N_lat with the weights of Driscoll & Healy (1994), exact up to degree N_lat - 1;
- resolved: cos b_j are the nodes of Gauss & Legendre, exact up to degree 2 N_lat - 1.

The spectrum of SiLU(f) has no end, but falls quickly: what a grid does not resolve of it is by how much the result
changes with the roll of the frames (longitudes of the edge grid) or the orientation of the structure (node grid). The
latitudes of the edge grid turn with the edge, so that any number of them leaves the result invariant.
"""

from collections.abc import Callable
from math import pi

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.harmonics import solid_harmonics

LatitudeRule = Callable[[int], tuple[Tensor, Tensor]]


def published_shape(lmax: int, mmax: int, resolution: int | None) -> tuple[int, int]:
    """Return (latitudes, longitudes) of the published grid for coefficients l <= lmax, |m| <= mmax."""
    if resolution is not None:
        return resolution, resolution
    longitudes = 2 * mmax + 1 if mmax < lmax else 2 * (mmax + 1) + 1
    return 2 * (lmax + 1), longitudes


def edge_grid_shape(config: ESCNConfig, index: int) -> tuple[int, int]:
    """Return (latitudes, longitudes) of the edge grid of resolution ``index``."""
    lmax, mmax = config.lmax_list[index], config.mmax_list[index]
    if config.resolved:
        return lmax + 1, config.edge_longitudes or resolved_longitudes(mmax)
    latitudes, longitudes = published_shape(lmax, mmax, config.resolution)
    return latitudes, config.edge_longitudes or longitudes


def node_grid_shape(config: ESCNConfig) -> tuple[int, int]:
    """Return (latitudes, longitudes) of the node grid."""
    lmax = max(config.lmax_list)
    if config.resolved:
        latitudes = config.resolution or resolved_latitudes(lmax)
        return latitudes, 2 * latitudes
    return published_shape(lmax, lmax, config.resolution)


def resolved_longitudes(mmax: int) -> int:
    """Longitudes of the edge grid by default, 1 meV for a network trained on forces of 1 eV/Å; one for mmax 0."""
    return 8 * mmax + 3 if mmax else 1


def resolved_latitudes(lmax: int) -> int:
    """Latitudes of the node grid by default; strongly driven networks need more, see ``force_consistency``."""
    return 4 * lmax + 6


def edge_grid_matrices(config: ESCNConfig, index: int) -> tuple[Tensor, Tensor]:
    """Return :func:`grid_matrices` of the edge grid of resolution ``index``."""
    return grid_matrices(config.lmax_list[index], *edge_grid_shape(config, index), latitude_rule(config))


def node_grid_matrices(config: ESCNConfig) -> tuple[Tensor, Tensor]:
    """Return :func:`grid_matrices` of the node grid."""
    return grid_matrices(max(config.lmax_list), *node_grid_shape(config), latitude_rule(config))


def latitude_rule(config: ESCNConfig) -> LatitudeRule:
    """Return the latitudes of a network's grids."""
    return gauss_latitudes if config.resolved else published_latitudes


def published_latitudes(count: int) -> tuple[Tensor, Tensor]:
    """Return (b_j, weights) of the published rule, float64; ``count`` must be even."""
    return pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count, latitude_weights(count)


def gauss_latitudes(count: int) -> tuple[Tensor, Tensor]:
    """Return (b_j, weights) of the rule of Gauss & Legendre, float64."""
    nodes, weights = leggauss(count)
    return torch.from_numpy(nodes).arccos(), torch.from_numpy(weights)


def grid_points(latitudes: int, longitudes: int, rule: LatitudeRule) -> tuple[Tensor, Tensor]:
    """Return the unit points of a grid (latitudes * longitudes, 3) and their weights, which sum to 4 pi; float64."""
    beta, weights = rule(latitudes)
    alpha = 2 * pi * torch.arange(longitudes, dtype=torch.float64) / longitudes
    beta, alpha = beta[:, None], alpha[None, :]
    points = torch.stack(torch.broadcast_tensors(beta.sin() * alpha.sin(), beta.cos(), beta.sin() * alpha.cos()), -1)
    return points.reshape(-1, 3), weights.repeat_interleave(longitudes) * (2 * pi / longitudes)


def grid_matrices(
    lmax: int, latitudes: int, longitudes: int, rule: LatitudeRule = published_latitudes
) -> tuple[Tensor, Tensor]:
    """Return float64 matrices (to_grid, from_grid), both (latitudes * longitudes, (lmax+1)^2).

    ``to_grid @ x`` samples the function with coefficients x; ``from_grid.T @ f`` integrates samples against Y_lm.
    """
    points, weights = grid_points(latitudes, longitudes, rule)
    to_grid = solid_harmonics(points, lmax)
    return to_grid, to_grid * weights[:, None]


def latitude_weights(latitudes: int) -> Tensor:
    """Quadrature weights of the published latitudes b_j, float64, summing to 2; ``latitudes`` must be even."""
    half = latitudes // 2
    theta = pi * (2 * torch.arange(latitudes, dtype=torch.float64) + 1) / (2 * latitudes)
    k = 2 * torch.arange(half, dtype=torch.float64) + 1
    return (2 / half) * theta.sin() * ((theta[:, None] * k).sin() / k).sum(-1)
