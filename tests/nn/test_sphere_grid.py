"""Grids: shapes of the published code, exact quadrature."""

import pytest
import torch

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.sphere_grid import edge_grid_shape, grid_matrices, latitude_weights, published_shape
from escn_calc.nn.sphere_points import golden_spiral


@pytest.mark.parametrize(
    ("lmax", "mmax", "shape"), [(4, 2, (10, 5)), (6, 2, (14, 5)), (6, 3, (14, 7)), (4, 4, (10, 11)), (6, 6, (14, 15))]
)
def test_published_shapes(lmax, mmax, shape):
    assert published_shape(lmax, mmax, None) == shape


def test_resolution_and_longitudes_override():
    config = ESCNConfig(lmax_list=(4,), mmax_list=(2,), resolution=28)
    assert edge_grid_shape(config, 0) == (28, 28)
    assert edge_grid_shape(ESCNConfig(lmax_list=(4,), mmax_list=(2,), edge_longitudes=9), 0) == (10, 9)


@pytest.mark.parametrize("latitudes", [2, 10, 14, 28])
def test_latitude_weights_integrate_polynomials(latitudes):
    weights = latitude_weights(latitudes)
    cosine = torch.cos(torch.pi * (torch.arange(latitudes, dtype=torch.float64) + 0.5) / latitudes)
    for power in range(latitudes // 2):
        exact = 2 / (2 * power + 1)
        assert (weights * cosine ** (2 * power)).sum().item() == pytest.approx(exact, abs=1e-14)


@pytest.mark.parametrize("lmax", range(12))
def test_round_trip_is_the_identity(lmax):
    to_grid, from_grid = grid_matrices(lmax, *published_shape(lmax, lmax, None))
    identity = torch.eye((lmax + 1) ** 2, dtype=torch.float64)
    torch.testing.assert_close(from_grid.T @ to_grid, identity, rtol=0, atol=1e-13)


def test_golden_spiral_radii():
    radii = golden_spiral(128).norm(dim=-1)
    assert radii.mean().item() == pytest.approx(1.0, abs=1e-15)
    assert (round(radii.min().item(), 4), round(radii.max().item(), 4)) == (0.9834, 1.0180)
