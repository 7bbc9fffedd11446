"""Gradient forces and stress are derivatives of the energy that is returned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.calculators.fd import calculate_numerical_stress

from escn_calc import ESCNCalculator, load_potential
from escn_calc.convergence import FramesNotConvergedWarning
from escn_calc.errors import InputError
from escn_calc.potential import Potential
from tests.finite_differences import (
    bent_molecule,
    bulk_crystal,
    cross,
    every_component,
    forces_error,
    stress_error,
    triclinic_slab,
)
from tests.parity import MODELS, checkpoint
from tests.smooth import smooth_checkpoint, write_smooth_model
from tests.tolerances import FORCES_OF_FINITE_DIFFERENCES, STRESS_OF_FINITE_DIFFERENCES

SMOOTH_STEP = 1e-3
PUBLISHED_STEP = 4e-4  # the radial functions of published models are 0.02 Å wide
SMOOTH_STRUCTURES = {
    "slab": triclinic_slab(5.0, 0),
    "bulk": bulk_crystal(5.0, 0),
    "molecule": bent_molecule(),
    "cross": cross(),
}


def gradient_potential(stored, dtype="float64", **options):
    return Potential(stored, device="cpu", dtype=dtype, forces="gradient", **{"frames": "canonical", **options})


def slab_for(stored):
    return triclinic_slab(stored.config.cutoff, stored.config.max_neighbors)


@pytest.mark.parametrize("name", SMOOTH_STRUCTURES)
def test_smooth_model(name, record_figure):
    atoms, potential = SMOOTH_STRUCTURES[name], gradient_potential(smooth_checkpoint())
    forces = forces_error(potential, atoms, every_component(atoms), SMOOTH_STEP)
    record_figure(f"finite differences, smooth model, {name}", f"forces {forces:.1e}")
    assert forces < FORCES_OF_FINITE_DIFFERENCES
    if atoms.cell.rank == 3:
        stress = stress_error(potential, atoms, SMOOTH_STEP)
        record_figure(f"finite differences, smooth model, {name}", f"stress {stress:.1e} eV/Å³")
        assert stress < STRESS_OF_FINITE_DIFFERENCES


@pytest.mark.filterwarnings("ignore::escn_calc.convergence.FramesNotConvergedWarning")
@pytest.mark.parametrize("model", MODELS)
def test_published_models_with_converged_frames(model, record_figure):
    stored = checkpoint(model)
    atoms, potential = slab_for(stored), gradient_potential(stored, frames="converged")
    forces = forces_error(potential, atoms, [(8, 0), (8, 2), (9, 1), (5, 0), (2, 2)], PUBLISHED_STEP)
    stress = stress_error(potential, atoms, PUBLISHED_STEP / 10)
    record_figure(f"finite differences, {model} converged", f"forces {forces:.1e}, stress {stress:.1e} eV/Å³")
    assert forces < FORCES_OF_FINITE_DIFFERENCES
    assert stress < STRESS_OF_FINITE_DIFFERENCES


@pytest.mark.parametrize("model", ["l2m1", "l6m2", "l3m3_full"])
def test_coarse_canonical_grids_have_the_exact_gradient_of_their_energy(model, record_figure):
    stored = checkpoint(model)
    atoms, potential = slab_for(stored), gradient_potential(stored)
    forces = forces_error(potential, atoms, [(8, 0), (8, 2), (9, 1), (5, 0), (2, 2)], PUBLISHED_STEP)
    record_figure(f"finite differences, {model} canonical", f"forces {forces:.1e}")
    assert forces < FORCES_OF_FINITE_DIFFERENCES


def test_edges_along_the_axes_and_the_singular_direction_in_a_published_model():
    atoms, potential = cross(), gradient_potential(checkpoint("l6m2"), frames="converged")
    assert forces_error(potential, atoms, [(0, 0), (0, 1), (1, 2), (7, 0), (7, 1), (8, 2)], 1e-4) < 1e-6


def test_sign_and_order_of_the_stress_are_those_of_ase(tmp_path):
    atoms = triclinic_slab(5.0, 0).copy()
    atoms.calc = ESCNCalculator(write_smooth_model(tmp_path / "smooth"), dtype="float64")
    analytic = atoms.get_stress()
    assert analytic == pytest.approx(calculate_numerical_stress(atoms, eps=1e-5), abs=2e-7)
    assert np.abs(analytic - analytic[[0, 1, 2, 4, 5, 3]]).max() > 1e-3


def test_parts_add_up(record_figure):
    atoms = triclinic_slab(5.0, 0)
    (prediction,) = gradient_potential(smooth_checkpoint()).evaluate([atoms])
    assert prediction.forces_kind == "gradient"
    assert np.abs(prediction.forces.sum(axis=0)).max() < 1e-12
    assert prediction.stresses.shape == (len(atoms), 6)
    assert prediction.stresses.sum(axis=0) == pytest.approx(prediction.stress, abs=1e-15)
    torque = np.cross(atoms.positions, prediction.forces).sum(axis=0)
    assert np.abs(torque).max() > 1e-3  # a cell fixes the orientation; without one see the molecule below
    (free,) = gradient_potential(smooth_checkpoint()).evaluate([bent_molecule()])
    torque = np.abs(np.cross(bent_molecule().positions, free.forces).sum(axis=0)).max()
    record_figure(
        "net torque on a molecule, smooth model", f"{torque:.1e} eV, largest force {np.abs(free.forces).max():.1f} eV/Å"
    )
    assert torque < 1e-3 * np.abs(free.forces).max()


def test_stress_needs_a_volume():
    potential = gradient_potential(smooth_checkpoint())
    slab = triclinic_slab(5.0, 0).copy()
    open_slab = slab.copy()
    open_slab.cell[2] = 0.0
    with_cell, without_cell, in_molecule = potential.evaluate([slab, open_slab, bent_molecule()])
    assert with_cell.stress.shape == (6,)
    assert without_cell.stress is None and without_cell.stresses is None
    assert in_molecule.stress is None
    assert without_cell.forces == pytest.approx(with_cell.forces, abs=1e-10)


@pytest.mark.parametrize("model", ["smooth", "l6m2", "multires"])
def test_energy_and_forces_do_not_depend_on_how_they_are_computed(model):
    stored = smooth_checkpoint() if model == "smooth" else checkpoint(model)
    atoms = slab_for(stored)
    (plain,) = gradient_potential(stored, checkpoint_layers=False).evaluate([atoms])
    (recomputed,) = gradient_potential(stored, checkpoint_layers=True).evaluate([atoms])
    with torch.inference_mode():
        (inside_inference,) = gradient_potential(stored).evaluate([atoms])
    _, in_batch, _ = gradient_potential(stored).evaluate([bent_molecule(), atoms, cross()])
    for other in (recomputed, inside_inference):
        assert other.energy == plain.energy and np.array_equal(other.forces, plain.forces)
    assert in_batch.forces == pytest.approx(plain.forces, abs=1e-11 * np.abs(plain.forces).max())
    if model != "smooth":
        (direct,) = Potential(stored, device="cpu", dtype="float64", frames="canonical").evaluate([atoms])
        assert direct.energy == plain.energy and direct.forces_kind == "direct" and direct.stress is None


def test_repeated_gradients_have_identical_bits_with_several_threads():
    potential = gradient_potential(checkpoint("l6m2"), dtype="float32")
    atoms = slab_for(checkpoint("l6m2")).repeat((2, 2, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        results = [potential.evaluate([atoms])[0] for _ in range(4)]
    finally:
        torch.set_num_threads(threads)
    assert all(np.array_equal(result.forces, results[0].forces) for result in results)


@pytest.mark.parametrize("model", ["smooth", "l2m1", "l6m2", "silu_basis"])
def test_float32(model, record_figure):
    stored = smooth_checkpoint() if model == "smooth" else checkpoint(model)
    atoms = slab_for(stored)
    (fine,), (coarse,) = (gradient_potential(stored, dtype=dtype).evaluate([atoms]) for dtype in ("float64", "float32"))
    error = np.abs(coarse.forces - fine.forces).max() / np.abs(fine.forces).max()
    record_figure(f"gradient forces, {model}", f"float32 against float64 {error:.1e}")
    assert error < 5e-5
    assert np.abs(coarse.forces.sum(axis=0)).max() < 1e-12


def test_isolated_atoms_have_no_force():
    (prediction,) = gradient_potential(smooth_checkpoint()).evaluate([bent_molecule()[:1]])
    assert np.array_equal(prediction.forces, np.zeros((1, 3)))


def test_energy_only_models_have_gradients_when_asked():
    stored = checkpoint("l2m1")
    state = {key: value for key, value in stored.state.items() if not key.startswith("force_block")}
    config = replace(stored.config, regress_forces=False)
    energy_only = replace(
        stored, config=config, state=state, card=stored.card.model_copy(update={"forces": None, "name": "energies"})
    )
    atoms = slab_for(stored)
    (silent,) = Potential(energy_only, device="cpu", dtype="float64", frames="canonical").evaluate([atoms])
    assert silent.forces is None and silent.forces_kind is None
    (gradient,) = gradient_potential(energy_only).evaluate([atoms])
    (expected,) = gradient_potential(stored).evaluate([atoms])
    assert np.array_equal(gradient.forces, expected.forces)
    with pytest.raises(InputError, match=r"model energies has no force head, .* use forces='gradient'"):
        Potential(energy_only, device="cpu", dtype="float64", forces="direct", frames="canonical")


def test_kinds_of_forces_are_checked_before_anything_is_loaded():
    with pytest.raises(InputError, match="forces is 'autograd', but must be one of direct, gradient"):
        load_potential("no such model", forces="autograd")


def test_unconverged_frames_keep_the_roll_in_the_derivative():
    with pytest.warns(FramesNotConvergedWarning):
        coarse = gradient_potential(checkpoint("hydra"), frames="converged")
    assert coarse._model.network.roll_in_derivative
    assert not gradient_potential(checkpoint("l6m2"), frames="converged")._model.network.roll_in_derivative
    assert gradient_potential(checkpoint("l6m2"))._model.network.roll_in_derivative
    assert not gradient_potential(smooth_checkpoint())._model.network.roll_in_derivative
