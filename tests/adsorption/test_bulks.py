"""Crystals from names, files and structures, and facets as people write them."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk as ase_bulk
from ase.build import fcc111
from pymatgen.core import Lattice, Structure

from escn_calc.adsorption.bulks import bulk
from escn_calc.adsorption.facets import facet_name, miller_indices
from escn_calc.errors import InputError
from tests.adsorption.crystals import fept

MP_30 = """# generated using pymatgen
data_Cu
_symmetry_space_group_name_H-M   'P 1'
_cell_length_a   2.53
_cell_length_b   2.53
_cell_length_c   2.53
_cell_angle_alpha   60
_cell_angle_beta   60
_cell_angle_gamma   60
_symmetry_Int_Tables_number   1
_chemical_formula_sum   Cu1
loop_
 _symmetry_equiv_pos_site_id
 _symmetry_equiv_pos_as_xyz
  1  'x, y, z'
loop_
 _atom_site_type_symbol
 _atom_site_label
 _atom_site_symmetry_multiplicity
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
  Cu  Cu0  1  0.0  0.0  0.0  1
"""
"""A primitive cell, as the Materials Project hands out."""


@pytest.mark.parametrize(
    ("name", "atoms", "lattice"), [("Cu", 4, 3.61), ("Fe", 2, 2.87), ("Ru", 2, 2.70), ("Si", 8, 5.43)]
)
def test_element_by_name_has_the_conventional_cell(name, atoms, lattice):
    crystal = bulk(name)
    assert (crystal.name, len(crystal.atoms)) == (name, atoms)
    assert crystal.atoms.cell.lengths()[0] == pytest.approx(lattice, abs=0.01)
    assert crystal.is_element


def test_compound_by_name_and_lattice_constant():
    crystal = bulk("NaCl", crystal="rocksalt", lattice=5.64)
    assert crystal.atoms.get_chemical_formula() == "Cl4Na4"
    assert crystal.atoms.cell.lengths() == pytest.approx([5.64] * 3)
    assert bulk("Cu", lattice=3.7).atoms.cell.lengths() == pytest.approx([3.7] * 3)


@pytest.mark.parametrize("how", ["cif", "path", "ase", "pymatgen"])
def test_primitive_cell_becomes_conventional_wherever_it_comes_from(tmp_path, how):
    path = tmp_path / "mp-30.cif"
    path.write_text(MP_30)
    structure = Structure(Lattice(ase_bulk("Cu", a=2.53 * np.sqrt(2)).cell.array), ["Cu"], [[0, 0, 0]])
    source = {"cif": str(path), "path": path, "ase": ase_bulk("Cu", a=2.53 * np.sqrt(2)), "pymatgen": structure}[how]
    crystal = bulk(source)
    assert crystal.name == "Cu"
    assert len(crystal.atoms) == 4
    assert crystal.atoms.cell.cellpar() == pytest.approx([2.53 * np.sqrt(2)] * 3 + [90] * 3, abs=1e-6)


def test_other_cells_stay_as_they_are():
    cell = fept().atoms
    assert len(cell) == 4  # the primitive tetragonal cell has two atoms and other axes
    relaxed = ase_bulk("Cu", cubic=True)
    relaxed.set_cell(relaxed.cell * 1.01, scale_atoms=True)
    relaxed.calc, before = None, relaxed.copy()
    assert bulk(relaxed, name="Cu").atoms.cell.array == pytest.approx(before.cell.array)
    assert relaxed == before


def test_what_is_no_bulk(tmp_path):
    with pytest.raises(InputError, match=r"'Cuu' is neither a file nor the name .* did you mean 'Cu'"):
        bulk("Cuu")
    with pytest.raises(InputError, match=r"bulk 'NaCl': .* Give its crystal structure \(sc, fcc"):
        bulk("NaCl")
    with pytest.raises(InputError, match=r"'rocksalz' is unknown; did you mean 'rocksalt'"):
        bulk("NaCl", crystal="rocksalz", lattice=5.6)
    with pytest.raises(InputError, match="the lattice constant is -3 Å; it must be positive"):
        bulk("Cu", lattice=-3)
    with pytest.raises(InputError, match="a structure has its own: leave them out"):
        bulk(ase_bulk("Cu"), lattice=3.6)
    with pytest.raises(InputError, match="a crystal is periodic in three directions; found pbc TTF"):
        bulk(fcc111("Cu", (1, 1, 3), vacuum=5))
    with pytest.raises(InputError, match="found int"):
        bulk(3)
    with pytest.raises(InputError, match="does not exist"):
        bulk(tmp_path / "no.cif")
    mixed = Structure(Lattice.cubic(3.7), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(InputError, match="partly occupied"):
        bulk(mixed)


@pytest.mark.parametrize(
    ("written", "indices"),
    [("111", (1, 1, 1)), ("(1-10)", (1, -1, 0)), ("1 0 -12", (1, 0, -12)), ("2,1,1", (2, 1, 1)), ((2, 0, 0), (1, 0, 0)),
     ([1, 1, np.int64(0)], (1, 1, 0)), ("-1-1-1", (-1, -1, -1))],
)  # fmt: skip
def test_facets(written, indices):
    assert miller_indices(written, bulk("Cu").atoms) == indices


def test_hexagonal_facets_have_four_indices():
    ruthenium = bulk("Ru").atoms
    assert miller_indices("0001", ruthenium) == (0, 0, 1) == miller_indices("001", ruthenium)
    assert miller_indices("10-10", ruthenium) == (1, 0, 0)
    assert facet_name((1, 0, 0), ruthenium) == "(10-10)"
    assert facet_name((1, 0, 0), bulk("Cu").atoms) == "(100)"
    assert facet_name((1, 0, -12), bulk("Cu").atoms) == "(1 0 -12)"


@pytest.mark.parametrize(
    ("written", "message"),
    [("fcc111", "did you mean '111'?"), ("11l", "give for example '111'"), ("000", "all zero name no plane"),
     ("1000", "did you mean '10-10'?"), ((1, 1), "three whole numbers"), ((1, 0.5, 1), "three whole numbers"),
     (7, "of type int")],
)  # fmt: skip
def test_what_is_no_facet(written, message):
    with pytest.raises(InputError, match=re.escape(message)):
        miller_indices(written, bulk("Ru").atoms)


def test_four_indices_on_a_cubic_crystal():
    with pytest.raises(InputError, match=r"'0001': four indices belong to a hexagonal cell, and this one is not"):
        miller_indices("0001", bulk("Cu").atoms)


def test_empty_structure():
    with pytest.raises(InputError, match="a crystal is periodic"):
        bulk(Atoms())
    with pytest.raises(InputError, match="the structure has no atoms"):
        bulk(Atoms(cell=[3, 3, 3], pbc=True))


def test_lengths_in_other_units():
    with pytest.raises(InputError, match=r"bulk 'Cu': 4 atoms in a cell of 0.047 Å³; are the lengths in Å\?"):
        bulk("Cu", lattice=0.361)
    with pytest.raises(InputError, match=r"bulk 'Cu': no two atoms of the crystal are nearer .* lengths in Å\?"):
        bulk("Cu", lattice=36.1)
    doubled = ase_bulk("Cu", cubic=True) + ase_bulk("Cu", cubic=True)
    with pytest.raises(InputError, match=r"bulk Cu8: atoms 0 and 4 \(Cu, Cu\) are 0.00 Å apart"):
        bulk(doubled)


@pytest.mark.parametrize("axis", [0, 2])
def test_a_slab_is_no_bulk(axis):
    slab = fcc111("Cu", (2, 2, 3), vacuum=5, periodic=True)
    slab.set_cell(np.roll(slab.cell.array, axis + 1, axis=0))
    with pytest.raises(InputError, match=r"bulk Cu12: a gap of 10.0 Å between its planes .* given as a slab"):
        bulk(slab)


def test_layered_crystals_are_bulks():
    graphite = Atoms(
        "C4",
        scaled_positions=[(0, 0, 0.25), (0, 0, 0.75), (1 / 3, 2 / 3, 0.25), (2 / 3, 1 / 3, 0.75)],
        cell=[2.46, 2.46, 6.71, 90, 90, 120],
        pbc=True,
    )
    assert len(bulk(graphite).atoms) == 4


def test_elements_in_other_letters():
    with pytest.raises(InputError, match="did you mean 'Cu'"):
        bulk("cu")
