"""Parity plots: which panels there are and what they show."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from escn_calc.evaluation.plots import plot_parity
from tests.evaluation.comparisons import comparison, error


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k))
    return figures


def panels(figure: Figure):
    return [axes for axes in figure.axes if axes.get_xlabel()]


def with_forces(atoms: int, **labels):
    rng = np.random.default_rng(1)
    forces = rng.normal(size=(atoms, 3))
    return comparison(f"Cu{atoms}", forces=forces, predicted_forces=forces + 0.1, **labels)


def test_all_panels(tmp_path, drawn):
    structures = [with_forces(4, energy=-8.0, predicted_energy=-7.0, stress=[0.1] * 6, predicted_stress=[0.2] * 6)]
    plot_parity(structures, "total energy", tmp_path / "parity.png")
    energy, forces, stress = panels(drawn[0])
    assert energy.get_xlabel() == "label: total energy (eV/atom)"
    assert energy.get_ylabel() == "model: total energy (eV/atom)"
    assert energy.get_title() == "MAE 0.25 eV/atom, 1 points"
    assert energy.lines[0].get_xydata().tolist() == [[-2.0, -1.75]]
    assert forces.get_title() == "MAE 0.1 eV/Å, 12 points"
    assert stress.get_title() == "MAE 0.1 eV/Å³, 6 points"
    for axes in (energy, forces, stress):
        assert axes.get_xlim() == axes.get_ylim()
    with Image.open(tmp_path / "parity.png") as image:
        assert image.format == "PNG" and image.width > 1500


def test_many_points_become_a_density(tmp_path, drawn):
    plot_parity([with_forces(200, energy=None)], "total energy", tmp_path / "parity.png")
    (forces,) = panels(drawn[0])
    assert forces.collections[0].get_array().sum() > 0 and "600 points" in forces.get_title()


def test_one_value_has_room_around_it(tmp_path, drawn):
    plot_parity([error(0.0)], "adsorption energy", tmp_path / "parity.png")
    (energy,) = panels(drawn[0])
    low, high = energy.get_xlim()
    assert low < -3.5 < high
