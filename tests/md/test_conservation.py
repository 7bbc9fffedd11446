"""Dynamics with gradient forces of a smooth model: the energy stays, at the order of the integrator, and time reverses.

The model is smooth with random weights; a harmonic tether keeps the structure together.
"""

import numpy as np
import pytest
from ase import units
from ase.build import add_adsorbate, fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.mixing import SumCalculator
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from escn_calc import ESCNCalculator
from escn_calc.md import run_md
from tests.smooth import write_smooth_model

SPRING = 2.0  # eV/Å²
DRIFT_LIMIT = {"float32": 0.05, "float64": 0.001}  # meV/atom/ps
STARTING_TEMPERATURE = 780.0  # more than half of it goes into the potential energy; 300 K stay


class Tether(Calculator):
    """A spring from every atom to where it was at first."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def __init__(self, anchors):
        super().__init__()
        self.anchors = np.array(anchors)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        away = self.atoms.positions - self.anchors
        energy = 0.5 * SPRING * float(np.sum(away**2))
        self.results = {"energy": energy, "free_energy": energy, "forces": -SPRING * away}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_smooth_model(tmp_path_factory.mktemp("models") / "smooth")


@pytest.fixture(scope="module")
def slab(model):
    """Oxygen on Cu(111), relaxed with the model and its tether, and the tether."""
    atoms = fcc111("Cu", size=(2, 2, 2), vacuum=6.0, periodic=True)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    tether = Tether(atoms.positions)
    atoms.calc = SumCalculator([ESCNCalculator(model, dtype="float64"), tether])
    BFGS(atoms, logfile=None).run(fmax=0.02, steps=200)
    atoms.calc = None
    return atoms, tether


def tethered(slab, model, dtype):
    atoms, tether = slab
    return atoms.copy(), SumCalculator([ESCNCalculator(model, dtype=dtype), tether])


def warm(slab, model):
    """A moving slab with its float64 calculator."""
    atoms, atoms.calc = tethered(slab, model, "float64")
    scale = np.sqrt(units.kB * STARTING_TEMPERATURE * atoms.get_masses())[:, None]
    momenta = np.random.default_rng(5).normal(size=(len(atoms), 3)) * scale
    atoms.set_momenta(momenta - momenta.mean(axis=0))
    return atoms


def drift_of(slab, model, dtype, steps, timestep, record_figure):
    atoms, calculator = tethered(slab, model, dtype)
    options = {"steps": steps, "timestep_fs": timestep, "temperature_K": STARTING_TEMPERATURE, "seed": 1}
    result = run_md(atoms, calculator, **options)
    assert result.finished
    record_figure(
        f"NVE drift, {dtype}, {result.time_ps:g} ps of {len(atoms)} atoms, {timestep:g} fs, "
        f"{result.mean_temperature_K:.0f} K",
        f"{result.drift:+.5f} ± {result.drift_error:.5f} meV/atom/ps",
    )
    return result


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DRIFT_LIMIT)
def test_drift_over_5_ps(slab, model, dtype, record_figure):
    result = drift_of(slab, model, dtype, 5000, 1.0, record_figure)
    assert abs(result.drift) <= DRIFT_LIMIT[dtype]
    assert result.drift_error < DRIFT_LIMIT[dtype]
    assert 200 < result.mean_temperature_K < 400


@pytest.mark.parametrize("dtype", DRIFT_LIMIT)
def test_drift_over_a_short_time(slab, model, dtype, record_figure):
    """The short version: a smaller timestep for smaller fluctuations, and the limit of float32 for both."""
    result = drift_of(slab, model, dtype, 600, 0.25, record_figure)
    assert abs(result.drift) <= DRIFT_LIMIT["float32"]
    assert result.drift_error <= DRIFT_LIMIT["float32"]


def test_order_of_the_integrator(slab, model, record_figure):
    """The energy error of velocity Verlet falls with the square of the timestep."""
    errors = []
    for timestep in (2.0, 1.0, 0.5):
        atoms = warm(slab, model)
        dynamics = VelocityVerlet(atoms, timestep * units.fs)
        start = atoms.get_total_energy()
        energies = []
        for _ in range(20):
            for _ in range(int(4.0 / timestep)):
                dynamics.step()
            energies.append(atoms.get_total_energy() - start)
        errors.append(np.sqrt(np.mean(np.square(energies))))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    record_figure("order of velocity Verlet, 2 → 1 → 0.5 fs", ", ".join(f"{order:.3f}" for order in orders))
    assert orders == pytest.approx(2.0, abs=0.1)


def test_time_reversal(slab, model, record_figure):
    atoms = warm(slab, model)
    start = atoms.get_positions()
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    for _ in range(500):
        dynamics.step()
    assert np.abs(atoms.positions - start).max() > 0.1
    atoms.set_momenta(-atoms.get_momenta())
    for _ in range(500):
        dynamics.step()
    error = np.abs(atoms.positions - start).max()
    record_figure("time reversal, 500 + 500 steps of 1 fs", f"{error:.1e} Å")
    assert error <= 1e-8
