"""Vibrational modes and harmonic free energies of a few atoms on a surface, or of any others.

The eigenvalues ω² of the mass-weighted Hessian are the squared angular frequencies of the modes. They, the zero-point
energy Σ ħω/2 and the harmonic free energy come from ``ase.vibrations.VibrationsData`` and
``ase.thermochemistry.HarmonicThermo``; the Hessian from :mod:`escn_calc.hessian`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from ase.calculators.calculator import BaseCalculator

from escn_calc.errors import CalculationError, InputError
from escn_calc.hessian import ASYMMETRY_WORTH_A_WARNING, ForceDerivative, force_derivative, forces_of, moving_atoms

if TYPE_CHECKING:
    from ase import Atoms
    from ase.vibrations import VibrationsData

FMAX_WORTH_A_NOTE = 0.05
"""eV/Å. The usual threshold of a relaxation; above it the structure counts as not relaxed."""

ADSORBATE_TAG = 2
"""Tag of adsorbate atoms in OC20 structures: 0 is the subsurface, 1 the surface."""


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
        Atoms that move (default: :func:`escn_calc.constraints.free_indices`). :func:`adsorbate_indices` are those of an
        adsorbate.
    method : str
        See :func:`escn_calc.hessian.hessian`.
    displacement : float
        See :func:`escn_calc.hessian.hessian`.
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
        As :func:`escn_calc.hessian.hessian`, ``lowest_cm1`` is not positive, or an atom that moves has no mass.
    CalculationError
        As :func:`escn_calc.hessian.hessian`.
    """
    from ase.vibrations import VibrationsData

    if not (np.isfinite(lowest_cm1) and lowest_cm1 > 0):
        raise InputError(f"lowest_cm1 is {lowest_cm1} cm⁻¹; it must be a positive number")
    moving = np.sort(moving_atoms(atoms, indices))  # VibrationsData takes the masses in this order
    _check_masses(atoms, moving)
    derivative = force_derivative(atoms, calculator, moving, method, displacement, progress)
    energy, fmax = _energy_and_fmax(atoms, calculator, moving)
    data = VibrationsData.from_2d(atoms, derivative.symmetrised, moving.tolist())
    return Vibrations(
        data=data,
        energy=energy,
        fmax=fmax,
        method=derivative.method,
        asymmetry=derivative.asymmetry,
        lowest_cm1=float(lowest_cm1),
        notes=_notes(data, fmax, derivative, lowest_cm1),
    )


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


def _check_masses(atoms: Atoms, moving: np.ndarray) -> None:
    masses = atoms.get_masses()
    for atom in moving:
        if not masses[atom] > 0:
            raise InputError(f"atom {atom} ({atoms.symbols[atom]}) has the mass {masses[atom]}; set it with set_masses")


def _energy_and_fmax(atoms: Atoms, calculator: BaseCalculator, moving: np.ndarray) -> tuple[float, float]:
    (forces,) = forces_of([atoms], calculator)
    return float(calculator.get_potential_energy(atoms)), float(np.linalg.norm(forces[moving], axis=1).max())


def _imaginary_cm1(data: VibrationsData) -> list[float]:
    return sorted((value for value in data.get_frequencies().imag.tolist() if value != 0), reverse=True)


def _notes(data: VibrationsData, fmax: float, derivative: ForceDerivative, lowest_cm1: float) -> tuple[str, ...]:
    notes = []
    if fmax > FMAX_WORTH_A_NOTE:
        notes.append(
            f"the largest force on an atom that moves is {fmax:.3f} eV/Å: the structure is no minimum of these forces; "
            "relax it first, with the same kind of forces"
        )
    imaginary = _imaginary_cm1(data)
    if imaginary:
        values = ", ".join(f"{value:.1f}i" for value in imaginary[:6]) + (", ..." if len(imaginary) > 6 else "")
        notes.append(f"{len(imaginary)} imaginary mode(s), left out of zero-point and free energy: {values} cm⁻¹")
    frequencies = data.get_frequencies()
    low = int(((frequencies.imag == 0) & (frequencies.real < lowest_cm1)).sum())
    if low:
        notes.append(f"{low} mode(s) below {lowest_cm1:g} cm⁻¹ count as {lowest_cm1:g} cm⁻¹ in the free energy")
    if derivative.asymmetry > ASYMMETRY_WORTH_A_WARNING:
        notes.append(derivative.doubt)
    if len(data.get_indices()) == len(data.get_atoms()):
        notes.append(
            "no atom is held in place, so translations (of a molecule, rotations too) are among the modes; "
            "the harmonic free energy is meant for atoms that others hold"
        )
    return tuple(notes)
