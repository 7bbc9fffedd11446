"""With a network, structures evaluated in one batch reach the minima that they reach alone."""

from __future__ import annotations

import ase.optimize
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import Trajectory

from escn_calc import ESCNCalculator, relax_batch
from escn_calc.errors import BatchError
from escn_calc.potential import Potential
from escn_calc.relax import relax
from tests.batch_relaxation.emt_potential import slabs
from tests.smooth import smooth_checkpoint, write_smooth_model

pytestmark = pytest.mark.filterwarnings("ignore::escn_calc.relax_result.EnergyRiseWarning")  # weights are random


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> ESCNCalculator:
    folder = write_smooth_model(tmp_path_factory.mktemp("relax_batch") / "model")
    return ESCNCalculator(folder, dtype="float64", device="cpu")


def ends_together(calculator, optimizer, structures, fmax, steps, folder):
    """Ends of all together, each with that of ASE alone, whose path that of ``relax_batch`` alone must be."""
    options = {"optimizer": optimizer, "fmax": fmax, "steps": steps}
    together = relax_batch(structures, calculator.potential, **options)
    for number, (atoms, result) in enumerate(zip(structures, together, strict=True)):
        moving = atoms.copy()
        moving.calc = calculator
        with getattr(ase.optimize, optimizer)(moving, logfile=None) as search:
            path = [moving.positions.copy() for _ in search.irun(fmax=fmax, steps=steps)]
        file = folder / f"{number}.traj"
        (alone,) = relax_batch([atoms], calculator.potential, trajectories=[file], **options)
        with Trajectory(file) as frames:
            np.testing.assert_allclose([frame.positions for frame in frames], path, rtol=0, atol=1e-6)
        assert alone.steps == search.nsteps
        yield result, moving


@pytest.mark.parametrize("optimizer", ["LBFGS", "FIRE"])
def test_paths_alone_and_together_are_those_of_ase(network, optimizer, tmp_path):
    for result, moving in ends_together(network, optimizer, slabs(2), 1e-3, 5, tmp_path):
        assert result.steps == 5
        np.testing.assert_allclose(result.atoms.positions, moving.positions, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["LBFGS", "FIRE"])
def test_minima_of_twenty_slabs_are_those_of_ase(optimizer, tmp_path):
    """ASE's own L-BFGS climbs out of one of these starts, where the energy curves downwards, and finds no minimum."""
    shipped = ESCNCalculator(dtype="float64", device="cpu")
    minima = 0
    for result, moving in ends_together(shipped, optimizer, slabs(20), 0.02, 300, tmp_path):
        assert result.converged == (np.linalg.norm(moving.get_forces(), axis=1).max() < 0.02)
        if not result.converged:
            continue
        minima += 1
        assert result.energy == pytest.approx(moving.get_potential_energy(), abs=1e-4)
        np.testing.assert_allclose(result.atoms.positions, moving.positions, rtol=0, atol=1e-2)
    assert minima >= 19


def test_cells_of_crystals_together(network):
    structures = [bulk("Ag", a=5.6), bulk("Cu", a=5.0)]
    options = {"cell": "full", "optimizer": "LBFGS", "fmax": 0.02, "smax": 1e-4, "steps": 40}
    for result, atoms in zip(relax_batch(structures, network.potential, **options), structures, strict=True):
        alone = relax(atoms, network, **options)
        assert result.reason == alone.reason
        np.testing.assert_allclose(result.atoms.cell, alone.atoms.cell, rtol=0, atol=1e-4)


def test_broken_structures_are_named_and_the_others_finish(network):
    good = slabs(1)[0]
    overlapping = Atoms("Cu2", [(0, 0, 0), (0, 0, 1e-3)])
    absurd = Atoms("Cu", [(np.nan, 0, 0)])
    heavy = Atoms("Og")
    with pytest.raises(BatchError) as caught:
        relax_batch(
            [overlapping, good, absurd, Atoms(), heavy, good],
            network.potential,
            optimizer="FIRE",
            steps=2,
            max_active=3,
        )
    errors = {index: str(error) for index, error in caught.value.errors.items()}
    assert sorted(errors) == [0, 2, 3, 4]
    assert all(f"structure {index}" in error for index, error in errors.items()), errors
    one, other = (caught.value.results[index] for index in (1, 5))
    assert one.steps == other.steps == 2
    np.testing.assert_allclose(one.atoms.positions, other.atoms.positions, rtol=0, atol=1e-8)


def test_a_fall_onto_another_atom_ends_that_structure_alone(network):
    """A force that is infinite in the eyes of a constraint throws an atom; the evaluation refuses it by name."""
    thrown, good = slabs(2)
    thrown.set_constraint(Thrower([0]))
    results = relax_batch([good, thrown], network.potential, optimizer="FIRE", steps=3)
    assert results[1].reason == "failed" and results[1].steps == 0
    assert "of structure 1 (" in results[1].message and "positions must be finite" in results[1].message
    assert results[0].steps == 3


class Thrower(FixAtoms):
    def adjust_positions(self, atoms, new):
        new[-1] = np.inf


def test_float32(network):
    potential = Potential(smooth_checkpoint(), device="cpu", dtype="float32", frames="canonical")
    singles, doubles = (relax_batch(slabs(3), one, optimizer="FIRE", steps=4) for one in (potential, network.potential))
    for single, double in zip(singles, doubles, strict=True):
        assert single.steps == 4 and single.atoms.get_forces().dtype == np.float64
        np.testing.assert_allclose(single.atoms.positions, double.atoms.positions, rtol=0, atol=1e-4)
