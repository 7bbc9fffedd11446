"""The harmonics are the orthonormal polynomials their docstring defines."""

from math import pi, sqrt

import pytest
import torch

from escn_calc.nn.harmonics import solid_harmonics
from escn_calc.nn.sphere_grid import grid_matrices
from tests.tolerances import IDENTITY

LMAX = 11


def directions(count, dtype=torch.float64):
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (points / points.norm(dim=-1, keepdim=True)).to(dtype)


def test_degree_one_is_x_y_z():
    points = directions(20)
    torch.testing.assert_close(solid_harmonics(points, 1)[:, 1:], sqrt(3 / (4 * pi)) * points, rtol=1e-15, atol=1e-15)


def test_they_are_orthonormal_on_the_sphere():
    sample, integrate = grid_matrices(LMAX, 2 * (LMAX + 1), 2 * LMAX + 1)
    identity = torch.eye((LMAX + 1) ** 2, dtype=torch.float64)
    torch.testing.assert_close(integrate.T @ sample, identity, rtol=0, atol=IDENTITY[torch.float64])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_addition_theorem(dtype):
    values = solid_harmonics(directions(50, dtype), LMAX)
    for degree in range(LMAX + 1):
        block = values[:, degree**2 : (degree + 1) ** 2].square().sum(-1) * 4 * pi / (2 * degree + 1)
        assert (block - 1).abs().max() < IDENTITY[dtype]


def test_they_are_homogeneous_polynomials():
    points = directions(10)
    doubled, plain = solid_harmonics(2 * points, 4), solid_harmonics(points, 4)
    for degree in range(5):
        block = slice(degree**2, (degree + 1) ** 2)
        torch.testing.assert_close(doubled[:, block], 2.0**degree * plain[:, block])


@pytest.mark.parametrize(
    ("degree", "order", "formula"),
    [
        (2, -2, lambda x, y, z: sqrt(15 / (4 * pi)) * x * z),
        (2, 0, lambda x, y, z: sqrt(5 / (16 * pi)) * (3 * y * y - 1)),
        (2, 2, lambda x, y, z: sqrt(15 / (16 * pi)) * (z * z - x * x)),
        (3, 1, lambda x, y, z: sqrt(21 / (32 * pi)) * z * (5 * y * y - 1)),
    ],
)
def test_textbook_formulas(degree, order, formula):
    points = directions(10)
    column = solid_harmonics(points, 3)[:, degree * (degree + 1) + order]
    torch.testing.assert_close(column, formula(*points.unbind(-1)))
