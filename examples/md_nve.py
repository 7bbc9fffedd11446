"""Molecular dynamics at constant energy, with two timesteps.

Look at the total energy: with gradient forces of a smooth model it stays within the noise of the integrator, which
falls by four when the timestep is halved. With direct forces nothing would hold it.
"""

import numpy as np
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms

from escn_calc import ESCNCalculator
from escn_calc.md import MDStep, run_md

atoms = fcc111("Cu", (2, 2, 3), vacuum=8.0, periodic=True)
add_adsorbate(atoms, "O", height=1.2, position="fcc")
atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 3))

for timestep_fs in (2.0, 1.0):
    history: list[MDStep] = []
    result = run_md(
        atoms,
        ESCNCalculator(),
        ensemble="nve",
        steps=round(40 / timestep_fs),
        timestep_fs=timestep_fs,
        temperature_K=300,
        every=round(4 / timestep_fs),
        progress=history.append,
    )
    change = 1000 * (np.array([step.total for step in history]) - history[0].total) / len(atoms)
    print(f"steps of {timestep_fs:g} fs, {result.time_ps:g} ps at {result.ns_per_day:.3f} ns/day: {result.reason}")
    print("  total energy since the start / meV/atom:", " ".join(f"{value:.3f}" for value in change))
    print(f"  drift {result.drift:.2f} ± {result.drift_error:.2f} meV/atom/ps (a figure to quote needs 5 ps or more)")
