"""Relax an oxygen atom on Cu(111), then ask for its vibrations and their free energy."""

from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms

from escn_calc import ESCNCalculator
from escn_calc.relax import relax
from escn_calc.vibrations import adsorbate_indices, vibrations

atoms = fcc111("Cu", size=(2, 2, 3), vacuum=8.0, periodic=True)
add_adsorbate(atoms, "O", height=1.2, position="fcc")
atoms.set_tags([0] * 8 + [1] * 4 + [2])  # as in OC20: 0 subsurface, 1 surface, 2 adsorbate
atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 0))

calculator = ESCNCalculator(forces="gradient", dtype="float64")
relaxed = relax(atoms, calculator, fmax=0.01, steps=200)  # eV/Å
print(f"{relaxed.reason} after {relaxed.steps} steps")

result = vibrations(relaxed.atoms, calculator, adsorbate_indices(atoms))
print("frequencies", " ".join(f"{frequency:.1f}" for frequency in result.frequencies_cm1), "cm⁻¹")
print(f"zero-point energy {result.zero_point_energy:.4f} eV")
for temperature in (300, 500):
    found = result.free_energy(temperature)
    print(f"{temperature} K: F {found.free_energy:+.4f} eV, T S {temperature * found.entropy:.4f} eV")
for note in result.notes:
    print("note:", note)
