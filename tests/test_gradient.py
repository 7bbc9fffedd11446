"""Gradient forces and stress are derivatives of the energy that is returned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.calculators.fd import calculate_numerical_stress

from escn_calc import ESCNCalculator, load_potential
from escn_calc.convergence import RESIDUAL_METRIC, with_converged_longitudes
from escn_calc.errors import InputError
from escn_calc.potential import Potential, TurningFramesWarning
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
from tests.tolerances import FORCES_OF_FINITE_DIFFERENCES, GRADIENT_FLOAT32, STRESS_OF_FINITE_DIFFERENCES

ROLLS_MATTER = pytest.mark.filterwarnings(
    "ignore::escn_calc.potential.TurningFramesWarning", "ignore::escn_calc.convergence.FramesNotConvergedWarning"
)
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


@ROLLS_MATTER
@pytest.mark.parametrize("model", MODELS)
def test_published_models_with_converged_frames(model, record_figure):
    stored = checkpoint(model)
    atoms, potential = slab_for(stored), gradient_potential(stored, frames="converged")
    forces = forces_error(potential, atoms, [(8, 0), (8, 2), (9, 1), (5, 0), (2, 2)], PUBLISHED_STEP)
    stress = stress_error(potential, atoms, PUBLISHED_STEP / 10)
    record_figure(f"finite differences, {model} converged", f"forces {forces:.1e}, stress {stress:.1e} eV/Å³")
    assert forces < FORCES_OF_FINITE_DIFFERENCES
    assert stress < STRESS_OF_FINITE_DIFFERENCES


@ROLLS_MATTER
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


def left_handed(atoms):
    """The same slab in a cell with two vectors exchanged, one atom a lattice vector away."""
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array[[1, 0, 2]])
    copy.positions[3] += copy.cell.array[0]
    return copy


def in_a_box(atoms):
    """Without periodic directions; the cell has a volume all the same."""
    copy = atoms.copy()
    copy.pbc = False
    return copy


@pytest.mark.parametrize("change", [left_handed, in_a_box])
def test_unusual_cells(change):
    atoms, potential = change(triclinic_slab(5.0, 0)), gradient_potential(smooth_checkpoint())
    assert forces_error(potential, atoms, [(3, 0), (8, 2), (9, 1)], SMOOTH_STEP) < FORCES_OF_FINITE_DIFFERENCES
    assert stress_error(potential, atoms, SMOOTH_STEP) < STRESS_OF_FINITE_DIFFERENCES


@pytest.mark.parametrize("repulsion", ["zbl", None])
def test_mean_energies_normalisers_and_references_in_a_batch(repulsion):
    """A model whose raw output is a mean over atoms; two structures of different size in every evaluation."""
    stored = smooth_checkpoint(repulsion=repulsion)
    normalizers = replace(stored.normalizers, energy_mean=-3.0, energy_std=5 * stored.normalizers.energy_std)
    mean = replace(stored, config=replace(stored.config, energy_reduce="mean"), normalizers=normalizers)
    potential, other = gradient_potential(mean), bent_molecule()
    together = Together(potential, other)
    atoms = triclinic_slab(5.0, 0)
    assert forces_error(together, atoms, [(0, 0), (8, 2), (9, 1)], SMOOTH_STEP) < FORCES_OF_FINITE_DIFFERENCES
    assert stress_error(together, atoms, SMOOTH_STEP) < STRESS_OF_FINITE_DIFFERENCES


class Together:
    """Evaluates every structure in one batch with another one and returns its own part."""

    def __init__(self, potential, other):
        self.potential, self.other = potential, other

    def evaluate(self, structures):
        pairs = [part for atoms in structures for part in (self.other, atoms)]
        return self.potential.evaluate(pairs)[1::2]


def test_autocast_of_the_caller_changes_nothing():
    potential, atoms = gradient_potential(smooth_checkpoint(), dtype="float32"), triclinic_slab(5.0, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (inside,) = potential.evaluate([atoms])
    assert np.array_equal(inside.forces, potential.evaluate([atoms])[0].forces)


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


@ROLLS_MATTER
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


@ROLLS_MATTER
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


@ROLLS_MATTER
@pytest.mark.parametrize("model", ["smooth", "l2m1", "l6m2", "silu_basis"])
def test_float32(model, record_figure):
    stored = smooth_checkpoint() if model == "smooth" else checkpoint(model)
    atoms = slab_for(stored)
    (fine,), (coarse,) = (gradient_potential(stored, dtype=dtype).evaluate([atoms]) for dtype in ("float64", "float32"))
    error = np.abs(coarse.forces - fine.forces).max() / np.abs(fine.forces).max()
    record_figure(f"gradient forces, {model}", f"float32 against float64 {error:.1e}")
    assert error < GRADIENT_FLOAT32
    assert np.abs(coarse.forces.sum(axis=0)).max() < 1e-12


def test_isolated_atoms_have_no_force():
    (prediction,) = gradient_potential(smooth_checkpoint()).evaluate([bent_molecule()[:1]])
    assert np.array_equal(prediction.forces, np.zeros((1, 3)))


@ROLLS_MATTER
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


def test_the_roll_leaves_the_derivative_only_where_it_does_not_matter(recwarn):
    for stored, frames in ((checkpoint("l6m2"), "converged"), (smooth_checkpoint(), "canonical")):
        assert not gradient_potential(stored, frames=frames)._model.network.roll_in_derivative
        assert not recwarn.list
    for stored, frames, remedy in (
        (checkpoint("l6m2"), "canonical", "use frames='converged'"),
        (checkpoint("sigmoid_basis"), "converged", "no edge grid of reasonable size frees this model of it"),
        (smooth_checkpoint(mmax=2, edge_longitudes=5), "canonical", "a model needs more edge_longitudes than 5"),
    ):
        with pytest.warns(TurningFramesWarning, match=f"contains their turning, .*; {remedy}"):
            potential = gradient_potential(stored, frames=frames)
        assert potential._model.network.roll_in_derivative


@pytest.mark.filterwarnings("ignore::escn_calc.potential.TurningFramesWarning")
def test_resolved_grids_that_are_too_coarse_have_the_exact_gradient_too():
    coarse = smooth_checkpoint(mmax=2, edge_longitudes=5)
    atoms, potential = triclinic_slab(5.0, 0), gradient_potential(coarse)
    assert forces_error(potential, atoms, [(0, 0), (8, 2), (9, 1)], SMOOTH_STEP) < FORCES_OF_FINITE_DIFFERENCES
    assert stress_error(potential, atoms, SMOOTH_STEP) < STRESS_OF_FINITE_DIFFERENCES


def test_longitudes_and_what_rolls_do_are_kept_in_the_card():
    stored = smooth_checkpoint()
    found = with_converged_longitudes(stored)
    assert found.card.converged_longitudes is None
    assert found.card.metrics[RESIDUAL_METRIC] < 1e-7
    pretended = replace(found, card=found.card.model_copy(update={"metrics": {RESIDUAL_METRIC: 1e-3}}))
    with pytest.warns(TurningFramesWarning):
        gradient_potential(pretended)
