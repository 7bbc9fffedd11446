"""Metrics against numbers worked out by hand, and against torch where OC20's evaluator uses torch."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from escn_calc.evaluation import compute_metrics
from escn_calc.evaluation.metrics import UNITS, Metrics
from tests.evaluation.comparisons import comparison, error


def test_energies():
    found = compute_metrics([error(0.01, "Cu2"), error(-0.03, "Cu4"), error(0.05, "Cu")])
    assert found.structures == found.structures_with_energy == 3
    assert found.energy_mae == pytest.approx(0.03)
    assert found.energy_mean_error == pytest.approx(0.01)
    assert found.energy_mae_per_atom == pytest.approx((0.005 + 0.0075 + 0.05) / 3)
    assert found.energy_within_threshold == pytest.approx(1 / 3)


def test_forces():
    found = compute_metrics(
        [
            comparison(forces=[[3, 0, 4], [0, 0, 1]], predicted_forces=[[3, 1, 4], [0, 0, -2]]),
            comparison("Cu", forces=[[1, 0, 0]], predicted_forces=[[0, 1, 0]]),
        ]
    )
    assert found.atoms_with_forces == 3
    assert found.forces_mae == pytest.approx((1 + 3 + 1 + 1) / 9)
    assert found.forcesx_mae == pytest.approx(1 / 3)
    assert found.forcesy_mae == pytest.approx((1 + 1) / 3)
    assert found.forcesz_mae == pytest.approx(3 / 3)
    assert found.forces_cosine_similarity == pytest.approx((25 / (5 * np.sqrt(26)) - 1 + 0) / 3)
    assert found.forces_magnitude_error == pytest.approx((np.sqrt(26) - 5 + 1 + 0) / 3)
    assert found.forces_mean_absolute_label == pytest.approx((3 + 4 + 1 + 1) / 9)


def test_cosine_of_vanishing_forces_is_that_of_torch():
    """OC20's evaluator takes torch's function, which gives such atoms 0 and counts them."""
    labels = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [1e-9, 0.0, 0.0], [0.0, 1.0, 0.0]])
    predictions = np.array([[1.0, 0.0, 0.0], [1.0, 2.0, 2.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = compute_metrics([comparison("Cu4", forces=labels, predicted_forces=predictions)])
    by_torch = torch.cosine_similarity(torch.from_numpy(predictions), torch.from_numpy(labels))
    assert by_torch[0] == by_torch[3] == 0
    assert found.forces_cosine_similarity == pytest.approx(by_torch.mean().item(), rel=1e-12)


@pytest.mark.parametrize(
    ("energy_error", "force_error", "within"),
    [(0.0199, 0.0299, 1.0), (-0.0199, -0.0299, 1.0), (0.0201, 0.0, 0.0), (0.0, 0.0301, 0.0), (0.0, -0.0301, 0.0)],
)
def test_energy_and_forces_within_threshold(energy_error, force_error, within):
    """The force threshold is for each component: all three may be just below it."""
    found = compute_metrics(
        [
            comparison(
                "Cu2",
                energy=5.0,
                predicted_energy=5.0 + energy_error,
                forces=[[1, 1, 1], [1, 1, 1]],
                predicted_forces=[[1, 1, 1], [1 + force_error] * 3],
            )
        ]
    )
    assert found.energy_forces_within_threshold == within


def test_energy_and_forces_within_threshold_needs_both():
    with_both = comparison("Cu", forces=[[0, 0, 1]], predicted_forces=[[0, 0, 1]])
    without_energy = comparison("Cu", energy=None, forces=[[0, 0, 1]], predicted_forces=[[0, 0, 1]])
    found = compute_metrics([with_both, without_energy, error(1.0)])
    assert found.energy_forces_within_threshold == 1.0 and found.structures_with_energy == 2


def test_fixed_atoms_do_not_count():
    forces, predicted = [[0, 0, 1], [0, 0, 9]], [[0, 0, 1.01], [0, 0, 0]]
    found = compute_metrics([comparison(forces=forces, predicted_forces=predicted, counted=[True, False])])
    assert found.atoms_with_forces == 1 and found.forces_mae == pytest.approx(0.01 / 3)
    assert found.energy_forces_within_threshold == 1.0
    nothing = compute_metrics([comparison(forces=forces, predicted_forces=predicted, counted=[False, False])])
    assert nothing.atoms_with_forces == 0 and nothing.forces_mae is None
    assert nothing.energy_forces_within_threshold is None and nothing.relaxed_structures == 0


def test_average_energy_within_threshold_is_over_relaxed_structures():
    """Of the thresholds 0.010, 0.011 … 0.499 eV, 290 are above 0.2095 eV and 480 above 0.0195 eV."""
    relaxed = [[0.03, 0.03, 0.02], [0, 0, 0]]
    near = comparison(predicted_energy=0.2095, forces=relaxed, predicted_forces=relaxed)
    nearer = comparison(predicted_energy=-0.0195, forces=relaxed, predicted_forces=relaxed)
    strained = comparison(forces=[[0.03, 0.03, 0.03], [0, 0, 0]], predicted_forces=relaxed)
    found = compute_metrics([near, nearer, strained, error(0.0)])
    assert found.relaxed_structures == 2
    assert found.average_energy_within_threshold == pytest.approx((290 + 480) / 2 / 490)
    assert compute_metrics([strained]).average_energy_within_threshold is None


def test_stress():
    stress = [0.0, 0.0, 0.0, 0.0, 0.0, 0.006]
    found = compute_metrics([comparison(stress=[0.0] * 6, predicted_stress=stress), comparison(stress=stress)])
    assert found.stress_mae == pytest.approx(0.001) and found.structures_with_stress == 1


def test_what_was_not_compared_is_none():
    found = asdict(compute_metrics([comparison(energy=None), comparison(predicted_energy=None)]))
    counts = {name: value for name, value in found.items() if isinstance(value, int)}
    assert counts.pop("structures") == 2 and set(counts.values()) == {0}
    assert all(value is None for name, value in found.items() if name not in counts and name != "structures")
    assert compute_metrics([]).structures == 0


def test_units_belong_to_metrics():
    assert set(UNITS) <= set(Metrics.__dataclass_fields__)
