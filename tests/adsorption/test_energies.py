"""Bookkeeping of adsorption energies, with synthetic potentials whose answers are known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.calculator import Calculator, all_changes

from escn_calc.adsorption.energies import (
    adsorbed,
    adsorption_energy,
    check_role,
    convert,
    differential_energy,
)
from escn_calc.adsorption.gas_molecules import gas_atoms
from escn_calc.adsorption.references import named_scheme, own_scheme
from escn_calc.adsorption.species import species
from escn_calc.errors import InputError
from escn_calc.relax import relax

OC20, MOLECULES = named_scheme("oc20"), named_scheme("molecules")
METALS = ("Cu", "Pt")

ATOMS = {"Cu": -3.5, "Pt": -6.0, "H": -1.0, "C": -4.0, "N": -5.0, "O": -3.0}
"""eV per atom, wherever it is."""

MOLECULAR_BONDS = {"H2": -4.5, "H2O": -9.75, "CO": -11.25, "N2": -9.5, "O2": -5.25}
"""eV, what a gas molecule has beyond its atoms."""

SURFACE_BONDS = {
    ("Cu", "H"): -2.5,
    ("Cu", "O"): -4.75,
    ("Cu", "CO"): -12.0,
    ("Cu", "OH"): -7.5,
    ("Cu", "N"): -4.0,
    ("Cu", "C"): -6.0,
    ("Pt", "H"): -2.75,
    ("Pt", "O"): -4.25,
    ("Pt", "CO"): -13.0,
    ("Pt", "OH"): -6.75,
    ("Pt", "N"): -4.5,
    ("Pt", "C"): -7.0,
}
"""eV, what an adsorbate at its height has beyond its atoms, its own bonds included."""

HEIGHT, STIFFNESS, REPULSION = 1.25, 8.0, 0.25
"""Å above the surface; eV/Å² of every coordinate; eV for every pair of adsorbates on one slab."""


class TotalEnergy(Calculator):
    """E = Σ atoms + bonds + springs that hold each atom of the slab and each height of an adsorbate atom in place.

    Tags say what is adsorbed: those of the adsorbates are 2; the name of each is in ``info["adsorbates"]``.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        slab = atoms.get_tags() != 2
        offset = np.zeros((len(atoms), 3))
        names = atoms.info.get("adsorbates", [])
        bonds = REPULSION * math.comb(len(names), 2)
        if names or "slab" in atoms.info:
            offset[slab] = atoms.positions[slab] - atoms.info["slab"]
            offset[~slab, 2] = atoms.positions[~slab, 2] - atoms.info["slab"][:, 2].max() - HEIGHT
            bonds += sum(SURFACE_BONDS[atoms.symbols[0], name] for name in names)
        else:
            bonds += MOLECULAR_BONDS[atoms.info["gas molecule"]]
        energy = sum(ATOMS[symbol] for symbol in atoms.symbols) + bonds + STIFFNESS / 2 * float((offset**2).sum())
        self.results = {"energy": energy, "forces": -STIFFNESS * offset}


class PublishedStyle(TotalEnergy):
    """The same surface as an adsorption-energy model: the clean slab and the references of OC20 already subtracted."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        slab = sum(ATOMS[symbol] for symbol in atoms.symbols[atoms.get_tags() != 2])
        reference = OC20.reference([species(name) for name in atoms.info["adsorbates"]])
        self.results["energy"] -= slab + reference.energy(GAS_ENERGIES)


GAS_ENERGIES = {
    name: bonds + sum(ATOMS[symbol] for symbol in gas_atoms(name).symbols) for name, bonds in MOLECULAR_BONDS.items()
}


def slab_with(metal: str, *names: str) -> Atoms:
    """Return a slab, off its minimum by some tenths of an Å, with adsorbates too high above it."""
    atoms = fcc111(metal, (2, 2, 3), vacuum=8.0)
    atoms.info["slab"] = atoms.positions.copy()
    atoms.set_tags(0)
    sites = ("fcc", "hcp", "ontop")
    for name, site in zip(names, sites, strict=False):
        one = Atoms("CO", [[0, 0, 0], [0, 0, 0]]) if name == "CO" else molecule(name) if len(name) > 1 else Atoms(name)
        one.positions[:, 2] = 0.0
        add_adsorbate(atoms, one, HEIGHT + 0.25, site)
    tags = np.zeros(len(atoms), dtype=int)
    tags[12:] = 2
    atoms.set_tags(tags)
    atoms.info["adsorbates"] = list(names)
    return atoms


def relaxed_energy(atoms: Atoms, calculator: Calculator) -> float:
    return relax(atoms, calculator, fmax=1e-6, steps=200).energy


def known_answer(metal: str, *names: str) -> float:
    """The adsorption energy relative to the references of OC20, from the constants alone: the atoms cancel."""
    reference = OC20.reference([species(name) for name in names])
    gas = sum(float(factor) * MOLECULAR_BONDS[name] for name, factor in reference.molecules)
    return sum(SURFACE_BONDS[metal, name] for name in names) + REPULSION * math.comb(len(names), 2) - gas


# ---------------------------------------------------------------------------------------------------- bookkeeping

CASES = [(metal, (name,)) for metal in METALS for name in ("H", "C", "N", "O", "CO", "OH")]
CASES += [("Cu", ("CO", "CO")), ("Pt", ("CO", "O")), ("Pt", ("H", "H", "H"))]


@pytest.mark.parametrize(("metal", "names"), CASES)
def test_both_kinds_of_model_give_the_known_adsorption_energy(metal, names):
    adsorbates = [species(name) for name in names]
    gas = {name: gas_atoms(name) for name in OC20.molecules(adsorbates)}
    energies = {name: relaxed_energy(atoms, TotalEnergy()) for name, atoms in gas.items()}
    slab = relaxed_energy(slab_with(metal), TotalEnergy())
    adslab = relaxed_energy(slab_with(metal, *names), TotalEnergy())
    total = adsorption_energy("total", adslab, adsorbates, OC20, slab=slab, gas_energies=energies)

    prediction = relaxed_energy(slab_with(metal, *names), PublishedStyle())
    published = adsorption_energy("adsorption", prediction, adsorbates, OC20)

    answer = known_answer(metal, *names)
    assert total.value == pytest.approx(answer, abs=1e-9)
    assert published.value == pytest.approx(answer, abs=1e-9)
    assert published.value == prediction  # nothing subtracted
    assert total.reaction == published.reaction

    fixed = own_scheme({symbol: GAS_ENERGIES["H2"] / 2 - 0.25 for symbol in "HCNO"})
    same = [convert(energy, fixed, GAS_ENERGIES).value for energy in (total, published)]
    assert same[0] == pytest.approx(same[1], abs=1e-9)


def test_the_test_is_not_blind_to_the_slab_and_the_references():
    """Subtracting a slab from adsorption energies, or nothing from total ones, would be seen: tens of eV."""
    slab, adslab = relaxed_energy(slab_with("Cu"), TotalEnergy()), relaxed_energy(slab_with("Cu", "O"), TotalEnergy())
    assert abs(slab) > 10
    assert abs(adslab - slab - known_answer("Cu", "O")) > 1


def test_large_total_energies_lose_nothing():
    """At -35 000 eV a float32 resolves 4 meV."""
    energy = adsorption_energy("total", -35000.015625, species("H"), OC20, slab=-34996.0, gas_energies={"H2": -6.75})
    assert energy.value == -35000.015625 + 34996.0 + 3.375


# ---------------------------------------------------------------------------------------------------- coverage


def test_values_per_adsorbate_and_per_site():
    four = [species("CO")] * 4
    energy = adsorption_energy("total", -76.0, four, OC20, slab=-10.0, gas_energies={"CO": -14.5})
    assert energy.value == -8.0
    assert energy.per_adsorbate == -2.0
    assert energy.per_site(16) == -0.5
    with pytest.raises(InputError, match="a slab with 0 sites has no energy per site"):
        energy.per_site(0)


def test_differential_energy_is_that_of_what_was_added():
    def of(names, adslab):
        adsorbates = [species(name) for name in names]
        return adsorption_energy("total", adslab, adsorbates, OC20, slab=-10.0, gas_energies=GAS_ENERGIES)

    one, three = of(["CO"], -30.0), of(["CO", "O", "CO"], -70.0)
    expected = (-70.0 + 30.0 - GAS_ENERGIES["CO"] - GAS_ENERGIES["H2O"] + GAS_ENERGIES["H2"]) / 2
    assert differential_energy(three, one) == pytest.approx(expected, abs=1e-12)
    for more, fewer in ((one, three), (one, one), (of(["O", "O"], -40.0), one)):
        with pytest.raises(InputError, match="so nothing was added to it"):
            differential_energy(more, fewer)
    with pytest.raises(InputError, match="reference schemes 'oc20' and 'molecules'; convert one"):
        differential_energy(three, convert(one, MOLECULES))


@pytest.mark.parametrize(
    ("names", "written"), [(["OH"], "OH*"), (["CO", "O", "CO"], "2 CO* + O*"), (["H"] * 3, "3 H*")]
)
def test_what_is_adsorbed_in_words(names, written):
    assert adsorbed([species(name) for name in names]) == written


# ---------------------------------------------------------------------------------------------------- conversion


@pytest.mark.parametrize("kind", ["total", "adsorption"])
def test_conversion_there_and_back_is_exact_to_the_last_bit(kind):
    rng = np.random.default_rng(6)
    fixed = own_scheme({"H": -3.477, "O": -7.204, "C": "CH4 - 2 H2", "OH": "H2O2 - H2O + 1/2 H2 + 0.3"}, name="other")
    for _ in range(40):
        gas = {name: float(rng.uniform(-40, -5)) for name in ("H2", "H2O", "CO", "N2", "O2", "CH4", "H2O2")}
        adsorbates = [species(name) for name in rng.choice(["H", "O", "OH", "CO", "CHO"], size=rng.integers(1, 5))]
        slab, adslab = rng.uniform(-40000, -30000, size=2)
        given = {"slab": slab, "gas_energies": gas} if kind == "total" else {}
        first = adsorption_energy(kind, adslab, adsorbates, OC20, **given)
        there = convert(convert(first, fixed, gas), named_scheme("oc20-dft"), gas)
        assert convert(there, OC20).value == first.value
        assert there.value == pytest.approx(
            first.value + OC20.reference(adsorbates).energy(gas) - there.reference.energy({}), abs=1e-9
        )


def test_molecules_that_both_references_share_need_no_energy():
    """The reference of CO is CO in both schemes, so nothing is known or needed of CO, H2O and H2."""
    prediction = adsorption_energy("adsorption", -1.25, species("CO"), OC20)
    assert convert(prediction, MOLECULES).value == -1.25
    with pytest.raises(InputError, match="needs the gas-phase energy of H2, H2O, O2"):
        convert(adsorption_energy("adsorption", -1.25, species("O"), OC20), MOLECULES)


def test_gas_energies_of_another_model_are_not_mixed_in():
    energy = adsorption_energy("total", -20.0, species("H"), OC20, slab=-10.0, gas_energies={"H2": -6.75})
    with pytest.raises(
        InputError, match=r"energy of H2 is -6\.77 eV here, but -6\.75 eV in the energy to be converted"
    ):
        convert(energy, MOLECULES, {"H2": -6.77})


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("role", "words"), [("gas", "a gas molecule"), ("bulk", "a bare bulk"), ("slab", "a slab without adsorbate")]
)
def test_adsorption_energy_models_have_no_energy_of_anything_bare(role, words):
    with pytest.raises(InputError, match=f"{words} has no energy in this model: it returns adsorption energies"):
        check_role("adsorption", role)
    check_role("total", role)
    check_role("adsorption", "adslab")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"slab": -10.0}, "a clean slab was given"),
        ({"gas_energies": {"H2": -6.75}}, "gas molecules was given"),
        ({"slab": 0.0, "gas_energies": {"H2": 0.0}}, "a clean slab and gas molecules was given"),
    ],
)
def test_nothing_is_subtracted_from_an_adsorption_energy(given, words):
    with pytest.raises(InputError, match=f"{words}.*already subtracted, and subtracting them again would be wrong"):
        adsorption_energy("adsorption", -0.5, species("H"), OC20, **given)


def test_an_unknown_kind_is_not_guessed():
    with pytest.raises(InputError, match=r"energy kind of the model is 'unknown'.*nothing here guesses"):
        adsorption_energy("unknown", -0.5, species("H"), OC20)
    with pytest.raises(InputError, match="'unknown'"):
        check_role("unknown", "adslab")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slab": None}, "needs that of the clean slab, relaxed the same way"),
        ({"gas_energies": None}, r"1/2 H2\(g\) needs the gas-phase energy of H2, which is not there; there are none"),
        ({"gas_energies": {"H2": math.inf}}, "gas-phase energy of H2 is inf eV"),
        ({"adslab": math.nan}, "energy of the slab with adsorbate is nan eV"),
        ({"slab": math.nan}, "energy of the clean slab is nan eV"),
        ({"adsorbates": []}, "nothing is adsorbed"),
        ({"adsorbates": species("SO2")}, "has no reference for SO2"),
    ],
)
def test_what_makes_no_adsorption_energy_is_refused(arguments, message):
    usual = {"adslab": -14.0, "adsorbates": species("H"), "slab": -10.0, "gas_energies": {"H2": -6.75}}
    given = {**usual, **arguments}
    with pytest.raises(InputError, match=message):
        adsorption_energy(
            "total", given["adslab"], given["adsorbates"], OC20, slab=given["slab"], gas_energies=given["gas_energies"]
        )


# ---------------------------------------------------------------------------------------------------- in words


def test_words_of_a_total_energy_model_say_what_was_subtracted():
    energy = adsorption_energy(
        "total", -200.5, species("OH"), OC20, slab=-190.25, gas_energies={**GAS_ENERGIES, "H2": -6.75, "H2O": -14.25}
    )
    assert energy.words == (
        "+0.6250 eV is the energy of * + H2O(g) → OH* + 1/2 H2(g) (reference scheme 'oc20'; negative: "
        "below clean slab and references); "
        "E(slab with adsorbate) - E(clean slab) - references, all total energies of one model; gas energies: "
        "H2 -6.7500 eV, H2O -14.2500 eV; potential energies at rest, without zero-point, thermal, pressure or "
        "potential terms"
    )


def test_words_of_an_adsorption_energy_model_say_that_nothing_was_subtracted():
    energy = adsorption_energy("adsorption", -0.5, [species("CO"), species("O")], OC20)
    assert "-0.5000 eV is the energy of * + CO(g) + H2O(g) → CO* + O* + H2(g)" in energy.words
    assert "as the model predicts it: the clean slab and the references are part of its training data" in energy.words
    assert "gas energies" not in energy.words


def test_words_of_a_converted_energy_say_what_it_was():
    energy = convert(adsorption_energy("adsorption", -0.5, species("O"), OC20), MOLECULES, GAS_ENERGIES)
    assert "is the energy of * + 1/2 O2(g) → O*" in energy.words
    assert "its references H2O(g) - H2(g) were exchanged for these; gas energies: H2 -6.5000 eV" in energy.words


def test_words_name_fixed_references():
    scheme = named_scheme("oc20-dft")
    energy = adsorption_energy("total", -20.0, species("OH"), scheme, slab=-10.0)
    assert energy.reaction == "* + references fixed at -10.681 eV → OH*"
