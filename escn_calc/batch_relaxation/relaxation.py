"""One structure among many that are relaxed together.

The optimiser is ASE's own, and it works on the structure's own ``Atoms``, so that its definition, constraints, cell and
trajectory are those of a relaxation alone. ASE's ``irun`` alternates between ``step``, which moves the atoms by the
forces that the calculator remembers, and an evaluation; here the evaluation comes from outside, together with those of
other structures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from escn_calc.calculator import ase_results
from escn_calc.cell_relaxation import Cell, RelaxedCell, check_relaxable_cell
from escn_calc.errors import CalculationError, ESCNError, InputError
from escn_calc.relax_path import RelaxPath
from escn_calc.relax_result import RelaxResult, RelaxStep

if TYPE_CHECKING:
    from ase.optimize.optimize import Optimizer

    from escn_calc.potential import Prediction

Callback = Callable[[int, RelaxStep, Atoms], str | None]
"""Is given the place of a structure in the list, a step and its frame; words end the relaxation of that structure."""


@dataclass(frozen=True)
class RelaxSettings:
    """What all structures have in common; named as the parameters of :func:`escn_calc.relax.relax`."""

    optimizer: type[Optimizer]
    fmax: float
    steps: int
    cell: Cell
    smax: float
    pressure_GPa: float  # noqa: N815 (a unit)
    callbacks: Sequence[Callback]


class Relaxation:
    """The relaxation of a structure that waits to be evaluated, takes a step, and waits again, until it ends.

    Parameters
    ----------
    index : int
        Its place in the list of all structures.
    start : Atoms
        The structure. It is not changed.
    settings : RelaxSettings
        How to relax it.
    trajectory : Path or None
        File for its frames; an existing one is replaced once the structure has been evaluated.

    Attributes
    ----------
    atoms : Atoms
        The structure as it is to be evaluated next.
    end : RelaxResult, ESCNError or None
        How the relaxation ended: with an error if not even the first frame is known; None while it goes on.

    Raises
    ------
    InputError
        Not ``Atoms``, or a structure whose cell cannot relax in the way asked for.
    """

    def __init__(self, index: int, start: Atoms, settings: RelaxSettings, trajectory: Path | None) -> None:
        if not isinstance(start, Atoms):
            raise InputError(f"structure {index} is of type {type(start).__name__}: expected ase.Atoms")
        check_relaxable_cell(start, settings.cell)
        self.index = index
        self.atoms = start.copy()
        self.end: RelaxResult | ESCNError | None = None
        self._settings = settings
        self._trajectory = trajectory
        self._target = self.atoms
        if settings.cell != "fixed":
            self._target = RelaxedCell(self.atoms, settings.cell, settings.pressure_GPa, settings.smax)
        self._path = RelaxPath(start, self._target)

    def take(self, outcome: Prediction | ESCNError) -> None:
        """Take what an evaluation of ``atoms`` gave; then there is an ``end``, or ``atoms`` have moved by one step."""
        try:
            if isinstance(outcome, ESCNError):
                raise outcome
            self.end = self._advance(outcome)
        except Exception as error:  # of its own constraints, file or callbacks too: carried on to the owner of the end
            self.end = self._failure(error)

    def interrupt(self) -> None:
        """End with the last frame that is known, if there is one and no other end."""
        if self.end is None and self._path.has_begun:
            self.end = self._path.end("interrupted")

    def _advance(self, prediction: Prediction) -> RelaxResult | None:
        self.atoms.calc = _Evaluated(self.atoms, **ase_results(prediction))
        step = self._path.record()
        search = self._search
        search.call_observers()  # they write the trajectory
        for callback in self._settings.callbacks:
            words = callback(self.index, step, self._path.last_frame)
            if words is not None:
                return self._path.end("stopped", words)
        if search.converged():
            return self._path.end("converged")
        if search.nsteps >= self._settings.steps:
            return self._path.end("step limit")
        search.step()
        search.nsteps += 1
        return None

    @cached_property
    def _search(self) -> Optimizer:
        search = self._settings.optimizer(cast("Atoms", self._target), logfile=None, trajectory=self._trajectory)
        search.fmax = self._settings.fmax  # type: ignore[assignment]  # ASE declares it None until it runs
        search.max_steps = self._settings.steps
        return search

    def _failure(self, error: Exception) -> RelaxResult | ESCNError:
        if self._path.has_begun:
            return self._path.end("failed", f"stopped after step {self._path.last_step.index}: {in_words(error)}")
        return as_error_of(self.index, error)


class _Evaluated(SinglePointCalculator):
    """Results of an evaluation, which hold until the atoms or the cell move.

    ASE's own comparison looks at all that a structure has, several times a step, and would take the longest of all.
    """

    name = "escn"

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Return what has changed since."""
        then = self.atoms
        assert then is not None  # from construction on
        pairs = {"positions": (atoms.positions, then.positions), "cell": (atoms.cell.array, then.cell.array)}
        return [name for name, (one, other) in pairs.items() if not np.array_equal(one, other)]


def as_error_of(index: int, error: Exception) -> ESCNError:
    """Return an error of this package for whatever kept a structure from being relaxed."""
    if isinstance(error, ESCNError):
        return error
    failure = CalculationError(f"structure {index}: {in_words(error)}")
    failure.__cause__ = error
    return failure


def in_words(error: Exception) -> str:
    """Say what an error was, with its class where it is not one of this package."""
    return str(error) if isinstance(error, ESCNError) else f"{type(error).__name__}: {error}"
