"""Slabs against ASE's builders and the known terminations of crystals."""

import itertools

import numpy as np
import pytest
from ase import Atoms, build
from ase.constraints import FixAtoms
from ase.neighborlist import neighbor_list
from ase.symbols import string2symbols

from escn_calc.adsorption.bulks import bulk
from escn_calc.adsorption.geometry import coordination, exposed_atoms, planes
from escn_calc.adsorption.slabs import Slab, check_vacuum, slabs, user_slab, vacuum_of
from escn_calc.adsorption.supercells import smallest_supercell
from escn_calc.adsorption.symmetry import has_equal_faces
from escn_calc.errors import InputError
from tests.adsorption.crystals import by_name, one_slab


def distances(atoms: Atoms) -> np.ndarray:
    """All distances up to 8 Å with images in the plane, sorted: equal for equal slabs, however they are turned."""
    flat = atoms.copy()
    flat.pbc = (True, True, False)
    return np.sort(neighbor_list("d", flat, 8.0))


@pytest.mark.parametrize(
    ("name", "facet", "built"),
    [
        ("Cu", "111", build.fcc111("Cu", (2, 2, 4), vacuum=7.5)),
        ("Cu", "100", build.fcc100("Cu", (2, 2, 4), vacuum=7.5)),
        ("Cu", "110", build.fcc110("Cu", (2, 2, 4), vacuum=7.5)),
        ("Cu", "211", build.fcc211("Cu", (3, 2, 4), vacuum=7.5)),
        ("Fe", "110", build.bcc110("Fe", (2, 2, 4), vacuum=7.5)),
        ("Fe", "100", build.bcc100("Fe", (2, 2, 4), vacuum=7.5)),
        ("Ru", "0001", build.hcp0001("Ru", (2, 2, 4), vacuum=7.5)),
    ],
)
def test_slabs_are_those_of_the_builders_of_ase(name, facet, built):
    cells = (2, 1) if facet == "211" else (2, 2)
    (slab,) = slabs(by_name(name), facet, supercell=cells)
    assert len(slab.atoms) == len(built)
    assert slab.atoms.cell.areas()[2] == pytest.approx(built.cell.areas()[2], rel=1e-6)
    assert distances(slab.atoms) == pytest.approx(distances(built), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "facet", "terminations"),
    [
        ("Cu", "111", [""]),
        ("Cu", "211", [""]),
        ("Ru", "0001", [""]),
        ("Ru", "10-10", ["Ru-1", "Ru-2"]),
        ("Si", "100", [""]),
        ("Si", "111", ["Si-1", "Si-2"]),
        ("NaCl", "100", [""]),
        ("NaCl", "110", [""]),
        ("NaCl", "111", ["Cl", "Na"]),
        ("CsCl", "100", ["Cl", "Cs"]),
        ("CsCl", "110", [""]),
        ("CaF2", "111", ["Ca", "F-1", "F-2"]),
        ("Cu3Au", "111", [""]),
        ("Cu3Au", "100", ["AuCu", "Cu"]),
        ("FePt", "001", ["Fe", "Pt"]),
        ("FePt", "100", [""]),
        ("FePt", "111", [""]),
        ("TiO2", "110", ["O-1", "O-2", "TiO"]),
    ],
)
def test_terminations(name, facet, terminations):
    found = slabs(by_name(name), facet)
    assert sorted(slab.termination for slab in found) == terminations
    for slab in found:
        highest = slab.atoms.symbols[planes(slab.atoms.positions[:, 2])[0]]
        assert not slab.termination or set(string2symbols(slab.termination.split("-")[0])) == set(highest)


def test_names():
    sodium = next(slab for slab in slabs(by_name("NaCl"), "111") if slab.termination == "Na")
    assert (sodium.name, sodium.miller, sodium.bulk.name) == ("NaCl(111)-Na", (1, 1, 1), "NaCl")
    assert one_slab("Ru", "001").name == "Ru(0001)"
    assert one_slab("Cu", "111").name == "Cu(111)"


def test_the_termination_with_the_fewest_broken_bonds_comes_first():
    bridging = slabs(by_name("TiO2"), "110")[0]
    highest = planes(bridging.atoms.positions[:, 2])[0]
    assert set(bridging.atoms.symbols[highest]) == {"O"}
    assert set(coordination(bridging.atoms)[highest]) == {2}  # bridging oxygen
    trilayer = slabs(by_name("CaF2"), "111")[0]
    assert [trilayer.atoms.symbols[plane[0]] for plane in planes(trilayer.atoms.positions[:, 2])[:3]] == [
        "F",
        "Ca",
        "F",
    ]


def test_polar_facets_point_along_the_normal():
    """Zincblende (111)A: the metal has the bond that is cut along +[111]; (-1-1-1) is B."""
    for facet, outside in (("111", "Zn"), ("-1-1-1", "S")):
        atoms = slabs(by_name("ZnS"), facet)[0].atoms
        assert set(atoms.symbols[planes(atoms.positions[:, 2])[0]]) == {outside}


@pytest.mark.parametrize(
    ("name", "facet"), [("Cu", "111"), ("Cu", "211"), ("Ru", "10-10"), ("TiO2", "110"), ("Fe", "310")]
)
def test_cell_has_the_surface_normal_along_z(name, facet):
    for slab in slabs(by_name(name), facet):
        cell = slab.atoms.cell.array
        assert cell[0, 1:] == pytest.approx([0, 0], abs=1e-9)
        assert cell[2, :2] == pytest.approx([0, 0], abs=1e-9)
        assert cell[1, 2] == pytest.approx(0, abs=1e-9)
        assert np.linalg.det(cell) > 0
        assert slab.atoms.pbc.all()
        assert slab.atoms.get_scaled_positions(wrap=False)[:, 2].min() > 0
        assert slab.atoms.get_scaled_positions(wrap=False)[:, 2].max() < 1


@pytest.mark.parametrize("vacuum", [8.0, 15.0, 23.7])
def test_vacuum_is_exact(vacuum):
    assert vacuum_of(one_slab("Cu", "110", vacuum=vacuum).atoms) == pytest.approx(vacuum, abs=1e-9)


@pytest.mark.parametrize(("facet", "planes_per_layer"), [("111", 1), ("100", 1), ("110", 1), ("211", 3), ("311", 2)])
@pytest.mark.parametrize("layers", [3, 4, 5])
def test_layers_of_elements_are_exact(facet, planes_per_layer, layers):
    slab = one_slab("Cu", facet, layers=layers)
    assert len(planes(slab.atoms.positions[:, 2])) == layers * planes_per_layer


def test_compounds_keep_their_composition():
    for slab in slabs(by_name("TiO2"), "110", layers=3):
        assert 2 * (slab.atoms.symbols == "Ti").sum() == (slab.atoms.symbols == "O").sum()


@pytest.mark.parametrize("name", ["Cu", "NaCl"])
def test_minimum_thickness(name):
    slab = one_slab(name, "100", layers=3, minimum_thickness=12.0)
    assert np.ptp(slab.atoms.positions[:, 2]) >= 12.0
    spacing = {"Cu": 3.61 / 2, "NaCl": 5.64}[name]
    assert np.ptp(slab.atoms.positions[:, 2]) < 12.0 + spacing


def test_tags_and_constraints_are_those_of_oc20():
    atoms = one_slab("Cu", "111", free_layers=1, supercell=(2, 2)).atoms
    highest = planes(atoms.positions[:, 2])[0]
    assert sorted(highest) == np.flatnonzero(atoms.get_tags() == 1).tolist()
    (constraint,) = atoms.constraints
    assert sorted(constraint.index) == np.flatnonzero(atoms.get_tags() == 0).tolist()
    terraces = one_slab("Cu", "211", free_layers=1).atoms
    assert set(np.flatnonzero(terraces.get_tags())) == set(np.concatenate(planes(terraces.positions[:, 2])[:3]))


def test_symmetric_slabs_have_two_equal_faces():
    for slab in slabs(by_name("NaCl"), "111", layers=5, symmetric=True, free_layers=1):
        of_each = planes(slab.atoms.positions[:, 2])
        assert set(slab.atoms.symbols[of_each[0]]) == set(slab.atoms.symbols[of_each[-1]]) == {slab.termination}
        assert has_equal_faces(slab.atoms)
        assert slab.atoms.get_tags()[of_each[0]].all() and slab.atoms.get_tags()[of_each[-1]].all()
        assert not slab.atoms.get_tags()[of_each[2]].any()
    assert not has_equal_faces(slabs(by_name("NaCl"), "111")[0].atoms)
    with pytest.raises(InputError, match=r"ZnS\(111\)-Zn: no slab of this crystal has this surface on both faces"):
        slabs(by_name("ZnS"), "111", layers=5, symmetric=True)


def test_supercell():
    lattice = one_slab("Cu", "111", supercell=(1, 1)).atoms.cell.array[:2, :2]
    assert smallest_supercell(lattice, 7.0, 0.0) == (3, 3)
    assert smallest_supercell(lattice, 2.0, 0.0) == (1, 1)
    area = abs(np.linalg.det(lattice))
    repeats = smallest_supercell(lattice, 2.0, 6.9 * area)
    assert np.prod(repeats) >= 7
    slab = one_slab("Cu", "110", minimum_width=8.0)
    images = [np.linalg.norm(i * slab.atoms.cell[0] + j * slab.atoms.cell[1])
              for i, j in itertools.product(range(-2, 3), repeat=2) if (i, j) != (0, 0)]  # fmt: skip
    assert 8.0 <= min(images) < 8.0 + 3.61
    with pytest.raises(InputError, match="more than 20 repeats"):
        one_slab("Cu", "111", minimum_width=1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 2}, "slab too thin: 2 layers, of which 2 are free to move, leave none to hold; take at least 3"),
        ({"symmetric": True}, "of which 4 are free to move at the two faces"),
        ({"vacuum": 0}, "vacuum is 0; it must be positive"),
        ({"vacuum": float("nan")}, "vacuum is nan"),
        ({"minimum_thickness": -1}, "minimum_thickness is -1"),
        ({"free_layers": -1}, "free_layers is -1"),
        ({"supercell": (0, 2)}, r"supercell is \(0, 2\)"),
        ({"supercell": (1.5, 2)}, r"supercell is \(1.5, 2\); it must be two whole numbers"),
        ({"layers": 4.5}, "layers is 4.5 and free_layers 2; both must be whole numbers"),
    ],
)
def test_sizes_that_make_no_slab(options, message):
    with pytest.raises(InputError, match=message):
        slabs(by_name("Cu"), "111", **options)


def test_vacuum_too_small_for_the_cutoff():
    slab = one_slab("Cu", "111", vacuum=10.0)
    check_vacuum(slab.atoms, 10.0 - 1e-9, slab.name)
    with pytest.raises(
        InputError, match=r"Cu\(111\): 10.0 Å of vacuum .* sees 12 Å far; raise the vacuum by at least 2.0 Å"
    ):
        check_vacuum(slab.atoms, 12.0, slab.name)
    open_above = slab.atoms.copy()
    open_above.pbc = (True, True, False)
    check_vacuum(open_above, 12.0, slab.name)


def test_user_slab_stays_as_it_is():
    atoms = build.fcc111("Pt", (2, 2, 4), vacuum=6)
    atoms.set_tags([0] * 8 + [1] * 8)
    atoms.set_constraint(FixAtoms(range(4)))
    before = atoms.copy()
    slab = user_slab(atoms, "mine")
    assert atoms == before
    assert (slab.name, slab.miller, slab.bulk) == ("mine", None, None)
    assert slab.atoms.positions == pytest.approx(before.positions)
    assert slab.atoms.get_tags().tolist() == [0] * 8 + [1] * 8
    assert slab.atoms.constraints[0].index.tolist() == [0, 1, 2, 3]
    assert slab.atoms.pbc.tolist() == before.pbc.tolist()


def test_tags_of_user_slabs_are_worked_out():
    layered = build.fcc111("Pt", (2, 2, 4), vacuum=6)
    assert set(layered.get_tags()) == {1, 2, 3, 4}  # ASE numbers the layers
    layered.pbc = True
    assert user_slab(layered, "layered").atoms.get_tags().tolist() == [0] * 12 + [1] * 4
    layered.set_constraint(FixAtoms(range(8)))
    held = user_slab(layered, "held").atoms
    assert held.get_tags().tolist() == [0] * 8 + [1] * 8
    assert held.constraints[0].index.tolist() == list(range(8))


@pytest.mark.parametrize("shift", [-3.0, 5.0, 11.0, 14.0])
def test_user_slab_across_the_boundary_is_put_together(shift):
    atoms = one_slab("Cu", "111", supercell=(2, 2)).atoms
    shifted = atoms.copy()
    shifted.positions[:, 2] += shift
    shifted.wrap()
    slab = user_slab(shifted, "shifted")
    assert np.ptp(slab.atoms.positions[:, 2]) == pytest.approx(np.ptp(atoms.positions[:, 2]))
    assert exposed_atoms(slab.atoms).tolist() == exposed_atoms(atoms).tolist()


def test_atoms_left_in_other_cells_are_brought_together():
    atoms = one_slab("Cu", "111", supercell=(2, 2)).atoms
    scattered = atoms.copy()
    scattered.positions += np.random.default_rng(0).integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    slab = user_slab(scattered, "scattered")
    assert np.ptp(slab.atoms.positions[:, 2]) == pytest.approx(np.ptp(atoms.positions[:, 2]))
    assert user_slab(atoms, "whole").atoms.positions == pytest.approx(atoms.positions, abs=0)


def test_what_is_no_user_slab():
    with pytest.raises(InputError, match="a slab needs vacuum there, and a crystal is given as a bulk"):
        user_slab(bulk("Cu").atoms, "crystal")
    with pytest.raises(InputError, match="periodic along its first two cell vectors; found pbc FFF"):
        user_slab(build.molecule("CO"), "molecule")
    with pytest.raises(InputError, match="no atoms"):
        user_slab(Atoms(), "nothing")


@pytest.mark.parametrize(
    ("name", "facet", "exposed"),
    [("Cu", "111", 1), ("Cu", "110", 1), ("Cu", "211", 3), ("Cu", "331", 2), ("Cu", "210", 2), ("Fe", "100", 1),
     ("NaCl", "100", 2)],
)  # fmt: skip
def test_exposed_atoms_of_one_surface_cell(name, facet, exposed):
    slab = one_slab(name, facet, supercell=(1, 1), free_layers=3)
    assert len(exposed_atoms(slab.atoms)) == exposed


def test_atoms_under_an_overlayer_are_not_exposed():
    """Graphite: every atom has its three bonds, and those of the lower sheet none upwards."""
    sheet = Atoms("C2", [[0, 0, 0], [1.23, 0.71, 0]], cell=[[2.46, 0, 0], [-1.23, 2.13, 0], [0, 0, 20]], pbc=True)
    two = sheet + Atoms("C2", [[0, 0, 3.35], [0, 1.42, 3.35]])
    assert exposed_atoms(two).tolist() == [2, 3]
    assert isinstance(user_slab(two, "graphite"), Slab)


@pytest.mark.parametrize(
    ("tags", "words"), [([0] * 8 + [1] * 8 + [2], "tags 0, 1, 2"), ([4, 3, 2, 1] * 4 + [0], "tags 0, 1, 2, 3, 4")]
)
def test_a_user_slab_that_has_an_adsorbate(tags, words):
    atoms = build.fcc111("Pt", (2, 2, 4), vacuum=6, periodic=True)
    atoms += Atoms("O", [atoms.positions[-1] + [0, 0, 2.0]])
    atoms.set_tags(tags)
    with pytest.raises(InputError, match=rf"slab covered: it has {words}, as if something were adsorbed already"):
        user_slab(atoms, "covered")
    atoms.set_tags([0] * 8 + [1] * 9)
    assert user_slab(atoms, "covered").atoms.get_tags().tolist() == [0] * 8 + [1] * 9


def test_user_slabs_with_impossible_positions():
    atoms = build.fcc111("Pt", (2, 2, 4), vacuum=6, periodic=True)
    atoms.positions[1] = atoms.positions[0]
    with pytest.raises(InputError, match=r"slab double: atoms 0 and 1 \(Pt, Pt\) are 0.00 Å apart"):
        user_slab(atoms, "double")
    atoms.positions[1] = np.nan
    with pytest.raises(InputError, match="slab lost: a position or cell vector is not a finite number"):
        user_slab(atoms, "lost")


def test_indices_too_high_for_planes():
    assert len(slabs(by_name("Cu"), "531")) == 1
    with pytest.raises(InputError, match=r"Cu\(20 19 17\): the planes of atoms are at most 0.06 Å apart"):
        slabs(by_name("Cu"), "20 19 17")
