"""Second derivatives of the energy, of any calculator of ASE.

The Hessian of the atoms that move, all others held where they are, is

    H[ia, jb] = ∂²E / ∂x_ia ∂x_jb = -∂F_jb / ∂x_ia     (i, j: atoms, a, b: x, y, z)

either by automatic differentiation of the energy, or by central differences of the forces,

    H[ia, jb] ≈ -(F_jb(x_ia + h) - F_jb(x_ia - h)) / 2h     (h: the displacement; the error is of order h²).

Direct forces are not a gradient, so their derivative is not symmetric. What is lost in making it so is reported.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError

from escn_calc.constraints import free_indices
from escn_calc.errors import BatchError, CalculationError, InputError
from escn_calc.options import check_option

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.potential import Potential

METHODS = ("auto", "autograd", "finite-difference")

LARGEST_DISPLACEMENT = 0.2
"""Å. Farther out the forces of a stretched bond are nowhere near linear."""

PARTS, SMALLEST_PART = 10, 64
"""Displaced structures go to the model in at most so many parts, of no fewer than so many structures: progress is seen,
and a part is large enough for batches that fill the device."""

ASYMMETRY_WORTH_A_WARNING = 0.01
"""Frequencies go as the square root of the Hessian: half a per cent, what people read off a spectrum."""


class AsymmetricHessianWarning(UserWarning):
    """The derivative of the forces is so far from symmetric that the Hessian made from it is an approximation."""


@dataclass(frozen=True, eq=False)
class ForceDerivative:
    """-∂F_jb/∂x_ia as it was computed.

    Attributes
    ----------
    matrix : ndarray (3n, 3n)
        In eV/Å²; symmetric only as far as the forces are a gradient.
    method : str
        ``"autograd"`` or ``"finite-difference"``.
    """

    matrix: np.ndarray
    method: str

    @property
    def symmetrised(self) -> np.ndarray:
        """The Hessian: the symmetric part."""
        return np.asarray((self.matrix + self.matrix.T) / 2)

    @property
    def asymmetry(self) -> float:
        """Largest difference of the matrix from its transpose, relative to its largest element."""
        largest = float(np.abs(self.matrix).max())
        return float(np.abs(self.matrix - self.matrix.T).max()) / largest if largest else 0.0

    @property
    def doubt(self) -> str:
        """What a large asymmetry means, in words."""
        return (
            f"the derivative of the forces differs from its transpose by {100 * self.asymmetry:.1f} % of its largest "
            "element; its symmetric part is an approximation. Direct forces are no gradient of an energy; with "
            "gradient forces try float64 or another displacement"
        )


def hessian(
    atoms: Atoms,
    calculator: BaseCalculator,
    indices: Sequence[int] | np.ndarray | None = None,
    *,
    method: str = "auto",
    displacement: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Second derivatives of the energy with respect to the positions of some atoms.

    Parameters
    ----------
    atoms : Atoms
        The structure. It is not changed.
    calculator : BaseCalculator
        Any ASE calculator with forces. Models of this package evaluate the displaced structures in batches.
    indices : sequence of int, optional
        Atoms that move (default: :func:`free_indices`).
    method : str
        ``"autograd"``: exact second derivatives of the energy, with an ``ESCNCalculator`` only.
        ``"finite-difference"``: central differences of the forces, 6 evaluations for each atom that moves.
        ``"auto"``: autograd where the forces of the calculator are gradients by autograd, else finite differences, so
        that the Hessian belongs to the forces with which the structure was relaxed.
    displacement : float
        Step of the finite differences in Å.
    progress : callable, optional
        Called with the number of displaced structures evaluated and their total (finite differences only).

    Returns
    -------
    ndarray (3n, 3n)
        Symmetrised Hessian in eV/Å² for the n atoms in the order of ``indices``: x, y, z of the first, and so on.

    Raises
    ------
    InputError
        Indices that cannot be used, an unknown method, autograd with a calculator that does not have it, a
        displacement out of range, a calculator without forces, or a structure that it refuses.
    CalculationError
        An evaluation failed, or a force is not finite.

    Warns
    -----
    AsymmetricHessianWarning
        H - Hᵀ was larger than ``ASYMMETRY_WORTH_A_WARNING`` before symmetrisation, relative to the largest element.
    """
    moving = moving_atoms(atoms, indices)
    derivative = force_derivative(atoms, calculator, moving, method, displacement, progress)
    if derivative.asymmetry > ASYMMETRY_WORTH_A_WARNING:
        warnings.warn(derivative.doubt, AsymmetricHessianWarning, stacklevel=2)
    return derivative.symmetrised


def full_hessian(atoms: Atoms, calculator: BaseCalculator) -> np.ndarray:
    """Second derivatives with respect to all positions, as saddle-point searches such as Sella ask for them.

    Parameters
    ----------
    atoms : Atoms
        The structure. It is not changed.
    calculator : BaseCalculator
        As for :func:`hessian`.

    Returns
    -------
    ndarray (3N, 3N)
        The :func:`hessian` of the atoms that no ``FixAtoms`` holds, in eV/Å²; rows and columns of the others are zero.

    Raises
    ------
    InputError, CalculationError
        As :func:`hessian`.

    Warns
    -----
    AsymmetricHessianWarning
        As :func:`hessian`.
    """
    moving = moving_atoms(atoms, None)
    coordinates = (3 * moving[:, None] + np.arange(3)).ravel()
    full = np.zeros((3 * len(atoms), 3 * len(atoms)))
    full[np.ix_(coordinates, coordinates)] = hessian(atoms, calculator, moving)
    return full


def force_derivative(
    atoms: Atoms,
    calculator: BaseCalculator,
    moving: np.ndarray,
    method: str,
    displacement: float,
    progress: Callable[[int, int], None] | None,
) -> ForceDerivative:
    """Differentiate the forces; arguments and errors are those of :func:`hessian`, ``moving`` is checked already."""
    check_displacement(displacement)
    chosen = _choose_method(calculator, method)
    potential = _potential_of(calculator)
    if chosen == "autograd":
        assert potential is not None
        return ForceDerivative(potential.hessian(atoms, moving.tolist()), chosen)
    displaced = _displaced(atoms, moving, displacement)
    at_once = 1 if potential is None else max(SMALLEST_PART, math.ceil(len(displaced) / PARTS))
    forces: list[np.ndarray] = []
    for start in range(0, len(displaced), at_once):
        forces += [found[moving] for found in forces_of(displaced[start : start + at_once], calculator)]
        if progress is not None:
            progress(len(forces), len(displaced))
    backward, forward = np.stack(forces).reshape(-1, 2, 3 * len(moving)).swapaxes(0, 1)
    return ForceDerivative(-(forward - backward) / (2 * displacement), chosen)


def forces_of(structures: list[Atoms], calculator: BaseCalculator) -> list[np.ndarray]:
    """Return the forces in eV/Å, (N, 3) each, without constraints; a model evaluates several structures together.

    Raises
    ------
    InputError, CalculationError
        The calculator has no forces, or refuses a structure; an evaluation failed, or a force is not finite.
    """
    potential = _potential_of(calculator)
    if potential is not None and len(structures) > 1:
        found = _forces_together(structures, potential)
    else:
        found = [_forces_of_one(structure, calculator) for structure in structures]
    for structure, forces in zip(structures, found, strict=True):
        broken = np.flatnonzero(~np.isfinite(forces).all(axis=1))
        if broken.size:
            atom = int(broken[0])
            raise CalculationError(
                f"the force on atom {atom} ({structure.symbols[atom]}) is not finite; check the structure"
            )
    return found


def moving_atoms(atoms: Atoms, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """Return the indices of the atoms that move: those given, or :func:`free_indices`.

    Raises
    ------
    InputError
        There are none, or they are not different numbers of atoms.
    """
    if indices is None:
        moving = free_indices(atoms)
        if not moving.size:
            raise InputError(f"all {len(atoms)} atoms are fixed, so there is nothing to vibrate; fix fewer atoms")
        return moving
    moving = np.asarray(indices)
    if moving.ndim != 1 or not moving.size or not np.issubdtype(moving.dtype, np.integer):
        raise InputError(f"indices are {indices!r}; give a list with the numbers of the atoms that move")
    outside = moving[(moving < 0) | (moving >= len(atoms))]
    if outside.size:
        raise InputError(
            f"there is no atom {outside[0]}; the {len(atoms)} atoms have the indices 0 to {len(atoms) - 1}"
        )
    values, counts = np.unique(moving, return_counts=True)
    if counts.max() > 1:
        raise InputError(f"atom {values[counts.argmax()]} is named more than once among the atoms that move")
    return moving


def check_displacement(displacement: float) -> None:
    """Make sure that the step of finite differences can be used.

    Raises
    ------
    InputError
        It is not positive, or larger than ``LARGEST_DISPLACEMENT``.
    """
    if not 0 < displacement <= LARGEST_DISPLACEMENT:
        raise InputError(
            f"the displacement is {displacement} Å; it must be positive and at most {LARGEST_DISPLACEMENT} Å "
            "(0.01 Å suits most models)"
        )


def _potential_of(calculator: object) -> Potential | None:
    """Return the model behind a calculator of this package, which is loaded by this; None for others."""
    return getattr(calculator, "potential", None)


def _choose_method(calculator: BaseCalculator, method: str) -> str:
    check_option("method", method, METHODS)
    if not isinstance(calculator, BaseCalculator):
        raise InputError(f"calculator is {calculator!r}; pass a calculator of ASE, such as ESCNCalculator()")
    potential = _potential_of(calculator)
    if potential is None:
        if method == "autograd":
            raise InputError(
                f"{type(calculator).__name__} has no second derivatives by autograd; use method='finite-difference'"
            )
        return "finite-difference"
    if potential.forces is None:
        raise InputError("vibrations need forces, and the model has none; load it with forces='gradient'")
    if method == "auto":
        return "autograd" if potential.forces == "gradient" else "finite-difference"
    return method


def _displaced(atoms: Atoms, moving: np.ndarray, displacement: float) -> list[Atoms]:
    """Return one structure for every atom that moves, direction and sign, in this order; minus comes first."""
    structures = []
    for atom in moving:
        for axis in range(3):
            for sign in (-1, 1):
                structure = atoms.copy()
                structure.positions[atom, axis] += sign * displacement
                structures.append(structure)
    return structures


def _forces_together(structures: list[Atoms], potential: Potential) -> list[np.ndarray]:
    try:
        return [np.asarray(prediction.forces, dtype=np.float64) for prediction in potential.evaluate(structures)]
    except BatchError as error:
        raise next(iter(error.errors.values())) from error


def _forces_of_one(atoms: Atoms, calculator: BaseCalculator) -> np.ndarray:
    try:
        return np.array(calculator.get_forces(atoms))
    except PropertyNotImplementedError as error:
        raise InputError(f"vibrations need forces, and the calculator has none: {error}") from error
