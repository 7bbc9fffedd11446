"""References and scales are found again in data made from known ones."""

import numpy as np
import pytest
import torch
from ase import Atoms

from escn_calc.errors import InputError
from escn_calc.training.references import extend_references, fit_normalizers, fit_references
from tests.training.data_files import frame

TRUE = {"H": -3.0, "C": -155.0, "O": -432.0, "Ni": -1500.0}


def total(formula: str) -> float:
    return sum(TRUE[symbol] for symbol in Atoms(formula).symbols)


def frames_of(*formulas: str):
    return [frame(Atoms(formula), total(formula)) for formula in formulas]


def by_symbol(values: torch.Tensor, symbols: str) -> list[float]:
    return [values[number].item() for number in Atoms(symbols).numbers]


def test_known_references_are_found():
    found = fit_references([*frames_of("CO", "CO2", "H2O", "CH4"), frame(Atoms("He"), energy=None)])
    assert by_symbol(found.values, "HCO") == pytest.approx([-3, -155, -432], abs=1e-9)
    assert found.notes == ()
    assert found.values.shape == (119,) and found.values.dtype == torch.float64
    assert found.values.count_nonzero() == 3


def test_least_squares_of_what_the_model_leaves():
    frames = frames_of("H2", "H4", "H6")
    found = fit_references(frames, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert found.values[1].item() == pytest.approx(-3.5)
    uneven = [frame(Atoms("H"), 1.0), frame(Atoms("H"), 3.0), frame(Atoms("H2"), 5.0)]
    assert fit_references(uneven).values[1].item() == pytest.approx((1 + 3 + 2 * 5) / 6)


def test_compositions_that_do_not_determine_the_elements_are_said():
    found = fit_references([*frames_of("CO", "C2O2", "H2")])
    assert by_symbol(found.values, "CO") == pytest.approx([total("CO") / 2] * 2)
    assert found.values[1].item() == pytest.approx(-3)
    (note,) = found.notes
    assert "determine 2 of 3 element references (H C O)" in note


def test_no_energies_no_references():
    assert fit_references([frame(Atoms("H"), energy=None)]) is None


def test_new_elements_are_fitted_and_others_kept():
    base = torch.zeros(119, dtype=torch.float64)
    base[[1, 8]] = torch.tensor([-10.0, -400.0], dtype=torch.float64)
    base[28] = 99.0
    frames = [*frames_of("Ni4", "Ni2O", "NiH", "H2O"), frame(Atoms("Ni"), energy=None)]
    nickels = torch.tensor([4, 2, 1, 0, 1], dtype=torch.float64)
    predicted = torch.tensor([*(f.energy for f in frames[:4]), 0.0], dtype=torch.float64) + 1500.0 * nickels
    found = extend_references(base, ["Ni"], frames, predicted)
    assert found.values[28].item() == pytest.approx(-1500)
    assert found.values[[1, 8]].tolist() == [-10, -400]
    assert base[28] == 99.0
    assert extend_references(None, ["Ni"], frames, predicted).values.count_nonzero() == 1


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        (["Ni", "Pt"], "no frame with an energy contains Pt"),
        (["Nix"], "'Nix' is not the symbol"),
        (["X"], "'X' is not"),
    ],
)
def test_bad_new_elements_are_refused(symbols, message):
    with pytest.raises(InputError, match=message):
        extend_references(None, symbols, frames_of("Ni", "H"), torch.zeros(2))


@pytest.mark.parametrize("predicted", [torch.zeros(3), torch.tensor([0.0, torch.nan])])
def test_bad_predictions_are_refused(predicted):
    with pytest.raises(InputError, match="for 2 frames: expected one finite energy per frame"):
        fit_references(frames_of("Ni", "H"), predicted)


def test_scales_in_the_published_convention():
    rng = np.random.default_rng(0)
    references = fit_references(frames_of("H", "O")).values
    frames = [
        frame(Atoms("OH2" * 4), 4 * total("OH2") + 12 * spread, forces=rng.normal(scale=0.7, size=(12, 3)))
        for spread in rng.normal(scale=0.2, size=2000)
    ]
    scales = fit_normalizers(frames, references)
    assert scales.energy_std == pytest.approx(200.0, rel=0.05)  # 1000 times 0.2 eV per atom
    assert scales.force_std == pytest.approx(0.7, rel=0.05)
    assert scales.energy_mean == scales.force_mean == 0.0
    assert fit_normalizers(frames, references, "mean").energy_std == pytest.approx(12 * 0.2, rel=0.05)


def test_scales_of_labels_that_are_missing_or_exact():
    only_forces = [frame(Atoms("H"), None, forces=np.full((1, 3), 2.0))]
    assert fit_normalizers(only_forces, None).energy_std == pytest.approx(2000.0)
    exact = frames_of("H", "H2")
    scales = fit_normalizers(exact, fit_references(exact).values)
    assert scales.energy_std == pytest.approx(1.0)
    assert scales.force_std == 1.0
