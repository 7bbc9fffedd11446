"""The Hessian is the derivative of the gradient forces."""

import numpy as np
import pytest
import torch

from escn_calc.errors import InputError
from escn_calc.potential import Potential
from tests.finite_differences import bent_molecule, bulk_crystal, cross, triclinic_slab
from tests.parity import checkpoint
from tests.smooth import smooth_checkpoint


@pytest.fixture(scope="module")
def smooth():
    return Potential(smooth_checkpoint(), device="cpu", dtype="float64", frames="canonical")


def column(potential, atoms, atom, axis, h):
    """Derivative of all forces by one coordinate, with an error of fourth order."""
    forces = []
    for part in (1.0, -1.0, 0.5, -0.5):
        copy = atoms.copy()
        copy.positions[atom, axis] += part * h
        forces.append(potential.evaluate([copy])[0].forces.ravel())
    wide, narrow = (forces[0] - forces[1]) / (2 * h), (forces[2] - forces[3]) / h
    return -(4 * narrow - wide) / 3


@pytest.mark.parametrize(
    "atoms",
    [triclinic_slab(5.0, 0), bulk_crystal(5.0, 0), bent_molecule(), cross()],
    ids=["slab", "bulk", "molecule", "cross"],
)
def test_columns_are_derivatives_of_the_forces(smooth, atoms):
    hessian = smooth.hessian(atoms)
    size = np.abs(hessian).max()
    assert hessian.shape == (3 * len(atoms), 3 * len(atoms))
    assert np.abs(hessian - hessian.T).max() < 1e-10 * size
    for atom, axis in ((0, 0), (len(atoms) - 1, 2)):
        error = np.abs(hessian[3 * atom + axis] - column(smooth, atoms, atom, axis, 5e-4)).max()
        assert error < 1e-6 * size


def test_rigid_shifts_cost_nothing(smooth):
    hessian = smooth.hessian(bent_molecule()).reshape(6, 3, 6, 3)
    assert np.abs(hessian.sum(axis=2)).max() < 1e-10 * np.abs(hessian).max()


def test_chosen_atoms_give_a_block_of_the_whole(smooth):
    atoms = triclinic_slab(5.0, 0)
    whole = smooth.hessian(atoms).reshape(10, 3, 10, 3)
    block = smooth.hessian(atoms, [8, 3])
    assert np.array_equal(block, whole[[8, 3]][:, :, [8, 3]].reshape(6, 6))


def test_published_model():
    stored = checkpoint("l6m2")
    atoms = triclinic_slab(stored.config.cutoff, stored.config.max_neighbors)
    potential = Potential(stored, device="cpu", dtype="float64", forces="gradient", frames="converged")
    hessian = potential.hessian(atoms, [9])
    expected = np.array([column(potential, atoms, 9, axis, 1e-4)[-3:] for axis in range(3)])
    assert np.abs(hessian - expected).max() < 1e-6 * np.abs(hessian).max()


def test_float32_and_inference_mode(smooth):
    atoms = triclinic_slab(5.0, 0)
    single = Potential(smooth_checkpoint(), device="cpu", dtype="float32", frames="canonical")
    with torch.inference_mode():
        coarse = single.hessian(atoms, [8])
    fine = smooth.hessian(atoms, [8])
    assert np.abs(coarse - fine).max() < 1e-4 * np.abs(fine).max()


def test_isolated_atom(smooth):
    assert np.array_equal(smooth.hessian(bent_molecule()[:1]), np.zeros((3, 3)))


def test_autocast_of_the_caller_changes_nothing():
    single = Potential(smooth_checkpoint(), device="cpu", dtype="float32", frames="canonical")
    atoms = triclinic_slab(5.0, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = single.hessian(atoms, [8])
    assert np.array_equal(inside, single.hessian(atoms, [8]))


@pytest.mark.parametrize(
    ("indices", "found"),
    [
        ([10], "there is no atom 10; the 10 atoms have the indices 0 to 9"),
        ([-1], "there is no atom -1"),
        ([], "give a list with the numbers of the atoms"),
        ([1, 1], "atom 1 is named more than once"),
        ([0.9], "give a list with the numbers of the atoms"),
        ([True, False], "give a list with the numbers of the atoms"),
        ("12", "give a list with the numbers of the atoms"),
    ],
)
def test_wrong_indices(smooth, indices, found):
    with pytest.raises(InputError, match=found):
        smooth.hessian(triclinic_slab(5.0, 0), indices)
