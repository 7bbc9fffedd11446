"""``escn md``: outputs, progress, resuming after every ending, exit status and error messages."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.io import read, write
from click.testing import CliRunner, Result
from matplotlib.figure import Figure
from rich.console import Console

import escn_calc.md
from escn_calc.cli import main, md_progress
from escn_calc.cli.md_outputs import ENSEMBLE_WORDS, KILLED, plot_log, running_slope
from escn_calc.cli.md_progress import progress_display
from escn_calc.errors import CalculationError
from escn_calc.md import ENSEMBLES, MDStep, read_log
from tests.toy_potential import SHA256, ToyPotential

ROOT = Path(__file__).parents[2]
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
OUTPUTS = ["slab.csv", "slab.json", "slab.png", "slab.state.npz", "slab.traj", "slab_last.extxyz"]
EXACT = ["slab.csv", "slab.traj", "slab_last.extxyz"]
"""Outputs that a resumed run and an uninterrupted one have in common, byte by byte."""

TOY_COMMAND = """
import sys, types
import escn_calc.calculator
from escn_calc.cli import main
from tests.toy_potential import SHA256, ToyLoader

module = types.ModuleType("escn_calc.potential")
module.load_potential = ToyLoader()
sys.modules["escn_calc.potential"] = module
escn_calc.calculator.shipped_models = lambda: SHA256
main(prog_name="escn")
"""


@pytest.fixture
def slab() -> Atoms:
    atoms = fcc111("Cu", (2, 2, 2), vacuum=8.0, periodic=True)
    atoms.rattle(0.02, seed=1)
    atoms.set_tags([0] * 4 + [1] * 4)
    atoms.info.clear()
    return atoms


@pytest.fixture
def folder(tmp_path, monkeypatch, slab, loader) -> Path:
    """A working directory with slab.xyz, where commands use toy models."""
    monkeypatch.chdir(tmp_path)
    write("slab.xyz", slab, format="extxyz")
    return tmp_path


def escn(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments], env={"COLUMNS": "140", "NO_COLOR": "1"})


def md(*arguments: str, structure: str = "slab.xyz") -> Result:
    return escn("md", structure, *arguments)


def record(folder: str = "runs/slab_md") -> dict:
    return json.loads(Path(folder, "slab.json").read_text())


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def plain(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def at_call(number: int, act):
    """Return an ``evaluate`` that calls ``act`` at one evaluation and is the toy's otherwise."""

    def evaluate(self, structures, search, original=ToyPotential.evaluate):
        found = original(self, structures, search)
        return act(found) if self.calls == number else found

    return evaluate


def interrupt(found):
    raise KeyboardInterrupt


def test_finished(folder, slab):
    result = md("--steps", "25", "--every", "5")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir("runs/slab_md")) == OUTPUTS
    log = read_log("runs/slab_md/slab.csv")
    assert list(log) == ["step", "time_fs", "potential_eV", "kinetic_eV", "total_eV", "temperature_K"]
    assert log["step"].tolist() == [0, 5, 10, 15, 20, 25] == log["time_fs"].tolist()
    frames = read("runs/slab_md/slab.traj", ":")
    assert [frame.info["step"] for frame in frames] == log["step"].tolist()
    np.testing.assert_array_equal([frame.get_potential_energy() for frame in frames], log["potential_eV"])
    np.testing.assert_allclose(frames[0].positions, slab.positions, atol=1e-7)
    last = read("runs/slab_md/slab_last.extxyz")
    np.testing.assert_allclose(last.positions, frames[-1].positions, atol=1e-7)
    np.testing.assert_allclose(last.get_momenta(), frames[-1].get_momenta(), atol=1e-7)
    assert last.get_kinetic_energy() > 0
    assert Path("runs/slab_md/slab.png").read_bytes().startswith(PNG_SIGNATURE)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_ensembles(folder, ensemble):
    forces = ["--forces", "gradient"] if ensemble.startswith("npt") else []
    result = md("--steps", "20", "--ensemble", ensemble, *forces)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(
        f"{ENSEMBLE_WORDS[ensemble]}, {'gradient' if forces else 'direct'} forces: 20 steps"
    )
    assert record()["settings"]["ensemble"] == ensemble
    log = read_log("runs/slab_md/slab.csv")
    assert ("volume_A3" in log) == ("pressure_GPa" in log) == bool(forces)
    assert (record()["result"]["last"]["volume_A3"] is not None) == bool(forces)
    assert (record()["result"]["drift_meV_per_atom_per_ps"] is not None) == (ensemble == "nve")
    assert ("last pressure" in result.stdout) == ("last volume" in result.stdout) == bool(forces)
    assert ("energy drift" in result.stdout) == (ensemble == "nve")


def test_every_ensemble_has_words():
    assert set(ENSEMBLE_WORDS) == set(ENSEMBLES)


def test_first_line_and_the_note_on_direct_forces(folder):
    lines = md("--steps", "50", "--timestep", "2", "--fix-tags", "0").stderr.splitlines()
    assert lines[0] == ("NVE (velocity Verlet), direct forces: 50 steps of 2 fs (0.1 ps), 8 atoms, 4 of them fixed")
    assert lines[1] == (
        "Note: direct forces are not the gradient of the energy, so the total energy will not be conserved; "
        "--forces gradient gives forces that are"
    )
    gradient = md("--steps", "1", "--forces", "gradient", "--overwrite").stderr
    assert gradient.startswith("NVE (velocity Verlet), gradient forces: 1 steps") and "conserved" not in gradient
    langevin = md("--steps", "1", "--ensemble", "langevin", "--overwrite").stderr
    assert langevin.startswith("NVT (Langevin), direct forces: 1 steps") and "conserved" not in langevin


def test_summary_says_what_the_numbers_are(folder):
    result = md("--steps", "40", "--ensemble", "bussi", "--temperature", "200", "--temperature-end", "400")
    run = record()["result"]
    for row in (
        "finished",
        "ensemble NVT (Bussi), direct forces",
        "steps 40 (0.04 ps)",
        f"temperature {run['mean_temperature_K']:.1f} ± {run['std_temperature_K']:.1f} K (mean ± standard deviation), "
        "target 200 K to 400 K",
        f"potential energy {run['last']['potential_eV']:.6f} eV (last frame; adsorption energy)",
        "energy reference clean slab [relaxed] and gas references",
        f"speed {run['steps_per_s']:.3g} steps/s, {run['ns_per_day']:.3g} ns/day",
        "wall time",
        "model default",
        f"model sha256 {SHA256['default']}",
        "Results are in runs/slab_md/",
    ):
        assert row in plain(result.stdout), row


def test_drift_is_in_summary_and_record(folder, monkeypatch):
    def evaluate(self, structures, search, original=ToyPotential.evaluate):
        return [replace(one, energy=one.energy + 1e-3 * self.calls) for one in original(self, structures, search)]

    monkeypatch.setattr(ToyPotential, "evaluate", evaluate)
    result = md("--steps", "120")
    run = record()["result"]
    assert run["drift_meV_per_atom_per_ps"] == pytest.approx(125, rel=0.05)  # 1 meV a step and fs for 8 atoms
    (note,) = run["notes"]
    drift, error = run["drift_meV_per_atom_per_ps"], run["drift_error_meV_per_atom_per_ps"]
    assert f"energy drift {drift:+.3g} ± {error:.2g} meV/atom/ps" in plain(result.stdout)
    assert f"warning {note}" in plain(result.stdout)
    assert note.startswith("the total energy drifts by +12") and "direct forces are not the gradient" in note
    assert result.stderr.count("the total energy drifts") == 0


def test_record_of_the_run(folder, loader):
    md("--model", "other", "--dtype", "float64", "--forces", "gradient", "--steps", "3", "--seed", "7")
    run = record()
    assert run["command"] == "escn md"
    assert run["structure"]["file"] == "slab.xyz" and len(run["structure"]["sha256"]) == 64
    assert run["model"]["name"] == "other" and run["model"]["sha256"] == SHA256["other"]
    assert (run["model"]["energy_kind"], run["model"]["forces_kind"]) == ("adsorption", "gradient")
    settings = run["settings"]
    assert (settings["steps"], settings["seed"], settings["timestep"], settings["dtype"]) == (3, 7, 1.0, "float64")
    assert run["result"]["reason"] == "finished" and run["result"]["finished"]
    assert run["result"]["steps"] == 3 and run["result"]["time_ps"] == 0.003
    (segment,) = run["segments"]
    assert segment["command"] == ("escn md slab.xyz --model other --dtype float64 --forces gradient --steps 3 --seed 7")
    assert (segment["reason"], segment["first_logged_step"], segment["last_step"]) == ("finished", 0, 3)
    assert {"escn-calc", "python", "ase", "numpy", "torch"} == segment["versions"].keys()
    assert segment["started"] <= segment["finished"]


def test_every_option_reaches_the_run(folder, monkeypatch, loader):
    calls = []

    def recorded(*given, original=escn_calc.md.run_md, **options):
        calls.append(options)
        return original(*given, **options)

    monkeypatch.setattr(escn_calc.md, "run_md", recorded)
    result = md(
        *("--model", "other", "--device", "cpu", "--dtype", "float64", "--forces", "gradient", "--frames", "converged"),
        *("--ensemble", "npt", "--steps", "12", "--timestep", "0.5", "--temperature", "100"),
        *("--temperature-end", "200", "--thermostat-time", "50", "--pressure", "-0.5", "--barostat-time", "700"),
        *("--every", "3", "--state-every", "4", "--seed", "5", "--let-atoms-leave", "--output-dir", "here"),
    )
    assert result.exit_code == 0, result.output
    assert {name: value for name, value in calls[-1].items() if name != "progress"} == {
        "ensemble": "npt",
        "steps": 12,
        "timestep_fs": 0.5,
        "temperature_K": (100.0, 200.0),
        "thermostat_time_fs": 50.0,
        "pressure_GPa": -0.5,
        "barostat_time_fs": 700.0,
        "every": 3,
        "state_every": 4,
        "seed": 5,
        "stop_on_evaporation": False,
        "resume": False,
        "trajectory": Path("here/slab.traj"),
        "log": Path("here/slab.csv"),
        "state": Path("here/slab.state.npz"),
    }
    wanted = {"model": "other", "device": "cpu", "dtype": "float64", "forces": "gradient", "frames": "converged"}
    assert wanted.items() <= loader.requests[-1].items()
    assert not Path("runs").exists()


def test_fixed_atoms_stay(folder, slab):
    md("--steps", "10", "--fix-tags", "0")
    last = read("runs/slab_md/slab_last.extxyz")
    np.testing.assert_allclose(last.positions[:4], slab.positions[:4], atol=1e-7)
    assert (last.positions[4:] != slab.positions[4:]).all()
    assert record()["result"]["fixed_atoms"] == [0, 1, 2, 3]
    assert md("--steps", "1", "--fix-below-height", "1.0", "--overwrite").exit_code == 0
    assert record()["result"]["fixed_atoms"] == [0, 1, 2, 3]


def test_frame_of_a_file_with_several(folder, slab):
    write("many.traj", [slab, bulk("Cu", cubic=True)])
    for index, atoms in ((0, 8), (-1, 4)):
        done = md("--steps", "1", "--index", str(index), "--overwrite", structure="many.traj")
        assert done.exit_code == 0, done.output
        assert len(read("runs/many_md/many_last.extxyz")) == atoms


def test_velocities_of_the_last_frame_are_taken_up(folder):
    md("--steps", "10")
    last = read("runs/slab_md/slab_last.extxyz")
    md("--steps", "1", "--every", "1", structure="runs/slab_md/slab_last.extxyz")
    first = read("runs/slab_last_md/slab_last.traj", 0)
    np.testing.assert_allclose(first.get_momenta(), last.get_momenta(), atol=1e-7)


def test_interrupt_and_resume_with_the_printed_command(folder, monkeypatch):
    given = ("--ensemble", "langevin", "--steps", "30", "--every", "3", "--fix-tags", "0", "--model", "other")
    assert md(*given, "--output-dir", "whole").exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(ToyPotential, "evaluate", at_call(18, interrupt))
        result = md(*given)
    assert result.exit_code == 130
    lines = result.stderr.splitlines()
    assert lines[-1] == "Interrupted."
    assert "interrupted" in result.stdout
    assert record()["result"]["reason"] == "interrupted" and not record()["result"]["finished"]
    assert sorted(os.listdir("runs/slab_md")) == OUTPUTS
    command = shlex.split(lines[-2].removeprefix("Go on with: "))
    assert command == ["escn", "md", "slab.xyz", *_in_order_of_help(given), "--resume"]
    resumed = escn(*command[1:])
    assert resumed.exit_code == 0, resumed.output
    assert [contents("runs/slab_md")[name] for name in EXACT] == [contents("whole")[name] for name in EXACT]
    run = record()
    first, second = run["segments"]
    assert (first["reason"], first["last_step"], first["first_logged_step"]) == ("interrupted", 16, 0)
    assert (second["reason"], second["last_step"], second["first_logged_step"]) == ("finished", 30, 18)
    assert second["command"] == shlex.join(command)
    whole = record("whole")["result"]
    for name in ("steps", "mean_temperature_K", "std_temperature_K", "last", "fixed_atoms"):
        assert run["result"][name] == whole[name]


def _in_order_of_help(given: tuple[str, ...]) -> list[str]:
    values = dict(zip(given[::2], given[1::2], strict=True))
    order = ("--model", "--ensemble", "--steps", "--every", "--fix-tags")
    return [word for name in order for word in (name, values[name])]


def test_sigterm_keeps_what_is_there(folder, monkeypatch):
    def write_slowly(self, path, original=Figure.savefig, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        original(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ToyPotential, "evaluate", at_call(20, lambda found: os.kill(os.getpid(), signal.SIGTERM)))
        patch.setattr(Figure, "savefig", write_slowly)
        result = md("--steps", "30")
    assert result.exit_code == 143
    assert result.stderr.splitlines()[-2:] == ["Go on with: escn md slab.xyz --steps 30 --resume", "Terminated."]
    assert sorted(os.listdir("runs/slab_md")) == OUTPUTS
    assert md("--steps", "30", "--resume").exit_code == 0
    assert record()["result"]["steps"] == 30 and len(record()["segments"]) == 2


def test_interrupt_before_the_first_step(folder, monkeypatch):
    monkeypatch.setattr(ToyPotential, "evaluate", at_call(1, interrupt))
    result = md()
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "Interrupted."
    assert not Path("runs").exists()


def test_killed_and_resumed_run_is_the_uninterrupted_one(folder):
    given = ("--ensemble", "langevin", "--steps", "200", "--every", "4", "--state-every", "10")
    process = subprocess.Popen(
        [sys.executable, "-c", TOY_COMMAND, "md", "slab.xyz", *given],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = Path("runs/slab_md/slab.csv")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.read_bytes().count(b"\n") > 12):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed = record()
    assert killed["result"] == {"reason": "running"} and killed["segments"][0]["reason"] == "running"
    assert not Path("runs/slab_md/slab.png").exists()
    assert md(*given, "--resume").exit_code == 0
    assert md(*given, "--output-dir", "whole").exit_code == 0
    assert [contents("runs/slab_md")[name] for name in EXACT] == [contents("whole")[name] for name in EXACT]
    first, second = record()["segments"]
    assert first["reason"] == KILLED and "last_step" not in first
    assert second["reason"] == "finished" and second["first_logged_step"] > 30


def test_resume_extends_a_finished_run_and_repeats_nothing(folder):
    md("--steps", "20", "--every", "5")
    before = contents("runs/slab_md")
    done = md("--steps", "20", "--every", "5", "--resume")
    assert done.exit_code == 0, done.output
    assert [contents("runs/slab_md")[name] for name in EXACT] == [before[name] for name in EXACT]
    assert md("--steps", "30", "--every", "5", "--resume").exit_code == 0
    assert read_log("runs/slab_md/slab.csv")["step"].tolist() == [0, 5, 10, 15, 20, 25, 30]
    assert [segment["last_step"] for segment in record()["segments"]] == [20, 20, 30]


def test_resume_of_nothing_starts_from_the_beginning(folder):
    assert md("--steps", "5", "--resume").exit_code == 0
    assert record()["result"]["steps"] == 5 and len(record()["segments"]) == 1


@pytest.mark.parametrize(
    ("arguments", "structure", "message"),
    [
        (["--model", "other"], "slab.xyz", "belongs to another run (model name: 'default' there, 'other' here"),
        (["--forces", "gradient"], "slab.xyz", "model forces: 'direct' there, 'gradient' here"),
        (["--timestep", "2"], "slab.xyz", "settings timestep_fs: 1.0 there, 2.0 here"),
        (["--seed", "2"], "slab.xyz", "settings seed: 0 there, 2 here"),
        ([], "moved/slab.xyz", "structure positions:"),
        (["--steps", "5"], "slab.xyz", "steps is 5, but the state 'runs/slab_md/slab.state.npz' is at step 10 already"),
    ],
)
def test_resume_of_another_run_is_refused(folder, slab, arguments, structure, message):
    Path("moved").mkdir()
    slab.positions[0, 0] += 0.1
    write("moved/slab.xyz", slab, format="extxyz")
    md("--steps", "10")
    before = contents("runs/slab_md")
    result = md("--steps", "10", *arguments, "--resume", structure=structure)
    assert result.exit_code == 1
    assert message in plain(result.stderr)
    assert contents("runs/slab_md") == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "'runs/slab_md/slab.json' is not JSON"),
        ('{"command": "escn relax"}', "'runs/slab_md/slab.json' is not a record of escn md; choose the --output-dir"),
        ("[]", "'runs/slab_md/slab.json' is not a record of escn md"),
    ],
)
def test_resume_with_another_record_is_refused(folder, text, message):
    md("--steps", "10")
    Path("runs/slab_md/slab.json").write_text(text)
    before = contents("runs/slab_md")
    result = md("--steps", "20", "--resume")
    assert result.exit_code == 1 and message in plain(result.stderr)
    assert contents("runs/slab_md") == before


def test_explosion_has_its_own_exit_status(folder, monkeypatch):
    def push(found):
        return [replace(one, forces=one.forces + 2000.0) for one in found]

    monkeypatch.setattr(ToyPotential, "evaluate", at_call(22, push))
    result = md("--steps", "60", "--every", "4")
    assert result.exit_code == 3
    assert "stopped: exploded" in result.stdout
    assert "what happened the force on atom" in plain(result.stdout)
    assert record()["result"]["reason"] == "exploded" and "above 1000 eV/Å" in record()["result"]["message"]
    frames = read("runs/slab_md/slab.traj", ":")
    assert np.isfinite([frame.get_total_energy() for frame in frames]).all()
    assert sorted(os.listdir("runs/slab_md")) == OUTPUTS


def test_evaporation_has_its_own_exit_status(folder, slab):
    slab.set_momenta(np.zeros((8, 3)))
    momenta = slab.get_momenta()
    momenta[7, 2] = 63.5 * 1.5  # 1.5 Å a time unit of ASE, 10 fs, upwards
    slab.set_momenta(momenta)
    write("slab.xyz", slab, format="extxyz")
    result = md("--steps", "400", "--every", "4")
    assert result.exit_code == 3, result.output
    assert "stopped: atoms evaporated" in result.stdout
    assert "what happened atom 7 (Cu) has no other atom within 6 Å" in plain(result.stdout)
    assert record()["result"]["reason"] == "evaporated"
    assert md("--steps", "400", "--every", "4", "--let-atoms-leave", "--output-dir", "leaving").exit_code == 0


def test_failure_midway_keeps_the_good_frames(folder, monkeypatch):
    def fail(found):
        raise CalculationError("structure 0: the energy is nan; look at the structure")

    monkeypatch.setattr(ToyPotential, "evaluate", at_call(20, fail))
    result = md("--steps", "60", "--every", "4")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        "Error: the run stopped after step 18: structure 0: the energy is nan"
    )
    assert result.stderr.splitlines()[-1].endswith("The frames before that are kept")
    assert record()["result"]["reason"] == "failed"
    assert [frame.info["step"] for frame in read("runs/slab_md/slab.traj", ":")] == [0, 4, 8, 12, 16]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ensemble", "npt"], "npt needs the stress, and the calculator 'escn' has none; "),
        (["--timestep", "60"], "timestep_fs is 60 fs, more than 50 fs; the unit is the femtosecond"),
        (["--timestep", "0"], "timestep_fs is 0 fs; it must be above 0"),
        (["--timestep", "nan"], "timestep_fs is nan; it must be a number in fs"),
        (["--temperature", "0"], "temperature_K is 0 K; it must be above 0"),
        (["--temperature", "-5"], "temperature_K is -5 K; it must be above 0"),
        (["--ensemble", "bussi", "--temperature-end", "0"], "temperature_K is 0 K; it must be above 0"),
        (["--ensemble", "bussi", "--thermostat-time", "0"], "thermostat_time_fs is 0 fs; it must be above 0"),
        (["--ensemble", "npt", "--forces", "gradient", "--barostat-time", "0"], "barostat_time_fs is 0 fs; it must be"),
        (
            ["--ensemble", "npt", "--forces", "gradient", "--pressure", "inf"],
            "pressure_GPa is inf; it must be a number",
        ),
        (["--ensemble", "npt", "--forces", "gradient", "--fix-tags", "0"], "the structure has constraints (FixAtoms)"),
        (["--seed", "-1"], "seed is -1; it must be a whole number, 0 or more"),
        (["--model", "defualt"], "there is no model 'defualt'; did you mean default?"),
        (["--model", "energy-only"], "molecular dynamics needs forces, and the calculator 'escn' has none"),
        (["--index", "3"], "'slab.xyz' has 1 structure(s), so there is no index 3 (the first is 0)"),
        (["--fix-tags", "5"], "no atom has the tag 5; the tags are 0, 1"),
        (["--fix-tags", "0", "--fix-tags", "1"], "all 8 atoms are fixed, nothing is left to move"),
        (["--fix-below-height", "-1"], "the height below which atoms are fixed is -1.0 Å; it must be positive"),
    ],
)
def test_errors_come_before_any_work(folder, arguments, message):
    result = md(*arguments)
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1 and errors[0].startswith(f"Error: {message}")
    assert "Traceback" not in result.output and not Path("runs").exists()


def test_errors_of_the_structure(folder):
    write("helium.xyz", Atoms("He"))
    assert "Error: structure 0: atom 0 is He, which the model does not know" in md(structure="helium.xyz").stderr
    assert "Error: structure file 'missing.xyz' does not exist" in md(structure="missing.xyz").stderr
    write("molecule.xyz", Atoms("Cu2", positions=[[0, 0, 0], [2.2, 0, 0]]))
    result = md("--ensemble", "npt", "--forces", "gradient", structure="molecule.xyz")
    assert result.exit_code == 1 and "npt needs a structure that is periodic in three directions" in result.stderr
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ensemble", "nvt"], "'nvt' is not one of 'nve', 'langevin', 'nose-hoover'"),
        (["--forces", "exact"], "'exact' is not one of 'direct', 'gradient'"),
        (["--steps", "0"], "Invalid value for '--steps'"),
        (["--every", "0"], "Invalid value for '--every'"),
        (["--state-every", "0"], "Invalid value for '--state-every'"),
        (["--resume", "--overwrite"], "--resume continues the files that --overwrite replaces; give only one of them"),
        (
            ["--temperature-end", "400"],
            "--temperature-end means nothing with --ensemble nve, only with langevin, nose-h",
        ),
        (["--thermostat-time", "400"], "--thermostat-time means nothing with --ensemble nve"),
        (
            ["--ensemble", "bussi", "--pressure", "1"],
            "--pressure means nothing with --ensemble bussi, only with npt or",
        ),
        (["--ensemble", "langevin", "--barostat-time", "9"], "--barostat-time means nothing with --ensemble langevin"),
    ],
)
def test_wrong_usage(folder, arguments, message):
    result = md(*arguments)
    assert result.exit_code == 2
    assert message in plain(result.stderr)
    assert not Path("runs").exists()


def test_a_long_timestep_is_noted_once(folder):
    notes = [line for line in md("--timestep", "6", "--steps", "1").stderr.splitlines() if "timestep" in line]
    assert len(notes) == 1 and notes[0].startswith("Note: timestep_fs is 6 fs: ")


def test_results_are_not_overwritten(folder, loader):
    md("--steps", "5")
    before = contents("runs/slab_md")
    loader.requests.clear()
    result = md("--steps", "5", "--seed", "1")
    assert result.exit_code == 1
    assert "Error: 'runs/slab_md/slab.traj' exists; choose another --output-dir, or give --overwrite" in result.stderr
    assert loader.requests == [] and contents("runs/slab_md") == before


def test_overwrite_replaces_results_and_nothing_else(folder):
    md("--steps", "5")
    Path("runs/slab_md/notes.txt").write_text("mine")
    before = contents("runs/slab_md")
    assert md("--steps", "7", "--overwrite", "--timestep", "99").exit_code == 1
    assert contents("runs/slab_md") == before
    assert md("--steps", "7", "--overwrite").exit_code == 0
    assert record()["result"]["steps"] == 7 and len(record()["segments"]) == 1
    assert Path("runs/slab_md/notes.txt").read_text() == "mine"


@pytest.mark.parametrize("how", [[], ["--overwrite"], ["--resume"]])
def test_the_structure_file_is_never_replaced(folder, slab, how):
    write("slab.traj", slab)
    before = Path("slab.traj").read_bytes()
    result = md("--output-dir", ".", *how, structure="slab.traj")
    assert result.exit_code == 1
    assert "would replace the structure file 'slab.traj'; choose another --output-dir" in plain(result.stderr)
    assert Path("slab.traj").read_bytes() == before


def test_a_folder_that_cannot_be_made(folder):
    Path("file").touch()
    result = md("--output-dir", "file/below", "--steps", "1")
    assert result.exit_code == 1
    assert "Error: cannot write to the folder 'file/below': Not a directory" in result.stderr


def test_unfinished_files_do_not_stay(folder, monkeypatch):
    def fail(self, path, **options):
        Path(path).write_text("half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Figure, "savefig", fail)
    result = md("--steps", "5")
    assert result.exit_code == 1
    assert "Error: cannot write 'runs/slab_md/slab.png': No space left on device" in result.stderr
    assert sorted(os.listdir("runs/slab_md")) == [name for name in OUTPUTS if name != "slab.png"]
    assert record()["result"]["reason"] == "finished" and record()["segments"][0]["last_step"] == 5
    assert "result finished" in plain(result.stdout)


def test_a_second_interrupt_in_the_plot_leaves_a_complete_record(folder, monkeypatch):
    monkeypatch.setattr(ToyPotential, "evaluate", at_call(18, interrupt))
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: interrupt(None))
    result = md("--steps", "30")
    assert result.exit_code == 130
    assert "Go on with: escn md slab.xyz --steps 30 --resume" in result.stderr
    assert record()["result"]["reason"] == record()["segments"][0]["reason"] == "interrupted"


@pytest.mark.parametrize("segments", [[3], [{"first_logged_step": 0}], {"reason": "running"}])
def test_a_record_with_odd_segments_is_refused(folder, segments):
    assert md("--steps", "5").exit_code == 0
    path = Path("runs/slab_md/slab.json")
    path.write_text(json.dumps({"command": "escn md", "segments": segments}))
    result = md("--steps", "10", "--resume")
    assert result.exit_code == 1
    assert "is not a record of escn md" in result.stderr


def step_at(number: int) -> MDStep:
    return MDStep(number, 2.0 * number, -1.0, 0.5, -0.5, 300.0)


def test_progress_without_a_terminal(folder):
    lines = [line.split() for line in md("--steps", "100", "--every", "1").stderr.splitlines()]
    header = lines.index(["step", "time", "/", "ps", "T", "/", "K", "total", "energy", "/", "eV", "steps/s", "ns/day"])
    rows = lines[header + 1 :]
    assert [int(row[0]) for row in rows] == list(range(0, 101, 5))
    log = read_log("runs/slab_md/slab.csv")
    assert rows[-1][1:4] == ["0.1", f"{log['temperature_K'][-1]:.1f}", f"{log['total_eV'][-1]:.6f}"]
    assert len(rows[0]) == 4 and all(len(row) == 6 and float(row[5]) > 0 for row in rows[1:])


def test_progress_is_never_silent_for_long(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(md_progress.time, "perf_counter", lambda: now[0])
    text = io.StringIO()
    with progress_display(Console(file=text), 1_000_000, 2.0) as report:
        for number in range(0, 200, 10):
            report(step_at(number))
            now[0] += 10.0
    rows = [line.split() for line in text.getvalue().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == [0, 70, 140]
    assert rows[-1][4:] == ["1", "0.173"]  # 1 step/s of 2 fs: 2e-6 ns * 86400


def test_progress_in_a_terminal(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(md_progress.time, "perf_counter", lambda: now[0])
    text = io.StringIO()
    with progress_display(Console(file=text, force_terminal=True, width=120), 100, 2.0) as report:
        report(step_at(50))
        now[0] = 2.0
        report(step_at(100))
    assert "100/100" in text.getvalue()
    assert "300 K  -0.5000 eV  25 steps/s  4.32 ns/day" in text.getvalue()


def log_of(rows: int, **more: np.ndarray) -> dict[str, np.ndarray]:
    steps = np.arange(0, 10 * rows, 10)
    time_fs = steps * 1.0
    return {
        "step": steps,
        "time_fs": time_fs,
        "potential_eV": -5.0 + 0.001 * steps,
        "kinetic_eV": np.full(rows, 0.5),
        "total_eV": -4.5 + 0.002 * time_fs,
        "temperature_K": 300 + np.sin(time_fs),
        **more,
    }


def draw(monkeypatch, log, schedule) -> Figure:
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: drawn.append(figure))
    plot_log(log, 4, "slab: somehow", schedule, Path("plot.png"))
    assert [axes.get_xlabel() for axes in drawn[0].axes] == ["", "", "time (ps)"]
    assert drawn[0].axes[0].get_ylabel() == "temperature (K)"
    assert drawn[0].axes[1].get_ylabel() == "total energy − start\n(meV/atom)"
    assert drawn[0].get_suptitle() == "slab: somehow"
    return drawn[0]


def test_plot_at_constant_energy(monkeypatch):
    first, second, third = draw(monkeypatch, log_of(20), None).axes
    assert len(first.lines) == 1 and first.get_legend() is None
    np.testing.assert_allclose(second.lines[0].get_ydata(), 0.5 * 10 * np.arange(20))  # 2 meV a fs for 4 atoms
    assert third.get_ylabel() == "drift, fitted from start\n(meV/atom/ps)"
    np.testing.assert_allclose(third.lines[1].get_ydata(), 500.0)
    assert [text.get_text() for text in third.get_legend().get_texts()] == ["no drift"]
    assert third.get_ylim() == pytest.approx((-650.0, 650.0))


def test_plot_with_thermostat(monkeypatch):
    first, _, third = draw(monkeypatch, log_of(11), (300.0, 500.0, 200)).axes
    np.testing.assert_allclose(first.lines[1].get_ydata(), np.linspace(300, 400, 11))
    assert first.get_legend().get_texts()[0].get_text() == "target"
    assert third.get_ylabel() == "potential energy − start\n(meV/atom)"
    np.testing.assert_allclose(third.lines[0].get_ydata(), 2.5 * np.arange(11), atol=1e-9)


def test_plot_with_barostat(monkeypatch):
    volume = np.linspace(100, 110, 11)
    _, _, third = draw(monkeypatch, log_of(11, volume_A3=volume, pressure_GPa=volume), (300.0, 300.0, 100)).axes
    assert third.get_ylabel() == "volume (Å³)"
    np.testing.assert_array_equal(third.lines[0].get_ydata(), volume)


@pytest.mark.parametrize("rows", [1, 2])
def test_plot_of_a_run_too_short_to_fit(monkeypatch, rows):
    third = draw(monkeypatch, log_of(rows), None).axes[2]
    assert third.texts[0].get_text() == "too few frames to fit a drift"


def test_title_of_the_plot_has_the_drift(folder, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, path, original=Figure.savefig, **options: (
            drawn.append(figure),
            original(figure, path, **options),
        ),
    )
    md("--steps", "40")
    drift, error = (record()["result"][f"drift_{what}meV_per_atom_per_ps"] for what in ("", "error_"))
    assert drawn[0].get_suptitle() == (
        f"slab: NVE (velocity Verlet), direct forces, default\nenergy drift {drift:+.3g} ± {error:.2g} meV/atom/ps"
    )
    md("--steps", "4", "--ensemble", "bussi", "--overwrite")
    assert drawn[1].get_suptitle() == "slab: NVT (Bussi), direct forces, default"


def test_running_slope_is_the_least_squares_one():
    random = np.random.default_rng(3)
    time_ps, values = np.linspace(0, 5, 40), random.normal(size=40)
    expected = [np.polyfit(time_ps[:count], values[:count], 1)[0] for count in range(3, 41)]
    np.testing.assert_allclose(running_slope(time_ps, values), expected, rtol=1e-9, atol=1e-12)
    assert running_slope(time_ps[:2], values[:2]).shape == (0,)


def test_help_is_light_and_names_units(folder):
    code = (
        "import sys\nfrom escn_calc.cli import main\n"
        "try:\n    main(['md', '--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "print(sorted({'torch', 'matplotlib', 'pymatgen', 'scipy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[]"
    text = " ".join(done.stdout.split())
    for phrase in (
        "--timestep FS Length of a step in fs.",
        "--temperature K Temperature in K:",
        "--temperature-end K",
        "--thermostat-time FS",
        "--pressure GPA Pressure of the barostat in GPa.",
        "--barostat-time FS",
        "--every STEPS",
        "--state-every STEPS",
        "--forces [direct|gradient]",
        "[default: what the model was trained for]",
        "[default: runs/NAME_md, NAME being",
        "0 finished, 1 error",
        "3 stopped because the structure exploded or atoms evaporated",
        "NAME.state.npz",
    ):
        assert phrase in text, phrase
    assert "md " in escn("--help").output


def test_nan_is_never_written(tmp_path):
    from escn_calc.records import write_json

    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "record.json", {"drift": float("nan")})
    assert list(tmp_path.iterdir()) == []
