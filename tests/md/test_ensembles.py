"""Each ensemble is what its name says: conserved energy, canonical kinetic energy, the asked pressure."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk, fcc111
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixCom
from scipy.optimize import minimize_scalar

from escn_calc.md import ENSEMBLES, run_md
from escn_calc.md.integrators import build_integrator, set_temperature
from escn_calc.md.settings import check_settings
from tests.md.potentials import PairPotential, crystal, half_fixed


def with_centre_held():
    atoms = crystal()
    atoms.set_constraint(FixCom())
    return atoms


def series(name: str, atoms, **options) -> np.ndarray:
    """Run and return one number of every logged step; the first tenth is left out."""
    steps = []
    result = run_md(atoms, PairPotential(), progress=steps.append, **options)
    assert result.finished, result.message
    return np.array([getattr(step, name) for step in steps])[len(steps) // 10 :]


def mean_and_error(values: np.ndarray, blocks: int = 20) -> tuple[float, float]:
    """Mean, and its standard error from block averages much longer than any correlation."""
    means = np.array([block.mean() for block in np.array_split(values, blocks)])
    return float(values.mean()), float(means.std(ddof=1) / np.sqrt(blocks))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_runs_with_a_calculator_of_ase(ensemble):
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    before = atoms.copy()
    result = run_md(atoms, EMT(), ensemble=ensemble, steps=20, every=5)
    assert (result.reason, result.message, result.steps, result.time_ps) == ("finished", "", 20, 0.02)
    assert result.finished and result.notes == ()
    assert result.steps_per_s > 0
    assert result.ns_per_day == pytest.approx(result.steps_per_s * 1e-6 * 86400)
    assert result.last.temperature_K == pytest.approx(result.atoms.get_temperature())
    assert result.last.potential == result.atoms.get_potential_energy()
    check = result.atoms.copy()
    check.calc = EMT()
    np.testing.assert_allclose(result.atoms.get_forces(), check.get_forces(), atol=1e-12)
    assert not np.array_equal(result.atoms.positions, atoms.positions)
    assert atoms == before and atoms.calc is None and not atoms.has("momenta")
    assert (result.drift is None) == (result.drift_error is None) == (ensemble != "nve")
    assert (result.last.volume is None) == (result.last.pressure_GPa is None) == (not ensemble.startswith("npt"))


def test_energy_is_conserved_to_second_order():
    worst = {}
    for timestep in (1.0, 2.0, 4.0):
        total = series("total", crystal(), steps=int(400 / timestep), every=1, timestep_fs=timestep)
        worst[timestep] = np.abs(total - total.mean()).max()
    assert worst[4.0] < 0.01 * 32 * 0.039
    assert np.log2(worst[2.0] / worst[1.0]) == pytest.approx(2, abs=0.3)
    assert np.log2(worst[4.0] / worst[2.0]) == pytest.approx(2, abs=0.3)


def test_slab_with_adsorbate_conserves_energy():
    slab = fcc111("Cu", (2, 2, 3), vacuum=8.0)
    result = run_md(slab, EMT(), steps=300, timestep_fs=2.0)
    assert abs(result.drift) < 0.5 + 3 * result.drift_error
    assert result.notes == ()


@pytest.mark.parametrize("structure", [crystal, half_fixed, with_centre_held])
def test_initial_momenta(structure):
    atoms = run_md(structure(), PairPotential(), steps=1, every=1, timestep_fs=0.2, temperature_K=500, seed=3).atoms
    again = run_md(structure(), PairPotential(), steps=1, every=1, timestep_fs=0.2, temperature_K=500, seed=3).atoms
    other = run_md(structure(), PairPotential(), steps=1, every=1, timestep_fs=0.2, temperature_K=500, seed=4).atoms
    np.testing.assert_array_equal(atoms.get_momenta(), again.get_momenta())
    assert not np.allclose(atoms.get_momenta(), other.get_momenta())
    freedom = atoms.get_number_of_degrees_of_freedom()
    assert atoms.get_temperature() == pytest.approx(500, rel=4 * np.sqrt(2 / freedom))
    if structure is half_fixed:
        assert (atoms.get_momenta()[structure().constraints[0].index] == 0).all()
    else:
        np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-12)


def test_own_momenta_are_kept():
    atoms = crystal()
    atoms.set_momenta(np.tile([0.0, 0.0, 2.0], (32, 1)))
    result = run_md(atoms, PairPotential(), steps=1, timestep_fs=0.2)
    np.testing.assert_allclose(result.atoms.get_momenta().mean(axis=0), [0, 0, 2.0], atol=1e-12)


def test_global_random_numbers_are_left_alone():
    state = np.random.get_state()[1].copy()
    for ensemble in ("langevin", "bussi"):
        run_md(crystal(), PairPotential(), ensemble=ensemble, steps=2)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


KINETIC_ENERGY = [
    ("langevin", crystal, 96),
    ("langevin", half_fixed, 48),
    ("bussi", half_fixed, 48),
    ("bussi", with_centre_held, 93),
    ("nose-hoover", half_fixed, 48),
    ("nose-hoover", with_centre_held, 93),
]


@pytest.mark.parametrize(("ensemble", "structure", "freedom"), KINETIC_ENERGY)
def test_kinetic_energy_is_canonical(ensemble, structure, freedom, record_figure):
    """f degrees of freedom: the kinetic energy has mean f kT/2 and variance f (kT)²/2."""
    temperature = 300.0
    options = {"steps": 6000, "every": 2, "timestep_fs": 2.0, "temperature_K": temperature}
    kinetic = series("kinetic", structure(), ensemble=ensemble, thermostat_time_fs=30.0, seed=5, **options)
    thermal = units.kB * temperature
    reduced = kinetic / thermal
    mean, mean_error = mean_and_error(reduced)
    variance, variance_error = mean_and_error((reduced - freedom / 2) ** 2)
    record_figure(
        f"kinetic energy, {ensemble} with {freedom} degrees of freedom",
        f"mean {mean / (freedom / 2):.4f} ± {mean_error / (freedom / 2):.4f}, "
        f"variance {variance / (freedom / 2):.3f} ± {variance_error / (freedom / 2):.3f} of theory",
    )
    assert mean_error < 0.01 * freedom
    assert abs(mean - freedom / 2) < 3 * mean_error
    assert abs(variance - freedom / 2) < 3 * variance_error


@pytest.mark.parametrize("ensemble", ["nve", "langevin", "bussi", "nose-hoover"])
def test_forces_on_fixed_atoms_do_not_matter(ensemble):
    fixed = half_fixed().constraints[0].index

    class Pulling(PairPotential):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            self.results["forces"][fixed] = 5.0

    first = run_md(half_fixed(), PairPotential(), ensemble=ensemble, steps=30)
    second = run_md(half_fixed(), Pulling(), ensemble=ensemble, steps=30)
    np.testing.assert_array_equal(first.atoms.positions, second.atoms.positions)
    np.testing.assert_array_equal(first.atoms.positions[fixed], half_fixed().positions[fixed])


@pytest.mark.parametrize("ensemble", ["langevin", "bussi", "nose-hoover", "npt", "npt-anisotropic"])
def test_ramp_ends_at_its_end(ensemble):
    options = {"steps": 1000, "every": 1, "timestep_fs": 2.0, "thermostat_time_fs": 20.0, "barostat_time_fs": 400.0}
    temperature = series("temperature_K", crystal(), ensemble=ensemble, temperature_K=(50.0, 350.0), seed=2, **options)
    assert temperature[:200].mean() == pytest.approx(50 + 300 * 0.2, rel=0.2)
    assert temperature[-200:].mean() == pytest.approx(50 + 300 * 0.9, rel=0.2)


@pytest.mark.parametrize("ensemble", ["langevin", "bussi", "nose-hoover", "npt", "npt-anisotropic"])
def test_targets_of_a_ramp(ensemble):
    """Step k of n runs at the temperature k/n along the ramp, in thermostat and barostat alike."""
    settings = settings_of(ensemble, steps=4, temperature_K=(100.0, 300.0))
    assert [settings.temperature_at(step) for step in range(5)] == [100, 150, 200, 250, 300]
    atoms = crystal()
    atoms.set_momenta(np.ones((32, 3)))
    integrator = build_integrator(atoms, settings, np.random.default_rng(0))
    set_temperature(integrator, 150.0)
    thermal = units.kB * 150
    if ensemble == "langevin":
        assert integrator.temp == pytest.approx(thermal)
    elif ensemble == "bussi":
        assert integrator.target_kinetic_energy == pytest.approx(96 / 2 * thermal)
    else:
        parts = [integrator._thermostat, *([integrator._barostat] if settings.npt else [])]
        assert [part._kT for part in parts] == pytest.approx([thermal] * len(parts))


def test_the_first_step_of_a_ramp_is_along_it(monkeypatch):
    seen = []

    def recorded(integrator, temperature):
        seen.append(temperature)
        set_temperature(integrator, temperature)

    monkeypatch.setattr("escn_calc.md.dynamics.set_temperature", recorded)
    run_md(crystal(), PairPotential(), ensemble="langevin", steps=4, temperature_K=(100.0, 300.0))
    assert seen == [150, 200, 250, 300]


@pytest.mark.parametrize("ramp", [(100.0, 400.0), (400.0, 100.0)])
@pytest.mark.parametrize("ensemble", ["nose-hoover", "npt", "npt-anisotropic"])
def test_masses_are_those_of_the_hottest_temperature(ensemble, ramp):
    def masses(temperature):
        settings = settings_of(ensemble, temperature_K=temperature)
        integrator = build_integrator(crystal(), settings, np.random.default_rng(0))
        set_temperature(integrator, settings.start_temperature_K)
        parts = [integrator._thermostat._Q]
        return np.concatenate([*parts, *([integrator._barostat._R] if settings.npt else [])])

    np.testing.assert_array_equal(masses(ramp), masses(400.0))


def settings_of(ensemble, **options):
    numbers = {"steps": 1, "timestep_fs": 1.0, "temperature_K": 300.0, "pressure_GPa": 0.0, "seed": 0}
    couplings = {"thermostat_time_fs": 100.0, "barostat_time_fs": 100.0, "every": 1, "state_every": 1}
    return check_settings(ensemble=ensemble, **{**numbers, **couplings, **options})


@pytest.mark.parametrize("structure", [half_fixed, with_centre_held])
def test_logged_temperature_counts_what_can_move(structure):
    steps = []
    result = run_md(structure(), PairPotential(), steps=20, every=5, progress=steps.append)
    freedom = {half_fixed: 48, with_centre_held: 93}[structure]
    for step in steps:
        assert step.temperature_K == pytest.approx(2 * step.kinetic / (freedom * units.kB))
    assert result.last.temperature_K == pytest.approx(result.atoms.get_temperature())


def test_rates_are_those_of_this_call(tmp_path):
    state = tmp_path / "a.npz"
    run_md(crystal(), PairPotential(), steps=400, state=state)
    result = run_md(crystal(), PairPotential(), steps=405, timestep_fs=1.0, state=state, resume=True)
    assert result.steps_per_s == pytest.approx(5 / result.wall_time_s)
    assert result.ns_per_day == pytest.approx(5e-6 / result.wall_time_s * 86400)


@pytest.mark.parametrize("ensemble", ["npt", "npt-anisotropic"])
def test_pressure_and_volume(ensemble, record_figure):
    """At 50 K the mean volume is that of the static lattice under the same pressure, and the mean pressure is it."""
    pressure = 2.0

    def enthalpy(lattice_constant: float) -> float:
        atoms = bulk("Cu", "fcc", a=lattice_constant, cubic=True) * (2, 2, 2)
        atoms.calc = PairPotential()
        return atoms.get_potential_energy() + pressure * units.GPa * atoms.get_volume()

    static = 8 * minimize_scalar(enthalpy, bracket=(3.6, 3.7)).x ** 3
    atoms = bulk("Cu", "fcc", a=static ** (1 / 3) / 2 * 1.002, cubic=True) * (2, 2, 2)
    options = {"steps": 2000, "every": 1, "timestep_fs": 3.0, "temperature_K": 50.0, "pressure_GPa": pressure}
    steps = []
    result = run_md(atoms, PairPotential(), ensemble=ensemble, progress=steps.append, **options)
    assert result.finished, result.message
    volumes = np.array([step.volume for step in steps])[500:]
    pressures = np.array([step.pressure_GPa for step in steps])[500:]
    mean, error = mean_and_error(pressures)
    record_figure(f"{ensemble} at {pressure} GPa", f"{mean:.3f} ± {error:.3f} GPa, V/V0 {volumes.mean() / static:.4f}")
    assert volumes.mean() == pytest.approx(static, rel=5e-3)
    assert error < 0.2
    assert abs(mean - pressure) < 3 * error
