"""Path of an oxygen atom between two hollows of Cu(111): a stock NEB whose images share one evaluation a step."""

from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms
from ase.mep import NEB, NEBTools
from ase.optimize import FIRE

from escn_calc import batched, load_potential, run_each
from escn_calc.relax import relax

potential = load_potential()
ends = []
for site in ("fcc", "hcp"):
    atoms = fcc111("Cu", size=(2, 2, 2), vacuum=8.0, periodic=True)
    add_adsorbate(atoms, "O", height=1.2, position=site)
    atoms.set_constraint(FixAtoms(indices=range(4)))
    ends.append(atoms)
first, last = run_each(lambda atoms: relax(atoms, atoms.calc, fmax=0.03).atoms, ends, potential)  # eV/Å

images = [first, *(first.copy() for _ in range(5)), last]
with batched(potential) as calculators:
    for image in images[1:-1]:
        image.calc = calculators.new()
    band = NEB(images, climb=True, parallel=True, method="improvedtangent")
    band.interpolate(method="idpp", mic=True)
    with FIRE(band, logfile=None) as optimizer:
        optimizer.attach(calculators.check)  # an image that fails ends the search
        converged = optimizer.run(fmax=0.05, steps=60)

tools = NEBTools(images)
barrier, difference = tools.get_barrier()
print(f"{'converged' if converged else 'not converged'} after {optimizer.nsteps} steps")
print(f"barrier {barrier:.3f} eV, energy of the end {difference:+.3f} eV")
tools.plot_band().savefig("neb_batched.png", dpi=150)
