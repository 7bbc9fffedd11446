"""A structure of a batch goes the way of ASE's optimiser of the same name, with its constraints and its cell."""

from __future__ import annotations

import ase.optimize
import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixCom,
    FixedLine,
    FixedPlane,
    FixInternals,
    FixScaled,
    Hookean,
)
from ase.io import Trajectory

from escn_calc import relax_batch
from escn_calc.batch_relaxation import BATCH_OPTIMIZERS
from escn_calc.batch_relaxation.relaxation import Relaxation, RelaxSettings
from escn_calc.cell_relaxation import RelaxedCell
from escn_calc.relax import relax
from tests.batch_relaxation.emt_potential import EMTPotential, slabs


def ase_path(atoms: Atoms, optimizer: str, fmax: float, steps: int) -> np.ndarray:
    """Positions of every step (steps + 1, N, 3), from ASE's optimiser alone."""
    moving = atoms.copy()
    moving.calc = EMT()
    with getattr(ase.optimize, optimizer)(moving, logfile=None) as search:
        return np.array([moving.positions.copy() for _ in search.irun(fmax=fmax, steps=steps)])


def read_path(path) -> np.ndarray:
    with Trajectory(path) as frames:
        return np.array([frame.positions for frame in frames])


def assert_paths_of_ase(structures, optimizer, folder, fmax=0.02, steps=100, **options):
    results = relax_batch(
        structures, EMTPotential(), optimizer=optimizer, fmax=fmax, steps=steps, trajectories=folder, **options
    )
    for atoms, result, path in zip(structures, results, sorted(folder.iterdir()), strict=True):
        expected = ase_path(atoms, optimizer, fmax, steps)
        np.testing.assert_allclose(read_path(path), expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(result.atoms.positions, expected[-1], rtol=0, atol=1e-6)
        assert result.steps == len(expected) - 1
    return results


@pytest.mark.parametrize("optimizer", BATCH_OPTIMIZERS)
def test_paths_of_slabs_are_those_of_ase(optimizer, tmp_path):
    results = assert_paths_of_ase(slabs(3), optimizer, tmp_path, steps=20)
    assert min(result.steps for result in results) > 5


def test_an_optimiser_that_evaluates_midway_is_not_served_old_forces():
    settings = RelaxSettings(ase.optimize.GPMin, 0.02, 5, "fixed", 1.0, 0.0, ())
    relaxation = Relaxation(0, slabs(1)[0], settings, None)
    (prediction,) = EMTPotential().evaluate_each([relaxation.atoms])
    relaxation.take(prediction)
    assert relaxation.end.reason == "failed"
    assert "PropertyNotImplementedError" in relaxation.end.message


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["LBFGS", "FIRE"])
def test_paths_of_twenty_slabs_are_those_of_ase(optimizer, tmp_path):
    results = assert_paths_of_ase(slabs(20), optimizer, tmp_path, fmax=0.005, steps=300)
    assert all(result.converged for result in results)


@pytest.mark.parametrize("max_active", [1, 2, None])
def test_paths_do_not_depend_on_how_many_are_relaxed_together(max_active, tmp_path):
    assert_paths_of_ase(slabs(3), "LBFGS", tmp_path, steps=15, max_active=max_active)


def adsorbed() -> Atoms:
    atoms = fcc111("Cu", (2, 2, 2), vacuum=6.0, periodic=True)
    add_adsorbate(atoms, molecule("CO"), 1.9, "fcc", mol_index=1)
    atoms.info.clear()
    atoms.rattle(0.06, seed=3)
    return atoms


CONSTRAINTS = {
    "FixAtoms": [FixAtoms([0, 1, 2])],
    "FixBondLengths": [FixBondLengths([(8, 9)])],
    "FixCartesian": [FixCartesian([0, 4], mask=(True, False, True))],
    "FixCom": [FixCom()],
    "FixedLine": [FixedLine([8, 9], (0, 0, 1))],
    "FixedPlane": [FixedPlane([8], (1, 0, 0))],
    "FixInternals": [FixInternals(bonds=[(1.2, (8, 9))])],
    "FixScaled": [FixScaled([0, 1], mask=(True, True, False))],
    "Hookean": [Hookean(a1=8, a2=9, rt=1.1, k=10.0)],
    "several": [FixAtoms([0, 1, 2, 3]), FixedPlane([9], (0, 1, 0)), Hookean(a1=8, a2=9, rt=1.1, k=10.0)],
}


@pytest.mark.parametrize("optimizer", ["LBFGS", "FIRE"])
def test_constraints_are_honoured_each_on_its_own_structure(optimizer, tmp_path):
    structures = [adsorbed() for _ in CONSTRAINTS]
    for atoms, constraints in zip(structures, CONSTRAINTS.values(), strict=True):
        atoms.set_constraint(constraints)
    results = assert_paths_of_ase(structures, optimizer, tmp_path, steps=8, fmax=1e-4)
    ends = [result.atoms.positions for result in results]
    assert min(np.abs(one - other).max() for i, one in enumerate(ends) for other in ends[:i]) > 1e-3


def crystals() -> list[Atoms]:
    structures = [bulk(metal, cubic=True) for metal in ("Cu", "Au")]
    for seed, atoms in enumerate(structures):
        atoms.set_cell(atoms.cell.array @ [[1.03, 0.02, 0], [0, 0.97, 0.01], [0, 0, 1.02]], scale_atoms=True)
        atoms.rattle(0.05, seed=seed)
    return structures


@pytest.mark.parametrize(
    ("cell", "optimizer", "steps"),
    [("full", "LBFGS", 100), ("isotropic", "LBFGS", 100), ("in-plane", "LBFGS", 100), ("full", "FIRE", 15)],
)
def test_cells_relax_as_alone(cell, optimizer, steps):
    pressure = 0.0 if cell == "in-plane" else 0.5
    options = {"cell": cell, "pressure_GPa": pressure, "fmax": 0.02, "smax": 1e-3, "steps": steps}
    results = relax_batch(crystals(), EMTPotential(), optimizer=optimizer, **options)
    for atoms, result in zip(crystals(), results, strict=True):
        alone = relax(atoms, EMT(), optimizer=optimizer, **options)
        assert result.reason == alone.reason == ("converged" if optimizer == "LBFGS" else "step limit")
        assert result.steps == alone.steps > 3
        np.testing.assert_allclose(result.atoms.cell, alone.atoms.cell, rtol=0, atol=1e-8)
        np.testing.assert_allclose(result.atoms.positions, alone.atoms.positions, rtol=0, atol=1e-8)
        for step, expected in zip(result.history, alone.history, strict=True):
            assert step.smax == pytest.approx(expected.smax, abs=1e-9)
            assert step.enthalpy == pytest.approx(expected.enthalpy, abs=1e-9)


def test_a_relaxed_cell_goes_the_way_of_ases_filter(tmp_path):
    (atoms,) = crystals()[:1]
    (result,) = relax_batch([atoms], EMTPotential(), cell="full", fmax=1e-5, steps=15, trajectories=tmp_path)
    moving = atoms.copy()
    moving.calc = EMT()
    with ase.optimize.LBFGS(RelaxedCell(moving, "full", 0.0, 1e-9), logfile=None) as search:
        cells = [moving.cell.array.copy() for _ in search.irun(fmax=1e-5, steps=15)]
    with Trajectory(tmp_path / "0.traj") as frames:
        np.testing.assert_allclose([frame.cell.array for frame in frames], cells, rtol=0, atol=1e-6)
    assert result.steps == 15
