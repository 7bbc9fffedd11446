"""A stand-in for a loaded model: EMT in float64 behind ``evaluate_each``, and structures for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from escn_calc.errors import CalculationError, ESCNError, InputError


@dataclass(frozen=True)
class EMTPrediction:
    energy: float
    energies: np.ndarray
    forces: np.ndarray
    stress: np.ndarray | None
    stresses: np.ndarray | None


class EMTPotential:
    """EMT; refuses helium, and fails in the evaluations for which ``fails`` returns an error.

    Attributes
    ----------
    batches : the number of atoms of each structure, for every call.
    fails : called with the number of calls before this one and a structure.
    """

    def __init__(self, forces: str = "gradient", fails: Callable[[int, Atoms], ESCNError | None] | None = None) -> None:
        self.forces = forces
        self.fails = fails
        self.batches: list[list[int]] = []

    def evaluate_each(self, structures: list[Atoms]) -> list[EMTPrediction | ESCNError]:
        call = len(self.batches)
        self.batches.append([len(atoms) for atoms in structures])
        return [self._evaluate(call, place, atoms) for place, atoms in enumerate(structures)]

    def _evaluate(self, call: int, place: int, atoms: Atoms) -> EMTPrediction | ESCNError:
        if len(atoms) == 0:
            return InputError(f"structure {place} has no atoms: remove it from the list")
        if "He" in atoms.symbols:
            return InputError(f"atom 0 (He) of structure {place} ({atoms.symbols}): the model does not know it")
        if not np.isfinite(atoms.positions).all():
            return CalculationError(f"energy of structure {place} ({atoms.symbols}): not finite")
        if self.fails is not None and (error := self.fails(call, atoms)) is not None:
            return error
        toy = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        toy.calc = EMT()
        has_stress = self.forces == "gradient" and atoms.cell.rank == 3
        return EMTPrediction(
            energy=toy.get_potential_energy(),
            energies=toy.get_potential_energies(),
            forces=toy.get_forces(),
            stress=toy.get_stress() if has_stress else None,
            stresses=np.tile(toy.get_stress() / len(toy), (len(toy), 1)) if has_stress else None,
        )


METALS = ("Cu", "Ag", "Au", "Pd", "Pt")
ADSORBATES = ("H", "C", "N", "O")


def slabs(count: int) -> list[Atoms]:
    """Rattled slabs of several metals and sizes with an atom on top and the bottom layer fixed."""
    return [_slab(number) for number in range(count)]


def _slab(number: int) -> Atoms:
    layers = 2 + number % 3
    size = (1 + number % 2, 2, layers)
    atoms = fcc111(METALS[number % len(METALS)], size, vacuum=6.0, periodic=True)
    add_adsorbate(atoms, ADSORBATES[number % len(ADSORBATES)], 1.5, "fcc")
    atoms.info.clear()
    atoms.rattle(0.08, seed=number)
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == layers))
    return atoms
