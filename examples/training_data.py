"""Write small training data: rattled slabs with H, N or O, labelled with ASE's EMT potential.

EMT takes milliseconds and shows how to prepare a file; for a model of use, put your DFT results in its place. Each
structure says which surface and adsorbate it belongs to (`sid`), so that all of one kind stay together.
"""

import sys
from pathlib import Path

from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

METALS, ADSORBATES = ("Cu", "Pd", "Ag"), ("H", "N", "O")
HEIGHTS = {"ontop": 1.9, "fcc": 1.5}  # Å


def labelled(metal: str, adsorbate: str, site: str, seed: int) -> Atoms:
    """One structure with energy (eV) and forces (eV/Å)."""
    atoms = fcc111(metal, size=(2, 2, 3), vacuum=8.0, periodic=True)
    add_adsorbate(atoms, adsorbate, HEIGHTS[site], site)
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 3))
    atoms.rattle(0.08, seed=seed)
    atoms.info["sid"] = f"{metal}111-{adsorbate}"
    atoms.info.pop("adsorbate_info")  # ASE's own, not for files
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
kinds = [(metal, adsorbate, site) for metal in METALS for adsorbate in ADSORBATES for site in HEIGHTS]
frames = [labelled(*kind, seed=100 * number + copy) for number, kind in enumerate(kinds) for copy in range(count)]
write(Path("training_data.extxyz"), frames)
print(f"training_data.extxyz: {len(frames)} structures in {len({atoms.info['sid'] for atoms in frames})} groups")
