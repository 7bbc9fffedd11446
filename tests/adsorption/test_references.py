"""Reference schemes against the formula of the OC20 paper, against composition, and in words."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from escn_calc.adsorption.gas_molecules import GAS_MOLECULES, gas_atoms, gas_molecule
from escn_calc.adsorption.references import (
    NAMED_SCHEMES,
    Reference,
    named_scheme,
    own_scheme,
    parse_reference,
)
from escn_calc.adsorption.species import Species, composition, species
from escn_calc.errors import InputError

OC20, MOLECULES = named_scheme("oc20"), named_scheme("molecules")
ADSORBATES = ["H", "C", "N", "O", "CO", "OH", "OOH", "H2O", "NO", "N2", "NH", "NH2", "NH3", "CH", "CH2", "CH3", "CH4"]
ADSORBATES += ["CHO", "COH", "COOH", "HCOO", "CH3OH", "C2H4", "CH3CH2OH"]


# ---------------------------------------------------------------------------------------------------- species


@pytest.mark.parametrize("text", ["OH", "*OH", "OH*", " *OH "])
def test_names_with_and_without_asterisk_are_one_species(text):
    assert species(text) == Species("OH", (("H", 1), ("O", 1)))


def test_atoms_are_a_species_by_formula_or_by_a_given_name():
    methoxy = molecule("CH3O")
    assert dict(species(methoxy).composition) == {"C": 1, "H": 3, "O": 1}
    assert species(methoxy, name="methoxy").name == "methoxy"


@pytest.mark.parametrize("text", ["glycine", "oh", "X2", "O H"])
def test_a_text_that_is_no_formula_is_refused(text):
    with pytest.raises(InputError, match="is not a chemical formula"):
        species(text)


@pytest.mark.parametrize("nothing", ["*", Atoms()])
def test_no_atoms_are_refused(nothing):
    with pytest.raises(InputError, match="without atoms has no reference"):
        species(nothing)


# ---------------------------------------------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("H2O - 1/2 H2", "H2O(g) - 1/2 H2(g)"),
        ("½ N2", "1/2 N2(g)"),
        ("0.5*N2", "1/2 N2(g)"),
        ("CO(g) - H2O(g) + H2(g)", "CO(g) + H2(g) - H2O(g)"),
        ("-2 H2O + CO2 + 2H2", "CO2(g) + 2 H2(g) - 2 H2O(g)"),
        ("H2O − H2 + 0.25 eV", "H2O(g) - H2(g) + 0.25 eV"),
        ("-3.477", "-3.477 eV"),
        (-3.477, "-3.477 eV"),
        (0, "0 eV"),
        ("H2 - H2", "0 eV"),
        ("-H2", "-H2(g)"),
        ("-1/2 H2 - 0.5", "-1/2 H2(g) - 0.5 eV"),
    ],
)
def test_references_are_read_as_people_write_them(text, written):
    assert str(parse_reference(text)) == written
    assert parse_reference(written) == parse_reference(text)


@pytest.mark.parametrize("text", ["H2O 1/2 H2", "h2o", "H2O -", "1/0 H2", "H2O + * H2", "H2O; H2", "+", "1e400"])
def test_what_cannot_be_read_is_refused_with_the_place(text):
    with pytest.raises(InputError, match="cannot be read from"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "a reference is empty"),
        (float("nan"), "is nan eV, not a finite number"),
        (True, "a reference is True; it must be a number in eV or a text"),
        (None, "a reference is None"),
        ("Qq2", "'Qq2' is not a chemical formula"),
    ],
)
def test_what_is_no_reference_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        parse_reference(source)


def test_energy_is_the_linear_combination():
    reference = parse_reference("2 H2O - 3/2 H2 + 0.125")
    assert reference.energy({"H2O": -14.25, "H2": -6.75, "CO": 99.0}) == 2 * -14.25 + 1.5 * 6.75 + 0.125


def test_missing_and_senseless_gas_energies_are_refused():
    with pytest.raises(InputError, match=r"H2O\(g\) - H2\(g\) needs the gas-phase energy of H2, H2O.*there are CO"):
        parse_reference("H2O - H2").energy({"CO": -14.0})
    with pytest.raises(InputError, match="gas-phase energy of H2 is nan eV"):
        parse_reference("1/2 H2").energy({"H2": float("nan")})


# ---------------------------------------------------------------------------------------------------- schemes


@pytest.mark.parametrize("name", ADSORBATES)
def test_oc20_is_the_formula_of_its_paper(name):
    """x CO + (x + y/2 - z) H2 + (z - x) H2O + w/2 N2 → CxHyOzNw (Chanussot et al. 2021)."""
    counts = composition(name)
    x, y, z, w = (Fraction(counts[symbol]) for symbol in "CHON")
    expected = {"CO": x, "H2": x + y / 2 - z, "H2O": z - x, "N2": w / 2}
    assert dict(OC20.reference(species(name)).molecules) == {key: value for key, value in expected.items() if value}


@pytest.mark.parametrize("name", ADSORBATES)
def test_oc20_references_have_the_atoms_of_the_adsorbate(name):
    assert OC20.reference(species(name)).composition() == dict(composition(name))


def test_references_of_several_adsorbates_add_up():
    reference = OC20.reference([species("CO"), species("CO"), species("O")])
    assert str(reference) == "2 CO(g) + H2O(g) - H2(g)"


@pytest.mark.parametrize(("symbol", "value"), [("H", -3.477), ("C", -7.282), ("N", -8.083), ("O", -7.204)])
def test_fixed_values_of_oc20_are_those_of_its_table_5(symbol, value):
    assert named_scheme("oc20-dft").reference(species(symbol)) == Reference((), value)


def test_fixed_values_of_oc20_sum_over_atoms():
    """The example of its authors: CH4 is -7.282 + 4 · (-3.477) eV."""
    reference = named_scheme("oc20-dft").reference(species("CH4"))
    assert reference.molecules == ()
    assert reference.energy({}) == pytest.approx(-7.282 - 4 * 3.477, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "written"),
    [("CO", "CO(g)"), ("H", "1/2 H2(g)"), ("O", "1/2 O2(g)"), ("N", "1/2 N2(g)"), ("NH3", "NH3(g)")],
)
def test_molecules_are_their_own_reference(name, written):
    assert str(MOLECULES.reference(species(name))) == written


@pytest.mark.parametrize("name", ["OH", "C", "CHO"])
def test_what_is_no_stable_molecule_is_not_its_own_reference(name):
    with pytest.raises(InputError, match=f"{name} is no stable gas molecule.*use the scheme 'oc20'"):
        MOLECULES.reference(species(name))


def test_an_isomer_of_a_gas_molecule_by_another_name_is_not_that_molecule():
    with pytest.raises(InputError, match="ethanol is no stable gas molecule"):
        MOLECULES.reference(species(molecule("CH3CH2OH"), name="ethanol"))


def test_own_scheme_takes_adsorbates_before_elements_and_numbers_as_fixed():
    scheme = own_scheme({"H": -3.5, "O": "H2O - H2", "*OH": "H2O - 1/2 H2 + 0.1", "glycine": -99}, name="mine")
    assert str(scheme.reference(species("OH"))) == "H2O(g) - 1/2 H2(g) + 0.1 eV"
    assert str(scheme.reference(species("OOH"))) == "2 H2O(g) - 2 H2(g) - 3.5 eV"
    assert scheme.reference(species(molecule("CH3COOH"), name="glycine")) == Reference((), -99.0)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "has no entries"),
        ({"OH": "H2O - H2"}, r"H2O\(g\) - H2\(g\) of OH in the scheme 'own' has the atoms O, the adsorbate H O"),
        ({"O": "H2O"}, "has the atoms H2 O, the adsorbate O"),
        ({"H": "1/3 H2"}, "has the atoms H2/3, the adsorbate H"),
        ({"H": "half H2"}, "cannot be read from"),
    ],
)
def test_own_schemes_that_make_no_sense_are_refused_at_once(entries, message):
    with pytest.raises(InputError, match=message):
        own_scheme(entries)


def test_other_ways_to_write_an_adsorbate_are_one_adsorbate():
    elements = {"C": -7.0, "H": -3.0, "O": -7.0}
    for key, name in (("HCO", "CHO"), ("CHO", "HCO"), ("*OCH3", "CH3O"), ("HOCO", "COOH")):
        assert own_scheme({key: -20.5, **elements}).reference(species(name)) == Reference((), -20.5)
    with pytest.raises(InputError, match="two entries for CHO"):
        own_scheme({"HCO": -20.5, "*CHO": -20.4})


def test_a_name_that_is_no_formula_is_checked_when_its_atoms_are_known():
    scheme = own_scheme({"glycol": "CO"})
    with pytest.raises(InputError, match="of glycol in the scheme 'own' has the atoms C O, the adsorbate C2 H4"):
        scheme.reference(species(molecule("C2H4"), name="glycol"))


def test_own_scheme_does_not_take_the_name_of_another():
    with pytest.raises(InputError, match="the name 'oc20' is that of a scheme of the package"):
        own_scheme({"H": -3.4}, name="oc20")


def test_an_element_without_reference_is_named_with_what_there_is():
    with pytest.raises(
        InputError, match=r"'oc20' has no reference for SH \(no entry for S\), only for C, H, N, O; state your"
    ):
        OC20.reference(species("SH"))
    with pytest.raises(InputError, match="only for glycine; did you mean 'glycine'"):
        own_scheme({"glycine": -99}).reference(species(molecule("CH3COOH"), name="glycin"))
    sulphur = own_scheme({"S": "H2S - H2", "H": "1/2 H2"}, name="sulphur")
    assert str(sulphur.reference(species("SH"))) == "H2S(g) - 1/2 H2(g)"


def test_unknown_scheme_suggests():
    with pytest.raises(InputError, match="unknown reference scheme 'molecule'; did you mean 'molecules'"):
        named_scheme("molecule")


def test_molecules_to_be_computed_are_those_of_all_references():
    adsorbates = [species(name) for name in ("H", "C", "N", "O", "CO", "OH")]
    assert OC20.molecules(adsorbates) == ("CO", "H2", "H2O", "N2")
    assert OC20.molecules([species("CO")]) == ("CO",)
    assert named_scheme("oc20-dft").molecules(adsorbates) == ()


@pytest.mark.parametrize("scheme", NAMED_SCHEMES.values(), ids=NAMED_SCHEMES)
def test_every_molecule_of_the_named_schemes_can_be_built(scheme):
    for reference in scheme.entries.values():
        for name, _ in reference.molecules:
            assert gas_molecule(name).formula == name


# ---------------------------------------------------------------------------------------------------- gas molecules


@pytest.mark.parametrize("formula", GAS_MOLECULES)
def test_structures_have_the_atoms_of_the_formula_and_no_images(formula):
    atoms = gas_atoms(formula)
    assert composition(formula) == composition(atoms.get_chemical_formula())
    assert not atoms.pbc.any()
    assert atoms.get_volume() > 15**3


@pytest.mark.parametrize("formula", GAS_MOLECULES)
def test_geometry_and_symmetry_number_are_those_of_the_structure(formula):
    """The number of proper rotations that map the atoms onto themselves, counted by pymatgen."""
    from pymatgen.core import Molecule
    from pymatgen.symmetry.analyzer import PointGroupAnalyzer

    atoms, known = gas_atoms(formula), gas_molecule(formula)
    linear = np.linalg.matrix_rank(atoms.positions - atoms.positions[0], tol=1e-3) == 1
    assert known.geometry == ("linear" if linear else "nonlinear")
    group = PointGroupAnalyzer(Molecule(atoms.symbols, atoms.positions), tolerance=0.05)
    if linear:
        assert known.symmetry_number == {"D*h": 2, "C*v": 1}[group.sch_symbol]
    else:
        assert known.symmetry_number == group.get_rotational_symmetry_number()


def test_unknown_gas_molecule_suggests():
    with pytest.raises(InputError, match="gas molecule 'NH4' is not known; did you mean"):
        gas_atoms("NH4")
