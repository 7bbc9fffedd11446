"""A run that stops anywhere and is resumed leaves the same bytes as one that never stopped."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from ase.calculators.mixing import LinearCombinationCalculator
from ase.constraints import FixCom
from ase.io import read

from escn_calc.errors import CalculationError, InputError
from escn_calc.md import read_log, run_md
from tests.md.conftest import contents, files_in
from tests.md.potentials import Misbehaving, PairPotential, crystal, half_fixed

CASES = [
    pytest.param("nve", crystal, {}, id="nve"),
    pytest.param("langevin", crystal, {}, id="langevin"),
    pytest.param("langevin", half_fixed, {"temperature_K": (200.0, 500.0)}, id="langevin-fixed-ramp"),
    pytest.param("bussi", crystal, {"temperature_K": (500.0, 200.0)}, id="bussi-ramp"),
    pytest.param("bussi", half_fixed, {}, id="bussi-fixed"),
    pytest.param("nose-hoover", crystal, {}, id="nose-hoover"),
    pytest.param("nose-hoover", half_fixed, {"temperature_K": (200.0, 500.0)}, id="nose-hoover-fixed-ramp"),
    pytest.param("npt", crystal, {"temperature_K": (200.0, 500.0), "pressure_GPa": 1.0}, id="npt-ramp"),
    pytest.param("npt-anisotropic", crystal, {"pressure_GPa": 1.0}, id="npt-anisotropic"),
]
FAST = {"thermostat_time_fs": 20.0, "barostat_time_fs": 100.0, "steps": 40, "every": 3, "state_every": 7}


def interrupted(at: int) -> Misbehaving:
    """A potential during whose evaluation number ``at`` someone presses Ctrl-C."""
    return Misbehaving(at, error=KeyboardInterrupt())


def steady() -> Misbehaving:
    return Misbehaving(10**9)


def folders(tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    return tmp_path / "whole", tmp_path / "parts"


@pytest.mark.parametrize(("ensemble", "structure", "options"), CASES)
def test_interrupted_and_resumed(tmp_path, ensemble, structure, options):
    whole, parts = folders(tmp_path)
    options = {"ensemble": ensemble, **FAST, **options}
    expected = run_md(structure(), steady(), **options, **files_in(whole))
    assert expected.finished
    for at in (2, 5, 9, 14, 1):
        stopped = run_md(structure(), interrupted(at), **options, **files_in(parts), resume=True)
        assert (stopped.reason, stopped.message) == ("interrupted", "")
        assert len(read(parts / "a.traj", ":")) == stopped.steps // 3 + 1 == len(read_log(parts / "a.csv")["step"])
    result = run_md(structure(), steady(), **options, **files_in(parts), resume=True)
    assert result.finished and 1 < stopped.steps < result.steps == 40
    assert contents(parts) == contents(whole)
    for name in ("last", "mean_temperature_K", "std_temperature_K", "drift", "drift_error"):
        assert getattr(result, name) == getattr(expected, name)
    np.testing.assert_array_equal(result.atoms.positions, expected.atoms.positions)
    np.testing.assert_array_equal(result.atoms.get_momenta(), expected.atoms.get_momenta())
    np.testing.assert_array_equal(result.atoms.get_forces(), expected.atoms.get_forces())


@pytest.mark.parametrize("ensemble", ["langevin", "nose-hoover", "npt"])
def test_a_finished_run_is_extended(tmp_path, ensemble):
    whole, parts = folders(tmp_path)
    options = {"ensemble": ensemble, **FAST}
    run_md(crystal(), PairPotential(), **options, **files_in(whole))
    for steps in (1, 20, 20, 40):
        result = run_md(crystal(), PairPotential(), **{**options, "steps": steps}, **files_in(parts), resume=True)
        assert result.finished and result.steps == steps
    assert contents(parts) == contents(whole)


def test_a_failed_evaluation_is_resumed(tmp_path):
    whole, parts = folders(tmp_path)
    run_md(crystal(), steady(), **FAST, **files_in(whole))
    result = run_md(crystal(), Misbehaving(16, error=CalculationError("out of memory")), **FAST, **files_in(parts))
    assert (result.reason, result.message) == ("failed", "stopped after step 15: out of memory (evaluation of step 16)")
    assert len(read(parts / "a.traj", ":")) == 6
    assert run_md(crystal(), steady(), **FAST, **files_in(parts), resume=True).finished
    assert contents(parts) == contents(whole)


def test_interrupted_between_trajectory_and_log(tmp_path, monkeypatch):
    whole, parts = folders(tmp_path)
    run_md(crystal(), PairPotential(), **FAST, **files_in(whole))

    def write(log, row):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("escn_calc.md.log.LogFile.write", write)
        assert run_md(crystal(), PairPotential(), **FAST, **files_in(parts)).reason == "interrupted"
    assert (parts / "a.traj").read_bytes() == (parts / "a.csv").read_bytes() == b""
    run_md(crystal(), PairPotential(), **FAST, **files_in(parts), resume=True)
    assert contents(parts) == contents(whole)


@pytest.mark.parametrize("ensemble", ["langevin", "npt"])
def test_torn_files(tmp_path, ensemble):
    """The state of an early step, and trajectory and log of a later one cut anywhere after it, with rubbish behind."""
    whole, parts = folders(tmp_path)
    options = {"ensemble": ensemble, **FAST, "every": 1, "steps": 120}
    run_md(crystal(), PairPotential(), **{**options, "steps": 25}, **files_in(parts))
    early = contents(parts)
    run_md(crystal(), PairPotential(), **{**options, "steps": 60}, **files_in(parts), resume=True)
    later = contents(parts)
    run_md(crystal(), PairPotential(), **options, **files_in(whole))
    rng = np.random.default_rng(5)
    for _ in range(8):
        for name in ("a.traj", "a.csv"):
            cut = int(rng.integers(len(early[name]), len(later[name]) + 1))
            (parts / name).write_bytes(later[name][:cut] + rng.bytes(int(rng.integers(40))))
        (parts / "a.npz").write_bytes(early["a.npz"])
        (parts / ".a.npz.tmp").write_bytes(later["a.npz"][:100])
        assert run_md(crystal(), PairPotential(), **options, **files_in(parts), resume=True).finished
        assert contents(parts) == contents(whole)


def test_results_without_files_are_those_with_files(run):
    expected = run(ensemble="langevin")
    result = run(ensemble="langevin", trajectory=None, log=None, state=None)
    np.testing.assert_array_equal(result.atoms.positions, expected.atoms.positions)
    assert result.last == expected.last


def test_progress_is_not_repeated(run):
    seen = []
    run(progress=seen.append, steps=18)
    run(progress=seen.append, resume=True)
    assert [step.step for step in seen] == list(range(0, 41, 4))


class Forgiving(Misbehaving):
    """Keeps its results, as calculators of ASE do, for positions that moved by less than 1e-15 Å."""

    check_state = Calculator.check_state


def test_constraint_that_shifts_positions(tmp_path):
    whole, parts = folders(tmp_path)

    def held():
        atoms = crystal()
        atoms.set_constraint(FixCom())
        return atoms

    for ensemble in ("nose-hoover", "langevin"):
        options = {"ensemble": ensemble, **FAST}
        run_md(held(), Forgiving(10**9), **options, **files_in(whole), overwrite=True)
        run_md(held(), Forgiving(30, error=KeyboardInterrupt()), **options, **files_in(parts), overwrite=True)
        run_md(held(), Forgiving(10**9), **options, **files_in(parts), resume=True)
        assert contents(parts) == contents(whole)


def other_mass():
    atoms = crystal()
    atoms.set_masses([1.0] + [63.5] * 31)
    return atoms


def moved():
    atoms = crystal()
    atoms.positions[3, 0] += 1e-12
    return atoms


def pushed():
    atoms = crystal()
    atoms.set_momenta(np.full((32, 3), 1e-3))
    return atoms


def test_other_weights_of_a_mixture_are_refused(run, tmp_path):
    def mixed(weight):
        return LinearCombinationCalculator([PairPotential(), PairPotential()], [weight, 0.5])

    run(calculator=mixed(0.5))
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"\(model weights: \[0.5, 0.5\] there, \[2.0, 0.5\] here\)"):
        run(calculator=mixed(2.0), resume=True, steps=50)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calculator": PairPotential(epsilon=0.3)}, r"belongs to another run \(model epsilon: 0.4 there, 0.3 here\)"),
        ({"calculator": steady()}, r"model name: 'pairpotential' there, 'misbehaving' here"),
        ({"atoms": moved()}, r"\(structure positions: '[^;]*here\); continue with what that run used"),
        ({"atoms": pushed()}, r"\(structure momenta: "),
        ({"atoms": half_fixed()}, r"\(structure constraints: "),
        ({"atoms": other_mass()}, r"\(structure masses: "),
        ({"atoms": crystal() * (2, 1, 1)}, r"structure cell: .*structure numbers: "),
        ({"timestep_fs": 2.0}, r"\(settings timestep_fs: 1.0 there, 2.0 here\)"),
        ({"ensemble": "bussi", "seed": 1}, r"settings ensemble: 'nve' there, 'bussi' here; settings seed: 0 there, 1"),
        ({"every": 2}, "settings every: 4 there, 2 here"),
        ({"log": None}, "settings log: True there, False here"),
        ({"steps": 39}, "steps is 39, but the state .* is at step 40 already"),
    ],
)
def test_another_run_is_refused(run, tmp_path, options, message):
    run()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=message):
        run(**options, resume=True)
    assert contents(tmp_path) == before


def test_a_ramp_is_not_extended(run):
    run(ensemble="langevin", temperature_K=(100, 200))
    with pytest.raises(InputError, match=r"settings steps: 40 there, 50 here"):
        run(ensemble="langevin", temperature_K=(100, 200), resume=True, steps=50)


def test_resume_without_files_starts(run, tmp_path):
    assert run(resume=True).steps == 40
    first = contents(tmp_path)
    run(overwrite=True)
    assert contents(tmp_path) == first


def test_resume_without_its_state_is_refused(run, tmp_path):
    run()
    (tmp_path / "a.npz").unlink()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"a\.traj' is there, but its state .* is not"):
        run(resume=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("name", "option"), [("a.traj", "trajectory"), ("a.csv", "log")])
def test_files_that_lost_their_end_are_refused(run, tmp_path, name, option):
    run()
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:-1])
    with pytest.raises(InputError, match=f"the {option} .* has {len(data) - 1} bytes, but the state .* {len(data)};"):
        run(resume=True)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"the {option} .* has 0 bytes"):
        run(resume=True)


def test_damaged_states_are_refused(run, tmp_path):
    run()
    state = tmp_path / "a.npz"
    data = state.read_bytes()
    for damaged in (b"", b"not a state", data[: len(data) // 2], data[:40]):
        state.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.npz' is not the state of a run, or is damaged"):
            run(resume=True)
    with np.load(tmp_path / "a.npz") if state.write_bytes(data) else None as file:
        arrays = dict(file)
    written = json.loads(arrays["text"].tobytes())
    foreign = np.random.Generator(np.random.MT19937(0)).bit_generator.state
    foreign["state"]["key"] = foreign["state"]["key"].tolist()
    for change, message in (
        ({"format": "something else 7"}, r"state of another version: 'something else 7'"),
        ({"random": foreign}, r"a\.npz' is not the state of a run, or is damaged: "),
        ({"random": {"a": 1}}, r"a\.npz' is not the state of a run, or is damaged: "),
    ):
        text = np.frombuffer(json.dumps({**written, **change}).encode(), dtype=np.uint8)
        np.savez(state, **{**arrays, "text": text})
        with pytest.raises(InputError, match=message):
            run(resume=True)


def test_a_state_may_move_with_its_files(run, tmp_path):
    run(steps=20)
    other = tmp_path / "other"
    other.mkdir()
    for path in files_in(tmp_path).values():
        shutil.move(path, other)
    assert run(resume=True, **files_in(other)).steps == 40
    assert re.fullmatch(r"40,40\.0(,[-\d.e]+){4}", (other / "a.csv").read_text().splitlines()[-1])
