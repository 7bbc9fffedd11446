"""Whatever cannot be meant is refused before anything is evaluated or written."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator, CalculatorSetupError
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLengths

from escn_calc.errors import CalculationError, InputError
from escn_calc.md import TimestepWarning, read_log, run_md
from tests.md.conftest import contents, files_in
from tests.md.potentials import Misbehaving, PairPotential, crystal, half_fixed


class WithoutStress(PairPotential):
    implemented_properties = ["energy", "forces"]  # noqa: RUF012


class WithoutForces(PairPotential):
    implemented_properties = ["energy"]  # noqa: RUF012


def massless():
    atoms = crystal()
    atoms.set_masses([0.0] + [1.0] * 31)
    return atoms


def unplaced():
    atoms = crystal()
    atoms.positions[2, 2] = np.nan
    return atoms


def without_height():
    atoms = fcc111("Cu", (2, 2, 2))
    atoms.pbc = True
    return atoms


def all_fixed():
    atoms = crystal()
    atoms.set_constraint(FixAtoms(range(32)))
    return atoms


def with_bond():
    atoms = crystal()
    atoms.set_constraint(FixBondLengths([[0, 1]]))
    return atoms


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ensemble": "NVE "}, "unknown ensemble 'NVE '; did you mean 'nve'?"),
        ({"ensemble": "nose_hoover"}, "did you mean 'nose-hoover'?"),
        ({"ensemble": "andersen2"}, "unknown ensemble 'andersen2'; known are nve, langevin, nose-hoover, bussi, npt"),
        (
            {"ensemble": "npt", "barostat_time_fs": 50.0},
            "barostat_time_fs is 50 fs, but must not be shorter than",
        ),
        (
            {"ensemble": "npt", "pressure_GPa": 1e5},
            "pressure_GPa is 100000, beyond ±1000 GPa; the unit",
        ),
        ({"ensemble": None}, "unknown ensemble None"),
        ({"steps": -1}, "steps is -1; it must be a whole number, 0 or more"),
        ({"steps": 10.5}, "steps is 10.5; it must be a whole number"),
        ({"steps": True}, "steps is True; it must be a whole number"),
        ({"every": 0}, "every is 0; it must be a whole number, 1 or more"),
        ({"state_every": -1}, "state_every is -1; it must be a whole number, 1 or more"),
        ({"seed": -1}, "seed is -1; it must be a whole number, 0 or more"),
        ({"timestep_fs": 0}, "timestep_fs is 0 fs; it must be above 0"),
        ({"timestep_fs": -1.0}, "timestep_fs is -1 fs; it must be above 0"),
        ({"timestep_fs": 50.1}, "timestep_fs is 50.1 fs, more than 50 fs; the unit is the femtosecond"),
        ({"timestep_fs": np.nan}, "timestep_fs is nan; it must be a number in fs"),
        ({"timestep_fs": "1"}, "timestep_fs is '1'; it must be a number in fs"),
        ({"temperature_K": 0}, "temperature_K is 0 K; it must be above 0"),
        ({"temperature_K": -300}, "temperature_K is -300 K; it must be above 0"),
        ({"temperature_K": np.inf}, "temperature_K is inf; it must be a number in K"),
        ({"temperature_K": (300, 0), "ensemble": "bussi"}, "temperature_K is 0 K; it must be above 0"),
        ({"temperature_K": (1, 2, 3), "ensemble": "bussi"}, r"temperature_K is \(1, 2, 3\); give one temperature, or"),
        ({"temperature_K": (100, 300)}, r"a ramp from 100 K to 300 K, but at constant energy \(nve\) nothing holds"),
        ({"thermostat_time_fs": 0}, "thermostat_time_fs is 0 fs; it must be above 0"),
        ({"barostat_time_fs": -5}, "barostat_time_fs is -5 fs; it must be above 0"),
        ({"pressure_GPa": 1.0}, "pressure_GPa is 1, but the cell stays as it is in nve; choose npt or npt-anisotropic"),
        ({"pressure_GPa": np.nan, "ensemble": "npt"}, "pressure_GPa is nan; it must be a number in GPa"),
        ({"ensemble": "npt", "calculator": WithoutStress()}, "npt needs the stress, .*forces='gradient'"),
        (
            {"ensemble": "npt", "atoms": fcc111("Cu", (2, 2, 2), vacuum=5)},
            r"periodic in three directions, and pbc is \[",
        ),
        (
            {"ensemble": "npt", "atoms": half_fixed()},
            r"the structure has constraints \(FixAtoms\), and npt moves every",
        ),
        (
            {"ensemble": "nose-hoover", "atoms": with_bond()},
            "cannot hold the constraint FixBondLengths; choose langevin",
        ),
        ({"atoms": Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]], pbc=True)}, r"the structure has no cell in these directions"),
        ({"atoms": fcc111("Cu", (2, 2, 2)), "ensemble": "npt"}, "periodic in three directions, and pbc is"),
        (
            {"atoms": without_height()},
            r"pbc is \[True, True, True\], but the structure has no cell",
        ),
        ({"atoms": all_fixed()}, r"the constraints \(FixAtoms\) leave nothing that can move"),
        ({"atoms": Atoms()}, "the structure has no atoms"),
        ({"atoms": massless()}, r"atom 0 \(Cu\) has no mass"),
        ({"atoms": unplaced()}, "positions or momenta that are not finite"),
        ({"atoms": [crystal()]}, r"atoms is \[Atoms.*pass an ase.Atoms"),
        ({"calculator": WithoutForces()}, "needs forces, and the calculator 'withoutforces' has none"),
        ({"calculator": PairPotential}, "calculator is <class .*; pass a calculator of ASE"),
        ({"calculator": Calculator()}, "needs forces, and the calculator 'calculator' has none"),
        ({"resume": True, "overwrite": True}, "resume and overwrite exclude each other"),
        ({"resume": True, "state": None}, "resume needs the state file of the run; pass state=PATH"),
        ({"log": "same.traj", "trajectory": "same.traj"}, "trajectory, log, state must be different files"),
        ({"log": "no/such/folder/a.csv"}, "log: there is no folder 'no/such/folder'"),
        ({"log": "/"}, "log: '/' is a folder"),
    ],
)
def test_refused(run, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run(**{"calculator": Misbehaving(0, error=AssertionError("evaluated")), **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.traj", "a.csv", "a.npz"])
def test_existing_files_are_kept(run, tmp_path, name):
    run()
    for other in {"a.traj", "a.csv", "a.npz"} - {name}:
        (tmp_path / other).unlink()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=f"{name}' exists; choose another name, resume its run, or overwrite it"):
        run()
    assert contents(tmp_path) == before


def test_overwrite(run, tmp_path):
    run(steps=8)
    expected = contents(tmp_path)
    for name in expected:
        (tmp_path / name).write_bytes(b"something else" * 1000)
    run(steps=8, overwrite=True)
    assert contents(tmp_path) == expected


def test_a_start_that_fails_overwrites_nothing(run, tmp_path):
    run()
    before = contents(tmp_path)
    with pytest.raises(RuntimeError, match="no licence"):
        run(calculator=Misbehaving(0, error=RuntimeError("no licence")), overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("timestep", "message"),
    [
        (5.1, "timestep_fs is 5.1 fs: vibrations of light atoms take 10 fs"),
        (50.0, "timestep_fs is 50 fs: vibrations"),
        (0.0982, "timestep_fs is 0.0982 fs, which looks like ASE's unit of time"),
        (0.196, "timestep_fs is 0.196 fs, which looks like ASE's unit of time"),
    ],
)
def test_unusual_timesteps_are_named(timestep, message):
    with pytest.warns(TimestepWarning, match=message) as seen:
        run_md(crystal(), PairPotential(), steps=1, timestep_fs=timestep, temperature_K=1)
    assert seen[0].filename == __file__


@pytest.mark.parametrize("timestep", [0.2, 0.25, 1, 5.0])
def test_usual_timesteps_are_not(timestep):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_md(crystal(), PairPotential(), steps=1, timestep_fs=timestep).finished


def test_stress_that_is_promised_and_missing(tmp_path):
    class Promising(PairPotential):
        def calculate(self, *arguments):
            super().calculate(*arguments)
            del self.results["stress"]

    with pytest.raises(InputError, match="the calculator lacks what npt needs: "):
        run_md(crystal(), Promising(), ensemble="npt", steps=1, **files_in(tmp_path))
    assert contents(tmp_path) == {}


def test_elements_that_the_calculator_does_not_know(tmp_path):
    with pytest.raises(InputError, match="the calculator cannot evaluate this structure: No EMT-potential for Si"):
        run_md(bulk("Si"), EMT(), steps=1, **files_in(tmp_path))
    assert contents(tmp_path) == {}


def test_calculators_that_fail_at_the_start(tmp_path):
    broken = Misbehaving(0, error=CalculatorSetupError("no programme"))
    with pytest.raises(CalculationError, match="the evaluation of the start failed: no programme"):
        run_md(crystal(), broken, steps=1, **files_in(tmp_path))
    assert contents(tmp_path) == {}


def test_momenta_of_fixed_atoms_alone_are_none():
    atoms = half_fixed()
    expected = run_md(atoms, PairPotential(), steps=1).atoms
    momenta = np.zeros((32, 3))
    momenta[atoms.constraints[0].index[0]] = 1.0
    atoms.set_momenta(momenta, apply_constraint=False)
    result = run_md(atoms, PairPotential(), steps=1).atoms
    np.testing.assert_array_equal(result.get_momenta(), expected.get_momenta())


def test_ramps_may_be_arrays(tmp_path):
    for name, ramp in (("a.csv", (100.0, 300.0)), ("b.csv", np.array([100, 300]))):
        run_md(crystal(), PairPotential(), ensemble="langevin", steps=10, temperature_K=ramp, log=tmp_path / name)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_one_file_by_two_names(run, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="must be different files"):
        run(log=tmp_path / "folder" / ".." / "a.traj")


def test_molecules_run_without_stress(tmp_path):
    result = run_md(molecule("H2O"), EMT(), steps=3, every=1, timestep_fs=0.5, **files_in(tmp_path))
    assert result.finished and "stress" not in result.atoms.calc.results


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "its first line does not name the columns"),
        ("step,energy\n1,2\n", "its first line does not name the columns"),
        ("step,time_fs,potential_eV,kinetic_eV,total_eV,temperature_K\n0,1,2,3,4,x\n", "could not convert"),
        ("step,time_fs,potential_eV,kinetic_eV,total_eV,temperature_K\n0,1\n", "is not a log of a run"),
    ],
)
def test_files_that_are_no_log(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_log(tmp_path / "a.csv")


def test_log_without_rows_and_without_file(tmp_path):
    (tmp_path / "a.csv").write_text("step,time_fs,potential_eV,kinetic_eV,total_eV,temperature_K\n")
    assert read_log(tmp_path / "a.csv")["total_eV"].shape == (0,)
    with pytest.raises(InputError, match=r"cannot read the log .*No such file"):
        read_log(tmp_path / "b.csv")


def test_log_is_what_progress_saw(run, tmp_path):
    seen = []
    run(progress=seen.append, ensemble="npt", pressure_GPa=1.0, trajectory=None)
    log = read_log(tmp_path / "a.csv")
    names = ("step", "time_fs", "potential", "kinetic", "total", "temperature_K", "pressure_GPa", "volume")
    for column, name in zip(log.values(), names, strict=True):
        np.testing.assert_array_equal(column, [getattr(step, name) for step in seen])
    assert log["step"].dtype.kind == "i"


def test_imports_without_torch():
    code = "import sys, escn_calc.md; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
