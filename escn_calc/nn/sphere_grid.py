"""Latitude-longitude grids on which the point-wise non-linearities of eSCN act.

Points (sin b sin a, cos b, sin b cos a) at longitudes a_k = 2 pi k / N_long, integrated with 2 pi / N_long. Latitudes
follow one of two rules, whose weights sum to 2:

- published: b_j = pi (j + 1/2) / N_lat with the weights of Driscoll & Healy (1994), exact up to degree N_lat - 1;
- resolved: cos b_j are the nodes of Gauss & Legendre, exact up to degree 2 N_lat - 1.

The resolved node grid has no latitudes: it is one of Lebedev's, which take two thirds of the points for the same degree
and lie evenly (V. I. Lebedev & D. N. Laikov, Doklady Mathematics 59 (1999) 477).

The spectrum of SiLU(f) has no end, but falls quickly: what a grid does not resolve of it is by how much the result
changes with the roll of the frames (longitudes of the edge grid) or the orientation of the structure (node grid). The
latitudes of the edge grid turn with the edge, so that any number of them leaves the result invariant; so do longitudes
that are counted from the phase of the function (:mod:`escn_calc.nn.grid_activation`).
"""

from collections.abc import Callable
from math import pi

import torch
from numpy.polynomial.legendre import leggauss
from scipy.integrate import lebedev_rule
from torch import Tensor

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.harmonics import solid_harmonics

#: Degrees of Lebedev's rules without negative weights.
LEBEDEV_DEGREES = (*range(3, 12, 2), *range(15, 24, 2), 29, 31, *range(35, 132, 6))

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
    latitudes, longitudes = published_shape(lmax, mmax, config.resolution)
    if config.resolved:
        latitudes, longitudes = lmax + 1, resolved_longitudes(mmax)
    longitudes = config.edge_longitudes or longitudes
    return latitudes, (longitudes + 1) // 2 if aligned_with_phase(config, index) else longitudes


def aligned_with_phase(config: ESCNConfig, index: int) -> bool:
    """Whether longitudes are counted from the phase of the function; half a circle of them then stands for all."""
    return config.resolved and config.mmax_list[index] == 1


def node_grid_size(config: ESCNConfig) -> int:
    """Return the number of points of the node grid."""
    return len(node_grid_points(config)[0])


def resolved_longitudes(mmax: int) -> int:
    """Longitudes of the edge grid by default, 1 meV for a network trained on forces of 1 eV/Å; one for mmax 0."""
    return 8 * mmax + 3 if mmax else 1


def resolved_exactness(lmax: int) -> int:
    """Half the degree of the node grid by default; strongly driven networks need more, see ``force_consistency``."""
    return 4 * lmax + 6


def edge_grid_matrices(config: ESCNConfig, index: int) -> tuple[Tensor, Tensor]:
    """Return :func:`grid_matrices` of the edge grid of resolution ``index``."""
    return grid_matrices(config.lmax_list[index], *edge_grid_shape(config, index), latitude_rule(config))


def node_grid_matrices(config: ESCNConfig) -> tuple[Tensor, Tensor]:
    """Return (to_grid, from_grid) as :func:`grid_matrices` for the node grid."""
    return _sampled(max(config.lmax_list), *node_grid_points(config))


def node_grid_points(config: ESCNConfig) -> tuple[Tensor, Tensor]:
    """Return points (P, 3) and weights (P,) of the node grid."""
    lmax = max(config.lmax_list)
    if config.resolved:
        return lebedev_points(2 * (config.resolution or resolved_exactness(lmax)) - 1)
    return grid_points(*published_shape(lmax, lmax, config.resolution), published_latitudes)


def edge_latitudes(config: ESCNConfig, index: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return what the harmonics of orders 0 and 1 are on the resolved latitudes of resolution ``index``.

    Returns
    -------
    harmonics : of order 0, (J, lmax + 1), and of order 1 on the longitude where it is largest, (J, lmax); float64.
    weights : (J,), sum 2.
    """
    lmax = config.lmax_list[index]
    beta, weights = gauss_latitudes(lmax + 1)
    points = torch.stack((torch.zeros_like(beta), beta.cos(), beta.sin()), dim=-1)
    harmonics = solid_harmonics(points, lmax)
    degrees = torch.arange(lmax + 1)
    middle = degrees * (degrees + 1)
    return (harmonics[:, middle], harmonics[:, middle[1:] + 1]), weights


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


def lebedev_points(degree: int) -> tuple[Tensor, Tensor]:
    """Return points and weights as :func:`grid_points`, exact up to ``degree`` at least, at most 131."""
    points, weights = lebedev_rule(next(known for known in LEBEDEV_DEGREES if known >= degree))
    return torch.from_numpy(points.T.copy()), torch.from_numpy(weights)


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
    return _sampled(lmax, *grid_points(latitudes, longitudes, rule))


def latitude_weights(latitudes: int) -> Tensor:
    """Quadrature weights of the published latitudes b_j, float64, summing to 2; ``latitudes`` must be even."""
    half = latitudes // 2
    theta = pi * (2 * torch.arange(latitudes, dtype=torch.float64) + 1) / (2 * latitudes)
    k = 2 * torch.arange(half, dtype=torch.float64) + 1
    return (2 / half) * theta.sin() * ((theta[:, None] * k).sin() / k).sum(-1)


def _sampled(lmax: int, points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    to_grid = solid_harmonics(points, lmax)
    return to_grid, to_grid * weights[:, None]
