"""Attach the calculator to a slab and ask for energy and forces."""

from pathlib import Path

import numpy as np
from ase.io import read

from escn_calc import ESCNCalculator

atoms = read(Path(__file__).with_name("co_on_cu111.xyz"))
atoms.calc = ESCNCalculator()

card = atoms.calc.potential.card
print(f"model          {card.name} (sha256 {card.sha256[:12]})")
print(f"energy         {atoms.get_potential_energy():.4f} eV ({card.energy_kind}; {card.energy_reference})")
print(f"largest force  {np.linalg.norm(atoms.get_forces(), axis=1).max():.4f} eV/Å")
print(f"energy of the adsorbate's atoms: {atoms.get_potential_energies()[atoms.get_tags() == 2]} eV")
