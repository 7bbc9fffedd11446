"""Runs that break stop with the last good frame and say why; no file ever holds a number that is not finite."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io import read

from escn_calc.errors import CalculationError, InputError
from escn_calc.md import EnergyDriftWarning, read_log, run_md
from escn_calc.md.drift import FEWEST_BLOCKS, MOST_BLOCKS, DriftMeter, RunningMean
from escn_calc.md.guards import ISOLATION, isolated_atoms
from tests.md.potentials import Misbehaving, PairPotential, crystal


def set_force(value: float):
    def change(results):
        results["forces"][5, 1] = value

    return change


def set_energy(value: float):
    def change(results):
        results["energy"] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_force(np.nan), r"the force of atom 5 \(Cu\) along y is nan at step 10; try a timestep below 1 fs"),
        (set_force(-np.inf), r"the force of atom 5 \(Cu\) along y is -inf at step 10"),
        (set_force(2e3), r"the force on atom 5 \(Cu\) is 2000 eV/Å, above 1000 eV/Å at step 10"),
        (set_energy(np.nan), r"the energy is nan eV at step 10"),
        (set_energy(5.0), r"the total energy changed by \d.* eV in one step, more than 1 eV at step 10"),
    ],
)
def test_explosion(run, tmp_path, change, message):
    result = run(calculator=Misbehaving(10, change))
    assert result.reason == "exploded" and not result.finished
    assert re.match(message, result.message), result.message
    assert result.steps == 9 and np.isfinite(result.atoms.get_forces()).all()
    check_files_are_finite(tmp_path, [0, 4, 8])


def test_a_wild_timestep_explodes(run, tmp_path):
    with pytest.warns(match="vibrations of light atoms"):
        result = run(timestep_fs=50.0, temperature_K=3000, every=1, steps=400)
    assert result.reason == "exploded"
    assert result.last == result.last and math.isfinite(result.last.total)
    check_files_are_finite(tmp_path, list(range(result.steps + 1)))


def test_a_hot_run_may_be_hot():
    atoms = crystal()
    atoms.set_momenta(np.random.default_rng(1).normal(0, 20.0, (32, 3)))
    assert atoms.get_temperature() > 50_000
    assert run_md(atoms, PairPotential(), steps=1, timestep_fs=0.2).finished


def test_a_run_that_heats_up_explodes():
    class Pushing(PairPotential):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            self.results["forces"] = self.results["forces"] + 20 * atoms.get_momenta()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EnergyDriftWarning)
        result = run_md(crystal(), Pushing(), steps=500, ensemble="langevin", thermostat_time_fs=1e5)
    assert result.reason == "exploded" and "the temperature is" in result.message


def check_files_are_finite(folder, steps):
    frames = read(folder / "a.traj", ":")
    log = read_log(folder / "a.csv")
    assert [frame.info["step"] for frame in frames] == log["step"].tolist() == steps
    for column in log.values():
        assert np.isfinite(column).all()
    for frame in frames:
        for values in (frame.positions, frame.get_momenta(), frame.get_forces(), frame.get_potential_energy()):
            assert np.isfinite(values).all()
    with np.load(folder / "a.npz") as state:
        assert all(np.isfinite(state[name]).all() for name in state.files)


def escaping() -> Atoms:
    """A small cluster, of which the last atom flies away."""
    atoms = Atoms("Cu5", [[0, 0, 0], [2.6, 0, 0], [1.3, 2.25, 0], [1.3, 0.75, 2.1], [1.3, 0.75, 5.5]])
    atoms.set_momenta([[0, 0, 0]] * 4 + [[0, 0, 63.5 * 0.5]])
    return atoms


def test_evaporation(run, tmp_path):
    result = run(escaping(), steps=2000)
    assert result.reason == "evaporated"
    assert re.match(r"atom 4 \(Cu\) has no other atom within 6 Å at step \d+; .* lower temperature", result.message)
    check_files_are_finite(tmp_path, list(range(0, result.steps + 1, 4)))
    assert not isolated_atoms(result.atoms.positions, np.zeros((3, 3)), np.zeros(3, bool)).any()
    assert f"at step {result.steps + 4};" in result.message


def test_atoms_that_start_alone_may_stay_alone(run):
    atoms = escaping()
    atoms.positions[4, 2] += 10
    assert run(atoms).finished


@pytest.mark.parametrize("pbc", [False, True])
def test_isolation_counts_images_of_others(pbc):
    positions = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 7.0], [7.9, 7.9, 0.5]])
    alone = isolated_atoms(positions, np.diag([8.0, 8.0, 20.0]), np.array([pbc] * 3))
    assert alone.tolist() == [not pbc, True, not pbc]
    assert not isolated_atoms(np.array([[0, 0, 0], [0, 0, ISOLATION - 1e-6]]), np.zeros((3, 3)), np.zeros(3)).any()


def test_an_atom_is_no_company_to_itself():
    assert isolated_atoms(np.zeros((1, 3)), np.eye(3) * 3, np.ones(3, dtype=bool)).tolist() == [True]


def test_failed_evaluation(run, tmp_path):
    result = run(calculator=Misbehaving(6, error=CalculationError("no more memory")))
    assert (result.reason, result.message, result.steps) == ("failed", "stopped after step 5: no more memory", 5)
    check_files_are_finite(tmp_path, [0, 4])


def test_state_that_cannot_be_saved(run, monkeypatch):
    calls = []

    def replace(source, target):
        calls.append(target)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", replace)
    result = run()
    assert result.reason == "failed" and result.steps == 10
    assert result.message.endswith("its state was not saved: [Errno 28] No space left on device")


@pytest.mark.parametrize(
    ("calculator", "error", "message"),
    [
        (Misbehaving(0, set_force(np.nan)), CalculationError, "the run cannot start: the force of atom 5"),
        (Misbehaving(0, set_force(3e3)), InputError, "the run cannot start: the force on atom 5 .* relax"),
        (Misbehaving(0, error=CalculationError("bad element")), CalculationError, "bad element"),
    ],
)
def test_a_start_that_cannot_be_used(run, tmp_path, calculator, error, message):
    with pytest.raises(error, match=message):
        run(calculator=calculator)
    assert list(tmp_path.iterdir()) == []


class Rotating(Calculator):
    """A force field that is no gradient: every atom is pushed around the axis through its first place."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if not hasattr(self, "home"):
            self.home = atoms.get_positions()
        away = atoms.positions - self.home
        spring = 5.0
        turn = np.cross([0, 0, 0.2], away)
        self.results = {"energy": float(spring / 2 * (away**2).sum()), "forces": -spring * away + turn}


class Direct(Rotating):
    """The same, with the sign by which models of this package tell what their forces are."""

    class Potential:
        forces = "direct"

    potential = Potential()


@pytest.mark.parametrize(
    ("calculator", "cause"),
    [
        (Rotating(), "try a timestep below 1 fs; are the forces the gradient of the energy?"),
        (Direct(), "direct forces are not the gradient of the energy; use forces='gradient'"),
    ],
)
def test_drift_is_reported_by_name(calculator, cause):
    message = r"the total energy drifts by [+-][\d.]+ ± [\d.]+ meV/atom/ps: "
    with pytest.warns(EnergyDriftWarning, match=message) as seen:
        result = run_md(crystal(), calculator, steps=1000)
    assert abs(result.drift) > 1 and abs(result.drift) > 3 * result.drift_error
    assert result.notes == (str(seen[0].message),) and result.notes[0].endswith(cause)
    assert seen[0].filename == __file__


def test_short_runs_are_not_accused():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_md(crystal(), Rotating(), steps=99).notes == ()


def test_drift_of_a_line_is_its_slope():
    meter = DriftMeter()
    for step in range(1000):
        meter.add(step * 1e-3, -35_000 + 0.002 * step * 1e-3)
    slope, error = meter.drift()
    assert slope == pytest.approx(2.0, rel=1e-6) and error < 1e-4


def test_drift_error_covers_correlated_noise():
    """Noise with a correlation time of 20 samples: the slopes of many runs scatter as their errors say."""
    rng = np.random.default_rng(3)
    deviations = []
    for _ in range(150):
        meter, noise = DriftMeter(), 0.0
        for step in range(1200):
            noise = 0.95 * noise + rng.normal(0, 1e-3)
            meter.add(step * 1e-3, noise)
        slope, error = meter.drift()
        deviations.append(slope / error)
    assert 0.8 < np.std(deviations) < 1.4


def test_drift_needs_samples_and_little_memory():
    meter = DriftMeter()
    for step in range(FEWEST_BLOCKS - 1):
        meter.add(step, 1.0)
    assert meter.drift() is None
    meter.add(7, 1.0)
    assert meter.drift() == (0.0, 0.0)
    for step in range(8, 5000):
        meter.add(step, 1.0)
    assert MOST_BLOCKS / 2 <= len(meter.blocks) < MOST_BLOCKS


def test_meters_survive_a_restart():
    rng = np.random.default_rng(4)
    values = rng.normal(size=700)
    whole, parts = DriftMeter(), DriftMeter()
    mean, mean_parts = RunningMean(), RunningMean()
    for step, value in enumerate(values):
        whole.add(step, value)
        parts = DriftMeter.restored(parts.state())
        parts.add(step, value)
        mean.add(value)
        mean_parts = RunningMean(**mean_parts.state())
        mean_parts.add(value)
    assert whole == parts and whole.drift() == parts.drift()
    assert mean == mean_parts
    assert (mean.mean, mean.deviation) == (pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)))
