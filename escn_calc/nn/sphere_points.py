"""The fixed directions on which the output heads evaluate the node features."""

from math import pi, sqrt

import torch
from torch import Tensor

DENSITY_WIDTH = 0.15


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
