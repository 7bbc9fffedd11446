"""Free energies at an electrode against definitions, thermochemistry against tables, pathways against known limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes

from escn_calc.adsorption.electrode import Electrode, free_energy
from escn_calc.adsorption.energies import AdsorptionEnergy, adsorption_energy, convert
from escn_calc.adsorption.pathways import (
    Pathway,
    State,
    hydrogen_evolution,
    oxygen_evolution,
    oxygen_reduction,
)
from escn_calc.adsorption.references import named_scheme, own_scheme
from escn_calc.adsorption.species import species
from escn_calc.adsorption.thermochemistry import (
    TABULATED_CORRECTIONS,
    WATER_FUGACITY,
    SpeciesCorrection,
    adsorbate_correction,
    adsorption_correction,
    gas_correction,
    tabulated_correction,
)
from escn_calc.errors import InputError
from escn_calc.vibrations import vibrations

OC20 = named_scheme("oc20")
FREQUENCIES = {"H2": [4401.0], "H2O": [1595.0, 3657.0, 3756.0], "CO": [2170.0], "CH4": [1306.0] * 3 + [1534.0] * 2}
FREQUENCIES["CH4"] += [2917.0, 3019.0, 3019.0, 3019.0]
"""cm⁻¹, measured."""


def adsorbed(value: float, *names: str) -> AdsorptionEnergy:
    return adsorption_energy("adsorption", value, [species(name) for name in names], OC20)


def free(value: float, name: str, electrode: Electrode | None = None):
    """The free energy of an intermediate whose value at 0 V vs RHE is ``value``."""
    energy = adsorbed(value - TABULATED_CORRECTIONS[name][0], name)
    return free_energy(energy, tabulated_correction(energy.species), electrode)


# ---------------------------------------------------------------------------------------------------- the electrode


def test_scales_differ_by_59_mv_per_unit_of_ph():
    alkaline = Electrode(0.0, "SHE", ph=14)
    assert alkaline.potential_rhe == pytest.approx(14 * 0.05916, abs=1e-4)
    assert Electrode(0.9, "RHE", ph=13).potential_she == pytest.approx(0.9 - 13 * 0.05916, abs=1e-4)
    assert Electrode(0.4, "SHE").potential_rhe == 0.4  # pH 0
    assert Electrode(0.4, "RHE", ph=9).potential_rhe == 0.4
    hot = Electrode(0.0, "SHE", ph=10, temperature_K=596.3)
    assert hot.potential_rhe == pytest.approx(2 * Electrode(0.0, "SHE", ph=10).potential_rhe, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "NHE"}, "scale of the potential is 'NHE'; give 'RHE' or 'SHE'"),
        ({"potential": math.nan}, "the potential is nan V"),
        ({"ph": 20}, "the pH is 20; it must be between -2 and 16"),
        ({"ph": math.nan}, "the pH is nan"),
        ({"temperature_K": 0}, "the temperature is 0 K"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Electrode(**arguments)


@pytest.mark.parametrize(
    ("names", "pairs", "reaction"),
    [
        (["H"], 1, "* + H⁺ + e⁻ → H*"),
        (["H", "H"], 2, "* + 2 (H⁺ + e⁻) → 2 H*"),
        (["OH"], -1, "* + H2O(g) → OH* + H⁺ + e⁻"),
        (["O"], -2, "* + H2O(g) → O* + 2 (H⁺ + e⁻)"),
        (["OOH"], -3, "* + 2 H2O(g) → OOH* + 3 (H⁺ + e⁻)"),
    ],
)
def test_electrons_follow_from_the_references(names, pairs, reaction):
    energy = adsorbed(0.5, *names)
    correction = tabulated_correction(energy.species)
    at_rest, driven = (free_energy(energy, correction, Electrode(potential)) for potential in (0.0, 0.7))
    assert at_rest.electrons == pairs
    assert at_rest.reaction == reaction
    assert at_rest.value == pytest.approx(0.5 + sum(TABULATED_CORRECTIONS[name][0] for name in names), abs=1e-12)
    assert driven.value - at_rest.value == pytest.approx(0.7 * pairs, abs=1e-12)
    assert driven.at_zero == at_rest.value


def test_acetylene_in_a_reference_is_not_taken_for_hydrogen():
    scheme = own_scheme({"CH3": "1/2 C2H2 + H2"}, name="acetylene")
    energy = adsorption_energy("adsorption", -1.0, species("CH3"), scheme)
    gases = {
        "C2H2": SpeciesCorrection(0.7, 0.1, -0.6, 298.15, "x"),
        "H2": SpeciesCorrection(0.3, 0.1, -0.4, 298.15, "x"),
    }
    result = free_energy(energy, adsorption_correction(energy, SpeciesCorrection(1.0, 0.1, -0.1, 298.15, "x"), gases))
    assert result.electrons == 2
    assert result.reaction == "* + 1/2 C2H2(g) + 2 (H⁺ + e⁻) → CH3*"


def test_a_reaction_without_hydrogen_does_not_feel_the_potential():
    energy = adsorbed(-1.5, "CO")
    correction = adsorption_correction(
        energy, SpeciesCorrection(0.2, 0.1, -0.15, 298.15, "x"), {"CO": gas_correction("CO", FREQUENCIES["CO"])}
    )
    values = {free_energy(energy, correction, Electrode(potential)).value for potential in (-1.0, 0.0, 1.0)}
    assert len(values) == 1
    assert free_energy(energy, correction).reaction == "* + CO(g) → CO*"


def test_words_name_the_reaction_the_conditions_and_every_term():
    words = free_energy(adsorbed(0.8, "OH"), tabulated_correction(species("OH")), Electrode(0.2, "SHE", ph=13)).words
    assert "+0.1809 eV is the free energy of * + H2O(g) → OH* + H⁺ + e⁻ at 0.2 V vs SHE, pH 13, 298.15 K" in words
    assert "adsorption energy +0.8000 eV (reference scheme 'oc20')" in words
    assert "terms +0.3500 eV (J. K. Nørskov et al., J. Phys. Chem. B 108, 17886 (2004)" in words
    assert "potential term -0.9691 eV" in words


# ---------------------------------------------------------------------------------------------------- refusals


def test_fixed_references_say_nothing_of_electrons():
    energy = adsorption_energy("total", -14.0, species("H"), named_scheme("oc20-dft"), slab=-10.0)
    with pytest.raises(InputError, match=r"references -3\.477 eV of H\* hold fixed values.*convert the energy"):
        free_energy(energy, tabulated_correction(species("H")))


def test_a_correction_of_another_reaction_is_refused():
    with pytest.raises(InputError, match=r"is that of O\* relative to .*the energy that of OH\*"):
        free_energy(adsorbed(0.5, "OH"), tabulated_correction(species("O")))
    gas = {"H2": -6.75, "H2O": -14.25, "O2": -9.75}
    other = convert(adsorbed(0.5, "O"), named_scheme("molecules"), gas)
    with pytest.raises(
        InputError, match=r"relative to H2O\(g\) - H2\(g\), the energy that of O\* relative to 1/2 O2\(g\)"
    ):
        free_energy(other, tabulated_correction(species("O")))


def test_other_adsorbates_are_not_in_the_table():
    with pytest.raises(InputError, match="no tabulated free-energy correction for NH3, only for H, OH, O, OOH"):
        tabulated_correction([species("H"), species("NH3")])


def test_temperatures_are_not_mixed():
    with pytest.raises(InputError, match=r"the correction is for 298\.15 K, the electrode for 350 K"):
        free_energy(adsorbed(0.1, "H"), tabulated_correction(species("H")), Electrode(temperature_K=350))
    warm = gas_correction("H2", FREQUENCIES["H2"], temperature_K=400)
    with pytest.raises(InputError, match=r"correction of H2 is for 400 K, that of the adsorbate for 298\.15 K"):
        adsorption_correction(adsorbed(0.1, "H"), SpeciesCorrection(0.2, 0.0, 0.0, 298.15, "x"), {"H2": warm})
    with pytest.raises(InputError, match=r"relative to 1/2 H2\(g\) needs the correction of H2"):
        adsorption_correction(adsorbed(0.1, "H"), SpeciesCorrection(0.2, 0.0, 0.0, 298.15, "x"), {})


# ---------------------------------------------------------------------------------------------------- thermochemistry


@pytest.mark.parametrize(
    ("formula", "pressure", "zero_point", "heat", "entropy"),
    [
        # Entropies of the NIST-JANAF tables at 298.15 K and 1 bar: 130.68, 188.83, 197.66, 186.25 J/mol/K; enthalpies
        # above 0 K: 8.467, 9.904, 8.671, 10.016 kJ/mol. Zero-point energies: half the sum of the frequencies.
        ("H2", 1e5, 0.2728, 8.467, 130.68),
        ("H2O", 1e5, 0.5584, 9.904, 188.83),
        ("CO", 1e5, 0.1345, 8.671, 197.66),
        ("CH4", 1e5, 1.1754, 10.016, 186.25),
    ],
)
def test_gases_have_their_measured_entropies_and_enthalpies(formula, pressure, zero_point, heat, entropy):
    found = gas_correction(formula, FREQUENCIES[formula], 298.15, pressure)
    joule_per_mole = units.J / units.mol
    assert found.zero_point == pytest.approx(zero_point, abs=1e-3)
    assert found.heat == pytest.approx(heat * 1000 * joule_per_mole, abs=3e-3)  # H2 rotates as a quantum rotor
    assert found.entropy_term == pytest.approx(-298.15 * entropy * joule_per_mole, abs=5e-3)


def test_pressure_enters_as_that_of_an_ideal_gas():
    one, other = (gas_correction("H2", FREQUENCIES["H2"], 300.0, pressure) for pressure in (1e5, 1e3))
    assert one.value - other.value == pytest.approx(units.kB * 300 * math.log(100), abs=1e-9)


def test_water_vapour_of_that_fugacity_stands_for_liquid_water():
    """It is close to the vapour pressure at room temperature, 3.17 kPa at 298 K and 3.54 kPa at 300 K."""
    vapour = gas_correction("H2O", FREQUENCIES["H2O"], 298.15, 3170.0)
    assert gas_correction("H2O", FREQUENCIES["H2O"], 298.15, WATER_FUGACITY).value == pytest.approx(
        vapour.value, abs=0.003
    )


def test_translations_and_rotations_among_the_frequencies_do_not_count():
    alone = gas_correction("H2O", FREQUENCIES["H2O"])
    assert gas_correction("H2O", [0.0, 3.0, -2.0, 40.0, 12.0, 9.0, *FREQUENCIES["H2O"]]) == alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("H2O", [1595.0, 3657.0]), "H2O has 3 vibrations, but 2 finite frequencies were given"),
        (("H2", [math.nan]), "H2 has 1 vibrations, but 1 finite"),
        (("H2O", [20.0, 1595.0, 3657.0]), r"a vibration of H2O has 20\.0 cm⁻¹"),
        (("XY", [1000.0]), "the gas molecule 'XY' is not known"),
        (("H2", [4401.0], -1.0), "the temperature of the gas H2 is -1"),
        (("H2", [4401.0], 300.0, 0.0), r"the pressure of the gas H2 is 0\.0"),
    ],
)
def test_gases_without_sense_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        gas_correction(*arguments)


class Spring(Calculator):
    """A hydrogen atom held with one stiffness along each axis; the metal does not matter."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, stiffness: tuple[float, float, float]) -> None:
        super().__init__()
        self.stiffness = np.array(stiffness)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        moved = atoms.positions[1] - [0.0, 0.0, 1.0]
        forces = np.zeros((2, 3))
        forces[1] = -self.stiffness * moved
        self.results = {"energy": float(self.stiffness @ moved**2 / 2), "forces": forces}


def hydrogen_on_a_spring(*stiffness: float):
    atoms = Atoms("PtH", [[0, 0, 0], [0, 0, 1.0]], masses=[195.0, 1.008])
    return vibrations(atoms, Spring(stiffness), [1])


def test_correction_of_an_adsorbate_is_that_of_harmonic_modes():
    stiffness = (1.5, 1.5, 9.0)
    found = adsorbate_correction(hydrogen_on_a_spring(*stiffness), 300.0)
    quantum = np.array([units._hbar * units.J * units.second * math.sqrt(k / 1.008) for k in stiffness])
    occupation = 1 / np.expm1(quantum / (units.kB * 300.0))
    assert found.zero_point == pytest.approx(quantum.sum() / 2, abs=1e-6)
    assert found.heat == pytest.approx((quantum * occupation).sum(), abs=1e-6)
    exact = (quantum / 2 + units.kB * 300.0 * np.log1p(-np.exp(-quantum / (units.kB * 300.0)))).sum()
    assert found.value == pytest.approx(exact, abs=1e-6)


def test_a_soft_mode_counts_the_same_in_all_terms():
    soft = hydrogen_on_a_spring(1e-4, 1.5, 9.0)
    found = adsorbate_correction(soft, 300.0)
    assert found.value == pytest.approx(soft.free_energy(300.0).free_energy, abs=1e-12)


def test_a_saddle_has_no_free_energy():
    with pytest.raises(InputError, match=r"imaginary modes \(\d+i cm⁻¹\).*no minimum"):
        adsorbate_correction(hydrogen_on_a_spring(-1.0, 1.5, 9.0))


def test_computed_correction_takes_the_gases_of_the_references_only():
    adsorbate, hydrogen = adsorbate_correction(hydrogen_on_a_spring(1.5, 1.5, 9.0)), gas_correction("H2", [4401.0])
    gases = {"H2": hydrogen, "N2": gas_correction("N2", [2359.0])}
    correction = adsorption_correction(adsorbed(-0.33, "H"), adsorbate, gases)
    assert correction.value == pytest.approx(adsorbate.value - hydrogen.value / 2, abs=1e-12)
    assert correction.source == "adsorbate: harmonic vibrations (finite-difference); H2: ideal gas at 100000 Pa"


def test_computed_correction_counts_each_gas_with_its_coefficient():
    energy = adsorbed(1.0, "OOH")  # 2 H2O - 3/2 H2
    gases = {
        "H2O": SpeciesCorrection(0.5, 0.125, -0.625, 298.15, "x"),
        "H2": SpeciesCorrection(0.25, 0.125, -0.5, 298.15, "x"),
    }
    correction = adsorption_correction(energy, SpeciesCorrection(0.5, 0.0625, -0.125, 298.15, "x"), gases)
    assert correction.value == 0.4375 - 2 * 0.0 + 1.5 * -0.125


# ---------------------------------------------------------------------------------------------------- pathways


def test_the_ideal_oxygen_catalyst_needs_no_overpotential():
    intermediates = {"OH": free(1.23, "OH"), "O": free(2.46, "O"), "OOH": free(3.69, "OOH")}
    for pathway in (oxygen_reduction(intermediates), oxygen_evolution(intermediates)):
        assert pathway.equilibrium_potential == pytest.approx(1.23, abs=1e-12)
        assert pathway.overpotential == pytest.approx(0.0, abs=1e-12)


def test_scaling_between_oh_and_ooh_leaves_037_volts():
    """With OOH* 3.20 eV above OH*, the best catalyst lacks (3.20 - 2.46) / 2 V (I. C. Man et al. 2011)."""
    intermediates = {"OH": free(0.86, "OH"), "O": free(2.46, "O"), "OOH": free(4.06, "OOH")}
    reduction, evolution = oxygen_reduction(intermediates), oxygen_evolution(intermediates)
    assert reduction.limiting_potential == pytest.approx(0.86, abs=1e-12)
    assert evolution.limiting_potential == pytest.approx(1.60, abs=1e-12)
    assert reduction.overpotential == pytest.approx(0.37, abs=1e-12)
    assert evolution.overpotential == pytest.approx(0.37, abs=1e-12)


def test_steps_of_oxygen_reduction_on_a_strong_binder():
    """OH*, bound too strongly, is the last to leave; values as for Pt(111)."""
    intermediates = {"OH": free(0.80, "OH"), "O": free(1.62, "O"), "OOH": free(4.00, "OOH")}
    pathway = oxygen_reduction(intermediates, Electrode(1.23))
    assert [step.name for step in pathway.steps] == ["* + O2 → OOH*", "OOH* → O*", "O* → OH*", "OH* → * + 2 H2O"]
    assert [step.electrons for step in pathway.steps] == [1, 1, 1, 1]
    assert [step.at_zero for step in pathway.steps] == pytest.approx([-0.92, -2.38, -0.82, -0.80], abs=1e-12)
    assert [step.free_energy for step in pathway.steps] == pytest.approx([0.31, -1.15, 0.41, 0.43], abs=1e-12)
    assert pathway.limiting_step.name == "OH* → * + 2 H2O"
    assert pathway.limiting_potential == pytest.approx(0.80, abs=1e-12)
    assert pathway.free_energies[0] == 0.0
    assert pathway.free_energies[-1] == pytest.approx(0.0, abs=1e-12)  # 1.23 V is equilibrium
    at_limit = oxygen_reduction(intermediates, Electrode(pathway.limiting_potential))
    assert max(step.free_energy for step in at_limit.steps) == pytest.approx(0.0, abs=1e-12)


def test_pathways_are_for_one_temperature():
    hot = Electrode(0.9, "SHE", ph=13, temperature_K=350)
    oxygen = {name: free(1.0, name) for name in ("OOH", "O", "OH")}
    with pytest.raises(InputError, match=r"the free energy of O2 is for 298.15 K, the electrode for 350 K"):
        oxygen_reduction(oxygen, hot)
    with pytest.raises(InputError, match="take both at one temperature"):
        oxygen_evolution(oxygen, hot)
    with pytest.raises(InputError, match=r"the free energy of H\* is for 298.15 K, the electrode for 350 K"):
        hydrogen_evolution(free(0.1, "H"), hot)


def test_the_electrodes_of_the_intermediates_do_not_matter():
    plain, driven = (
        {name: free(value, name, electrode) for name, value in (("OH", 0.8), ("O", 1.6), ("OOH", 4.0))}
        for electrode in (Electrode(), Electrode(1.5, "SHE", ph=3))
    )
    assert oxygen_reduction(plain).free_energies == pytest.approx(oxygen_reduction(driven).free_energies, abs=1e-12)


@pytest.mark.parametrize(("value", "step"), [(-0.45, "H* → * + H2"), (0.38, "* → H*")])
def test_hydrogen_evolution_is_limited_by_either_step(value, step):
    """By leaving where hydrogen is bound too strongly, by arriving where it is bound too weakly."""
    pathway = hydrogen_evolution(free(value, "H"))
    assert pathway.limiting_step.name == step
    assert pathway.limiting_potential == pytest.approx(-abs(value), abs=1e-12)
    assert pathway.equilibrium_potential == 0.0


def test_pathways_refuse_what_is_missing_or_something_else():
    with pytest.raises(InputError, match="the free energy of OOH is missing; the reaction runs over OOH, O, OH"):
        oxygen_reduction({"OH": free(0.8, "OH"), "O": free(1.6, "O")})
    with pytest.raises(
        InputError, match=r"given for H is that of OH\* relative to .*must be that of H\* relative to 1/2"
    ):
        hydrogen_evolution(free(0.8, "OH"))


def test_a_step_without_electrons_has_no_limiting_potential():
    states = (State("A", 0.0, 0), State("B", 0.5, 0), State("C", 1.0, 1))
    with pytest.raises(InputError, match="steps of the reaction take up 0, 1 pairs"):
        Pathway("reaction", states, Electrode())
    with pytest.raises(InputError, match="take up no pairs"):
        Pathway("reaction", states[:1], Electrode())
