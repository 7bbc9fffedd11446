"""Relaxation of one structure with an optimiser of ASE.

A relaxation moves the atoms until the largest force on an atom that is free to move,

    fmax = max_i |F_i|     (F after constraints),

is below the requested value. Whatever ends it, be it convergence, the step limit, Ctrl-C or a failed evaluation, the
result holds the last frame whose energy and forces are known. Forces of a direct model are not the gradient of its
energy, so that a relaxation can converge and yet be meaningless: ``RelaxResult.notes`` tells of an energy that rose and
of atoms that went far.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator

from escn_calc.errors import CalculationError, ESCNError, InputError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.optimize.optimize import Optimizer

OPTIMIZERS = (
    "BFGS",
    "BFGSLineSearch",
    "FIRE",
    "FIRE2",
    "GPMin",
    "GoodOldQuasiNewton",
    "LBFGS",
    "LBFGSLineSearch",
    "MDMin",
    "RFO",
)
"""Names of the optimisers in ``ase.optimize`` that relax positions by forces, one frame a step."""

SAVED_PROPERTIES = ("energy", "free_energy", "energies", "forces")

ENERGY_RISE_WORTH_A_NOTE = 0.05
"""eV. An optimiser that follows the gradient of the energy ends lower than it began, up to noise well below this."""

DISPLACEMENT_WORTH_A_NOTE = 1.0
"""Å. About the length of a short bond: an atom that went farther may have changed its site or left its molecule."""

NUMERICAL_FAILURES = (ESCNError, RuntimeError, ArithmeticError, ValueError, OSError)
"""What calculators, optimisers (``LinAlgError`` is a ``ValueError``) and the trajectory file raise midway."""


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


@dataclass(frozen=True)
class RelaxResult:
    """How a relaxation ended.

    Attributes
    ----------
    atoms : Atoms
        The last frame, with its constraints and a calculator that holds its energy (eV) and forces (eV/Å).
    reason : str
        ``"converged"``, ``"step limit"``, ``"interrupted"`` (Ctrl-C) or ``"failed"``.
    message : str
        What failed, and after which step; empty unless ``reason`` is ``"failed"``.
    history : tuple of RelaxStep
        Energy and fmax of every frame, the input structure first.
    max_displacement : float
        Largest distance between an atom's first and last position, in Å.
    wall_time_s : float
        Time taken, in seconds.
    notes : tuple of str
        Reasons to doubt the result, one sentence each: the energy rose by more than ``ENERGY_RISE_WORTH_A_NOTE``, an
        atom moved by more than ``DISPLACEMENT_WORTH_A_NOTE``. Empty if there are none.
    """

    atoms: Atoms
    reason: Literal["converged", "step limit", "interrupted", "failed"]
    message: str
    history: tuple[RelaxStep, ...]
    max_displacement: float
    wall_time_s: float
    notes: tuple[str, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether fmax is below the requested value."""
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
    def fmax(self) -> float:
        """Largest force on an atom in the last frame, after constraints, in eV/Å."""
        return self.history[-1].fmax


def relax(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    optimizer: str = "BFGS",
    fmax: float = 0.05,
    steps: int = 500,
    trajectory: str | Path | None = None,
    progress: Callable[[RelaxStep], None] | None = None,
) -> RelaxResult:
    """Relax the positions of a structure; the cell stays as it is.

    Parameters
    ----------
    atoms : Atoms
        The structure with its constraints. It is not changed.
    calculator : BaseCalculator
        Any ASE calculator with energy and forces.
    optimizer : str
        Name of an optimiser in ``ase.optimize``, one of ``OPTIMIZERS``.
    fmax : float
        Converged when the largest force on an atom, after constraints, is below this value in eV/Å.
    steps : int
        Largest number of optimiser steps. With 0 the input structure is only evaluated.
    trajectory : str or Path, optional
        ASE trajectory to which every frame is written; an existing file is replaced once the input structure has
        been evaluated.
    progress : callable, optional
        Called with the ``RelaxStep`` of every frame.

    Returns
    -------
    RelaxResult
        The last frame with known energy and forces, and how the relaxation ended.

    Raises
    ------
    InputError
        Unknown optimiser, fmax or steps out of range, not a calculator of ASE, or one without forces.
    ESCNError
        The input structure itself cannot be evaluated. (Failures after that are reported in the result.)
    """
    optimizer_class = _optimizer_class(optimizer)
    check_limits(fmax, steps)
    _check_calculator(calculator)
    start = time.perf_counter()
    moving = atoms.copy()
    moving.calc = calculator
    history = [_first_step(moving)]
    frame = _frozen_copy(moving)
    reason: Literal["converged", "step limit", "interrupted", "failed"] = "step limit"
    message = ""
    try:
        with optimizer_class(moving, logfile=None, trajectory=trajectory) as search:
            for converged in search.irun(fmax=fmax, steps=steps):
                if search.nsteps > 0:
                    history.append(_measure(moving, search.nsteps))
                    frame = _frozen_copy(moving)
                if progress is not None:
                    progress(history[-1])
                if converged:
                    reason = "converged"
    except KeyboardInterrupt:
        reason = "interrupted"
    except NUMERICAL_FAILURES as error:
        reason = "failed"
        message = f"stopped after step {history[-1].index}: {error}"
    displacements = np.linalg.norm(frame.positions - atoms.positions, axis=1)
    return RelaxResult(
        atoms=frame,
        reason=reason,
        message=message,
        history=tuple(history),
        max_displacement=float(displacements.max()),
        wall_time_s=time.perf_counter() - start,
        notes=_notes(history[-1].energy - history[0].energy, displacements, frame),
    )


def optimizer_name(name: str) -> str:
    """Return the name of an optimiser as ASE writes it.

    Parameters
    ----------
    name : str
        One of ``OPTIMIZERS``, in upper or lower case.

    Raises
    ------
    InputError
        Not a string, or not one of them; the message suggests the nearest names.
    """
    if not isinstance(name, str):
        raise InputError(f"optimizer is {name!r}; give the name of one: {', '.join(OPTIMIZERS)}")
    exact = {known.lower(): known for known in OPTIMIZERS}
    if name.lower() not in exact:
        near = [exact[match] for match in get_close_matches(name.lower(), exact, n=3)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(OPTIMIZERS)}"
        raise InputError(f"unknown optimizer {name!r}; {hint}")
    return exact[name.lower()]


def check_limits(fmax: float, steps: int) -> None:
    """Make sure that a relaxation can end.

    Raises
    ------
    InputError
        ``fmax`` is not a positive finite number, or ``steps`` is negative.
    """
    if not (np.isfinite(fmax) and fmax > 0):
        raise InputError(f"fmax is {fmax} eV/Å; it must be a positive number")
    if steps < 0:
        raise InputError(f"steps is {steps}; it must be 0 or more")


def _optimizer_class(name: str) -> type[Optimizer]:
    import ase.optimize

    optimizer_class: type[Optimizer] = getattr(ase.optimize, optimizer_name(name))
    return optimizer_class


def _check_calculator(calculator: object) -> None:
    if not isinstance(calculator, BaseCalculator):
        raise InputError(f"calculator is {calculator!r}; pass a calculator of ASE, such as ESCNCalculator()")


def _first_step(atoms: Atoms) -> RelaxStep:
    try:
        return _measure(atoms, 0)
    except PropertyNotImplementedError as error:
        raise InputError(f"a relaxation needs forces, and the calculator has none: {error}") from error


def _notes(energy_change: float, displacements: np.ndarray, atoms: Atoms) -> tuple[str, ...]:
    notes = []
    if energy_change > ENERGY_RISE_WORTH_A_NOTE:
        notes.append(
            f"energy rose by {energy_change:.2f} eV: these forces are not the gradient of this energy "
            "(direct forces, or jumps at the cutoff); do not trust this result"
        )
    far = int((displacements > DISPLACEMENT_WORTH_A_NOTE).sum())
    if far:
        atom = int(displacements.argmax())
        others = f", and {far - 1} more by over {DISPLACEMENT_WORTH_A_NOTE:g} Å" if far > 1 else ""
        notes.append(f"atom {atom} ({atoms.symbols[atom]}) moved by {displacements[atom]:.2f} Å{others}")
    return tuple(notes)


def _measure(atoms: Atoms, index: int) -> RelaxStep:
    energy = float(atoms.get_potential_energy())
    largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    if not np.isfinite([energy, largest]).all():
        raise CalculationError(f"energy {energy} eV and fmax {largest} eV/Å at step {index} are not finite numbers")
    return RelaxStep(index, energy, largest)


def _frozen_copy(atoms: Atoms) -> Atoms:
    """Copy a frame together with its results, which then no longer depend on the calculator."""
    frame = atoms.copy()
    results = {name: atoms.calc.results[name] for name in SAVED_PROPERTIES if name in atoms.calc.results}
    frame.calc = SinglePointCalculator(frame, **results)
    frame.calc.name = atoms.calc.name
    return frame
