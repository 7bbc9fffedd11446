"""Losses and their gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from escn_calc import load_potential
from escn_calc.checkpoints.native import write_native
from escn_calc.checkpoints.network import build_network
from escn_calc.errors import InputError
from escn_calc.training.figures import SUMS, figures, lengths
from escn_calc.training.objective import LossWeights, Objective, label_counts
from tests.smooth import smooth_checkpoint
from tests.training.objectives import (
    CONFIG,
    HEADED,
    NORMALIZERS,
    REFERENCES,
    WEIGHTS,
    cells,
    dataset,
    network,
    objective,
)


@pytest.fixture(scope="module")
def batch():
    data = dataset(4)
    return Batch.from_data_list([data[index] for index in range(4)])


def filled(batch, **changes):
    """A copy of a batch with other labels."""
    copy = batch.clone()
    for name, value in changes.items():
        copy[name] = value
    return copy


def predictions(batch):
    """What the tiny objective predicts for a batch, constants included."""
    made = objective()
    predicted = made.eval().predict(made.inputs(batch, label_counts(batch)))
    constants = made.inputs(filled(batch, energy=torch.zeros(4, dtype=torch.float64)), label_counts(batch)).energies
    return predicted.energies.detach() - constants, predicted.forces.detach(), predicted.stresses.detach()


def test_predictions_are_those_of_the_calculator(tmp_path, batch):
    checkpoint = smooth_checkpoint(layers=1, channels=4)
    write_native(checkpoint, tmp_path / "model")
    potential = load_potential(tmp_path / "model", device="cpu", dtype="float64")
    data = dataset(2)
    data = type(data)(data.frames, checkpoint.config.cutoff, 0, only_free_atoms=False)
    made = Objective(
        build_network(checkpoint, torch.float64, roll_in_derivative=False),
        checkpoint.normalizers,
        checkpoint.element_references,
        WEIGHTS,
        "gradient",
        "float64",
    ).eval()
    joined = Batch.from_data_list([data[0], data[1]])
    predicted = made.predict(made.inputs(joined, label_counts(joined)))
    for index, (atoms, expected) in enumerate(zip(cells(2), potential.evaluate(cells(2)), strict=True)):
        constants = float(checkpoint.element_references[atoms.numbers].sum()) + checkpoint.normalizers.energy_mean
        assert predicted.energies[index].item() + constants == pytest.approx(expected.energy, abs=1e-9)
        assert np.abs(predicted.forces[joined.batch == index].detach().numpy() - expected.forces).max() < 1e-9
        stress = predicted.stresses[index].detach().numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        assert np.abs(stress - expected.stress).max() < 1e-10


def test_loss_is_the_weighted_mean_of_the_errors(batch):
    energies, forces, stresses = predictions(batch)
    energy_errors = torch.tensor([0.1, -0.2, 0.3, 0.4], dtype=torch.float64)
    labels = filled(
        batch,
        energy=energies + energy_errors,
        forces=forces + torch.tensor([0.3, 0.0, -0.4]),
        stress=stresses + 0.02 * torch.eye(3),
    )
    losses = objective()(labels)
    found = figures(losses.sums, WEIGHTS)
    assert found["energy_mae"] == pytest.approx(0.25)
    assert found["energy_mae_per_atom"] == pytest.approx((0.1 / 8 + 0.2 / 4 + 0.3 / 8 + 0.4 / 4) / 4)
    assert found["force_mae"] == pytest.approx(0.7 / 3)
    assert found["force_error"] == pytest.approx(0.5)
    assert found["stress_mae"] == pytest.approx(0.02 / 3)
    expected = 2 * 0.25 + 10 * 0.5 + 5 * 0.02 * 3**0.5
    assert losses.total.item() == pytest.approx(expected) == found["loss"]
    per_atom = replace(WEIGHTS, energy_per="atom")
    losses = objective(weights=per_atom)(labels)
    expected += 2 * (found["energy_mae_per_atom"] - 0.25)
    assert losses.total.item() == pytest.approx(expected) == figures(losses.sums, per_atom)["loss"]


def test_cosine_between_equal_and_opposite_forces(batch):
    _, forces, _ = predictions(batch)
    sign = torch.ones(len(forces), 1, dtype=torch.float64)
    sign[: len(sign) // 4] = -1.0
    assert figures(objective()(filled(batch, forces=2 * forces * sign)).sums, WEIGHTS)["force_cosine"] == pytest.approx(
        0.5
    )


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_gradient_of_the_loss_is_its_derivative(batch, forces):
    made = objective(forces)
    made(batch).total.backward()
    for name in ("sphere_embedding.weight", "layer_blocks.0.message_block.so2_block_source.so2_conv.0.fc1_r.weight"):
        weight = made.network.get_parameter(name)
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        values = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                weight.add_(direction, alpha=step)
            values.append(made(batch).total.item())
        with torch.no_grad():
            weight.add_(direction, alpha=1e-5)
        slope = (values[0] - values[1]) / 2e-5
        assert (weight.grad * direction).sum().item() == pytest.approx(slope, rel=1e-5)


def test_missing_labels_neither_count_nor_push(batch):
    labelled = filled(batch, energy=batch.energy.clone(), has_energy=torch.tensor([True, False, True, False]))
    labelled.has_forces = torch.arange(len(batch.batch)) % 3 == 0
    labelled.has_stress = torch.tensor([False, True, False, False])
    reference = objective()
    first = reference(labelled)
    labelled.energy[[1, 3]] += 100.0
    labelled.forces = torch.where(labelled.has_forces[:, None], labelled.forces, 50.0)
    labelled.stress = torch.where(labelled.has_stress[:, None, None], labelled.stress, 7.0)
    second = reference(labelled)
    assert torch.equal(first.total, second.total) and torch.equal(first.sums, second.sums)
    assert dict(zip(SUMS, first.sums.tolist(), strict=True))["structures"] == 2.0
    energy = figures(first.sums, WEIGHTS)["energy_mae"]
    assert figures(reference(batch).sums, WEIGHTS)["energy_mae"] != energy


def test_batch_without_labels_has_zero_loss_and_gradient(batch):
    empty = filled(
        batch,
        has_energy=torch.zeros(4, dtype=torch.bool),
        has_forces=torch.zeros(len(batch.batch), dtype=torch.bool),
        has_stress=torch.zeros(4, dtype=torch.bool),
    )
    made = objective()
    losses = made(empty)
    losses.total.backward()
    assert losses.total.item() == 0.0
    assert figures(losses.sums, WEIGHTS) == {"loss": 0.0}
    assert all(not weight.grad.any() for weight in made.parameters())


def test_perfect_forces_give_a_finite_gradient(batch):
    _, forces, stresses = predictions(batch)
    made = objective(weights=LossWeights(0.0, 1.0, 1.0))
    made(filled(batch, forces=forces, stress=stresses)).total.backward()
    assert all(weight.grad.isfinite().all() for weight in made.parameters())


def test_length_of_zero_has_derivative_zero():
    vectors = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]], requires_grad=True)
    lengths(vectors).sum().backward()
    assert vectors.grad.tolist() == [[0.0, 0.0, 0.0], [pytest.approx(0.6), 0.0, pytest.approx(0.8)]]


def test_large_total_energies_cost_no_digits_in_float32(batch):
    shifted = REFERENCES - 40_000.0
    atoms = torch.as_tensor(batch.natoms, dtype=torch.float64)
    moved = filled(batch, energy=batch.energy - 40_000.0 * atoms)
    near = Objective(network(dtype=torch.float32), NORMALIZERS, REFERENCES, WEIGHTS, "gradient")(batch)
    far = Objective(network(dtype=torch.float32), NORMALIZERS, shifted, WEIGHTS, "gradient")(moved)
    assert far.total.item() == pytest.approx(near.total.item(), rel=1e-6)


def test_bfloat16_keeps_edges_and_sums_exact(batch):
    exact = Objective(network(dtype=torch.float32), NORMALIZERS, REFERENCES, WEIGHTS, "gradient")(batch)
    made = Objective(network(dtype=torch.float32), NORMALIZERS, REFERENCES, WEIGHTS, "gradient", "bfloat16")
    wigner = []
    made.network.layer_blocks[0].message_block.register_forward_pre_hook(
        lambda _, inputs: wigner.extend(inputs[4].wigner)
    )
    losses = made(batch)
    losses.total.backward()
    assert [part.dtype for part in wigner] == [torch.float32]
    assert losses.total.dtype == torch.float32
    assert 0.0 < abs(losses.total.item() - exact.total.item()) < 0.01 * exact.total.item()
    eye = torch.eye(wigner[0].shape[1])
    assert (wigner[0] @ wigner[0].transpose(1, 2) - eye).abs().max() < 1e-5


def test_validation_is_that_of_the_calculator_also_for_bfloat16(batch):
    exact, reduced = (
        Objective(network(dtype=torch.float32), NORMALIZERS, REFERENCES, WEIGHTS, "gradient", precision).eval()
        for precision in ("float32", "bfloat16")
    )
    with torch.no_grad():
        assert torch.equal(exact(batch).sums, reduced(batch).sums)


def test_validation_without_gradients_gives_the_same_sums(batch):
    made = objective()
    trained = made(batch)
    with torch.no_grad():
        validated = made.eval()(batch)
    assert torch.allclose(trained.sums, validated.sums, rtol=1e-12, atol=0.0)
    assert not validated.total.requires_grad


def test_unused_force_head_is_frozen_for_gradient_forces():
    made = Objective(network(HEADED), NORMALIZERS, REFERENCES, WEIGHTS, "gradient", "float64")
    frozen = {name for name, weight in made.network.named_parameters() if not weight.requires_grad}
    assert frozen and all(name.startswith("force_block.") for name in frozen)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LossWeights(-1.0, 1.0), "loss weight of energy is -1.0"),
        (lambda: LossWeights(1.0, float("nan")), "loss weight of forces is nan"),
        (lambda: LossWeights(0.0, 0.0), "all loss weights are 0"),
        (lambda: objective("direct", WEIGHTS), "loss weight of stress is 5.0, but the forces are direct"),
        (
            lambda: Objective(network(CONFIG), NORMALIZERS, None, LossWeights(1.0, 1.0), "direct", "float64"),
            "no force head for direct forces",
        ),
        (
            lambda: Objective(network(CONFIG), NORMALIZERS, None, WEIGHTS, "gradient", "bfloat16"),
            "bfloat16 needs a network in torch.float32, found torch.float64",
        ),
        (lambda: objective("both"), "forces is 'both'"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()
