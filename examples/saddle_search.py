"""Where an oxygen atom crosses from one hollow of Cu(111) to the next: a search for the saddle point near the bridge.

Sella (pip install 'escn-calc[saddle]'), where it is installed, takes the Hessian itself, and again when its own has
aged; ASE's dimer takes from it the direction to start in.
"""

from importlib.util import find_spec

import numpy as np
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms
from ase.mep import DimerControl, MinModeAtoms, MinModeTranslate

from escn_calc import ESCNCalculator
from escn_calc.hessian import hessian
from escn_calc.vibrations import vibrations

atoms = fcc111("Cu", size=(2, 2, 2), vacuum=8.0, periodic=True)
add_adsorbate(atoms, "O", height=1.3, position="bridge", offset=(0.02, 0.05))
atoms.set_constraint(FixAtoms(indices=range(8)))
atoms.calc = ESCNCalculator(dtype="float64")

if find_spec("sella"):
    from sella import Sella

    search = Sella(atoms, order=1, internal=False, hessian_function=atoms.calc.get_hessian, logfile=None)
else:
    mode = np.zeros((9, 3))
    mode[8] = np.linalg.eigh(hessian(atoms, atoms.calc, [8]))[1][:, 0]  # of the lowest curvature
    control = DimerControl(logfile=None, eigenmode_logfile=None)
    search = MinModeTranslate(MinModeAtoms(atoms, control, eigenmodes=[mode]), logfile=None)
converged = search.run(fmax=0.02, steps=60)  # eV/Å

result = vibrations(atoms, atoms.calc, [8])
print(f"{type(search).__name__}: {'converged' if converged else 'not converged'} after {search.nsteps} steps")
print(
    "imaginary modes", np.round(result.imaginary_cm1, 1), "cm⁻¹; real ones", np.round(result.frequencies_cm1, 1), "cm⁻¹"
)
