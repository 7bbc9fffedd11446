"""SiLU on the grids of the edges: longitudes counted from the phase, against many that are fixed."""

from dataclasses import replace
from math import cos, sin

import pytest
import torch

from escn_calc.nn import ESCNConfig
from escn_calc.nn.grid_activation import AlignedLongitudes, FixedLongitudes, edge_activation

CONFIG = ESCNConfig(lmax_list=(3,), mmax_list=(1,), grids="resolved", max_neighbors=0, edge_longitudes=9)
DEGREES = CONFIG.lmax_list[0] + 1


def random_coefficients(count=50, channels=4):
    size = 3 * DEGREES - 2
    return 2 * torch.randn(count, size, channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def aligned(longitudes):
    return AlignedLongitudes(replace(CONFIG, edge_longitudes=longitudes), 0)


def fixed(longitudes):
    """The other way with as many; the configuration speaks of the whole circle, of which the aligned take half."""
    return FixedLongitudes(replace(CONFIG, edge_longitudes=2 * longitudes - 1), 0)


def turned(x, angle):
    """Coefficients after a roll of the frame by ``angle``: orders +1 and -1 mix, order 0 stays."""
    mean, plus, minus = x.split([DEGREES, DEGREES - 1, DEGREES - 1], dim=1)
    return torch.cat((mean, cos(angle) * plus - sin(angle) * minus, sin(angle) * plus + cos(angle) * minus), dim=1)


def test_which_networks_count_longitudes_from_the_phase():
    kinds = {mmax: type(edge_activation(replace(CONFIG, mmax_list=(mmax,)), 0)) for mmax in (0, 1, 2)}
    assert kinds == {0: FixedLongitudes, 1: AlignedLongitudes, 2: FixedLongitudes}
    assert type(edge_activation(replace(CONFIG, grids="published"), 0)) is FixedLongitudes


def test_longitudes_from_the_phase_converge_to_many_fixed_ones():
    """Errors fall with every longitude, as fast as the spectrum of SiLU, to what a faint amplitude loses."""
    x = random_coefficients()
    exact = fixed(64)(x)
    errors = [(aligned(count)(x) - exact).abs().max().item() for count in (7, 11, 15, 19, 31, 127)]
    assert errors == sorted(errors, reverse=True)
    assert 1e-3 < errors[0] < 0.1 and errors[2] < 1e-3 and errors[-1] < 1e-6


@pytest.mark.parametrize("longitudes", [3, 5, 9])
def test_rolls_commute_with_longitudes_from_the_phase_however_few(longitudes):
    x = random_coefficients()
    for angle in (0.3, 1.9):
        for activation, most in ((aligned(longitudes), 1e-13), (fixed(longitudes), None)):
            change = (activation(turned(x, angle)) - turned(activation(x), angle)).abs().max().item()
            assert change < most if most else change > 1e-3


def test_half_of_the_samples():
    assert (aligned(9).points, fixed(9).points) == (DEGREES * 5, DEGREES * 9)


@pytest.mark.parametrize("activation", [aligned(9), fixed(64)], ids=["aligned", "fixed"])
def test_axial_functions(activation):
    x = random_coefficients()
    x[:, DEGREES:] = 0
    result = activation(x)
    torch.testing.assert_close(activation.axial(x[:, :DEGREES]), result[:, :DEGREES], rtol=0, atol=1e-13)
    assert result[:, DEGREES:].abs().max() < 1e-13


def test_derivatives_where_there_is_an_amplitude_and_where_there_is_none():
    x = random_coefficients(3, 2)
    x[0, DEGREES:] = 0
    x[1, DEGREES:, 0] *= 1e-6
    x.requires_grad_()
    assert torch.autograd.gradcheck(aligned(9), x[2:])
    assert torch.autograd.gradgradcheck(aligned(9), x[2:])
    (first,) = torch.autograd.grad(aligned(9)(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert first.isfinite().all() and second.isfinite().all()
    assert second.abs().max() < 1e3


def test_curvature_where_there_is_no_amplitude():
    """The second derivative by a slope is that of many fixed longitudes, at zero and a little beside it."""
    for size in (0.0, 3e-5, 1e-3):
        x = random_coefficients(1, 1)
        x[:, DEGREES:] *= size
        curvatures = []
        for activation in (aligned(31), fixed(64)):
            square = torch.autograd.functional.hessian(lambda y, a=activation: a(y)[:, :DEGREES].sum(), x).squeeze()
            curvatures.append(square[DEGREES:, DEGREES:])
        torch.testing.assert_close(*curvatures, rtol=0, atol=1e-6)
        assert curvatures[0].abs().max() > 1e-2


def test_single_precision_close_to_no_amplitude():
    x = random_coefficients()
    x[:, DEGREES:] *= torch.logspace(-9, 0, len(x), dtype=torch.float64)[:, None, None]
    gradients = []
    for dtype in (torch.float32, torch.float64):
        y = x.to(dtype).requires_grad_()
        (gradient,) = torch.autograd.grad(aligned(9).to(dtype)(y).square().sum(), y)
        gradients.append(gradient.double())
    assert (gradients[0] - gradients[1]).abs().max() < 1e-5 * gradients[1].abs().max()


def test_second_derivatives_in_single_precision_close_to_no_amplitude():
    """What training on forces needs; a division by the amplitude would multiply rounding by its inverse square."""
    draw = torch.Generator().manual_seed(1)
    x = random_coefficients(400)
    x[:, DEGREES:] *= torch.logspace(-9, 0, len(x), dtype=torch.float64)[:, None, None]
    of_result, of_gradient = torch.randn(2, *x.shape, generator=draw, dtype=torch.float64)
    found = []
    for dtype in (torch.float32, torch.float64):
        y = x.to(dtype).requires_grad_()
        sum_of_result = (aligned(15).to(dtype)(y) * of_result.to(dtype)).sum()
        (first,) = torch.autograd.grad(sum_of_result, y, create_graph=True)
        (second,) = torch.autograd.grad((first * of_gradient.to(dtype)).sum(), y)
        found.append((first.detach().double(), second.double()))
    for single, double, most in zip(*found, (1e-6, 5e-3), strict=True):
        errors = (single - double).abs().amax((1, 2)) / double.abs().amax((1, 2))
        assert errors.max() < most
