"""Small labelled structures, in memory and in files."""

from pathlib import Path

import ase.db
import numpy as np
from ase import Atoms
from ase.build import fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from escn_calc.labels import LabelledFrame


def labelled(atoms: Atoms, energy: float = -1.0, **info: object) -> Atoms:
    """A copy with energy and forces; the force on atom i is (i + 1, 0, 0) eV/Å."""
    atoms = atoms.copy()
    atoms.info.update(info)
    forces = np.zeros((len(atoms), 3))
    forces[:, 0] = np.arange(1, len(atoms) + 1)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def slab(seed: int = 0, symbol: str = "Cu") -> Atoms:
    """Four rattled atoms in two periodic layers, the lower one fixed."""
    atoms = fcc111(symbol, (1, 2, 2), vacuum=5.0, periodic=True)
    atoms.info.clear()
    atoms.set_constraint(FixAtoms(indices=[0, 1]))
    atoms.positions += np.random.default_rng(seed).normal(scale=0.1, size=atoms.positions.shape)
    return atoms


def write_slabs(path: Path, sids: list[str]) -> Path:
    """A file with one labelled slab per sid."""
    write(path, [labelled(slab(number), -float(number), sid=sid) for number, sid in enumerate(sids)])
    return path


def write_database(path: Path, sids: list[str]) -> Path:
    """An ASE database with one labelled slab per sid."""
    with ase.db.connect(path) as database:
        for number, sid in enumerate(sids):
            database.write(labelled(slab(number), -float(number)), sid=sid, data={"step": number})
    return path


def frame(
    atoms: Atoms,
    energy: float | None = -1.0,
    group: str = "a",
    origin: str = "memory@0",
    repeat: int = 1,
    forces: np.ndarray | None = None,
) -> LabelledFrame:
    """A frame without stress."""
    return LabelledFrame(atoms, energy, forces, None, group, origin, repeat)


def varied_frames(count: int) -> list[LabelledFrame]:
    """Slabs, water molecules and single atoms in turn, every one a group of its own."""
    kinds = [slab, lambda seed: molecule("H2O"), lambda seed: Atoms("O")]
    return [frame(kinds[number % 3](number), group=f"g{number}", origin=f"memory@{number}") for number in range(count)]
