"""Fast potentials in place of the network: their numbers depend on the positions alone, never on earlier calls."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms
from ase.stress import full_3x3_to_voigt_6_stress

EPSILON, SIGMA, CUTOFF = 0.4, 2.34, 3.65


class PairPotential(Calculator):
    """Lennard-Jones pairs times (1 - (r/rc)²)², nearest images only, with forces and stress as its derivatives."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012
    default_parameters = {"epsilon": EPSILON}  # noqa: RUF012

    def check_state(self, atoms, tol=0.0):
        """Compare with the last structure bit by bit, which is also faster than ASE's way."""
        last = self.atoms
        if last is None or len(last) != len(atoms):
            return list(all_changes)
        same = (last.positions == atoms.positions).all() and (last.cell.array == atoms.cell.array).all()
        return [] if same else ["positions", "cell"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        positions, cell = self.atoms.positions, np.array(self.atoms.cell)
        first, second = np.triu_indices(len(positions), 1)
        vectors = positions[second] - positions[first]
        if self.atoms.pbc.all():
            vectors -= np.rint(vectors @ np.linalg.inv(cell)) @ cell
        squares = np.einsum("ij,ij->i", vectors, vectors)
        near = squares < CUTOFF**2
        first, second, vectors, squares = first[near], second[near], vectors[near], squares[near]
        sixth = (SIGMA**2 / squares) ** 3
        pair = 4 * self.parameters["epsilon"] * (sixth**2 - sixth)
        slope = 4 * self.parameters["epsilon"] * (-6 * sixth**2 + 3 * sixth) / squares  # by the square
        window = 1 - squares / CUTOFF**2
        energy = float(np.sum(pair * window**2))
        pull = 2 * (slope * window**2 - 2 * pair * window / CUTOFF**2)[:, None] * vectors
        forces = np.zeros_like(positions)
        np.add.at(forces, first, pull)
        np.add.at(forces, second, -pull)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
        if self.atoms.pbc.all():
            virial = vectors.T @ pull / self.atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress((virial + virial.T) / 2)


class Misbehaving(PairPotential):
    """A pair potential that changes its forces, or raises an error, from one of its evaluations on."""

    def __init__(self, at: int, change=None, error: BaseException | None = None) -> None:
        super().__init__()
        self.at, self.change, self.error, self.calls = at, change, error, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        if self.calls > self.at and self.error is not None:
            raise self.error
        if self.calls > self.at:
            self.change(self.results)


def crystal(repeat: int = 2) -> Atoms:
    """4 repeat³ copper atoms near their places."""
    atoms = bulk("Cu", "fcc", a=3.66, cubic=True) * (repeat, repeat, repeat)
    atoms.rattle(0.02, seed=1)
    return atoms


def half_fixed() -> Atoms:
    """The crystal with every other layer fixed."""
    atoms = crystal()
    atoms.set_constraint(FixAtoms(mask=np.rint(atoms.positions[:, 2] / 1.83).astype(int) % 2 == 0))
    return atoms
