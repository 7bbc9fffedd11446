"""What is the same and what is not, before and after a relaxation."""

import itertools
import time

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.optimize import LBFGS

from escn_calc.adsorption.adsorbates import adsorbate
from escn_calc.adsorption.duplicates import groups_of_equals
from escn_calc.adsorption.geometry import planes
from escn_calc.adsorption.placements import placements
from escn_calc.adsorption.sites import equivalent_positions, unique_sites
from escn_calc.adsorption.slabs import user_slab
from escn_calc.adsorption.symmetry import cell_symmetry
from escn_calc.errors import InputError
from tests.adsorption.crystals import one_slab


@pytest.fixture(scope="module")
def copper():
    return one_slab("Cu", "111", supercell=(2, 2))


def with_atoms(slab, *positions, symbols="H"):
    return slab.atoms + Atoms(symbols * len(positions) if len(symbols) == 1 else symbols, positions)


def above(position, height):
    return position + np.array([0.0, 0.0, height])


def image(atoms, slab, number):
    """The structure that operation ``number`` of the cell makes of another, slab atoms in the order of the slab."""
    symmetry = cell_symmetry(slab.atoms)
    size = len(slab.atoms)
    moved = atoms.copy()
    flat = symmetry.images_of(atoms.positions[:, :2])[number]
    moved.positions[:, :2] = flat
    order = []
    reference = symmetry.images_of(slab.atoms.positions[:, :2])[number]
    for atom in range(size):
        probe = Atoms("X", [[*slab.atoms.positions[atom]]], cell=atoms.cell, pbc=True)
        there = Atoms(
            slab.atoms.numbers, np.column_stack([reference, slab.atoms.positions[:, 2]]), cell=atoms.cell, pbc=True
        )
        order.append(int((probe + there).get_distances(0, range(1, size + 1), mic=True).argmin()))
    moved.positions[:size] = moved.positions[order]
    return moved


def test_order_of_the_group():
    """p3m1 of fcc(111): 6 operations times the translations of the supercell, those that keep it."""
    for supercell, operations in (((1, 1), 6), ((2, 2), 24), ((3, 3), 54), ((2, 1), 4)):
        assert len(cell_symmetry(one_slab("Cu", "111", supercell=supercell).atoms).rotations) == operations
    assert len(cell_symmetry(one_slab("Cu", "100", supercell=(2, 2)).atoms).rotations) == 32


def test_equivalent_places_are_one(copper):
    up = np.array([0, 0, 1.5])
    structures, labels = [], []
    for site in unique_sites(copper):
        for position in equivalent_positions(copper, site):
            structures.append(with_atoms(copper, position + up))
            labels.append(site.name)
    groups = groups_of_equals(structures, copper, tolerance=0.1)
    assert [{labels[index] for index in group} for group in groups] == [{"ontop"}, {"bridge"}, {"fcc"}, {"hcp"}]
    assert [len(group) for group in groups] == [4, 12, 4, 4]
    assert sorted(itertools.chain(*groups)) == list(range(len(structures)))


def test_images_of_the_supercell_make_a_difference():
    """In a 1 × 2 cell the bridges along the short vector are not those across it; the surface has but one bridge."""
    slab = one_slab("Cu", "111", supercell=(1, 2))
    (bridge,) = (site for site in unique_sites(slab) if site.kind == "bridge")
    structures = [with_atoms(slab, above(place, 1.2)) for place in equivalent_positions(slab, bridge)]
    assert [len(group) for group in groups_of_equals(structures, slab, tolerance=0.1)] in ([2, 4], [4, 2])


@pytest.mark.parametrize("seed", range(3))
def test_relaxed_structures_with_moved_slab_atoms(copper, seed):
    """Any image of a structure is equal to it; not so if a single slab atom is elsewhere."""
    random = np.random.default_rng(seed)
    start = placements(copper, adsorbate("CH2OH"), mode="random", number=1, seed=seed)[0].atoms
    start.set_constraint()
    start.positions += random.normal(0, 0.2, (len(start), 3))
    operations = len(cell_symmetry(copper.atoms).rotations)
    structures = [start, *(image(start, copper, number) for number in random.choice(operations, 6, replace=False))]
    for atoms in structures[1:]:
        atoms.positions += random.uniform(-0.05, 0.05, atoms.positions.shape)
    assert groups_of_equals(structures, copper) == [list(range(7))]
    for atoms in structures[1:]:
        atoms.positions += random.integers(-1, 2, (len(atoms), 3)) @ atoms.cell.array
    assert groups_of_equals(structures, copper) == [list(range(7))]
    highest = int(copper.atoms.positions[:, 2].argmax())
    structures[3].positions[highest] += [0.3, 0.3, 0.0]
    assert groups_of_equals(structures, copper) == [[0, 1, 2, 4, 5, 6], [3]]


def test_a_symmetric_adsorbate_with_a_slab_pushed_in_one_of_three_ways(copper):
    """Several operations leave O on a hollow where it is; only one of them takes the push to where the other has it."""
    hollow = next(site for site in unique_sites(copper) if site.name == "fcc")
    structures = []
    for corner in hollow.atoms:
        pushed = with_atoms(copper, above(hollow.position, 1.2), symbols="O")
        pushed.positions[corner, 2] += 0.6
        structures.append(pushed)
    second_layer = with_atoms(copper, above(hollow.position, 1.2), symbols="O")
    second_layer.positions[planes(copper.atoms.positions[:, 2])[1][0], 2] += 0.6
    assert groups_of_equals([*structures, second_layer], copper) == [[0, 1, 2], [3]]


def test_which_atom_has_which_index_does_not_matter(copper):
    one = placements(copper, adsorbate("H2O"))[0].atoms
    other = one[[*range(len(one) - 2), len(one) - 1, len(one) - 2]]
    elements = one.copy()
    elements.numbers[-1] = 9
    assert groups_of_equals([one, other, elements], copper) == [[0, 1], [2]]


def test_height_and_element_count(copper):
    top = copper.atoms.positions[copper.atoms.positions[:, 2].argmax()]
    low, high = with_atoms(copper, above(top, 1.5)), with_atoms(copper, above(top, 1.9))
    oxygen = with_atoms(copper, above(top, 1.5), symbols="O")
    two = with_atoms(copper, above(top, 1.5), above(top, 2.3))
    assert groups_of_equals([low, high, oxygen, two], copper) == [[0], [1], [2], [3]]
    assert groups_of_equals([], copper) == []


def test_fcc_and_hcp_are_different_to_the_tolerance_that_is_asked_for(copper):
    sites = {site.name: site.position for site in unique_sites(copper)}
    for tolerance in (0.01, 0.1, 0.35):
        structures = [with_atoms(copper, sites[name] + [0, 0, 1.0]) for name in ("fcc", "hcp", "fcc")]
        assert groups_of_equals(structures, copper, tolerance=tolerance) == [[0, 2], [1]]
    shifted = with_atoms(copper, sites["fcc"] + [0.15, 0, 1.0])
    original = with_atoms(copper, sites["fcc"] + [0, 0, 1.0])
    assert groups_of_equals([original, shifted], copper, tolerance=0.1) == [[0], [1]]
    assert groups_of_equals([original, shifted], copper, tolerance=0.2) == [[0, 1]]


def test_turned_left_handed_slab(copper):
    atoms = copper.atoms.copy()
    atoms.rotate(70, (1, 0.3, 0), rotate_cell=True)
    atoms.cell[:2] = atoms.cell[[1, 0]]
    slab = user_slab(atoms, "turned")
    normal = np.cross(*slab.atoms.cell.array[[1, 0]])
    normal /= np.linalg.norm(normal)
    structures = [
        with_atoms(slab, place + 1.3 * normal)
        for site in unique_sites(slab)
        for place in equivalent_positions(slab, site)
    ]
    assert [len(group) for group in groups_of_equals(structures, slab, tolerance=0.1)] == [4, 12, 4, 4]


def test_after_real_relaxations(copper):
    """Oxygen from random starts ends in one of the two hollows: two groups."""
    starts = placements(copper, adsorbate("O"), mode="random", number=8, seed=2)
    second = planes(copper.atoms.positions[:, 2])[1]
    relaxed, ends, energies = [], [], []
    for start in starts:
        atoms = start.atoms.copy()
        atoms.calc = EMT()
        LBFGS(atoms, logfile=None).run(fmax=0.02, steps=200)
        sideways = atoms.get_distances(-1, second, mic=True, vector=True)[:, :2]
        ends.append("hcp" if np.linalg.norm(sideways, axis=1).min() < 0.3 else "fcc")
        energies.append(atoms.get_potential_energy())
        relaxed.append(atoms)
    groups = groups_of_equals(relaxed, copper)
    assert sorted(sorted({ends[index] for index in group}) for group in groups) == [["fcc"], ["hcp"]]
    for group in groups:
        assert np.ptp([energies[index] for index in group]) < 0.01


def test_hundreds_of_placements_take_seconds(record_figure):
    slab = one_slab("Cu", "111", supercell=(3, 3))
    starts = [start.atoms for start in placements(slab, adsorbate("OH"), mode="random", number=150)]
    symmetry = cell_symmetry(slab.atoms)
    random = np.random.default_rng(0)
    structures = starts + [image(atoms, slab, random.integers(len(symmetry.rotations))) for atoms in starts[:20]]
    begin = time.process_time()
    groups = groups_of_equals(structures, slab)
    took = time.process_time() - begin
    assert len(groups) <= len(starts)
    for number in range(20):
        assert any(len(starts) + number in group for group in groups if group[0] < len(starts))
    record_figure(f"duplicates among {len(structures)} placements", f"{took:.2f} s")
    assert took < 10


def test_what_cannot_be_compared(copper):
    with pytest.raises(InputError, match=r"structure 1 \(H\) does not start with the 16 atoms of Cu\(111\)"):
        groups_of_equals([copper.atoms, Atoms("H")], copper)
    reversed_order = one_slab("Cu3Au", "111").atoms
    with pytest.raises(InputError, match="in their order"):
        groups_of_equals([reversed_order[::-1]], one_slab("Cu3Au", "111"))
    for tolerance in (0, -1, 0.5, float("nan")):
        with pytest.raises(InputError, match=r"must be positive and at most 0\.35 Å"):
            groups_of_equals([], copper, tolerance=tolerance)
