"""Molecular dynamics of a model: three covered slabs at constant temperature, one at constant energy in float64.

A stopped check goes on from the states in the output folder. Bonds of adsorbed molecules are looked at in every frame
of the trajectories; what the teacher says of the last frames is compared with the model.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from adsorption_pairs import state_of
from ase import Atoms
from ase.build import fcc100, fcc111, fcc211
from ase.constraints import FixAtoms
from ase.io import read
from building import fit_vacuum, make_adsorbate, place
from checks import Setting, kept, read_setting, write_result, write_text
from matplotlib.figure import Figure

from escn_calc.md import MDStep, read_log, run_md
from escn_calc.relax import relax

TEMPERATURE = 500.0
CONSERVED_TEMPERATURE = 300.0
TIMESTEP_FS = 1.0
EVERY = 10
RELAXED_FORCE, RELAXATION_STEPS = 0.1, 60
STEPS_PER_LINE = 500
SYSTEMS = {
    "Pt111-2CO": ("Pt", fcc111, (3, 3, 4), ("CO", "CO")),
    "Cu100-O-N": ("Cu", fcc100, (3, 3, 4), ("O", "N")),
    "Pd211-CH-H": ("Pd", fcc211, (3, 3, 4), ("CH", "H")),
}
CONSERVED = "Pt111-2CO"
FAR = 0.5


def covered_slab(name: str, lattice: dict[str, float]) -> Atoms:
    """Slab with two adsorbates in hollow-like places far apart; its lowest layer is fixed."""
    metal, builder, size, adsorbates = SYSTEMS[name]
    slab = builder(metal, size=size, a=lattice[metal], vacuum=6.0)
    slab = Atoms(slab.numbers, slab.positions, cell=slab.cell, pbc=True)
    slab.positions[:, 2] -= slab.positions[:, 2].min()
    slab.set_constraint(FixAtoms(np.flatnonzero(slab.positions[:, 2] < 1.0)))
    top = slab.positions[np.argsort(slab.positions[:, 2])[-1], :2]
    covered = slab
    for number, adsorbate in enumerate(adsorbates):
        site = top + (np.array([1 / 9, 1 / 9, 0]) + number * FAR * np.array([1, 0.7, 0])) @ slab.cell[:, :2]
        covered = place(covered, make_adsorbate(adsorbate), site, 1.0, 0.0)
    covered.set_constraint(slab.constraints)
    return fit_vacuum(covered)


def relaxed_slab(setting: Setting, name: str) -> Atoms:
    """The slab after a short relaxation by the model."""
    start = covered_slab(name, setting.lattice)

    def make() -> list[Atoms]:
        return [relax(start, setting.calculator(), fmax=RELAXED_FORCE, steps=RELAXATION_STEPS).atoms]

    return kept(setting.out / f"{name}-start.extxyz", make)[0]


def dynamics(setting: Setting, name: str, steps: int, ensemble: str) -> dict[str, Any]:
    """One run, or what it gave before."""
    label = f"{name}-{ensemble}"
    done = setting.out / f"{label}-{steps}.json"
    if done.exists():
        return json.loads(done.read_text())
    files = {
        "trajectory": setting.out / f"{label}-{steps}.traj",
        "log": setting.out / f"{label}-{steps}.csv",
        "state": setting.out / f"{label}-{steps}.state",
    }
    conserved = ensemble == "nve"
    result = run_md(
        relaxed_slab(setting, name),
        setting.calculator("float64" if conserved else "float32"),
        steps=steps,
        ensemble=ensemble,
        timestep_fs=TIMESTEP_FS,
        temperature_K=2 * CONSERVED_TEMPERATURE if conserved else TEMPERATURE,
        every=EVERY,
        seed=1,
        resume=True,
        progress=lambda step: print_progress(label, step),
        **files,
    )
    log = read_log(files["log"])
    row: dict[str, Any] = {
        "ensemble": ensemble,
        "ended": result.reason,
        "time_ps": result.time_ps,
        "mean_temperature_K": round(result.mean_temperature_K, 1),
        "std_temperature_K": round(result.std_temperature_K, 1),
        "potential_energy_range_eV": [round(float(value), 3) for value in np.percentile(log["potential_eV"], [0, 100])],
        "adsorbates": bonds(read(files["trajectory"], ":"), SYSTEMS[name][3]),
        "steps_per_s": round(result.steps_per_s, 2),
    }
    if conserved:
        row["drift_meV_per_atom_per_ps"] = result.drift
        row["drift_error"] = result.drift_error
    write_text(done, json.dumps(row))
    return row


def print_progress(label: str, step: MDStep) -> None:
    """A line every half picosecond."""
    if step.step % STEPS_PER_LINE == 0:
        print(f"{label}: {step.time_fs / 1000:.1f} ps, {step.temperature_K:.0f} K, {step.potential:.3f} eV", flush=True)


def bonds(frames: list[Atoms], adsorbates: tuple[str, ...]) -> dict[str, float]:
    """Share of frames in which all molecules are whole."""
    whole = []
    for frame in frames:
        slab_atoms = len(frame) - sum(len(make_adsorbate(name)) for name in adsorbates)
        states = []
        first = slab_atoms
        for name in adsorbates:
            last = first + len(make_adsorbate(name))
            states.append(state_of(frame[[*range(slab_atoms), *range(first, last)]], name))
            first = last
        whole.append(all(state != "broken" for state in states))
    return {"frames": len(frames), "whole": round(float(np.mean(whole)), 4)}


def teacher_errors(setting: Setting, steps: int) -> dict[str, float]:
    """Mean force error (eV/Å) of the model on the second halves of the trajectories at constant temperature."""
    frames = []
    for name in SYSTEMS:
        trajectory = read(setting.out / f"{name}-bussi-{steps}.traj", ":")
        for number in range(len(trajectory) // 2, len(trajectory), max(1, len(trajectory) // 10)):
            frame = trajectory[number]
            frame.info = {"key": f"{name}@{number}"}
            frames.append(frame)
    answers = setting.teacher_results(f"dynamics-{steps}", frames)
    errors: dict[str, list[float]] = {}
    for frame, answer in zip(frames, answers, strict=True):
        difference = frame.get_forces(apply_constraint=False) - answer.get_forces(apply_constraint=False)
        errors.setdefault(frame.info["key"].split("@")[0], []).append(float(np.abs(difference).mean()))
    return {name: round(float(np.mean(values)), 4) for name, values in errors.items()}


def plot(setting: Setting, steps: int) -> Figure:
    """Temperature and potential energy of the runs."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    runs = [(name, "bussi") for name in SYSTEMS] + [(CONSERVED, "nve")]
    for name, ensemble in runs:
        log = read_log(setting.out / f"{name}-{ensemble}-{steps}.csv")
        time_ps = log["time_fs"] / 1000
        upper.plot(time_ps, log["temperature_K"], lw=0.8, label=f"{name} {ensemble}")
        lower.plot(time_ps, log["potential_eV"] - log["potential_eV"][0], lw=0.8)
    upper.set_ylabel("temperature, K")
    upper.legend(fontsize=7)
    lower.set(xlabel="time, ps", ylabel="potential energy, eV")
    return figure


def main() -> None:
    """Read the command line and check."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--steps", type=int, default=5000, help="steps of 1 fs in each run (default 5000)")
    setting, arguments = read_setting(__doc__, options)
    rows = {name: dynamics(setting, name, arguments.steps, "bussi") for name in SYSTEMS}
    rows[f"{CONSERVED} nve"] = dynamics(setting, CONSERVED, arguments.steps, "nve")
    result = {"runs": rows, "force_mae_eV_per_A": teacher_errors(setting, arguments.steps)}
    write_result(setting, "dynamics", result, plot(setting, arguments.steps))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
