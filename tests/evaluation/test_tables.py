"""Tables by element, group and structure against numbers worked out by hand."""

from __future__ import annotations

import csv

import pytest

from escn_calc.evaluation.tables import STRUCTURE_COLUMNS, element_rows, group_rows, write_structure_table
from tests.evaluation.comparisons import comparison, error

OXIDE = comparison(
    "CuO",
    group="oxide",
    origin="a.xyz@3",
    energy=1.0,
    predicted_energy=1.4,
    forces=[[0, 0, 0], [0, 0, 0]],
    predicted_forces=[[0, 0, 0.3], [0.6, 0, 0]],
)
FIXED = comparison(
    "Cu2",
    group="metal",
    energy=None,
    forces=[[0, 0, 0], [0, 0, 0]],
    predicted_forces=[[9, 9, 9], [0, 0.9, 0]],
    counted=[False, True],
)


def test_elements():
    oxygen, copper = element_rows([FIXED, OXIDE, error(-0.8, "Cu4")])
    assert (oxygen.element, oxygen.atoms_with_forces, oxygen.structures_with_energy) == ("O", 1, 1)
    assert oxygen.forces_mae == pytest.approx(0.2) and oxygen.energy_mae_per_atom == pytest.approx(0.2)
    assert (copper.element, copper.atoms_with_forces, copper.structures_with_energy) == ("Cu", 2, 2)
    assert copper.forces_mae == pytest.approx((0.3 + 0.9) / 6)
    assert copper.energy_mae_per_atom == pytest.approx((0.4 / 2 + 0.8 / 4) / 2)


def test_element_without_labels():
    (row,) = element_rows([comparison("Cu", energy=None)])
    assert (row.atoms_with_forces, row.forces_mae, row.structures_with_energy, row.energy_mae_per_atom) == (
        0,
        None,
        0,
        None,
    )


def test_groups_are_sorted_worst_first():
    rows = group_rows([error(0.1, group="small"), OXIDE, FIXED, error(-0.9, group="large"), error(0.2, group="small")])
    assert [row.group for row in rows] == ["metal", "oxide", "large", "small"]
    assert [row.metrics.structures for row in rows] == [1, 1, 1, 2]
    assert rows[3].metrics.energy_mae == pytest.approx(0.15)


def test_structures(tmp_path):
    write_structure_table([OXIDE, FIXED], tmp_path / "errors.csv")
    with (tmp_path / "errors.csv").open(encoding="utf-8", newline="") as file:
        oxide, fixed = list(csv.DictReader(file))
    assert tuple(oxide) == STRUCTURE_COLUMNS
    assert (oxide["origin"], oxide["group"], oxide["formula"], oxide["atoms"]) == ("a.xyz@3", "oxide", "CuO", "2")
    assert float(oxide["energy_error_eV"]) == pytest.approx(0.4)
    assert float(oxide["energy_error_eV_per_atom"]) == pytest.approx(0.2)
    assert float(oxide["forces_mae_eV_per_A"]) == pytest.approx(0.9 / 6)
    assert float(oxide["forces_max_error_eV_per_A"]) == pytest.approx(0.6)
    assert oxide["stress_mae_eV_per_A3"] == fixed["energy_label_eV"] == fixed["energy_error_eV"] == ""
    assert fixed["atoms_counted"] == "1" and float(fixed["forces_max_error_eV_per_A"]) == pytest.approx(0.9)
