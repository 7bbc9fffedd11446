"""The figures of merit of forces are what they are called."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from escn_calc.consistency import ROTATIONS
from escn_calc.potential import Potential
from tests.finite_differences import triclinic_slab
from tests.parity import MODELS, checkpoint
from tests.smooth import smooth_checkpoint

pytestmark = pytest.mark.filterwarnings(
    "ignore::escn_calc.potential.TurningFramesWarning", "ignore::escn_calc.convergence.FramesNotConvergedWarning"
)


def potential(model, **options):
    stored = smooth_checkpoint() if model == "smooth" else checkpoint(model)
    return Potential(stored, device="cpu", **{"dtype": "float64", "frames": "canonical", **options})


def structure(model):
    config = potential(model).config
    return triclinic_slab(config.cutoff, config.max_neighbors)


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def test_direct_forces_against_the_gradient():
    atoms = structure("l6m2")
    found = potential("l6m2").force_consistency(atoms)
    (direct,) = potential("l6m2").evaluate([atoms])
    (gradient,) = potential("l6m2", forces="gradient").evaluate([atoms])
    difference = direct.forces - gradient.forces
    assert found.forces_kind == "direct"
    assert found.gradient_size == pytest.approx(rms(gradient.forces))
    assert found.direct_error == pytest.approx(rms(difference))
    assert found.largest_direct_error == pytest.approx(np.abs(difference).max())
    assert found.net_direct_force == pytest.approx(np.linalg.norm(direct.forces.sum(axis=0)))
    assert found.net_direct_force > 1e-3 and found.net_gradient_force < 1e-12


def test_rolls_matter_on_a_coarse_grid_and_not_on_a_converged_one():
    atoms = structure("l6m2")
    coarse, fine = (potential("l6m2", frames=frames).force_consistency(atoms) for frames in ("canonical", "converged"))
    assert coarse.roll_energy > 1e-4 and coarse.roll_forces > 1e-3
    assert fine.roll_energy < 1e-4 * coarse.roll_energy and fine.roll_forces < 1e-4 * coarse.roll_forces
    assert fine.rotation_energy > 1e-5  # node grid and output points remain


def test_rotations_are_those_of_rotated_structures():
    atoms = structure("l2m1")
    model = potential("l2m1", forces="gradient")
    found = model.force_consistency(atoms)
    (here,) = model.evaluate([atoms])
    energies, forces = [], []
    for matrix in Rotation.random(ROTATIONS, random_state=0).as_matrix():
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ matrix.T)
        turned.positions = atoms.positions @ matrix.T
        (there,) = model.evaluate([turned])
        energies.append(there.energy - here.energy)
        forces.append(rms(there.forces @ matrix - here.forces))
    assert found.forces_kind == "gradient"
    assert found.rotation_energy == pytest.approx(rms(energies), rel=1e-6)
    assert found.rotation_forces == pytest.approx(rms(forces), rel=1e-6)


def test_smooth_model(record_figure):
    found = potential("smooth").force_consistency(structure("smooth"))
    record_figure(
        "smooth model with random weights",
        f"rotation {1e3 * found.rotation_energy:.1e} meV, {1e3 * found.rotation_forces:.1e} meV/Å; "
        f"roll {1e3 * found.roll_energy:.1e} meV; size of a force component {found.gradient_size:.1f} eV/Å",
    )
    assert found.forces_kind == "gradient"
    assert found.direct_error is None and found.largest_direct_error is None and found.net_direct_force is None
    assert found.rotation_energy < 1e-3 and found.roll_energy < 1e-3


@pytest.mark.parametrize("model", MODELS)
def test_direct_and_gradient_forces_of_every_stored_model(model, record_figure):
    """The weights are random, so the two need not agree at all: the figures say how much they do not."""
    found = potential(model, dtype="float32", frames="converged").force_consistency(structure(model))
    record_figure(
        f"direct against gradient forces, {model}",
        f"gradient {found.gradient_size:.3f}, difference {found.direct_error:.3f} eV/Å, "
        f"net direct force {found.net_direct_force:.3f}, net gradient force {found.net_gradient_force:.0e} eV/Å",
    )
    assert found.net_gradient_force < 1e-12
    assert found.direct_error > 0.1 * found.gradient_size
