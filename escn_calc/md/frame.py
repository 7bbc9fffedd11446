"""One frame of a run: a structure, its results, and its thermodynamics, independent of the calculator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator

from escn_calc.md.results import MDStep

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Frame:
    """A step and everything that is known of it.

    Attributes
    ----------
    thermodynamics : MDStep
        Energies with what constraints add to them, temperature, and pressure where the cell moves.
    positions, momenta : ndarray, (N, 3)
        In Å and ASE's unit of momentum.
    cell : ndarray, (3, 3)
        In Å.
    energy : float
        What the calculator gives, in eV.
    forces : ndarray, (N, 3)
        What the calculator gives, before constraints, in eV/Å.
    stress : ndarray, (6,), or None
        What the calculator gives, in eV/Å³ in ASE's order; None if it was not asked for.
    model : str
        Name of the calculator.
    """

    thermodynamics: MDStep
    positions: np.ndarray
    momenta: np.ndarray
    cell: np.ndarray
    energy: float
    forces: np.ndarray
    stress: np.ndarray | None
    model: str

    @property
    def step(self) -> int:
        """Number of steps before this frame."""
        return self.thermodynamics.step

    def put_into(self, atoms: Atoms) -> Atoms:
        """Change a structure of the same atoms into this frame, results and time included, and return it."""
        atoms.set_cell(self.cell, apply_constraint=False)
        atoms.set_positions(self.positions, apply_constraint=False)
        atoms.set_momenta(self.momenta, apply_constraint=False)
        atoms.info.update(step=self.step, time_fs=self.thermodynamics.time_fs)
        stress = {} if self.stress is None else {"stress": self.stress}
        atoms.calc = SinglePointCalculator(atoms, energy=self.energy, forces=self.forces, **stress)
        atoms.calc.name = self.model
        return atoms


def measure(atoms: Atoms, step: int, time_fs: float, *, stress: bool, npt: bool) -> Frame:
    """Evaluate a structure and copy everything that belongs to the frame.

    Parameters
    ----------
    atoms : Atoms
        The structure with its calculator.
    step : int
        Number of steps taken.
    time_fs : float
        Time since the start in fs.
    stress : bool
        Whether to ask the calculator for the stress.
    npt : bool
        Whether pressure and volume belong to the thermodynamics.
    """
    forces = np.array(atoms.get_forces(apply_constraint=False), dtype=np.float64)
    energy = float(atoms.get_potential_energy(apply_constraint=False))
    potential = float(atoms.get_potential_energy()) if atoms.constraints else energy
    kinetic = float(atoms.get_kinetic_energy())
    freedom = int(atoms.get_number_of_degrees_of_freedom())  # some constraints count in integers of numpy
    return Frame(
        MDStep(
            step=step,
            time_fs=float(time_fs),
            potential=potential,
            kinetic=kinetic,
            total=potential + kinetic,
            temperature_K=2 * kinetic / (freedom * units.kB),
            pressure_GPa=_pressure(atoms) if npt else None,
            volume=float(atoms.get_volume()) if npt else None,
        ),
        positions=atoms.get_positions(),
        momenta=atoms.get_momenta(),
        cell=np.array(atoms.cell),
        energy=energy,
        forces=forces,
        stress=np.array(atoms.get_stress(apply_constraint=False), dtype=np.float64) if stress else None,
        model=atoms.calc.name,
    )


def _pressure(atoms: Atoms) -> float:
    return -float(np.mean(atoms.get_stress(include_ideal_gas=True)[:3])) / units.GPa
