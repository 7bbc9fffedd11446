"""Computational hydrogen electrode: free energies of adsorption at a potential.

At 0 V on the scale of the reversible hydrogen electrode, H⁺ + e⁻ is in equilibrium with 1/2 H2 at 1 bar, at any pH. At
the potential U its chemical potential is therefore

    μ(H⁺ + e⁻) = 1/2 μ(H2) - e U_RHE,    e U_RHE = e U_SHE + kT ln(10) pH

(J. K. Nørskov et al., J. Phys. Chem. B 108, 17886 (2004), doi:10.1021/jp047349j). An adsorption whose references
contain n/2 H2 takes up n pairs H⁺ + e⁻, so its free energy is ΔG(U) = ΔG(0) + n e U_RHE. There is no water, no field
and no barrier in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ase import units

from escn_calc.adsorption.energies import AdsorptionEnergy, adsorbed
from escn_calc.adsorption.thermochemistry import ROOM_TEMPERATURE, AdsorptionCorrection, check_same_temperature
from escn_calc.errors import InputError

LOWEST_PH, HIGHEST_PH = -2.0, 16.0


@dataclass(frozen=True)
class Electrode:
    """Conditions at an electrode.

    Attributes
    ----------
    potential : float
        In V on ``scale``.
    scale : str
        ``"RHE"`` (reversible hydrogen electrode) or ``"SHE"`` (standard hydrogen electrode).
    ph : float
        On the scale RHE the free energies do not depend on it.
    temperature_K : float
        In K.

    Raises
    ------
    InputError
        A value that is not finite or makes no sense, or an unknown scale.
    """

    potential: float = 0.0
    scale: Literal["RHE", "SHE"] = "RHE"
    ph: float = 0.0
    temperature_K: float = ROOM_TEMPERATURE  # noqa: N815 (ASE's name)

    def __post_init__(self) -> None:
        if self.scale not in ("RHE", "SHE"):
            raise InputError(f"the scale of the potential is {self.scale!r}; give 'RHE' or 'SHE'")
        if not math.isfinite(self.potential):
            raise InputError(f"the potential is {self.potential} V, not a finite number")
        if not LOWEST_PH <= self.ph <= HIGHEST_PH:
            raise InputError(f"the pH is {self.ph}; it must be between {LOWEST_PH:g} and {HIGHEST_PH:g}")
        if not (math.isfinite(self.temperature_K) and self.temperature_K > 0):
            raise InputError(f"the temperature is {self.temperature_K} K; it must be a positive number")

    @property
    def potential_rhe(self) -> float:
        """The potential in V against the reversible hydrogen electrode."""
        return self.potential if self.scale == "RHE" else self.potential + self._nernst

    @property
    def potential_she(self) -> float:
        """The potential in V against the standard hydrogen electrode."""
        return self.potential if self.scale == "SHE" else self.potential - self._nernst

    @property
    def _nernst(self) -> float:
        return units.kB * self.temperature_K * math.log(10) * self.ph

    def __str__(self) -> str:
        ph = f", pH {self.ph:g}" if self.scale == "SHE" else ""
        return f"{self.potential:g} V vs {self.scale}{ph}, {self.temperature_K:g} K"


@dataclass(frozen=True)
class FreeEnergy:
    """A free energy of adsorption at an electrode.

    Attributes
    ----------
    energy : AdsorptionEnergy
        The potential energy, and what it is relative to.
    correction : AdsorptionCorrection
        Zero-point, thermal and entropic terms.
    electrode : Electrode
        The conditions.
    """

    energy: AdsorptionEnergy
    correction: AdsorptionCorrection
    electrode: Electrode

    @property
    def electrons(self) -> Fraction:
        """Pairs H⁺ + e⁻ taken up by adsorption, twice the H2 in the references; negative if they are released."""
        return 2 * self.energy.reference.coefficient("H2")

    @property
    def at_zero(self) -> float:
        """Free energy at 0 V vs RHE, in eV."""
        return self.energy.value + self.correction.value

    @property
    def value(self) -> float:
        """Free energy at the electrode's potential, in eV."""
        return self.at_zero + float(self.electrons) * self.electrode.potential_rhe

    @property
    def reaction(self) -> str:
        """The reaction whose free energy this is: ``* + H2O(g) → OH* + H⁺ + e⁻``."""
        pairs = self.electrons
        written = "H⁺ + e⁻" if abs(pairs) == 1 else f"{abs(pairs)} (H⁺ + e⁻)"
        left, right = ([term for term in side.split(" + ") if term.split()[-1] != "H2(g)"] for side in self._sides)
        (left if pairs > 0 else right).extend([written] if pairs else [])
        return f"{' + '.join(left)} → {' + '.join(right)}"

    @property
    def _sides(self) -> list[str]:
        return self.energy.reaction.split(" → ")

    @property
    def words(self) -> str:
        """What the value is, for a reader who did not compute it."""
        return (
            f"{self.value:+.4f} eV is the free energy of {self.reaction} at {self.electrode}: adsorption energy "
            f"{self.energy.value:+.4f} eV (reference scheme {self.energy.scheme.name!r}), zero-point, thermal and "
            f"entropic terms {self.correction.value:+.4f} eV ({self.correction.source}), potential term "
            f"{self.value - self.at_zero:+.4f} eV; computational hydrogen electrode, without solvent, field or barriers"
        )


def free_energy(
    energy: AdsorptionEnergy, correction: AdsorptionCorrection, electrode: Electrode | None = None
) -> FreeEnergy:
    """Return the free energy of adsorption with the computational hydrogen electrode.

    Parameters
    ----------
    energy : AdsorptionEnergy
        Relative to gas molecules: the H2 among them is what comes and goes as H⁺ + e⁻.
    correction : AdsorptionCorrection
        Of the same reaction: :func:`escn_calc.adsorption.thermochemistry.tabulated_correction` or
        :func:`~escn_calc.adsorption.thermochemistry.adsorption_correction`.
    electrode : Electrode, optional
        The conditions (default: 0 V vs RHE, 298.15 K).

    Raises
    ------
    InputError
        The references hold fixed values, so that their H2 is not known; the correction is that of another reaction or
        temperature.
    """
    electrode = electrode or Electrode()
    reference = energy.reference
    if reference.constant or not reference.molecules:
        raise InputError(
            f"the references {reference} of {adsorbed(energy.species)} hold fixed values, so it is not known how many "
            "electrons its adsorption takes; convert the energy to gas molecules first, such as the scheme 'oc20'"
        )
    if correction.species != energy.species or correction.reference.molecules != reference.molecules:
        raise InputError(
            f"the correction is that of {adsorbed(correction.species)} relative to {correction.reference}, the energy "
            f"that of {adsorbed(energy.species)} relative to {reference}; take both for one reaction (see convert)"
        )
    check_same_temperature("the correction", correction.temperature_K, "the electrode", electrode.temperature_K)
    return FreeEnergy(energy, correction, electrode)
