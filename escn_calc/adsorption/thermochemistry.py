"""From energies to free energies: zero-point, thermal and entropic terms of adsorbates and gas molecules.

The free energy of adsorption is E_ads + ΔZPE + Δ∫Cp dT - TΔS, where Δ runs over the adsorbates and the gas molecules of
their references; the slab cancels. The terms come from vibrations, through ``ase.thermochemistry``, or for the common
intermediates on metals from the literature.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import units

from escn_calc.adsorption.gas_molecules import gas_atoms, gas_molecule
from escn_calc.adsorption.references import OC20, Reference
from escn_calc.adsorption.species import Species
from escn_calc.errors import InputError

if TYPE_CHECKING:
    from escn_calc.adsorption.energies import AdsorptionEnergy
    from escn_calc.vibrations import Vibrations

STANDARD_PRESSURE = 1.0e5
"""Pa."""

WATER_FUGACITY = 3534.0
"""Pa. Water vapour of this fugacity is in equilibrium with liquid water at room temperature, so that the gas stands for
the liquid (A. A. Peterson et al., Energy Environ. Sci. 3, 1311 (2010), doi:10.1039/c0ee00071j, supplement)."""

LOWEST_GAS_CM1 = 50.0
"""cm⁻¹. A lower mode of a free molecule is a translation or rotation, not a vibration."""

ROOM_TEMPERATURE = 298.15
"""K."""

SAME_TEMPERATURE = 2.0
"""K. The literature says 298 or 300 K and means room temperature."""


@dataclass(frozen=True)
class SpeciesCorrection:
    """What turns the potential energy of an adsorbate or a gas molecule into its free energy.

    Attributes
    ----------
    zero_point : float
        Zero-point energy in eV.
    heat : float
        Thermal part of the internal energy, of a gas the enthalpy, in eV.
    entropy_term : float
        -TS in eV.
    temperature_K : float
    source : str
        Where it comes from, in words.
    """

    zero_point: float
    heat: float
    entropy_term: float
    temperature_K: float  # noqa: N815 (ASE's name)
    source: str

    @property
    def value(self) -> float:
        """Free energy minus potential energy, in eV."""
        return self.zero_point + self.heat + self.entropy_term


@dataclass(frozen=True)
class AdsorptionCorrection:
    """What turns an adsorption energy into a free energy of adsorption.

    Attributes
    ----------
    value : float
        ΔZPE + Δ∫Cp dT - TΔS in eV.
    species : tuple of Species
        What is adsorbed.
    reference : Reference
        The gas molecules whose terms are in it.
    temperature_K : float
    source : str
        Where it comes from, in words.
    """

    value: float
    species: tuple[Species, ...]
    reference: Reference
    temperature_K: float  # noqa: N815 (ASE's name)
    source: str


TABULATED_CORRECTIONS: Mapping[str, tuple[float, str]] = {
    "H": (0.24, "J. K. Nørskov et al., J. Electrochem. Soc. 152, J23 (2005), doi:10.1149/1.1856988"),
    "OH": (0.35, "J. K. Nørskov et al., J. Phys. Chem. B 108, 17886 (2004), doi:10.1021/jp047349j"),
    "O": (0.05, "J. K. Nørskov et al., J. Phys. Chem. B 108, 17886 (2004), doi:10.1021/jp047349j"),
    "OOH": (0.40, "in general use beside the values of OH and O; no original source is known to us"),
}
"""ΔZPE - TΔS in eV at 298 K of adsorption from H2(g, 1 bar) and liquid water, and where the number is from, by
adsorbate. The values are those in general use for metals; vibrations at a site at hand give its own."""


def tabulated_correction(adsorbates: Species | Iterable[Species]) -> AdsorptionCorrection:
    """Return the correction at 298 K of adsorbates relative to H2 and H2O, from the literature.

    Parameters
    ----------
    adsorbates : Species or iterable of Species
        What is adsorbed, one entry per adsorbate; the corrections of several are added.

    Raises
    ------
    InputError
        There is none for an adsorbate.
    """
    species = (adsorbates,) if isinstance(adsorbates, Species) else tuple(adsorbates)
    missing = [one.name for one in species if one.name not in TABULATED_CORRECTIONS]
    if missing:
        raise InputError(
            f"there is no tabulated free-energy correction for {', '.join(missing)}, only for "
            f"{', '.join(TABULATED_CORRECTIONS)}; compute its vibrations (adsorbate_correction)"
        )
    value = math.fsum(TABULATED_CORRECTIONS[one.name][0] for one in species)
    sources = "; ".join(dict.fromkeys(TABULATED_CORRECTIONS[one.name][1] for one in species))
    return AdsorptionCorrection(value, species, OC20.reference(species), ROOM_TEMPERATURE, sources)


def adsorbate_correction(vibrations: Vibrations, temperature_K: float = ROOM_TEMPERATURE) -> SpeciesCorrection:  # noqa: N803
    """Return the harmonic correction of what is adsorbed, all of its motions taken as vibrations.

    Parameters
    ----------
    vibrations : Vibrations
        Of the adsorbate's atoms, from :func:`escn_calc.vibrations.vibrations`. Modes below its ``lowest_cm1`` count as
        ``lowest_cm1`` here, in the zero-point energy too.
    temperature_K : float
        In K.

    Raises
    ------
    InputError
        The temperature is not a positive number, or there are imaginary modes: the structure is no minimum.
    """
    if vibrations.imaginary_cm1.size:
        raise InputError(
            f"the vibrations have imaginary modes ({', '.join(f'{one:.0f}i' for one in vibrations.imaginary_cm1)} "
            "cm⁻¹), so the structure is no minimum and has no free energy; relax it further"
        )
    harmonic = vibrations.free_energy(temperature_K)
    zero_point = float(np.maximum(vibrations.frequencies_cm1, vibrations.lowest_cm1).sum() * units.invcm / 2)
    return SpeciesCorrection(
        zero_point,
        harmonic.internal_energy - zero_point,
        -temperature_K * harmonic.entropy,
        float(temperature_K),
        f"harmonic vibrations ({vibrations.method})",
    )


def gas_correction(
    formula: str,
    frequencies_cm1: Sequence[float] | np.ndarray,
    temperature_K: float = ROOM_TEMPERATURE,  # noqa: N803 (ASE's name)
    pressure_Pa: float = STANDARD_PRESSURE,  # noqa: N803 (ASE's name)
) -> SpeciesCorrection:
    """Return the ideal-gas correction of a molecule: translations, rotations and harmonic vibrations.

    Parameters
    ----------
    formula : str
        A molecule of :mod:`escn_calc.adsorption.gas_molecules`, with its geometry and symmetry number.
    frequencies_cm1 : sequence of float
        Its frequencies in cm⁻¹, measured or computed (``Vibrations.frequencies_cm1``). The highest 3N - 6, of a linear
        molecule 3N - 5, count; the rest are translations and rotations.
    temperature_K : float
        In K.
    pressure_Pa : float
        Fugacity in Pa; for liquid water at room temperature ``WATER_FUGACITY``.

    Raises
    ------
    InputError
        An unknown molecule; too few frequencies, or a low one among those that count; a temperature or pressure that
        is not positive.
    """
    from ase.thermochemistry import IdealGasThermo

    known, atoms = gas_molecule(formula), gas_atoms(formula)
    for name, value in (("temperature", temperature_K), ("pressure", pressure_Pa)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"the {name} of the gas {formula} is {value}; it must be a positive number")
    energies = _vibrations_of_gas(formula, frequencies_cm1, 3 * len(atoms) - (5 if known.geometry == "linear" else 6))
    thermo = IdealGasThermo(
        vib_energies=energies.tolist(),
        geometry=known.geometry,
        atoms=atoms,
        symmetrynumber=known.symmetry_number,
        spin=known.spin,
    )
    zero_point = float(energies.sum() / 2)
    enthalpy = float(thermo.get_enthalpy(temperature_K, verbose=False))
    entropy = float(thermo.get_entropy(temperature_K, pressure_Pa, verbose=False))
    return SpeciesCorrection(
        zero_point,
        enthalpy - zero_point,
        -temperature_K * entropy,
        float(temperature_K),
        f"ideal gas at {pressure_Pa:g} Pa",
    )


def adsorption_correction(
    energy: AdsorptionEnergy, adsorbed: SpeciesCorrection, gases: Mapping[str, SpeciesCorrection]
) -> AdsorptionCorrection:
    """Return the correction of an adsorption energy from those of its species.

    Parameters
    ----------
    energy : AdsorptionEnergy
        Names what is adsorbed, and the references.
    adsorbed : SpeciesCorrection
        Of all that is adsorbed together: the vibrations of all adsorbate atoms.
    gases : mapping
        Those of the gas molecules of the references, by formula.

    Raises
    ------
    InputError
        That of a gas molecule is missing, or temperatures differ.
    """
    reference = energy.reference
    missing = [name for name, _ in reference.molecules if name not in gases]
    if missing:
        raise InputError(
            f"the free energy of adsorption relative to {reference} needs the correction of {', '.join(missing)} "
            "(gas_correction)"
        )
    used = {name: gases[name] for name, _ in reference.molecules}
    for name, gas in used.items():
        check_same_temperature(
            f"the correction of {name}", gas.temperature_K, "that of the adsorbate", adsorbed.temperature_K
        )
    terms = [float(factor) * used[name].value for name, factor in reference.molecules]
    source = "; ".join([f"adsorbate: {adsorbed.source}", *(f"{name}: {gas.source}" for name, gas in used.items())])
    return AdsorptionCorrection(
        math.fsum([adsorbed.value, *(-term for term in terms)]),
        energy.species,
        reference,
        adsorbed.temperature_K,
        source,
    )


def check_same_temperature(name: str, temperature: float, other_name: str, other: float) -> None:
    """Make sure that two temperatures in K are the same, 298 and 300 K counting as such.

    Raises
    ------
    InputError
        They differ by more than 2 K.
    """
    if abs(temperature - other) > SAME_TEMPERATURE:
        raise InputError(f"{name} is for {temperature:g} K, {other_name} for {other:g} K; take both at one temperature")


def _vibrations_of_gas(formula: str, frequencies_cm1: Sequence[float] | np.ndarray, count: int) -> np.ndarray:
    """Return the energies of the vibrations in eV, ascending."""
    given = np.sort(np.asarray(frequencies_cm1, dtype=float))
    if given.ndim != 1 or len(given) < count or not np.isfinite(given).all():
        raise InputError(f"{formula} has {count} vibrations, but {len(given)} finite frequencies were given")
    kept = given[len(given) - count :]
    if kept[0] < LOWEST_GAS_CM1:
        raise InputError(
            f"a vibration of {formula} has {kept[0]:.1f} cm⁻¹, which is that of a translation or rotation; relax the "
            "molecule further, with the same calculator, and compute its vibrations again"
        )
    return kept * units.invcm
