"""Runs that break stop with the last good frame and say why; no file ever holds a number that is not finite."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms, FixedLine
from ase.io import read

from escn_calc.errors import CalculationError, InputError
from escn_calc.md import EnergyDriftWarning, read_log, run_md
from escn_calc.md.drift import FEWEST_BLOCKS, MOST_BLOCKS, DriftMeter, RunningMean, _error_of_a_walk
from escn_calc.md.frame import measure
from escn_calc.md.guards import ISOLATION, BrokenRunError, Guards, isolated_atoms
from escn_calc.md.settings import check_settings
from tests.md.conftest import contents
from tests.md.potentials import Misbehaving, PairPotential, crystal, half_fixed


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


def alone(positions):
    return isolated_atoms(positions, np.zeros((3, 3)), np.zeros(3, bool))


def test_evaporation(run, tmp_path):
    result = run(escaping(), steps=2000)
    assert result.reason == "evaporated"
    assert re.match(r"atom 4 \(Cu\) has no other atom within 6 Å at step \d+; if atoms are meant", result.message)
    assert f"at step {result.steps}; " in result.message and "timestep" not in result.message
    check_files_are_finite(tmp_path, list(range(0, result.steps + 1, 4)))
    assert alone(result.atoms.positions).tolist() == [False] * 4 + [True]


def test_evaporation_and_resume_end_on_the_same_frame(run, tmp_path):
    stopped = run(escaping(), steps=2000)
    before = contents(tmp_path)
    again = run(escaping(), steps=2000, resume=True)
    assert (again.reason, again.message, again.last) == (stopped.reason, stopped.message, stopped.last)
    assert contents(tmp_path) == before
    last = read(tmp_path / "a.traj")
    for result in (stopped, again):
        assert result.atoms.info["step"] == result.steps == last.info["step"]
        np.testing.assert_array_equal(result.atoms.positions, last.positions)


def test_atoms_that_are_meant_to_leave_may(run, tmp_path):
    assert run(escaping(), steps=2000, stop_on_evaporation=False).finished
    expected = contents(tmp_path)
    assert run(escaping(), steps=2000, overwrite=True).reason == "evaporated"
    assert run(escaping(), steps=2000, resume=True, stop_on_evaporation=False).finished
    assert contents(tmp_path) == expected


@pytest.mark.parametrize(("every", "expected"), [(1, 5), (7, 5), (250, 3)])
def test_neighbours_are_searched_once_in_100_fs(run, monkeypatch, every, expected):
    """At the start, to know who is alone, and at the first logged step of steps 0, 100, 200 and 300."""
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return isolated_atoms(*arguments)

    monkeypatch.setattr("escn_calc.md.guards.isolated_atoms", counted)
    run(steps=399, every=every)
    assert len(calls) == expected


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


def line(repeat: int = 2) -> Atoms:
    """A crystal of which one atom alone moves, along z: one degree of freedom."""
    atoms = crystal(repeat)
    atoms.set_constraint([FixAtoms(range(1, len(atoms))), FixedLine([0], [0, 0, 1])])
    return atoms


def test_few_degrees_of_freedom_fluctuate():
    """A single one passes ten times its mean temperature often, and a chi-squared of 64 never."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EnergyDriftWarning)
        result = run_md(line(), PairPotential(), ensemble="langevin", steps=3000, temperature_K=1200, seed=1)
    assert result.finished, result.message
    guards, frame = guards_and_frame(line(), temperature_K=1200.0)
    with pytest.raises(BrokenRunError, match=r"the temperature is 9e\+04 K, above 77316\.6 K"):
        guards.check(replace(frame, thermodynamics=replace(frame.thermodynamics, temperature_K=9e4)), frame)
    guards.check(replace(frame, thermodynamics=replace(frame.thermodynamics, temperature_K=5e4)), frame)


def guards_and_frame(atoms, **options):
    """The guards of a run that starts from a structure at rest, and its first frame."""
    numbers = {"ensemble": "nve", "steps": 1, "timestep_fs": 1.0, "temperature_K": 300.0, "pressure_GPa": 0.0}
    couplings = {"thermostat_time_fs": 100.0, "barostat_time_fs": 100.0, "seed": 0, "every": 1, "state_every": 1}
    settings = check_settings(**{**numbers, **couplings, **options})
    atoms.calc = PairPotential()
    atoms.set_momenta(np.zeros((len(atoms), 3)))
    frame = measure(atoms, 0, 0.0, stress=False, npt=False)
    return Guards(atoms, settings, direct=False, evaporation=True), frame


def test_one_flying_atom_among_many():
    """108 atoms at 101 eV together have a temperature far below its limit."""
    guards, frame = guards_and_frame(crystal(3), ensemble="langevin")
    for energy in (99.0, 101.0):
        momenta = frame.momenta.copy()
        momenta[7, 1] = np.sqrt(2 * 63.546 * energy)
        if energy < 100:
            guards.check(replace(frame, momenta=momenta), frame)
    with pytest.raises(BrokenRunError, match=r"the kinetic energy of atom 7 \(Cu\) is 101 eV, above 100 eV at step 0"):
        guards.check(replace(frame, momenta=momenta), frame)


def test_the_energy_of_many_atoms_may_jump_further():
    """256 atoms: 2.56 eV."""
    guards, frame = guards_and_frame(crystal(4))
    for jump, message in ((2.5, None), (2.6, "changed by 2.6 eV in one step, more than 2.56 eV")):
        thermodynamics = replace(frame.thermodynamics, total=frame.thermodynamics.total + jump)
        if message is None:
            guards.check(replace(frame, thermodynamics=thermodynamics), frame)
        else:
            with pytest.raises(BrokenRunError, match=message):
                guards.check(replace(frame, thermodynamics=thermodynamics), frame)


def raise_at(step, error):
    def progress(seen):
        if seen.step == step:
            raise error

    return progress


@pytest.mark.parametrize("error", [KeyError("x"), BrokenPipeError(32, "Broken pipe"), ValueError("a mistake")])
def test_errors_of_progress_are_passed_on_with_the_state_saved(run, tmp_path, error):
    run()
    expected = contents(tmp_path)
    with pytest.raises(type(error)) as raised:
        run(progress=raise_at(24, error), overwrite=True)
    assert raised.value is error
    with np.load(tmp_path / "a.npz") as state:
        assert json.loads(state["text"].tobytes())["step"] == 24
    assert run(resume=True).finished
    assert contents(tmp_path) == expected


def test_a_mistake_in_a_calculator_is_passed_on_with_the_state_saved(run, tmp_path):
    run()
    expected = contents(tmp_path)
    with pytest.raises(KeyError, match="Xx"):
        run(calculator=Mistaken(17, error=KeyError("Xx")), overwrite=True)
    with np.load(tmp_path / "a.npz") as state:
        assert json.loads(state["text"].tobytes())["step"] == 16
    assert run(resume=True).finished
    assert contents(tmp_path) == expected


class Mistaken(Misbehaving):
    """Has the name of what it stands in for."""

    name = "pairpotential"


def test_failed_evaluation(run, tmp_path):
    result = run(calculator=Misbehaving(6, error=CalculationError("no more memory")))
    assert (result.reason, result.message, result.steps) == (
        "failed",
        "stopped after step 5: no more memory (evaluation of step 6)",
        5,
    )
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
    assert re.fullmatch(r"stopped after step 10: cannot write '.*/a\.npz': No space left on device", result.message)
    assert re.fullmatch(r"at the end: cannot write '.*/a\.npz': No space left on device", *result.notes)


def test_only_the_last_state_cannot_be_saved(run, monkeypatch):
    calls = []

    def replace(source, target, original=os.replace):
        calls.append(target)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        original(source, target)

    monkeypatch.setattr("os.replace", replace)
    result = run()
    assert (result.reason, result.message, result.steps) == ("finished", "", 40)
    assert "a.npz': No space left on device" in result.notes[0]


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
    assert contents(tmp_path) == {}


def spoil_momentum(atoms):
    atoms.arrays["momenta"][3, 2] = np.nan


def spoil_cell(atoms):
    atoms.cell[0, 0] = np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [(spoil_momentum, r"the momentum of atom 3 \(Cu\) along z is nan"), (spoil_cell, "the cell or the stress is not")],
)
def test_momenta_and_cells_that_are_not_finite(change, message):
    guards, frame = guards_and_frame(crystal())
    atoms = frame.put_into(crystal())
    change(atoms)
    broken = replace(frame, momenta=atoms.get_momenta(), cell=np.array(atoms.cell))
    with pytest.raises(BrokenRunError, match=message):
        guards.check(broken, frame)


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


def slopes_in_errors(energies) -> np.ndarray:
    """Slope by its error of every series of energies in eV per atom, one a femtosecond."""
    found = []
    for series in energies:
        meter = DriftMeter()
        for step, energy in enumerate(series):
            meter.add(step * 1e-3, energy)
        slope, error = meter.drift()
        found.append(slope / error)
    return np.array(found)


@pytest.mark.parametrize("steps", [120, 1000])
def test_a_random_walk_does_not_drift(steps, record_figure):
    """Jumps of the energy in both directions, one in 20 steps or one in each."""
    rng = np.random.default_rng(11)
    for chance in (0.2, 1.0):
        jumps = (rng.random((300, steps)) < chance) * rng.normal(0, 5e-4, (300, steps))
        found = slopes_in_errors(np.cumsum(jumps, axis=1))
        flagged = np.mean(np.abs(found) > 3)
        record_figure(f"random walks of {steps} steps taken for drift, jumps in {chance:.0%}", f"{flagged:.1%}")
        assert flagged <= 0.03
        assert 0.5 < np.median(np.abs(found)) / 0.6745 < 1.2


def test_error_of_the_slope_of_a_random_walk():
    """The closed form against the scatter of slopes, for walks that are sampled once a block."""
    rng = np.random.default_rng(12)
    times = np.arange(60) * 0.5
    slopes, errors = [], []
    for _ in range(2000):
        walk = np.cumsum(rng.normal(size=60))
        slopes.append(np.polyfit(times, walk, 1)[0])
        errors.append(math.sqrt(2 / 3) * _error_of_a_walk(times, walk - np.polyval(np.polyfit(times, walk, 1), times)))
    assert np.std(slopes) == pytest.approx(np.mean(errors), rel=0.05)


def test_a_drift_is_found_in_vibrations_and_under_jumps():
    rng = np.random.default_rng(13)
    time = np.arange(1000) * 1e-3
    phases = rng.uniform(0, 2 * np.pi, (40, 3, 1))
    vibrations = 1e-4 * np.sin(2 * np.pi * time / np.array([0.0301, 0.077, 0.163])[:, None] + phases).sum(axis=1)
    assert (slopes_in_errors(vibrations + 1.5e-3 * time) > 3).all()
    jumps = (rng.random((40, 1000)) < 0.05) * rng.normal(0, 5e-4, (40, 1000))
    assert (slopes_in_errors(np.cumsum(jumps, axis=1) + 0.03 * time) > 3).mean() > 0.9


def test_drift_error_of_white_noise_is_that_of_a_regression():
    """Eight samples: residuals have six degrees of freedom left."""
    meter, energies = DriftMeter(), [0.0, 1.0, -1.0, 0.5, -0.5, 1.0, -1.0, 0.0]
    for step, energy in enumerate(energies):
        meter.add(step, 1e-3 * energy)
    fit, covariance = np.polyfit(range(8), energies, 1, cov=True)
    with patch("escn_calc.md.drift.WALK", 0.0):
        assert meter.drift() == (pytest.approx(fit[0]), pytest.approx(math.sqrt(covariance[0, 0])))


def test_drift_below_three_errors_is_not_reported(monkeypatch):
    for error, notes in ((0.9, 1), (1.1, 0)):
        monkeypatch.setattr("escn_calc.md.drift.DriftMeter.drift", lambda meter, error=error: (3.0, error))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EnergyDriftWarning)
            assert len(run_md(crystal(), PairPotential(), steps=100).notes) == notes


def test_drift_counts_atoms_that_can_move():
    """Half of the atoms are fixed: the energy is shared by the other 16."""
    totals = []
    result = run_md(half_fixed(), Rotating(), steps=60, every=1, progress=lambda step: totals.append(step.total))
    meter = DriftMeter()
    for step, total in enumerate(totals):
        meter.add(step * 1e-3, total / 16)
    assert (result.drift, result.drift_error) == pytest.approx(meter.drift(), rel=1e-6)


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
