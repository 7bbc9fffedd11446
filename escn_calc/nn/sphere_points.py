"""The fixed directions on which the output heads evaluate the node features."""

from math import isqrt, pi, sqrt

import torch
from torch import Tensor

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.sphere_grid import gauss_latitudes, grid_points

DENSITY_WIDTH = 0.15


def output_points(config: ESCNConfig) -> tuple[Tensor, Tensor]:
    """Return the points (Q, 3) of a network's heads and the weights (Q,) of its sums over them, float64.

    Energies are sums of w e, forces sums of w f p; the weights sum to 1. Published: a golden spiral with equal
    weights. Resolved: unit points of Gauss latitudes and twice as many longitudes.
    """
    count = config.num_sphere_samples
    if not config.resolved:
        return golden_spiral(count), torch.full((count,), 1 / count, dtype=torch.float64)
    latitudes = isqrt(count // 2)
    points, weights = grid_points(latitudes, 2 * latitudes, gauss_latitudes)
    return points, weights / (4 * pi)


def golden_spiral(count: int) -> Tensor:
    """Return ``count`` points of a golden spiral about z, each scaled by its inverse local density; (Q, 3) float64.

    Points in sparser places get a larger radius (mean radius 1), which weights them in the solid harmonics
    and in the force sum. Source: published eSCN implementation.
    """
    index = torch.arange(count, dtype=torch.float64)
    longitude = 2 * pi * index / ((1 + sqrt(5)) / 2)
    cosine = 1 - 2 * (index + 0.5) / count
    sine = (1 - cosine * cosine).sqrt()
    points = torch.stack((longitude.cos() * sine, longitude.sin() * sine, cosine), -1)
    squared = (points[:, None] - points[None, :]).square().sum(-1)
    radius = 1 / torch.exp(-squared / DENSITY_WIDTH).sum(-1)
    return points * (radius * count / radius.sum())[:, None]
