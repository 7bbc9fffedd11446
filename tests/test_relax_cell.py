"""A relaxed cell has the lowest energy among its neighbours, and only the part that was to move has moved."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from ase.io import Trajectory
from ase.units import GPa

from escn_calc import ESCNCalculator
from escn_calc.cell_relaxation import CELLS, LARGEST_STRETCH
from escn_calc.errors import InputError
from escn_calc.relax import OPTIMIZERS, CellStep, EnergyRiseWarning, relax
from tests.smooth import write_smooth_model

H = 1e-4
"""Strain of the finite differences."""


def crystal(a: float = 3.45) -> Atoms:
    """Copper with gold, distorted in every way a cell can be."""
    atoms = bulk("Cu", a=a, cubic=True)
    atoms.symbols[0] = "Au"
    atoms.set_cell(atoms.cell.array @ [[1.03, 0.02, 0], [0, 0.98, 0.015], [0, 0, 1.01]], scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def slab() -> Atoms:
    atoms = fcc111("Cu", (1, 1, 4), a=3.5, vacuum=7.0, periodic=True)
    atoms.rattle(0.03, seed=2)
    return atoms


def turned(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.rotate(57, (1, 2, 3), rotate_cell=True)
    return copy


def energy(atoms: Atoms, deformation: np.ndarray | float, calculator=None) -> float:
    copy = atoms.copy()
    copy.set_constraint()
    copy.set_cell(atoms.cell.array @ (np.eye(3) * deformation if np.isscalar(deformation) else deformation), True)
    copy.calc = calculator or EMT()
    return copy.get_potential_energy()


def slope(atoms: Atoms, strain: np.ndarray) -> float:
    """Derivative of the energy by a strain, per volume, in eV/Å³."""
    up, down = (energy(atoms, np.eye(3) + sign * H * strain) for sign in (1, -1))
    return (up - down) / (2 * H * atoms.cell.volume)


def symmetric_strains() -> list[np.ndarray]:
    units = [np.outer(np.eye(3)[i], np.eye(3)[j]) for i in range(3) for j in range(i + 1)]
    return [(unit + unit.T) / 2 for unit in units]


def scanned_lattice_constant(atoms: Atoms, calculator) -> float:
    """Length of the first vector at the minimum of a polynomial through energies of scaled cells."""
    scales = np.linspace(0.97, 1.03, 13)
    curve = np.polynomial.Polynomial.fit(scales, [energy(atoms, scale, calculator) for scale in scales], 6)
    stationary = [root.real for root in curve.deriv().roots() if abs(root.imag) < 1e-9 and 0.97 < root.real < 1.03]
    (best,) = [root for root in stationary if curve.deriv(2)(root) > 0]
    return best * atoms.cell.lengths()[0]


@pytest.mark.parametrize("cell", ["full", "isotropic"])
@pytest.mark.parametrize("a", [3.4, 3.8])
def test_lattice_constant_is_that_of_a_scan(cell, a):
    result = relax(bulk("Cu", a=a), EMT(), cell=cell, smax=1e-6)
    assert result.converged
    length = result.atoms.cell.lengths()[0]
    assert length == pytest.approx(scanned_lattice_constant(result.atoms, EMT()), rel=1e-4)
    assert length == pytest.approx(scanned_lattice_constant(bulk("Cu", a=3.6), EMT()), rel=1e-4)


def test_no_strain_lowers_the_energy_of_a_full_relaxation():
    result = relax(crystal(), EMT(), cell="full", fmax=1e-4, smax=1e-5)
    assert result.converged and isinstance(result.history[-1], CellStep)
    for strain in symmetric_strains():
        assert abs(slope(crystal(), strain)) > 1e-3
        assert abs(slope(result.atoms, strain)) < 1.1e-5


@pytest.mark.parametrize("orient", [lambda atoms: atoms, turned])
def test_only_the_plane_relaxes_in_plane(orient):
    start = orient(slab())
    result = relax(start, EMT(), cell="in-plane", fmax=1e-4, smax=1e-6)
    assert result.converged
    np.testing.assert_array_equal(result.atoms.cell[2], start.cell[2])
    a, b = start.cell[0] / np.linalg.norm(start.cell[0]), np.cross(start.cell[2], start.cell[0])
    b /= np.linalg.norm(b)
    for strain in (np.outer(a, a), np.outer(b, b), (np.outer(a, b) + np.outer(b, a)) / 2):
        assert abs(slope(result.atoms, strain)) < 2e-6
    assert abs(slope(start, np.outer(a, a))) > 1e-3
    assert abs(result.atoms.cell[:2] @ start.cell[2]).max() < 1e-9
    assert result.atoms.cell.lengths()[0] > 1.01 * start.cell.lengths()[0]


def test_a_tilted_third_vector_keeps_its_height_and_follows_the_plane():
    start = bulk("Cu", a=3.5)
    result = relax(start, EMT(), cell="in-plane", smax=1e-6)
    normal = np.cross(start.cell[0], start.cell[1])
    normal /= np.linalg.norm(normal)
    assert result.atoms.cell[2] @ normal == pytest.approx(start.cell[2] @ normal, rel=1e-12)
    np.testing.assert_allclose(
        result.atoms.cell.scaled_positions([result.atoms.cell[2] - (result.atoms.cell[2] @ normal) * normal])[0, :2],
        start.cell.scaled_positions([start.cell[2] - (start.cell[2] @ normal) * normal])[0, :2],
        atol=2e-3,
    )
    across = np.eye(3) - np.outer(normal, normal)
    assert abs(slope(result.atoms, across)) < 3e-6
    assert abs(slope(result.atoms, np.outer(normal, normal))) > 1e-3


def test_isotropic_keeps_the_shape():
    start = crystal()
    result = relax(start, EMT(), cell="isotropic", fmax=1e-4, smax=1e-5)
    assert result.converged
    ratio = result.atoms.cell.array @ np.linalg.inv(start.cell.array)
    np.testing.assert_allclose(ratio, np.eye(3) * ratio[0, 0], atol=1e-10)
    assert ratio[0, 0] > 1.01
    assert abs(slope(result.atoms, np.eye(3) / 3)) < 1.1e-5
    assert max(abs(slope(result.atoms, strain)) for strain in symmetric_strains()) > 1e-3


def test_the_cell_stays_by_default():
    result = relax(crystal(), EMT(), steps=5)
    np.testing.assert_array_equal(result.atoms.cell, crystal().cell)
    assert not isinstance(result.history[-1], CellStep)


@pytest.mark.parametrize("cell", ["full", "isotropic"])
def test_pressure_minimises_the_enthalpy(cell):
    result = relax(bulk("Cu", a=3.6), EMT(), cell=cell, pressure_GPa=20, smax=1e-6)
    assert result.converged
    np.testing.assert_allclose(result.history[-1].stress, np.array([-1, -1, -1, 0, 0, 0]) * 20 * GPa, atol=2e-6)
    assert slope(result.atoms, np.eye(3) / 3) == pytest.approx(-20 * GPa, rel=1e-4)
    for step in result.history:
        assert step.enthalpy == pytest.approx(step.energy + 20 * GPa * step.volume, rel=1e-12)
    assert result.energy_change > 0.02 and result.notes == ()  # the energy may rise, the enthalpy falls
    assert result.energy_above_lowest == result.history[-1].enthalpy - result.lowest.enthalpy


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_both_criteria_hold_with_every_optimizer(optimizer):
    result = relax(crystal(3.6), EMT(), optimizer=optimizer, cell="full", fmax=0.02, smax=0.001)
    assert result.converged
    stress = result.atoms.get_stress(voigt=False)
    assert np.linalg.norm(result.atoms.get_forces(), axis=1).max() == pytest.approx(result.fmax, rel=1e-9)
    assert abs(np.linalg.eigvalsh(stress)).max() == pytest.approx(result.history[-1].smax, rel=1e-9)
    assert result.fmax < 0.02 and result.history[-1].smax < 0.001


@pytest.mark.parametrize(("fmax", "smax"), [(1e-4, 10.0), (10.0, 1e-4)])
def test_neither_criterion_stands_for_the_other(fmax, smax):
    result = relax(crystal(), EMT(), cell="full", fmax=fmax, smax=smax)
    before = result.history[-2]
    assert result.converged and result.fmax < fmax and result.history[-1].smax < smax
    assert before.fmax >= fmax or before.smax >= smax


def test_smax_does_not_depend_on_the_orientation():
    def smax(atoms: Atoms, cell: str) -> float:
        return relax(atoms, EMT(), cell=cell, steps=0).history[0].smax

    for cell, atoms in (("full", crystal()), ("isotropic", crystal()), ("in-plane", slab())):
        assert smax(turned(atoms), cell) == pytest.approx(smax(atoms, cell), rel=1e-9)


def test_fixed_atoms_go_with_the_cell():
    atoms = crystal()
    atoms.set_constraint([FixAtoms([1]), FixCartesian([2], mask=(False, False, True))])
    result = relax(atoms, EMT(), cell="full", fmax=1e-3, smax=1e-4)
    assert result.converged
    np.testing.assert_allclose(result.atoms.get_scaled_positions()[1], atoms.get_scaled_positions()[1], atol=1e-12)
    assert np.linalg.norm(result.atoms.positions[1] - atoms.positions[1]) > 0.01
    assert np.linalg.norm(result.atoms.get_forces(apply_constraint=False)[1]) > 10 * result.fmax


def test_displacements_leave_out_what_the_cell_does():
    assert relax(bulk("Cu", a=3.4) * (3, 3, 3), EMT(), cell="isotropic").max_displacement < 1e-9
    start = crystal()
    result = relax(start, EMT(), cell="full")
    moved = result.atoms.positions - start.get_scaled_positions(wrap=False) @ result.atoms.cell.array
    assert result.max_displacement == pytest.approx(np.linalg.norm(moved, axis=1).max(), rel=1e-9)


def test_frames_keep_cell_and_stress(tmp_path):
    start = crystal()
    before = start.copy()
    result = relax(start, EMT(), cell="full", trajectory=tmp_path / "run.traj")
    assert start == before and start.calc is None
    with Trajectory(tmp_path / "run.traj") as frames:
        assert [frame.cell.volume for frame in frames] == [step.volume for step in result.history]
        assert [tuple(frame.get_stress()) for frame in frames] == [step.stress for step in result.history]
        np.testing.assert_array_equal(frames[-1].cell, result.atoms.cell)
    np.testing.assert_array_equal(result.atoms.get_stress(), result.history[-1].stress)


class Runaway(EMT):
    """EMT under a tension that never ends, or a pressure."""

    def __init__(self, tension: float) -> None:
        super().__init__()
        self.tension = tension
        self.volumes: list[float] = []

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.volumes.append(atoms.cell.volume)
        self.results["stress"] = self.tension * np.array([1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("tension", [5.0, -5.0])
def test_a_cell_that_runs_away_is_stopped_and_what_was_good_is_kept(tension, tmp_path):
    calculator = Runaway(tension)
    with pytest.warns(EnergyRiseWarning, match="energy rose by"):
        result = relax(bulk("Cu"), calculator, cell="full", trajectory=tmp_path / "run.traj")
    assert result.reason == "failed" and not result.converged
    assert re.match(
        rf"stopped after step {result.steps}: the cell was stretched by factors from [\d.]+ to [\d.]+ of its first "
        r"lengths, beyond 0\.67 and 1\.5: it collapses or falls apart; start",
        result.message,
    )
    stretch = (np.array(calculator.volumes) / bulk("Cu").cell.volume) ** (1 / 3)
    assert 1 / LARGEST_STRETCH <= stretch.min() <= stretch.max() <= LARGEST_STRETCH  # nothing beyond was evaluated
    assert result.atoms.cell.volume == result.history[-1].volume
    with Trajectory(tmp_path / "run.traj") as frames:
        assert len(frames) == len(result.history) > 1


class StressNotFinite(EMT):
    calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        if self.calls > 3:
            self.results["stress"] = np.full(6, np.nan)


def test_a_stress_that_is_not_finite_ends_the_relaxation():
    expected = relax(crystal(), EMT(), cell="full", steps=2)
    result = relax(crystal(), StressNotFinite(), cell="full")
    assert result.reason == "failed"
    assert re.match(r"stopped after step 2: the stress \(nan, .*\) eV/Å³ at step 3 is not finite", result.message)
    assert result.history == expected.history
    np.testing.assert_array_equal(result.atoms.cell, expected.atoms.cell)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell": "cubic"}, f"cell is 'cubic'; it must be one of {', '.join(CELLS)}"),
        ({"cell": "full", "smax": 0.0}, "smax is 0.0 eV/Å³; it must be a positive number"),
        ({"cell": "full", "smax": float("nan")}, "smax is nan eV/Å³; it must be a positive number"),
        ({"cell": "full", "pressure_GPa": float("inf")}, "the pressure is inf GPa; it must be a finite number"),
        ({"cell": "in-plane", "pressure_GPa": 1.0}, "a cell that is 'in-plane' has no volume that answers to it"),
        ({"pressure_GPa": 1.0}, "a cell that is 'fixed' has no volume that answers to it"),
    ],
)
def test_bad_options(settings, message):
    with pytest.raises(InputError, match=re.escape(message)):
        relax(crystal(), EMT(), **settings)


def without_periodicity(*pbc: bool) -> Atoms:
    atoms = slab()
    atoms.pbc = pbc
    return atoms


def flat() -> Atoms:
    return fcc111("Cu", (1, 1, 2))


def bonded() -> Atoms:
    atoms = crystal()
    atoms.set_constraint(FixBondLength(0, 1))
    return atoms


@pytest.mark.parametrize(
    ("atoms", "cell", "message"),
    [
        (without_periodicity(True, True, False), "full", "cannot relax in full: Cu4 must be periodic along its three"),
        (
            without_periodicity(True, True, False),
            "isotropic",
            "its pbc is [True, True, False]; set pbc, or choose 'in-p",
        ),
        (without_periodicity(True, False, True), "in-plane", "in the plane: Cu4 must be periodic along its first two"),
        (flat(), "in-plane", "has no volume, and so no stress; give it three vectors"),
        (bonded(), "full", "the constraint FixBondLengths, which means nothing while the cell changes; remove it"),
    ],
)
def test_structures_whose_cell_cannot_relax(atoms, cell, message):
    with pytest.raises(InputError, match=re.escape(message)):
        relax(atoms, EMT(), cell=cell)


def test_in_plane_needs_no_periodicity_across():
    assert relax(without_periodicity(True, True, False), EMT(), cell="in-plane").converged


def test_direct_forces_have_no_stress_to_relax_by(loader):
    with pytest.raises(InputError, match=r"needs the stress, .* the model 'default' has no stress.*--forces gradient"):
        relax(bulk("Cu"), ESCNCalculator(), cell="full")
    assert relax(bulk("Cu"), ESCNCalculator(forces="gradient"), cell="full").converged


def test_another_calculator_of_ase():
    argon = bulk("Ar", a=1.5 * 3.4)
    calculator = LennardJones(sigma=3.4, epsilon=0.0104, rc=10.0, smooth=True)
    result = relax(argon, calculator, cell="isotropic", smax=1e-8, optimizer="BFGSLineSearch")
    assert result.converged
    length = result.atoms.cell.lengths()[0]
    assert length == pytest.approx(scanned_lattice_constant(result.atoms, calculator), rel=1e-4)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return write_smooth_model(tmp_path_factory.mktemp("cell") / "model")


def test_lattice_constant_of_a_network_is_that_of_a_scan(network):
    calculator = ESCNCalculator(network, dtype="float64", device="cpu")
    result = relax(bulk("Ag", a=5.6), calculator, cell="full", smax=1e-7)
    assert result.converged
    np.testing.assert_allclose(
        result.atoms.cell.lengths(), scanned_lattice_constant(result.atoms, calculator), rtol=1e-4
    )


@pytest.mark.parametrize("rattle", [0.0, 0.1])
def test_kept_neighbours_follow_the_cell(network, tmp_path, rattle):
    """While the cell shrinks, a network that keeps candidates sees what a fresh one sees, to the last bit."""
    atoms = bulk("Ag", a=5.9, cubic=True)
    atoms.rattle(rattle, seed=3)
    calculator = ESCNCalculator(network, dtype="float64", device="cpu", skin=0.2)
    result = relax(atoms, calculator, cell="full", steps=12, trajectory=tmp_path / "run.traj")
    assert result.atoms.cell.volume < 0.95 * atoms.cell.volume
    assert calculator._search.reuses > 0 and calculator._search.searches > 1
    with Trajectory(tmp_path / "run.traj") as frames:
        for frame, step in zip(frames, result.history, strict=True):
            fresh = frame.copy()
            fresh.calc = ESCNCalculator(network, dtype="float64", device="cpu")
            assert fresh.get_potential_energy() == step.energy
            assert tuple(fresh.get_stress()) == step.stress
