"""Any ASE calculator as what a campaign relaxes with: evaluated one structure at a time."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from escn_calc.errors import CalculationError, ESCNError, InputError


@dataclass(frozen=True, eq=False)
class CalculatorPrediction:
    """What a calculator says about one structure; named as in :class:`escn_calc.potential.Prediction`.

    Attributes
    ----------
    energy : float
        In eV.
    forces : ndarray, (N, 3)
        In eV/Å, without constraints.
    stress : ndarray, (6,), or None
        In eV/Å³, xx, yy, zz, yz, xz, xy; None without a periodic cell, or if the calculator has none.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None
    energies: None = None
    stresses: None = None


class CalculatorPotential:
    """A calculator behind the interface of :class:`escn_calc.potential.Potential` that relaxations use.

    Attributes
    ----------
    forces : "gradient" if the calculator has a stress, so that cells can relax, else "direct".
    device : "cpu"; where a calculator really computes is its own matter.
    """

    device = "cpu"

    def __init__(self, calculator: BaseCalculator) -> None:
        self._calculator = calculator
        self.forces = "gradient" if has_stress(calculator) else "direct"

    def evaluate_each(self, structures: Sequence[Atoms]) -> list[CalculatorPrediction | ESCNError]:
        """Evaluate structures one after the other; one that fails has its error in its place."""
        return [self._evaluate(index, atoms) for index, atoms in enumerate(structures)]

    def _evaluate(self, index: int, atoms: Atoms) -> CalculatorPrediction | ESCNError:
        bare = atoms.copy()
        bare.set_constraint()
        bare.calc = self._calculator
        wants_stress = self.forces == "gradient" and bare.cell.rank == 3 and bool(bare.pbc.all())
        try:
            energy, forces = float(bare.get_potential_energy()), np.array(bare.get_forces())
            stress = np.array(bare.get_stress()) if wants_stress else None
        except Exception as error:  # of whatever kind a calculator raises: carried on to the owner of the structure
            failure = CalculationError(f"structure {index}: {type(error).__name__}: {error}")
            failure.__cause__ = error
            return failure
        if not (np.isfinite(energy) and np.isfinite(forces).all() and (stress is None or np.isfinite(stress).all())):
            return CalculationError(f"structure {index}: the calculator returned a number that is not finite")
        return CalculatorPrediction(energy, forces, stress)


def has_stress(calculator: BaseCalculator) -> bool:
    """Whether a calculator has a stress."""
    return "stress" in calculator.implemented_properties


def make_calculator(factory: str, arguments: Mapping[str, Any]) -> BaseCalculator:
    """Call ``module:callable`` with keyword arguments.

    Raises
    ------
    InputError
        There is no such callable, it does not take these arguments or fails, or what it returns is no calculator.
    """
    try:
        function = pkgutil.resolve_name(factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"{factory!r} cannot be imported: {error}; write module:callable, and install the module"
        ) from error
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise InputError(f"{factory!r} does not take these arguments: {error}") from error
    except ValueError:
        pass  # a callable of an extension module need not have a signature
    try:
        calculator = function(**arguments)
    except Exception as error:  # of whatever kind a foreign callable raises: it is what the user has to see
        raise InputError(f"{factory!r} failed: {type(error).__name__}: {error}") from error
    implemented = getattr(calculator, "implemented_properties", ())
    if not (hasattr(calculator, "get_property") and {"energy", "forces"} <= {*implemented}):
        raise InputError(f"{factory!r} returned {calculator!r}; it must be an ASE calculator with energy and forces")
    return calculator
