"""The factor that takes messages to zero at the cutoff: its identities, and the continuity it gives the energy."""

from dataclasses import replace

import pytest
import torch

from escn_calc.errors import CheckpointError
from escn_calc.nn import ESCN
from escn_calc.nn.envelope import envelope
from tests.smooth import random_weights, smooth_config

CUTOFF = 5.0
EXPONENTS = [2, 3, 6, 20]


def published_form(x, p):
    return 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)


def derivatives(distance, exponent, order=3):
    """Value and derivatives of the envelope at one distance, by float64 autograd."""
    d = torch.tensor([distance], dtype=torch.float64, requires_grad=True)
    value = envelope(d, CUTOFF, exponent).sum()
    found = [value.item()]
    for _ in range(order):
        (value,) = torch.autograd.grad(value, d, create_graph=True)
        found.append(value.item())
    return found


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_is_the_published_polynomial(exponent):
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(envelope(CUTOFF * x, CUTOFF, exponent), published_form(x, exponent), rtol=0, atol=1e-12)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_value_and_two_derivatives_vanish_at_the_cutoff_and_beyond(exponent):
    assert derivatives(CUTOFF, exponent, 2) == [0, 0, 0]
    assert derivatives(1.3 * CUTOFF, exponent, 2) == [0, 0, 0]
    value, slope, curvature, third = derivatives(CUTOFF * (1 - 1e-5), exponent)
    size = exponent**3
    assert abs(value) < 1e-14 * size
    assert abs(slope) < 1e-9 * size
    assert abs(curvature) < 1e-4 * size
    assert third == pytest.approx(-exponent * (exponent + 1) * (exponent + 2) / CUTOFF**3, rel=1e-2)


def test_is_one_with_vanishing_derivatives_at_zero():
    value, slope, curvature, third = derivatives(1e-6, 6)
    assert value == pytest.approx(1, abs=1e-15)
    assert max(abs(slope), abs(curvature), abs(third)) < 1e-12


@pytest.mark.parametrize("exponent", [2, 6, 100])
def test_float32_falls_monotonically_from_one_to_zero(exponent):
    values = envelope(torch.linspace(1e-3, CUTOFF, 2001), CUTOFF, exponent)
    assert values.dtype == torch.float32
    assert (values.diff() <= 5e-7).all()
    assert values.min() == 0
    assert values.max() <= 1 + 5e-7


def test_cutoffs_of_single_edges():
    d = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    values = envelope(d, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), 6)
    assert values[:2].tolist() == [0, 0]
    assert values[2] == pytest.approx(published_form(0.5, 6))


def network(cutoff_envelope):
    config = replace(smooth_config(), cutoff_envelope=cutoff_envelope)
    smooth = ESCN(config, torch.float64, roll_in_derivative=False)
    smooth.load_state_dict(random_weights(config, 0), strict=False)
    return smooth.requires_grad_(False)


def energy_gradient_curvature(network, distance):
    """A triangle of atoms and a fourth one at ``distance`` from the first; derivatives along its own way."""
    fixed = torch.tensor([[0, 0, 0], [2.4, 0.3, 0.1], [0.9, 2.2, -0.4]], dtype=torch.float64)
    way = torch.tensor([-0.48, -0.6, 0.64], dtype=torch.float64)
    d = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
    positions = torch.cat((fixed, (d * way)[None]))
    target, source = torch.nonzero(~torch.eye(4, dtype=torch.bool)).T
    inside = (positions[source] - positions[target]).detach().norm(dim=-1) <= network.config.cutoff
    source, target = source[inside], target[inside]
    numbers = torch.tensor([29, 6, 8, 29])
    energy = network(numbers, source, target, positions[source] - positions[target]).node_energy.sum()
    if not energy.requires_grad:
        return energy, torch.zeros(()), torch.zeros(())
    (slope,) = torch.autograd.grad(energy, d, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, d)
    return energy.detach(), slope.detach(), curvature


def jumps(cutoff_envelope):
    """Changes of energy, gradient and curvature where the fourth atom leaves the first one's neighbourhood.

    Relative to their size when it is 1 Å further in. The others are further away and left earlier.
    """
    smooth = network(cutoff_envelope)
    cutoff = smooth.config.cutoff
    near, inside, outside = (energy_gradient_curvature(smooth, d) for d in (cutoff - 1, cutoff - 1e-7, cutoff + 1e-7))
    scales = (near[0] - outside[0], near[1], near[2])
    return [abs((i - o) / scale).item() for i, o, scale in zip(inside, outside, scales, strict=True)]


def test_energy_gradient_and_curvature_are_continuous_where_an_atom_crosses_the_cutoff():
    energy, slope, curvature = jumps(6)
    assert energy < 1e-12
    assert slope < 1e-11
    assert curvature < 1e-5


def test_without_the_envelope_they_jump():
    assert min(jumps(None)) > 1e-2


def test_an_atom_at_the_cutoff_contributes_nothing():
    smooth = network(6)
    numbers = torch.tensor([29, 8])
    vectors = torch.tensor([[0, 3.0, 4.0], [0, -3.0, -4.0]], dtype=torch.float64)
    pair = smooth(numbers, torch.tensor([1, 0]), torch.tensor([0, 1]), vectors).node_energy
    none = torch.zeros(0, dtype=torch.long)
    alone = smooth(numbers, none, none, vectors[:0]).node_energy
    assert torch.equal(pair, alone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cutoff_envelope": 1}, "cutoff_envelope is 1, but must be a whole number from 2 to 100"),
        ({"cutoff_envelope": 101}, "cutoff_envelope is 101"),
        ({"cutoff_envelope": 6.0}, r"cutoff_envelope is 6\.0"),
        ({"cutoff_envelope": True}, "cutoff_envelope is True"),
        ({"max_neighbors": 20, "repulsion": None}, "cutoff_envelope needs whole neighbourhoods, but max_neighbors is"),
    ],
)
def test_refused_configurations(change, message):
    with pytest.raises(CheckpointError, match=message):
        replace(smooth_config(), **change)
