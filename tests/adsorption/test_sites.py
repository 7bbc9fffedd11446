"""Unique sites of surfaces that are known, and what must not change them."""

import itertools
from collections import Counter

import numpy as np
import pytest
from ase import Atoms, build
from ase.constraints import FixAtoms

from escn_calc.adsorption.geometry import planes
from escn_calc.adsorption.sites import equivalent_positions, unique_sites
from escn_calc.adsorption.slabs import Slab, slabs, user_slab
from tests.adsorption.crystals import by_name, one_slab

FCC111 = {"ontop": 1, "bridge": 1, "fcc": 1, "hcp": 1}
KNOWN = [
    ("Cu", "111", "", FCC111),
    ("Cu", "100", "", {"ontop": 1, "bridge": 1, "hollow": 1}),
    ("Cu", "110", "", {"ontop": 1, "bridge": 2, "hollow": 1}),
    # three rows; along and between them 3 + 3 bridges; two triangles on each half of the terrace, a square at the step
    ("Cu", "211", "", {"ontop": 3, "bridge": 6, "fcc": 2, "hcp": 2, "hollow": 1}),
    ("Fe", "110", "", {"ontop": 1, "bridge": 2, "hollow": 1}),
    ("Fe", "100", "", {"ontop": 1, "bridge": 1, "hollow": 1}),
    ("Ru", "0001", "", FCC111),
    ("NaCl", "100", "", {"ontop": 2, "bridge": 1, "hollow": 1}),
    ("NaCl", "111", "Na", FCC111),
    ("NaCl", "111", "Cl", FCC111),
    # L1₂: kagome of Cu around Au; Cu–Cu bridges belong to a Cu₃ triangle above an atom of the next plane, or above none
    ("Cu3Au", "111", "", {"ontop": 2, "bridge": 3, "fcc": 2, "hcp": 2}),
    ("Cu3Au", "100", "AuCu", {"ontop": 2, "bridge": 1, "hollow": 1}),
    ("Cu3Au", "100", "Cu", {"ontop": 1, "bridge": 1, "hollow": 2}),
    # L1₀: rows of Fe and of Pt
    ("FePt", "111", "", {"ontop": 2, "bridge": 4, "fcc": 2, "hcp": 2}),
    ("FePt", "001", "Fe", {"ontop": 1, "bridge": 1, "hollow": 1}),
]  # fmt: skip


def kinds(slab: Slab) -> dict[str, int]:
    return dict(Counter(site.kind for site in unique_sites(slab)))


@pytest.mark.parametrize(("name", "facet", "termination", "sites"), KNOWN)
def test_known_surfaces(name, facet, termination, sites):
    slab = next(slab for slab in slabs(by_name(name), facet) if slab.termination == termination)
    assert kinds(slab) == sites


def test_places_in_the_surface_cell():
    """How often each site is there in one primitive cell: the orders of the groups that leave it in place."""
    slab = one_slab("Cu", "111", supercell=(1, 1))
    assert [len(equivalent_positions(slab, site)) for site in unique_sites(slab)] == [1, 3, 1, 1]
    slab = one_slab("Cu", "111", supercell=(3, 3))
    assert [len(equivalent_positions(slab, site)) for site in unique_sites(slab)] == [9, 27, 9, 9]
    slab = one_slab("Fe", "110", supercell=(1, 1))
    assert [len(equivalent_positions(slab, site)) for site in unique_sites(slab)] == [1, 2, 1, 2]


def test_hcp_hollow_is_above_an_atom_of_the_second_plane_and_fcc_of_the_third():
    slab = one_slab("Cu", "111", supercell=(3, 3))
    below = planes(slab.atoms.positions[:, 2])
    for site in unique_sites(slab):
        if site.kind in ("fcc", "hcp"):
            plane = below[1 if site.kind == "hcp" else 2]
            probe = Atoms("H", [site.position], cell=slab.atoms.cell, pbc=True) + slab.atoms[plane]
            sideways = probe.get_distances(0, range(1, len(probe)), mic=True, vector=True)[:, :2]
            assert np.linalg.norm(sideways, axis=1).min() == pytest.approx(0, abs=1e-6)


def test_hollows_of_the_builder_of_ase():
    atoms = build.fcc111("Pt", (2, 2, 4), vacuum=8)
    for name in ("fcc", "hcp", "ontop", "bridge"):
        covered = atoms.copy()
        build.add_adsorbate(covered, "H", 1.0, name)
        there = covered.positions[-1, :2]
        (site,) = (site for site in unique_sites(user_slab(atoms, "Pt")) if site.kind == name)
        places = equivalent_positions(user_slab(atoms, "Pt"), site)[:, :2]
        apart = np.linalg.solve(atoms.cell.array[:2, :2].T, (places - there).T).T
        assert np.abs(apart - np.round(apart)).max(axis=1).min() < 1e-6


def test_sites_name_their_atoms():
    slab = next(slab for slab in slabs(by_name("FePt"), "111"))
    for site in unique_sites(slab):
        assert len(site.atoms) == {"ontop": 1, "bridge": 2, "fcc": 3, "hcp": 3}[site.kind]
        assert slab.atoms.symbols[list(site.atoms)].get_chemical_formula() in site.name
        for first, second in itertools.combinations(site.atoms, 2):
            assert slab.atoms.get_distance(first, second, mic=True) < 2.8
        distances = [np.linalg.norm(slab.atoms.positions[atom] - site.position) for atom in site.atoms]
        assert max(distances) < 1.7
    assert len({site.name for site in unique_sites(slab)}) == 10
    assert [site.name for site in unique_sites(one_slab("Cu", "110"))] == ["ontop", "bridge-1", "bridge-2", "hollow"]
    short, long = (site for site in unique_sites(one_slab("Cu", "110", supercell=(3, 2))) if site.kind == "bridge")
    lengths = [
        one_slab("Cu", "110", supercell=(3, 2)).atoms.get_distance(*site.atoms, mic=True) for site in (short, long)
    ]
    assert lengths == pytest.approx([3.61 / np.sqrt(2), 3.61])


@pytest.mark.parametrize("vacuum", [8.0, 11.3, 15.0, 30.0])
@pytest.mark.parametrize(("name", "facet"), [("Cu", "111"), ("Cu", "211"), ("Fe", "110")])
def test_vacuum_changes_nothing(vacuum, name, facet):
    """pymatgen issue 1643: another vacuum, another number of sites."""
    slab = one_slab(name, facet, vacuum=vacuum, supercell=(2, 2))
    usual = one_slab(name, facet, vacuum=20.0, supercell=(2, 2))
    assert kinds(slab) == kinds(usual)
    for one, other in zip(unique_sites(slab), unique_sites(usual), strict=True):
        assert one.position[:2] == pytest.approx(other.position[:2], abs=1e-6)


@pytest.mark.parametrize("supercell", [(1, 1), (1, 2), (3, 2), (4, 4)])
@pytest.mark.parametrize(("name", "facet"), [("Cu", "111"), ("Cu", "100"), ("Cu3Au", "111")])
def test_supercell_changes_nothing(supercell, name, facet):
    known = next(sites for other, plane, _, sites in KNOWN if (other, plane) == (name, facet))
    assert kinds(one_slab(name, facet, supercell=supercell)) == known


def test_oblique_supercell_changes_nothing():
    slab = one_slab("Cu", "111", supercell=(1, 1))
    oblique = build.make_supercell(slab.atoms, [[2, 1, 0], [5, 4, 0], [0, 0, 1]])
    oblique.wrap()
    assert kinds(user_slab(oblique, "oblique")) == FCC111


@pytest.mark.parametrize("seed", range(3))
def test_order_rotation_handedness_and_shift_change_nothing(seed):
    random = np.random.default_rng(seed)
    atoms = one_slab("Cu", "211", supercell=(2, 1)).atoms
    changed = atoms[random.permutation(len(atoms))]
    changed.rotate(random.uniform(0, 360), "z", rotate_cell=True)
    changed.positions += random.uniform(-20, 20, 3)
    changed.cell[:2] = changed.cell[[1, 0]]  # left-handed now
    changed.wrap()
    assert np.linalg.det(changed.cell) < 0
    assert kinds(user_slab(changed, "changed")) == kinds(one_slab("Cu", "211"))


def test_slabs_that_point_anywhere():
    atoms = one_slab("Cu", "111", supercell=(2, 2)).atoms
    turned = atoms.copy()
    turned.rotate(70, (1, 0.3, 0), rotate_cell=True)
    slab = user_slab(turned, "turned")
    assert kinds(slab) == FCC111
    tilted = atoms.copy()
    tilted.cell[2, :2] = (3.0, 2.0)
    assert kinds(user_slab(tilted, "tilted")) == FCC111
    upside_down = atoms.copy()
    upside_down.rotate(180, "x", rotate_cell=True)
    assert kinds(user_slab(upside_down, "upside down")) == FCC111


def test_tags_and_constraints_change_nothing():
    """pymatgen issue 2464: atoms that may move are taken for atoms that can be touched."""
    for free_layers in (1, 2, 3):
        assert kinds(one_slab("Cu", "111", free_layers=free_layers)) == FCC111
    atoms = build.fcc100("Pd", (2, 2, 4), vacuum=8)
    atoms.set_constraint(FixAtoms(range(8)))
    assert kinds(user_slab(atoms, "Pd")) == {"ontop": 1, "bridge": 1, "hollow": 1}


@pytest.mark.parametrize("seed", range(3))
def test_relaxed_slabs_keep_their_sites(seed):
    """Shifts of hundredths of an Å, as residual forces leave them, and a contracted surface."""
    atoms = one_slab("Cu", "111", supercell=(2, 2)).atoms
    atoms.set_constraint()
    atoms.positions[planes(atoms.positions[:, 2])[0], 2] -= 0.08
    atoms.positions += np.random.default_rng(seed).normal(0, 0.004, (len(atoms), 3))
    assert kinds(user_slab(atoms, "relaxed")) == FCC111


def test_alloying_one_atom_makes_sites_different():
    atoms = one_slab("Cu", "111", supercell=(2, 2)).atoms
    highest = planes(atoms.positions[:, 2])[0]
    atoms.numbers[highest[0]] = 79
    found = kinds(user_slab(atoms, "single-atom alloy"))
    assert found == {"ontop": 2, "bridge": 3, "fcc": 2, "hcp": 2}


def test_one_plane_of_atoms():
    atoms = Atoms("Cu", cell=[2.5, 2.5, 15], pbc=True)
    assert kinds(user_slab(atoms, "one plane")) == {"ontop": 1, "bridge": 1, "hollow": 1}


def test_representative_is_in_the_middle_of_the_cell():
    slab = one_slab("Cu", "111", supercell=(3, 3))
    middle = slab.atoms.cell.array[:2, :2].sum(axis=0) / 2
    for site in unique_sites(slab):
        assert np.linalg.norm(site.position[:2] - middle) < 1.8
