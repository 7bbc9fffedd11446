"""Different zeros of energy: noticed, and taken out on request."""

from __future__ import annotations

import numpy as np
import pytest

from escn_calc.errors import InputError
from escn_calc.evaluation.energy_reference import reference_energies
from tests.evaluation.comparisons import comparison, error


def errors(referenced) -> list[float | None]:
    return [found.energy_error for found in referenced.comparisons]


def test_as_is_changes_nothing():
    given = [error(0.1), error(-0.2), comparison(energy=None)]
    found = reference_energies(given, "as-is")
    assert found.comparisons == tuple(given) and found.notes == () and found.doubt is None


@pytest.mark.parametrize(
    ("given", "odd"),
    [
        ([error(0.59)], False),  # 0.295 eV/atom
        ([error(-0.61)], True),
        ([error(value, "Cu10") for value in (1.1, 1.2, 1.3, 1.2, 1.2)], True),  # constant, 0.12 eV/atom
        ([error(value, "Cu10") for value in (1.1, 1.2, 1.3, 1.2)], False),  # too few to speak of a scatter
        ([error(value, "Cu10") for value in (0.8, 0.9, 1.0, 0.9, 0.9)], False),  # below 1 eV
        ([error(value, "Cu10") for value in (0.1, 2.5, 1.3, 0.2, 2.4)], False),  # scattered
        ([error(value) for value in (9.0, -9.0)], False),  # bad, but around zero
    ],
)
def test_doubt(given, odd):
    doubt = reference_energies(given, "as-is").doubt
    assert (doubt is not None) is odd
    if odd:
        offset = np.mean([found.energy_error for found in given])
        assert f"the mean energy error is {offset:+.3g} eV" in doubt


def test_shift_per_group():
    given = [error(1.0), error(5.0, group="b"), error(2.0), error(7.0, group="alone"), error(6.0, group="b")]
    found = reference_energies([*given, comparison(energy=None)], "shift-per-group")
    assert errors(found) == pytest.approx([-0.5, -0.5, 0.5, None, 0.5, None])
    assert found.notes[0].startswith("energies: the mean error of each group was removed (2 groups, 2 to 2 energies")
    assert found.notes[1] == "energies: 1 in groups of one were not compared, no error would be left of them"
    assert found.doubt is None


def test_fit_elements_finds_what_was_put_in():
    """Two element energies and errors around them that no element energy explains."""
    rest = np.array([0.01, -0.01, 0.0, -0.02, 0.02])
    formulas = ["CuO", "CuO", "Cu2O", "Cu3O2", "Cu3O2"]
    counts = {"CuO": (1, 1), "Cu2O": (2, 1), "Cu3O2": (3, 2)}
    zeros = [2.0 * counts[formula][0] - 3.0 * counts[formula][1] for formula in formulas]
    given = [error(zero + left, formula) for zero, left, formula in zip(zeros, rest, formulas, strict=True)]
    found = reference_energies([*given, comparison("Au", energy=None)], "fit-elements")
    assert errors(found)[:5] == pytest.approx(rest.tolist())
    assert found.element_shifts == pytest.approx({"O": -3.0, "Cu": 2.0})
    assert "2 independent element energies, fitted to the errors of 5 structures with 3 compositions" in found.notes[0]


def test_fit_elements_of_dependent_elements():
    """Cu and O always come one to one: only their sum is determined, and that is enough."""
    found = reference_energies([error(-1.0, "CuO"), error(-2.0, "Cu2O2")], "fit-elements")
    assert errors(found) == pytest.approx([0.0, 0.0], abs=1e-12)
    assert sum(found.element_shifts.values()) == pytest.approx(-1.0)


def test_fit_elements_needs_more_energies_than_elements():
    with pytest.raises(InputError, match="2 energies are too few to fit 2 independent element energies"):
        reference_energies([error(1.0, "CuO"), error(1.0, "Cu2O")], "fit-elements")


@pytest.mark.parametrize("method", ["as-is", "shift-per-group", "fit-elements"])
def test_without_energies(method):
    given = comparison(energy=None, forces=[[0, 0, 0]] * 2, predicted_forces=[[0, 0, 1]] * 2)
    found = reference_energies([given], method)
    assert errors(found) == [None] and found.comparisons[0].has_forces and found.doubt is None
