"""Keep CO on Cu(111) at 300 K with a Langevin thermostat, end half-way, and go on in the same files.

Look at the temperature: it fluctuates about the target, by about sqrt(2 / degrees of freedom) of it. The relaxed
start gives half of its kinetic energy to the springs first, so that the first frames are not yet a sample.
"""

from pathlib import Path

from ase.constraints import FixAtoms
from ase.io import read

from escn_calc import ESCNCalculator
from escn_calc.md import read_log, run_md

atoms = read(Path(__file__).with_name("co_on_cu111.xyz"))
atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 0))
calculator = ESCNCalculator()

for steps, resume in ((15, False), (30, True)):
    result = run_md(
        atoms,
        calculator,
        ensemble="langevin",
        steps=steps,
        timestep_fs=1.0,
        temperature_K=300,
        thermostat_time_fs=100,
        seed=1,
        every=5,
        trajectory="md_langevin.traj",
        log="md_langevin.csv",
        state="md_langevin.state.npz",
        resume=resume,
        overwrite=not resume,
    )
    print(f"{result.reason} at step {result.steps}, mean temperature {result.mean_temperature_K:.0f} K")

log = read_log("md_langevin.csv")
for step, temperature, total in zip(log["step"], log["temperature_K"], log["total_eV"], strict=True):
    print(f"step {step:3d}  {temperature:6.1f} K  {total:12.4f} eV")
