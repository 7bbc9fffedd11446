"""A relaxation ends in one of four ways, and always with the last frame whose forces are known."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import Trajectory
from ase.optimize import FIRE

from escn_calc import ESCNCalculator
from escn_calc.errors import CalculationError, InputError
from escn_calc.relax import OPTIMIZERS, EnergyRiseWarning, RelaxResult, RelaxStep, relax
from escn_calc.relax_result import (
    DISPLACEMENT_WORTH_A_NOTE,
    ENERGY_RISE_WORTH_A_NOTE,
    displacement_notes,
    energy_notes,
)


class Stopping(EMT):
    """EMT that raises an error in one of its evaluations, counted from 0."""

    def __init__(self, error: BaseException, at: int) -> None:
        super().__init__()
        self.error, self.at, self.calls = error, at, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        self.calls += 1
        if self.calls > self.at:
            raise self.error
        super().calculate(atoms, properties, system_changes)


class NotFinite(Stopping):
    """EMT whose forces become NaN instead."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        self.calls += 1
        EMT.calculate(self, atoms, properties, system_changes)
        if self.calls > self.at:
            self.results["forces"] = np.full((len(atoms), 3), np.nan)


class EnergyOnly(Calculator):
    implemented_properties = ["energy"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0}


@pytest.fixture
def slab() -> Atoms:
    atoms = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    add_adsorbate(atoms, "H", 1.3, "fcc")
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 2))
    atoms.info.clear()
    return atoms


def free_fmax(atoms: Atoms) -> float:
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())


def test_converged(slab):
    result = relax(slab, EMT(), fmax=0.03)
    assert result.converged and result.reason == "converged" and result.message == ""
    check = result.atoms.copy()
    check.calc = EMT()
    assert result.fmax == pytest.approx(free_fmax(check), rel=1e-9)
    assert result.fmax < 0.03
    assert result.energy == pytest.approx(check.get_potential_energy(), rel=1e-12)
    assert result.steps == result.history[-1].index == len(result.history) - 1
    assert [step.index for step in result.history] == list(range(result.steps + 1))
    assert result.wall_time_s > 0
    moved = np.linalg.norm(result.atoms.positions - slab.positions, axis=1)
    assert result.max_displacement == pytest.approx(moved.max())
    assert (moved[slab.get_tags() == 2] == 0).all()


def test_first_frame_is_the_input(slab):
    reference = slab.copy()
    reference.calc = EMT()
    first = relax(slab, EMT(), steps=0).history[0]
    assert first == RelaxStep(0, reference.get_potential_energy(), free_fmax(reference))


def test_fmax_leaves_out_fixed_atoms(slab):
    slab.positions[slab.get_tags() == 2] += [[0.3, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    result = relax(slab, EMT(), fmax=0.03)
    everywhere = np.linalg.norm(result.atoms.get_forces(apply_constraint=False), axis=1).max()
    assert result.converged
    assert everywhere > 10 * result.fmax


def test_same_path_as_the_optimiser_alone(slab):
    result = relax(slab, EMT(), optimizer="FIRE", fmax=0.05)
    alone = slab.copy()
    alone.calc = EMT()
    with FIRE(alone, logfile=None) as search:
        search.run(fmax=0.05)
    assert result.steps == search.nsteps
    np.testing.assert_array_equal(result.atoms.positions, alone.positions)


def test_input_is_not_changed(slab):
    before = slab.copy()
    relax(slab, EMT(), steps=3)
    assert slab == before and slab.calc is None


def test_step_limit(slab):
    result = relax(slab, EMT(), fmax=1e-6, steps=2)
    assert (result.reason, result.converged, result.steps, len(result.history)) == ("step limit", False, 2, 3)


def test_already_converged_takes_no_step(slab):
    relaxed = relax(slab, EMT(), fmax=0.03).atoms
    again = relax(relaxed, EMT(), fmax=0.03, steps=0)
    assert again.converged and again.steps == 0 and again.max_displacement == 0.0


def test_trajectory_and_progress_have_every_frame(slab, tmp_path):
    seen: list[RelaxStep] = []
    path = tmp_path / "run.traj"
    path.write_text("an older file")
    result = relax(slab, EMT(), steps=4, fmax=1e-6, trajectory=path, progress=seen.append)
    assert tuple(seen) == result.history
    with Trajectory(path) as frames:
        assert [frame.get_potential_energy() for frame in frames] == [step.energy for step in seen]
        assert [free_fmax(frame) for frame in frames] == [step.fmax for step in seen]
        np.testing.assert_array_equal(frames[-1].positions, result.atoms.positions)


def test_last_frame_carries_its_results(slab):
    atoms = relax(slab, EMT(), steps=2, fmax=1e-6).atoms
    assert atoms.calc.name == "emt"
    assert atoms.constraints
    assert np.linalg.norm(atoms.get_forces(apply_constraint=False)[slab.get_tags() == 2]) > 0
    atoms.positions[0] += 1.0
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energy()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer(slab, optimizer):
    result = relax(slab, EMT(), optimizer=optimizer, fmax=0.05, steps=200)
    assert result.converged and result.steps > 0


def test_optimizer_name_in_any_case(slab):
    assert relax(slab, EMT(), optimizer="bfgs", steps=1).steps == 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [("BGFS", "did you mean BFGS"), ("LBFSG", "did you mean LBFGS"), ("xxx", "known are BFGS, BFGSLine")],
)
def test_unknown_optimizer(slab, name, hint):
    with pytest.raises(InputError, match=f"unknown optimizer '{name}'; {hint}"):
        relax(slab, EMT(), optimizer=name)


@pytest.mark.parametrize("optimizer", [FIRE, None])
def test_optimizer_that_is_not_a_name(slab, optimizer):
    with pytest.raises(InputError, match=r"optimizer is .*; give the name of one: BFGS, "):
        relax(slab, EMT(), optimizer=optimizer)


@pytest.mark.parametrize("calculator", ["default", None, EMT])
def test_calculator_that_is_none(slab, calculator):
    with pytest.raises(InputError, match=r"calculator is .*; pass a calculator of ASE, such as ESCNCalculator\(\)"):
        relax(slab, calculator)


@pytest.mark.parametrize("fmax", [0.0, -0.1, float("nan"), float("inf")])
def test_bad_fmax(slab, fmax):
    with pytest.raises(InputError, match="it must be a positive number"):
        relax(slab, EMT(), fmax=fmax)


def test_bad_steps(slab):
    with pytest.raises(InputError, match="steps is -1; it must be 0 or more"):
        relax(slab, EMT(), steps=-1)


def test_interrupt_keeps_the_last_frame(slab):
    expected = relax(slab, EMT(), steps=2, fmax=1e-6)
    result = relax(slab, Stopping(KeyboardInterrupt(), at=3), fmax=1e-6)
    assert result.reason == "interrupted" and not result.converged
    assert result.history == expected.history
    np.testing.assert_array_equal(result.atoms.positions, expected.atoms.positions)


@pytest.mark.parametrize(
    ("calculator", "said"),
    [
        (Stopping(CalculationError("structure 0: the energy is nan"), at=3), "step 2: structure 0: the energy is nan"),
        (Stopping(InputError("atoms 0 and 1 overlap"), at=3), "step 2: atoms 0 and 1 overlap"),
        (Stopping(RuntimeError("LineSearch failed!"), at=3), "step 2: LineSearch failed!"),
        (Stopping(ZeroDivisionError("division by zero"), at=3), "step 2: division by zero"),
        (Stopping(OSError(28, "No space left on device"), at=3), "step 2: .*No space left on device"),
        (NotFinite(RuntimeError(), at=3), "step 2: energy .* eV and fmax nan eV/Å at step 3 are not finite"),
    ],
)
def test_failure_keeps_the_last_good_frame(slab, calculator, said):
    expected = relax(slab, EMT(), steps=2, fmax=1e-6)
    result = relax(slab, calculator, fmax=1e-6)
    assert result.reason == "failed" and not result.converged
    assert re.match(f"stopped after {said}", result.message)
    np.testing.assert_array_equal(result.atoms.positions, expected.atoms.positions)
    np.testing.assert_array_equal(result.atoms.get_forces(), expected.atoms.get_forces())
    assert result.history == expected.history


def test_failure_of_the_optimiser_keeps_the_last_good_frame(slab, monkeypatch):
    expected = relax(slab, EMT(), steps=2, fmax=1e-6)
    original, calls = np.linalg.eigh, []

    def eigh(matrix):
        calls.append(matrix)
        if len(calls) == 3:
            raise np.linalg.LinAlgError("Eigenvalues did not converge")
        return original(matrix)

    monkeypatch.setattr(np.linalg, "eigh", eigh)
    result = relax(slab, EMT(), fmax=1e-6)
    assert (result.reason, result.message) == ("failed", "stopped after step 2: Eigenvalues did not converge")
    assert result.history == expected.history
    np.testing.assert_array_equal(result.atoms.positions, expected.atoms.positions)


@pytest.mark.parametrize("error", [CalculationError("the energy is nan"), KeyboardInterrupt()])
def test_without_a_first_frame_the_error_is_raised(slab, error, tmp_path):
    older = tmp_path / "run.traj"
    older.write_text("an older file")
    with pytest.raises(type(error)):
        relax(slab, Stopping(error, at=0), trajectory=older)
    assert older.read_text() == "an older file"


class Uphill(EMT):
    """EMT with its forces reversed and scaled, as a direct force head may have it."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = -self.results["forces"]


NOT_THE_GRADIENT = (
    "these forces are not the gradient of this energy (direct forces, or jumps at the cutoff); do not trust this result"
)


def history_of(*energies: float) -> tuple[RelaxStep, ...]:
    return tuple(RelaxStep(index, energy, 1.0) for index, energy in enumerate(energies))


def test_a_rise_of_the_energy_is_noted(slab):
    with pytest.warns(EnergyRiseWarning, match=r"energy rose by .* eV: these forces are not the gradient"):
        result = relax(slab, Uphill(), fmax=1e-6, steps=5)
    assert result.energy_change == result.history[-1].energy - result.history[0].energy > 0.05
    assert result.notes[0] == f"energy rose by {result.energy_change:.2f} eV: {NOT_THE_GRADIENT}"


class UphillLater(Uphill):
    """Good forces at first, reversed ones after a few evaluations."""

    calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        self.calls += 1
        (Uphill if self.calls > 4 else EMT).calculate(self, atoms, properties, system_changes)


def test_an_end_above_an_earlier_step_is_noted(slab):
    slab.positions[8, 2] += 1.0
    with pytest.warns(EnergyRiseWarning, match=r"energy ends .* eV above step [1-9]"):
        result = relax(slab, UphillLater(), fmax=1e-6, steps=7)
    energies = [step.energy for step in result.history]
    assert result.lowest.index == int(np.argmin(energies)) > 0
    assert result.energy_above_lowest == energies[-1] - min(energies) > 0.05
    assert result.energy_change < 0
    assert result.notes[0] == (
        f"energy ends {result.energy_above_lowest:.2f} eV above step {result.lowest.index}: {NOT_THE_GRADIENT}"
    )


def test_the_lowest_step_is_the_last_of_a_sound_relaxation(slab):
    result = relax(slab, EMT(), fmax=0.03)
    assert result.lowest == result.history[-1] and result.energy_above_lowest == 0.0


def test_energies_above_the_lowest():
    result = RelaxResult(Atoms("Cu"), "step limit", "", history_of(3.0, 1.0, 2.0), 0.0, 0.0)
    assert (result.lowest.index, result.energy_above_lowest) == (1, 1.0)
    assert energy_notes(history_of(3.0, 0.0, ENERGY_RISE_WORTH_A_NOTE)) == ()
    assert energy_notes(history_of(3.0, 0.0, 0.06)) == (f"energy ends 0.06 eV above step 1: {NOT_THE_GRADIENT}",)
    assert energy_notes(history_of(0.0, 0.02, 0.06)) == (f"energy rose by 0.06 eV: {NOT_THE_GRADIENT}",)


def test_a_far_journey_is_noted(slab):
    slab.positions[8, 2] += 2.0
    result = relax(slab, EMT(), fmax=0.05)
    assert result.energy_change < 0
    assert result.notes == (f"atom 8 (H) moved by {result.max_displacement:.2f} Å",)


def test_only_what_passes_the_thresholds_is_noted(slab):
    assert relax(slab, EMT(), fmax=0.03).notes == ()
    assert displacement_notes(np.full(9, DISPLACEMENT_WORTH_A_NOTE), slab) == ()
    assert displacement_notes(np.array([0, 1.2, 0, 0, 0, 0, 1.1, 1.3, 0.9]), slab) == (
        "atom 7 (Cu) moved by 1.30 Å, and 2 more by over 1 Å",
    )


def test_calculator_without_forces(slab):
    with pytest.raises(InputError, match="a relaxation needs forces, and the calculator has none"):
        relax(slab, EnergyOnly())


def test_energy_only_model(slab, loader):
    with pytest.raises(InputError, match=r"needs forces, .*'energy-only' has no forces; it provides energy"):
        relax(slab, ESCNCalculator("energy-only"))


def test_per_atom_energies_are_kept(slab, loader):
    result = relax(slab, ESCNCalculator(), steps=1)
    assert result.atoms.calc.name == "escn"
    assert result.atoms.get_potential_energies().shape == (9,)
