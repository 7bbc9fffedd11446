"""Relaxation of one structure with an optimiser of ASE.

A relaxation moves the atoms until the largest force on an atom that is free to move,

    fmax = max_i |F_i|     (F after constraints),

is below the requested value. The cell stays, or relaxes too (:mod:`escn_calc.cell_relaxation`); then the stress has to
be small as well. Whatever ends it, be it convergence, the step limit, Ctrl-C or a failed evaluation, the result holds
the last frame whose energy and forces are known. Forces of a direct model are not the gradient of its energy, so that a
relaxation can converge and yet be meaningless: ``RelaxResult.notes`` tells of an energy that rose, of which there is a
warning as well, and of atoms that went far.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError

from escn_calc.cell_relaxation import CELLS, Cell, RelaxedCell, check_cell_options, check_relaxable_cell
from escn_calc.errors import ESCNError, InputError
from escn_calc.relax_path import RelaxPath
from escn_calc.relax_result import (
    CellStep,
    EnergyRiseWarning,
    Reason,
    RelaxResult,
    RelaxStep,
    energy_notes,
)

if TYPE_CHECKING:
    from ase.optimize.optimize import Optimizer

__all__ = [
    "CELLS",
    "DEFAULT_SMAX",
    "OPTIMIZERS",
    "CellStep",
    "EnergyRiseWarning",
    "RelaxResult",
    "RelaxStep",
    "check_limits",
    "optimizer_name",
    "relax",
]

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

DEFAULT_SMAX = 0.0005
"""eV/Å³, 0.08 GPa: an isotropic cell with the bulk modulus of copper is then within 0.02 % of its lattice constant."""

NUMERICAL_FAILURES = (ESCNError, RuntimeError, ArithmeticError, ValueError, OSError)
"""What calculators, optimisers (``LinAlgError`` is a ``ValueError``) and the trajectory file raise midway."""


def relax(
    atoms: Atoms,
    calculator: BaseCalculator,
    *,
    optimizer: str = "BFGS",
    fmax: float = 0.05,
    steps: int = 500,
    cell: Cell = "fixed",
    smax: float = DEFAULT_SMAX,
    pressure_GPa: float = 0.0,  # noqa: N803 (a unit)
    trajectory: str | Path | None = None,
    progress: Callable[[RelaxStep], None] | None = None,
) -> RelaxResult:
    """Relax the positions of a structure and, if asked to, its cell.

    Parameters
    ----------
    atoms : Atoms
        The structure with its constraints. It is not changed.
    calculator : BaseCalculator
        Any ASE calculator with energy and forces; with stress too if the cell is to relax.
    optimizer : str
        Name of an optimiser in ``ase.optimize``, one of ``OPTIMIZERS``.
    fmax : float
        Converged when the largest force on an atom, after constraints, is below this value in eV/Å.
    steps : int
        Largest number of optimiser steps. With 0 the input structure is only evaluated.
    cell : str
        ``"fixed"``; ``"full"``: all three vectors relax; ``"isotropic"``: their common length, the shape stays;
        ``"in-plane"``: the plane of the first two, for slabs. See :mod:`escn_calc.cell_relaxation`.
    smax : float
        With a cell that relaxes: converged when, besides ``fmax``, the largest principal value of the stress that has
        to vanish is below this value in eV/Å³ (0.0005 eV/Å³ is 0.08 GPa).
    pressure_GPa : float
        Pressure from outside in GPa, for ``"full"`` and ``"isotropic"``: the enthalpy is minimised.
    trajectory : str or Path, optional
        ASE trajectory to which every frame is written; an existing file is replaced once the input structure has
        been evaluated.
    progress : callable, optional
        Called with the ``RelaxStep`` (``CellStep`` if the cell relaxes) of every frame.

    Returns
    -------
    RelaxResult
        The last frame with known energy and forces, and how the relaxation ended.

    Raises
    ------
    InputError
        Unknown optimiser or cell; fmax, steps, smax or pressure out of range; not a calculator of ASE, or one without
        forces or the stress that is needed; a structure whose cell cannot relax in the way asked for.
    ESCNError
        The input structure itself cannot be evaluated. (Failures after that are reported in the result.)

    Warns
    -----
    EnergyRiseWarning
        The energy ended more than 0.05 eV above that of an earlier step; ``RelaxResult.notes`` says the same.
    """
    optimizer_class = _optimizer_class(optimizer)
    check_limits(fmax, steps)
    check_cell_options(cell, smax, pressure_GPa)
    check_relaxable_cell(atoms, cell)
    _check_calculator(calculator)
    moving = atoms.copy()
    moving.calc = calculator
    target = moving if cell == "fixed" else RelaxedCell(moving, cell, pressure_GPa, smax)
    path = RelaxPath(atoms, target)
    _record_first(path)
    reason: Reason = "step limit"
    message = ""
    try:
        with optimizer_class(cast("Atoms", target), logfile=None, trajectory=trajectory) as search:
            for converged in search.irun(fmax=fmax, steps=steps):
                if search.nsteps > 0:
                    path.record()
                if progress is not None:
                    progress(path.last_step)
                if converged:
                    reason = "converged"
    except KeyboardInterrupt:
        reason = "interrupted"
    except NUMERICAL_FAILURES as error:
        reason = "failed"
        message = f"stopped after step {path.last_step.index}: {error}"
    result = path.end(reason, message)
    for doubt in energy_notes(result.history):
        warnings.warn(doubt, EnergyRiseWarning, stacklevel=2)
    return result


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


def _record_first(path: RelaxPath) -> None:
    try:
        path.record()
    except PropertyNotImplementedError as error:
        if "stress" in str(error):
            raise InputError(
                f"a relaxation of the cell needs the stress, and the calculator has none: {error}. Take gradient "
                "forces (--forces gradient, in Python ESCNCalculator(forces='gradient')), or another model"
            ) from error
        raise InputError(f"a relaxation needs forces, and the calculator has none: {error}") from error
