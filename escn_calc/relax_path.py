"""What is kept of a relaxation on its way: every step, and the last frame whose energy and forces are known."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from escn_calc.errors import CalculationError
from escn_calc.relax_result import CellStep, Reason, RelaxResult, RelaxStep, displacement_notes, energy_notes

if TYPE_CHECKING:
    from escn_calc.cell_relaxation import RelaxedCell

SAVED_PROPERTIES = ("energy", "free_energy", "energies", "forces", "stress")


class RelaxPath:
    """The way of one relaxation so far; its clock runs from its construction.

    Parameters
    ----------
    start : Atoms
        The input structure. It is not changed.
    target : Atoms or RelaxedCell
        What an optimiser moves, with its calculator.
    """

    def __init__(self, start: Atoms, target: Atoms | RelaxedCell) -> None:
        self._start = start
        self._target = target
        self._moving = target if isinstance(target, Atoms) else target.atoms
        self._history: list[RelaxStep] = []
        self._began = time.perf_counter()

    @property
    def has_begun(self) -> bool:
        """Whether a step has been recorded, the input structure or a later one."""
        return bool(self._history)

    @property
    def last_step(self) -> RelaxStep:
        """The step recorded last."""
        return self._history[-1]

    @property
    def last_frame(self) -> Atoms:
        """The structure at that step, with its results."""
        return self._frame

    def record(self) -> RelaxStep:
        """Take the target as it is now for the next step; the first is the input structure.

        Raises
        ------
        CalculationError
            Energy, forces or stress are not finite; nothing is recorded then.
        """
        step = _measure(self._target, len(self._history))
        self._frame = _frozen_copy(self._moving)
        self._history.append(step)
        return step

    def end(self, reason: Reason, message: str = "") -> RelaxResult:
        """Return the result of a relaxation that ends here, with reasons to doubt it."""
        history = tuple(self._history)
        displacements = _displacements(self._start, self._frame)
        return RelaxResult(
            atoms=self._frame,
            reason=reason,
            message=message,
            history=history,
            max_displacement=float(displacements.max()),
            wall_time_s=time.perf_counter() - self._began,
            notes=(*energy_notes(history), *displacement_notes(displacements, self._frame)),
        )


def _measure(target: Atoms | RelaxedCell, index: int) -> RelaxStep:
    atoms = target if isinstance(target, Atoms) else target.atoms
    energy = float(atoms.get_potential_energy())
    largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    if not np.isfinite([energy, largest]).all():
        raise CalculationError(f"energy {energy} eV and fmax {largest} eV/Å at step {index} are not finite numbers")
    if isinstance(target, Atoms):
        return RelaxStep(index, energy, largest)
    stress = tuple(float(component) for component in atoms.get_stress())
    if not np.isfinite(stress).all():
        raise CalculationError(f"the stress {stress} eV/Å³ at step {index} is not finite")
    volume = float(atoms.cell.volume)
    enthalpy = energy + target.scalar_pressure * volume
    return CellStep(index, energy, largest, target.largest_stress(), stress, volume, enthalpy)


def _frozen_copy(atoms: Atoms) -> Atoms:
    """Copy a frame together with its results, which then no longer depend on the calculator."""
    frame = atoms.copy()
    results = {name: atoms.calc.results[name] for name in SAVED_PROPERTIES if name in atoms.calc.results}
    frame.calc = SinglePointCalculator(frame, **results)
    frame.calc.name = atoms.calc.name
    return frame


def _displacements(start: Atoms, end: Atoms) -> np.ndarray:
    """Distances in Å between first positions, moved with the cell, and last ones, (N,)."""
    carried = start.copy()
    carried.set_constraint()
    if (start.cell != end.cell).any():
        carried.set_cell(end.cell, scale_atoms=True)
    distances: np.ndarray = np.linalg.norm(end.positions - carried.positions, axis=1)
    return distances
