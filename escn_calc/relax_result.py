"""What is known of a relaxation: its steps, how it ended, and reasons to doubt it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

ENERGY_RISE_WORTH_A_NOTE = 0.05
"""eV. An optimiser that follows the gradient of the energy ends at its lowest, up to noise well below this."""

DISPLACEMENT_WORTH_A_NOTE = 1.0
"""Å. About the length of a short bond: an atom that went farther may have changed its site or left its molecule."""

Reason = Literal["converged", "step limit", "stopped", "interrupted", "failed"]


class EnergyRiseWarning(UserWarning):
    """A relaxation ended well above the lowest energy on its way."""


@dataclass(frozen=True)
class RelaxStep:
    """One frame of a relaxation.

    Attributes
    ----------
    index : int
        Number of optimiser steps taken before this frame; the input structure has index 0.
    energy : float
        Energy in eV.
    fmax : float
        Largest force on an atom, after constraints, in eV/Å.
    """

    index: int
    energy: float
    fmax: float

    @property
    def lowered(self) -> float:
        """What the relaxation lowers, in eV: the energy."""
        return self.energy


@dataclass(frozen=True)
class CellStep(RelaxStep):
    """One frame of a relaxation of atoms and cell.

    Attributes
    ----------
    smax : float
        Largest principal value, in magnitude, of the stress that has to vanish, in eV/Å³; see
        :mod:`escn_calc.cell_relaxation`.
    stress : tuple of 6 floats
        The whole stress xx, yy, zz, yz, xz, xy in eV/Å³, positive under tension.
    volume : float
        Volume of the cell in Å³.
    enthalpy : float
        Energy plus pressure times volume, in eV.
    """

    smax: float
    stress: tuple[float, ...]
    volume: float
    enthalpy: float

    @property
    def lowered(self) -> float:
        """What the relaxation lowers, in eV: the enthalpy, which is the energy without a pressure."""
        return self.enthalpy


@dataclass(frozen=True)
class RelaxResult:
    """How a relaxation ended.

    Attributes
    ----------
    atoms : Atoms
        The last frame, with its constraints and a calculator that holds its energy (eV), forces (eV/Å) and, where the
        calculator of the relaxation has it, stress (eV/Å³).
    reason : str
        ``"converged"``, ``"step limit"``, ``"stopped"`` (by a callback of ``relax_batch``), ``"interrupted"`` (Ctrl-C)
        or ``"failed"``.
    message : str
        What failed, and after which step, or the words of the callback; else empty.
    history : tuple of RelaxStep
        Energy and fmax of every frame, the input structure first; ``CellStep`` if the cell was to relax.
    max_displacement : float
        Largest distance between an atom's first and last position, in Å, not counting what atoms move with the cell.
    wall_time_s : float
        Time taken, in seconds.
    notes : tuple of str
        Reasons to doubt the result, one sentence each: the energy (with a pressure, the enthalpy) ended more than
        ``ENERGY_RISE_WORTH_A_NOTE`` above that of an earlier step, an atom moved by more than
        ``DISPLACEMENT_WORTH_A_NOTE``. Empty if there are none.
    """

    atoms: Atoms
    reason: Reason
    message: str
    history: tuple[RelaxStep, ...]
    max_displacement: float
    wall_time_s: float
    notes: tuple[str, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether fmax, and smax if the cell relaxes, are below the requested values."""
        return self.reason == "converged"

    @property
    def steps(self) -> int:
        """Number of optimiser steps from the input structure to the last frame."""
        return self.history[-1].index

    @property
    def energy(self) -> float:
        """Energy of the last frame in eV."""
        return self.history[-1].energy

    @property
    def energy_change(self) -> float:
        """Energy of the last frame minus that of the input structure, in eV."""
        return self.history[-1].energy - self.history[0].energy

    @property
    def lowest(self) -> RelaxStep:
        """The step with the lowest energy (with a pressure, the lowest enthalpy)."""
        return min(self.history, key=lambda step: step.lowered)

    @property
    def energy_above_lowest(self) -> float:
        """How far the last frame lies above the lowest step, in eV; zero if it is the lowest."""
        return self.history[-1].lowered - self.lowest.lowered

    @property
    def fmax(self) -> float:
        """Largest force on an atom in the last frame, after constraints, in eV/Å."""
        return self.history[-1].fmax


def history_arrays(history: tuple[RelaxStep, ...]) -> dict[str, np.ndarray]:
    """Return what is known of every step by name, one row for each: energy in eV, fmax in eV/Å, and so on."""
    names = [field.name for field in fields(history[0])]
    return {name: np.array([getattr(step, name) for step in history]) for name in names}


def energy_notes(history: tuple[RelaxStep, ...]) -> tuple[str, ...]:
    """Say so if the last step lies far above an earlier one."""
    lowest = min(history, key=lambda step: step.lowered)
    rise = history[-1].lowered - lowest.lowered
    if rise <= ENERGY_RISE_WORTH_A_NOTE:
        return ()
    what = (
        f"energy rose by {rise:.2f} eV" if lowest.index == 0 else f"energy ends {rise:.2f} eV above step {lowest.index}"
    )
    return (
        f"{what}: these forces are not the gradient of this energy (direct forces, or jumps at the cutoff); "
        "do not trust this result",
    )


def displacement_notes(displacements: np.ndarray, atoms: Atoms) -> tuple[str, ...]:
    """Name the atom that went farthest if it went far; displacements in Å, (N,)."""
    far = int((displacements > DISPLACEMENT_WORTH_A_NOTE).sum())
    if not far:
        return ()
    atom = int(displacements.argmax())
    others = f", and {far - 1} more by over {DISPLACEMENT_WORTH_A_NOTE:g} Å" if far > 1 else ""
    return (f"atom {atom} ({atoms.symbols[atom]}) moved by {displacements[atom]:.2f} Å{others}",)
