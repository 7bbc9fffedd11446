"""Hessians, vibrational modes and harmonic free energies of a few atoms on a surface, or of any others.

The Hessian of the atoms that move, all others held where they are, is

    H[ia, jb] = ∂²E / ∂x_ia ∂x_jb = -∂F_jb / ∂x_ia     (i, j: atoms, a, b: x, y, z)

either by automatic differentiation of the energy, or by central differences of the forces,

    H[ia, jb] ≈ -(F_jb(x_ia + h) - F_jb(x_ia - h)) / 2h     (h: the displacement; the error is of order h²).

The eigenvalues ω² of the mass-weighted Hessian are the squared angular frequencies of the modes. They, the zero-point
energy Σ ħω/2 and the harmonic free energy come from ``ase.vibrations.VibrationsData`` and
``ase.thermochemistry.HarmonicThermo``.

Direct forces are not a gradient, so their derivative is not symmetric. What is lost in making it so is reported.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.constraints import FixAtoms

from escn_calc.calculator import ESCNCalculator
from escn_calc.errors import CalculationError, InputError
from escn_calc.options import check_option

if TYPE_CHECKING:
    from ase import Atoms
    from ase.vibrations import VibrationsData

METHODS = ("auto", "autograd", "finite-difference")

LARGEST_DISPLACEMENT = 0.2
"""Å. Farther out the forces of a stretched bond are nowhere near linear."""

ATOMS_IN_A_BATCH = 512
"""Displaced structures are evaluated together up to this many atoms, so that memory does not grow with their number."""

ASYMMETRY_WORTH_A_WARNING = 0.01
"""Frequencies go as the square root of the Hessian: half a per cent, what people read off a spectrum."""

FMAX_WORTH_A_NOTE = 0.05
"""eV/Å. The usual threshold of a relaxation; above it the structure counts as not relaxed."""

ADSORBATE_TAG = 2
"""Tag of adsorbate atoms in OC20 structures: 0 is the subsurface, 1 the surface."""


class AsymmetricHessianWarning(UserWarning):
    """The derivative of the forces is so far from symmetric that the Hessian made from it is an approximation."""


@dataclass(frozen=True)
class HarmonicFreeEnergy:
    """Contribution of the vibrations at one temperature, to be added to the potential energy.

    Attributes
    ----------
    temperature_K : float
        Temperature in K.
    internal_energy : float
        U in eV, zero-point energy included.
    entropy : float
        S in eV/K.
    free_energy : float
        Helmholtz free energy F = U - T S in eV.
    """

    temperature_K: float  # noqa: N815 (ASE's name)
    internal_energy: float
    entropy: float
    free_energy: float


@dataclass(frozen=True, eq=False)
class Vibrations:
    """Modes of the atoms that move, and what to know before trusting them.

    Attributes
    ----------
    data : VibrationsData
        ASE's object with structure, symmetrised Hessian and modes; ``data.get_modes()`` are the displacements,
        ``data.iter_animated_mode(i)`` moves the atoms, ``data.with_new_masses(...)`` exchanges isotopes.
    energy : float
        Potential energy of the structure in eV.
    fmax : float
        Largest force on an atom that moves, in eV/Å; constraints are not applied.
    method : str
        ``"autograd"`` or ``"finite-difference"``.
    asymmetry : float
        Largest element of H - Hᵀ before symmetrisation, divided by the largest element of H.
    lowest_cm1 : float
        In ``free_energy`` lower frequencies count as this one, in cm⁻¹.
    notes : tuple of str
        Reasons to doubt the result, one sentence each. Empty if there are none.
    """

    data: VibrationsData
    energy: float
    fmax: float
    method: str
    asymmetry: float
    lowest_cm1: float
    notes: tuple[str, ...]

    @property
    def frequencies_cm1(self) -> np.ndarray:
        """Real frequencies in cm⁻¹, ascending."""
        found = self.data.get_frequencies()
        return np.asarray(found[found.imag == 0].real)

    @property
    def imaginary_cm1(self) -> np.ndarray:
        """Sizes of the imaginary frequencies in cm⁻¹, the largest first."""
        return np.asarray(_imaginary_cm1(self.data))

    @property
    def zero_point_energy(self) -> float:
        """Half the sum of the real mode energies, in eV, from the frequencies as computed."""
        return float(self.data.get_zero_point_energy())

    def free_energy(self, temperature_K: float) -> HarmonicFreeEnergy:  # noqa: N803 (ASE's name)
        """Harmonic internal energy, entropy and Helmholtz free energy of the modes.

        Imaginary modes are left out. Real frequencies below ``lowest_cm1`` count as ``lowest_cm1`` in all three: the
        entropy of a harmonic mode grows without bound as its frequency goes to zero, while a soft motion on a surface
        is no oscillation (R. F. Ribeiro et al., J. Phys. Chem. B 115, 14556 (2011), with 100 cm⁻¹ in solution).

        Parameters
        ----------
        temperature_K : float
            Temperature in K.

        Raises
        ------
        InputError
            The temperature is not a positive number.
        CalculationError
            There is no real mode.
        """
        from ase.thermochemistry import HarmonicThermo

        check_temperature(temperature_K)
        if not self.frequencies_cm1.size:
            raise CalculationError("all modes are imaginary, so there is no harmonic free energy; relax the structure")
        thermo = HarmonicThermo(np.maximum(self.frequencies_cm1, self.lowest_cm1) * units.invcm)
        with np.errstate(over="ignore"):  # exp(ħω/kT) of a mode that is frozen out; its terms are zero
            internal = float(thermo.get_internal_energy(temperature_K, verbose=False))
            entropy = float(thermo.get_entropy(temperature_K, verbose=False))
        return HarmonicFreeEnergy(float(temperature_K), internal, entropy, internal - temperature_K * entropy)


def vibrations(
    atoms: Atoms,
    calculator: BaseCalculator,
    indices: Sequence[int] | np.ndarray | None = None,
    *,
    method: str = "auto",
    displacement: float = 0.01,
    lowest_cm1: float = 50.0,
    progress: Callable[[int, int], None] | None = None,
) -> Vibrations:
    """Vibrational modes of a relaxed structure, or of some of its atoms with the others held in place.

    Parameters
    ----------
    atoms : Atoms
        The structure, relaxed with the same calculator. It is not changed.
    calculator : BaseCalculator
        Any ASE calculator with energy and forces.
    indices : sequence of int, optional
        Atoms that move (default: :func:`free_indices`). :func:`adsorbate_indices` are those of an adsorbate.
    method : str
        See :func:`hessian`.
    displacement : float
        See :func:`hessian`.
    lowest_cm1 : float
        In ``free_energy`` lower frequencies count as this one, in cm⁻¹; positive.
    progress : callable, optional
        Called with the number of displaced structures evaluated and their total (finite differences only).

    Returns
    -------
    Vibrations

    Raises
    ------
    InputError
        As :func:`hessian`, ``lowest_cm1`` is not positive, or an atom that moves has no mass.
    CalculationError
        As :func:`hessian`.
    """
    from ase.vibrations import VibrationsData

    if not (np.isfinite(lowest_cm1) and lowest_cm1 > 0):
        raise InputError(f"lowest_cm1 is {lowest_cm1} cm⁻¹; it must be a positive number")
    moving = np.sort(_checked_indices(atoms, indices))  # VibrationsData takes the masses in this order
    _check_masses(atoms, moving)
    chosen = _choose_method(calculator, method)
    check_displacement(displacement)
    energy, fmax = _energy_and_fmax(atoms, calculator, moving)
    derivative = _force_derivative(atoms, calculator, moving, chosen, displacement, progress)
    data = VibrationsData.from_2d(atoms, _symmetric(derivative), moving.tolist())
    asymmetry = _asymmetry(derivative)
    return Vibrations(
        data=data,
        energy=energy,
        fmax=fmax,
        method=chosen,
        asymmetry=asymmetry,
        lowest_cm1=float(lowest_cm1),
        notes=_notes(data, fmax, asymmetry, lowest_cm1),
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
        Any ASE calculator with forces. Displaced structures go to an ``ESCNCalculator`` in batches.
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
    moving = _checked_indices(atoms, indices)
    chosen = _choose_method(calculator, method)
    check_displacement(displacement)
    derivative = _force_derivative(atoms, calculator, moving, chosen, displacement, progress)
    asymmetry = _asymmetry(derivative)
    if asymmetry > ASYMMETRY_WORTH_A_WARNING:
        warnings.warn(_asymmetry_words(asymmetry), AsymmetricHessianWarning, stacklevel=2)
    return _symmetric(derivative)


def free_indices(atoms: Atoms) -> np.ndarray:
    """Return the indices of all atoms that no ``FixAtoms`` holds, ascending; other constraints are not looked at."""
    fixed = [constraint.index for constraint in atoms.constraints if isinstance(constraint, FixAtoms)]
    return np.setdiff1d(np.arange(len(atoms)), np.concatenate([np.empty(0, dtype=int), *fixed]))


def adsorbate_indices(atoms: Atoms) -> np.ndarray:
    """Return the indices of the adsorbate's atoms, ascending: those with tag 2, as in OC20 structures.

    Raises
    ------
    InputError
        There are no tags, none of them is 2, or there are tags above 2: then they count layers, as those of ASE's
        surface builders do, where an adsorbate has the tag 0.
    """
    advice = f"give the adsorbate's atoms the tag {ADSORBATE_TAG}, or name the atoms that move by their indices"
    if not atoms.has("tags"):
        raise InputError(f"the structure has no tags, so its adsorbate is not known; {advice}")
    tags = atoms.get_tags()
    present = ", ".join(map(str, np.unique(tags)))
    if ADSORBATE_TAG not in tags:
        raise InputError(f"no atom has the tag {ADSORBATE_TAG} of an adsorbate, the tags are {present}; {advice}")
    if tags.max() > ADSORBATE_TAG:
        raise InputError(f"the tags {present} count layers and do not mark an adsorbate; {advice}")
    return np.flatnonzero(tags == ADSORBATE_TAG)


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


def check_temperature(temperature_K: float) -> None:  # noqa: N803 (ASE's name)
    """Make sure that a temperature is one.

    Raises
    ------
    InputError
        It is not a positive finite number.
    """
    if not (np.isfinite(temperature_K) and temperature_K > 0):
        raise InputError(
            f"the temperature is {temperature_K} K; it must be a positive number "
            "(at 0 K the vibrations contribute the zero-point energy)"
        )


def _checked_indices(atoms: Atoms, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
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


def _check_masses(atoms: Atoms, moving: np.ndarray) -> None:
    masses = atoms.get_masses()
    for atom in moving:
        if not masses[atom] > 0:
            raise InputError(f"atom {atom} ({atoms.symbols[atom]}) has the mass {masses[atom]}; set it with set_masses")


def _choose_method(calculator: BaseCalculator, method: str) -> str:
    check_option("method", method, METHODS)
    if not isinstance(calculator, BaseCalculator):
        raise InputError(f"calculator is {calculator!r}; pass a calculator of ASE, such as ESCNCalculator()")
    if not isinstance(calculator, ESCNCalculator):
        if method == "autograd":
            raise InputError(
                f"{type(calculator).__name__} has no second derivatives by autograd; use method='finite-difference'"
            )
        return "finite-difference"
    kind = calculator.potential.forces
    if kind is None:
        raise InputError("vibrations need forces, and the model has none; load it with forces='gradient'")
    if method == "auto":
        return "autograd" if kind == "gradient" else "finite-difference"
    return method


def _energy_and_fmax(atoms: Atoms, calculator: BaseCalculator, moving: np.ndarray) -> tuple[float, float]:
    (forces,) = _forces([atoms], calculator)
    return float(calculator.get_potential_energy(atoms)), float(np.linalg.norm(forces[moving], axis=1).max())


def _force_derivative(
    atoms: Atoms,
    calculator: BaseCalculator,
    moving: np.ndarray,
    method: str,
    displacement: float,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """-∂F_jb/∂x_ia in eV/Å², (3n, 3n), as it comes: not symmetrised."""
    if method == "autograd":
        assert isinstance(calculator, ESCNCalculator)
        return calculator.potential.hessian(atoms, moving.tolist())
    displaced = _displaced(atoms, moving, displacement)
    batch_size = max(1, ATOMS_IN_A_BATCH // len(atoms)) if isinstance(calculator, ESCNCalculator) else 1
    forces: list[np.ndarray] = []
    for start in range(0, len(displaced), batch_size):
        batch = displaced[start : start + batch_size]
        forces += [found[moving] for found in _forces(batch, calculator)]
        if progress is not None:
            progress(len(forces), len(displaced))
    backward, forward = np.stack(forces).reshape(-1, 2, 3 * len(moving)).swapaxes(0, 1)
    return np.asarray(-(forward - backward) / (2 * displacement))


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


def _forces(structures: list[Atoms], calculator: BaseCalculator) -> list[np.ndarray]:
    """Forces in eV/Å, (N, 3) each, without constraints."""
    if isinstance(calculator, ESCNCalculator) and len(structures) > 1:
        predictions = calculator.potential.evaluate(structures)
        found = [np.asarray(prediction.forces, dtype=np.float64) for prediction in predictions]
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


def _forces_of_one(atoms: Atoms, calculator: BaseCalculator) -> np.ndarray:
    try:
        return np.array(calculator.get_forces(atoms))
    except PropertyNotImplementedError as error:
        raise InputError(f"vibrations need forces, and the calculator has none: {error}") from error


def _symmetric(derivative: np.ndarray) -> np.ndarray:
    return np.asarray((derivative + derivative.T) / 2)


def _asymmetry(derivative: np.ndarray) -> float:
    largest = float(np.abs(derivative).max())
    return float(np.abs(derivative - derivative.T).max()) / largest if largest else 0.0


def _asymmetry_words(asymmetry: float) -> str:
    return (
        f"the derivative of the forces differs from its transpose by {100 * asymmetry:.1f} % of its largest element; "
        "its symmetric part is an approximation. Direct forces are no gradient of an energy; with gradient forces "
        "try float64 or another displacement"
    )


def _imaginary_cm1(data: VibrationsData) -> list[float]:
    return sorted((value for value in data.get_frequencies().imag.tolist() if value != 0), reverse=True)


def _notes(data: VibrationsData, fmax: float, asymmetry: float, lowest_cm1: float) -> tuple[str, ...]:
    notes = []
    if fmax > FMAX_WORTH_A_NOTE:
        notes.append(
            f"the largest force on an atom that moves is {fmax:.3f} eV/Å: the structure is no minimum; relax it first"
        )
    imaginary = _imaginary_cm1(data)
    if imaginary:
        values = ", ".join(f"{value:.1f}i" for value in imaginary[:6]) + (", ..." if len(imaginary) > 6 else "")
        notes.append(f"{len(imaginary)} imaginary mode(s), left out of zero-point and free energy: {values} cm⁻¹")
    frequencies = data.get_frequencies()
    low = int(((frequencies.imag == 0) & (frequencies.real < lowest_cm1)).sum())
    if low:
        notes.append(f"{low} mode(s) below {lowest_cm1:g} cm⁻¹ count as {lowest_cm1:g} cm⁻¹ in the free energy")
    if asymmetry > ASYMMETRY_WORTH_A_WARNING:
        notes.append(_asymmetry_words(asymmetry))
    if len(data.get_indices()) == len(data.get_atoms()):
        notes.append(
            "no atom is held in place, so translations (of a molecule, rotations too) are among the modes; "
            "the harmonic free energy is meant for atoms that others hold"
        )
    return tuple(notes)
