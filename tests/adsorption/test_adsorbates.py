"""The catalogue, and adsorbates from elsewhere."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from escn_calc.adsorption.adsorbates import adsorbate, catalogue_names, separation
from escn_calc.adsorption.catalogue import ALIASES, CATALOGUE
from escn_calc.errors import InputError

COMMON = [
    "H",
    "C",
    "N",
    "O",
    "OH",
    "NO",
    "CO",
    "N2",
    "O2",
    "CO2",
    "NH",
    "NH2",
    "NH3",
    "CH",
    "CH2",
    "CH3",
    "CH4",
    "H2O",
    "OOH",
    "HCOO",
    "COOH",
    "CHO",
    "COH",
    "CH2O",
    "S",
]
IN_NAMES = {
    "HCOOH": "CH2O2",
    "COOH": "CHO2",
    "HCOO": "CHO2",
    "OOH": "HO2",
    "CH2OH": "CH3O",
    "CCH3": "C2H3",
    "NNH": "HN2",
}


def test_usual_species_are_there():
    assert set(COMMON) <= set(catalogue_names())


@pytest.mark.parametrize("name", catalogue_names())
def test_geometry(name):
    """One molecule, of the atoms its name says, with bonds as long as bonds are, standing on its binding atoms."""
    species = adsorbate(name)
    composition = species.atoms.symbols.formula
    assert composition.count() == Atoms(name).symbols.formula.count()
    if name in IN_NAMES:
        assert composition.format("hill") == IN_NAMES[name]
    ratios = separation(species.atoms, species.atoms.positions, species.atoms.numbers)
    pairs = ratios[np.triu_indices(len(species.atoms), 1)]
    if len(pairs):
        bonded = pairs[pairs < 1.3]
        assert len(bonded) >= len(species.atoms) - 1
        assert bonded.min() > 0.75 and bonded.max() < 1.21
        assert pairs[pairs >= 1.21].min(initial=9) > 1.4  # nothing between bonded and not bonded
    binding = species.atoms.positions[list(species.binding)]
    assert binding.mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-9)
    others = np.delete(species.atoms.positions, list(species.binding), axis=0)
    assert others[:, 2].min(initial=0) > -0.5
    assert not species.atoms.pbc.any()


@pytest.mark.parametrize(
    ("name", "bond", "length"),
    [("CO", (0, 1), 1.128), ("NO", (0, 1), 1.151), ("N2", (0, 1), 1.098), ("O2", (0, 1), 1.208), ("H2", (0, 1), 0.741),
     ("CO2", (0, 1), 1.162), ("H2O", (0, 1), 0.958), ("NH3", (0, 1), 1.012), ("CH4", (0, 1), 1.09)],
)  # fmt: skip
def test_bond_lengths_of_gas_molecules(name, bond, length):
    """Experimental equilibrium values (Å), from the usual tables."""
    assert adsorbate(name).atoms.get_distance(*bond) == pytest.approx(length, abs=0.002)


@pytest.mark.parametrize("written", ["*OH", "OH*", "OH", " *OH ", "HO"])
def test_stars_and_other_ways_to_write(written):
    assert adsorbate(written).name == "OH"


def test_every_alias_is_known_and_of_equal_composition():
    for alias, name in ALIASES.items():
        assert alias not in CATALOGUE
        assert Atoms(alias).symbols.formula.count() == Atoms(name).symbols.formula.count()
        assert adsorbate(f"* {alias}").name == name


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("oh", "'OH'"), ("Co", "'CO'"), ("H3C", "'CH3'"), ("CHO2", "'HCOO' or 'COOH'"), ("CH4O", "'CH3OH'"),
     ("HOO", "'OOH'")],
)  # fmt: skip
def test_unknown_name(name, suggestion):
    with pytest.raises(InputError, match=rf"adsorbate '{name}' is not in the catalogue; did you mean {suggestion}"):
        adsorbate(name)


def test_unknown_name_far_from_all():
    with pytest.raises(InputError, match=r"'XyZ' is not in the catalogue; it has H, C, N.* as a file or ase.Atoms"):
        adsorbate("XyZ")


def test_from_atoms_and_file(tmp_path):
    methanol = molecule("CH3OH")
    before = methanol.copy()
    oxygen = int(np.flatnonzero(methanol.symbols == "O")[0])
    made = adsorbate(methanol, binding=[oxygen])
    assert methanol == before
    assert made.binding == (oxygen,)
    assert made.atoms.positions[oxygen] == pytest.approx([0, 0, 0])
    write(tmp_path / "methanol.xyz", methanol)
    read = adsorbate(str(tmp_path / "methanol.xyz"), binding=[oxygen])
    assert read.name == "methanol"
    assert read.atoms.positions == pytest.approx(made.atoms.positions, abs=1e-6)
    lowest = adsorbate(tmp_path / "methanol.xyz")
    assert lowest.atoms.positions[:, 2].min() == pytest.approx(0)


def test_what_is_no_adsorbate(tmp_path):
    with pytest.raises(InputError, match=r"binding atoms \[2\] must be some of 0 to 1"):
        adsorbate("CO", binding=[2])
    with pytest.raises(InputError, match=r"binding atoms \[\] must"):
        adsorbate("CO", binding=[])
    with pytest.raises(InputError, match="atom 2 is not bonded to atom 0; give one molecule"):
        adsorbate(Atoms("COH", [[0, 0, 0], [0, 0, 1.1], [0, 0, 6]]))
    with pytest.raises(InputError, match=r"atoms 0 and 1 are 0.20 Å apart"):
        adsorbate(Atoms("CO", [[0, 0, 0], [0, 0, 0.2]]))
    with pytest.raises(InputError, match="no atoms"):
        adsorbate(Atoms())
    with pytest.raises(InputError, match="found int"):
        adsorbate(8)
    with pytest.raises(InputError, match="does not exist"):
        adsorbate(str(tmp_path / "no.xyz"))
    with pytest.raises(InputError, match=r"binding atoms \[0, 0\] must be some of 0 to 1, each once"):
        adsorbate("CO", binding=[0, 0])


def test_isomers_are_told_apart_by_a_name():
    hydroxymethylidyne = adsorbate("COH").atoms
    assert adsorbate(hydroxymethylidyne).name == "CHO"  # the formula says no more
    assert adsorbate(hydroxymethylidyne, name="COH").name == "COH"
    assert adsorbate("OH", name="hydroxyl").name == "hydroxyl"
