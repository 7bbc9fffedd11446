"""Groups, schedule, clipping, averaged weights."""

import math

import pytest
import torch
from torch import nn

from escn_calc.errors import CalculationError, InputError
from escn_calc.training.optimisation import (
    MOST_SKIPPED,
    Optimisation,
    OptimiserSettings,
    ParameterGroup,
    Schedule,
    freeze,
    undecayed_names,
)
from tests.training.objectives import network

CONSTANT = Schedule(epochs=1, decay="step", factor=1.0)


def small():
    """A linear map with bias, and an embedding."""
    made = nn.Sequential(nn.Linear(2, 2), nn.Embedding(3, 2)).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.fill_(1.0)
    return made


def give_gradient(module, value):
    for weight in module.parameters():
        weight.grad = torch.full_like(weight, value) if weight.requires_grad else None


def test_first_step_is_that_of_adam_with_the_rate_of_its_group():
    module = small()
    settings = OptimiserSettings(1e-2, groups=(ParameterGroup("1.*", 1e-4),), clip=None)
    outcome = Optimisation(module, settings, CONSTANT)
    give_gradient(module, 3.0)
    assert outcome.step(0, 0.0).learning_rate == 1e-2
    assert (1.0 - module[0].weight).tolist() == [[pytest.approx(1e-2)] * 2] * 2
    assert (1.0 - module[1].weight)[0, 0].item() == pytest.approx(1e-4)


def test_large_gradients_are_remembered():
    """AMSGrad: 3000 steps after a gradient of 100, one of 1 still moves weights by 0.1 / sqrt(0.001 100^2) rates."""
    module = small()
    optimisation = Optimisation(module, OptimiserSettings(1e-2, weight_decay=0.0, clip=None, ema=None), CONSTANT)
    for step in range(3001):
        give_gradient(module, 100.0 if step == 0 else 0.0)
        optimisation.step(step, 0.0)
    before = module[0].bias[0].item()
    give_gradient(module, 1.0)
    optimisation.step(3001, 0.0)
    assert before - module[0].bias[0].item() == pytest.approx(1e-2 * 0.1 / math.sqrt(10), rel=0.05)


def test_decay_acts_on_the_matrices_of_linear_maps_only():
    module = small()
    optimisation = Optimisation(module, OptimiserSettings(1e-2, weight_decay=0.5), CONSTANT)
    give_gradient(module, 0.0)
    optimisation.step(0, 0.0)
    assert module[0].weight[0, 0].item() == pytest.approx(1 - 1e-2 * 0.5)
    assert module[0].bias.tolist() == [1.0, 1.0] and module[1].weight[0, 0].item() == 1.0
    names = undecayed_names(network())
    assert "sphere_embedding.weight" in names and "energy_block.fc1.bias" in names
    assert "energy_block.fc1.weight" not in names and "layer_blocks.0.fc1_sphere.weight" not in names


def test_schedule():
    cosine = Schedule(epochs=10, warm_up_steps=4, final=0.1)
    assert [cosine.rate_at(step, 0.0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert cosine.rate_at(100, 5.0) == pytest.approx(0.55)
    assert cosine.rate_at(100, 10.0) == cosine.rate_at(100, 11.0) == pytest.approx(0.1)
    step = Schedule(epochs=10, decay="step", step_epochs=2.0, factor=0.5, final=0.2)
    assert [step.rate_at(9, epochs) for epochs in (0.0, 1.99, 2.0, 3.5, 4.0, 6.0)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.2]


def test_clipping_keeps_the_direction():
    module = small()
    optimisation = Optimisation(module, OptimiserSettings(1e-2, clip=2.0), CONSTANT)
    give_gradient(module, 3.0)
    norm = 3.0 * math.sqrt(12)
    assert optimisation.step(0, 0.0).gradient_norm == pytest.approx(norm)
    assert module[0].weight.grad[0, 0].item() == pytest.approx(3.0 * 2.0 / norm)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gradients_that_are_not_finite_change_nothing(bad):
    module = small()
    optimisation = Optimisation(module, OptimiserSettings(1e-2, weight_decay=0.1), CONSTANT)
    give_gradient(module, 1.0)
    optimisation.step(0, 0.0)
    before = {name: tensor.clone() for name, tensor in optimisation.tensors().items()}
    give_gradient(module, 1.0)
    module[0].bias.grad[0] = bad
    assert optimisation.step(1, 0.0).skipped
    assert all(torch.equal(tensor, before[name]) for name, tensor in optimisation.tensors().items())
    assert optimisation.counters() == {"averaged_steps": 1, "skipped_in_a_row": 1}
    give_gradient(module, 1.0)
    assert not optimisation.step(2, 0.0).skipped
    assert optimisation.counters()["skipped_in_a_row"] == 0


def test_too_many_bad_gradients_in_a_row_are_an_error():
    module = small()
    optimisation = Optimisation(module, OptimiserSettings(1e-2), CONSTANT)
    give_gradient(module, math.nan)
    for step in range(MOST_SKIPPED - 1):
        optimisation.step(step, 0.0)
    with pytest.raises(CalculationError, match=f"failed at step {MOST_SKIPPED}: {MOST_SKIPPED} steps in a row"):
        optimisation.step(MOST_SKIPPED - 1, 0.0)
    assert all(weight.isfinite().all() for weight in module.parameters())


def test_averaged_weights_follow_with_a_warm_up_and_are_lent_for_a_while():
    module = small()
    optimisation = Optimisation(module, OptimiserSettings(1e-1, ema=0.5), CONSTANT)
    expected, trained = 1.0, []
    for step in range(12):
        give_gradient(module, 1.0)
        optimisation.step(step, 0.0)
        trained.append(module[0].bias[0].item())
        decay = min(0.5, (2 + step) / (11 + step))
        expected += (1 - decay) * (trained[-1] - expected)
    with optimisation.averaged():
        assert module[0].bias[0].item() == pytest.approx(expected, rel=1e-12)
    assert module[0].bias[0].item() == trained[-1]
    with pytest.raises(ZeroDivisionError), optimisation.averaged():
        raise ZeroDivisionError
    assert module[0].bias[0].item() == trained[-1]


def test_without_averaging_the_weights_themselves_are_used():
    module = small()
    optimisation = Optimisation(module, OptimiserSettings(1e-1, ema=None), CONSTANT)
    give_gradient(module, 1.0)
    optimisation.step(0, 0.0)
    with optimisation.averaged():
        assert module[0].bias[0].item() == pytest.approx(0.9)


def test_frozen_weights_stay():
    module = small()
    assert freeze(module, ["1.*", "*.bias"]) == ["0.bias", "1.weight"]
    optimisation = Optimisation(module, OptimiserSettings(1e-2, weight_decay=0.1), CONSTANT)
    give_gradient(module, 1.0)
    optimisation.step(0, 0.0)
    assert module[0].bias.tolist() == [1.0, 1.0] and bool((module[1].weight == 1.0).all())
    assert module[0].weight[0, 0].item() < 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: freeze(small(), ["2.*"]), r"the pattern '2.\*' of weights to freeze matches none"),
        (lambda: freeze(small(), ["*"]), "no weight is left to train"),
        (lambda: Optimisation(small().requires_grad_(False), OptimiserSettings(1.0), CONSTANT), "no weight is left"),
        (
            lambda: Optimisation(small(), OptimiserSettings(1.0, groups=(ParameterGroup("x", 1.0),)), CONSTANT),
            "the group 'x' of the optimiser matches no weight",
        ),
        (lambda: OptimiserSettings(0.0), "learning_rate is 0.0"),
        (lambda: OptimiserSettings(1.0, groups=(ParameterGroup("x", -1.0),)), "learning_rate of 'x' is -1.0"),
        (lambda: OptimiserSettings(1.0, weight_decay=-1.0), "weight_decay is -1.0"),
        (lambda: OptimiserSettings(1.0, clip=0.0), "clip is 0.0"),
        (lambda: OptimiserSettings(1.0, ema=1.0), "ema is 1.0"),
        (lambda: Schedule(epochs=0), "epochs is 0"),
        (lambda: Schedule(epochs=1, warm_up_steps=-1), "warm_up_steps is -1"),
        (lambda: Schedule(epochs=1, decay="linear"), "decay is 'linear'"),
        (lambda: Schedule(epochs=1, final=2.0), "final is 2.0"),
        (lambda: Schedule(epochs=1, factor=0.0), "factor is 0.0"),
        (lambda: Schedule(epochs=1, step_epochs=0.0), "step_epochs is 0.0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()
