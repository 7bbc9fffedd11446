"""Relax an adsorbate on a slab whose two lowest layers stay where they are."""

from pathlib import Path

from ase.constraints import FixAtoms
from ase.io import read

from escn_calc import ESCNCalculator
from escn_calc.relax import relax

atoms = read(Path(__file__).with_name("co_on_cu111.xyz"))
atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 0))

result = relax(
    atoms,
    ESCNCalculator(),
    optimizer="BFGS",
    fmax=0.05,  # eV/Å
    steps=200,
    progress=lambda step: print(f"step {step.index:3d}  {step.energy:12.4f} eV  {step.fmax:8.4f} eV/Å"),
)

carbon, oxygen = (result.atoms.get_tags() == 2).nonzero()[0]
print(f"{result.reason} after {result.steps} steps, {result.wall_time_s:.1f} s")
print(f"C-O distance {result.atoms.get_distance(carbon, oxygen):.3f} Å")
