"""Which of several equally distant neighbours the cap keeps must not depend on how the crystal is written down."""

import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, hcp0001, make_supercell

from escn_calc.graph import radius_graph
from escn_calc.structures import StructureBatch

cap = sys.modules["escn_calc.graph.cap"]
CUTOFF = 12.0


def pt_slab_with_oxygen():
    atoms = fcc111("Pt", (2, 2, 5), vacuum=10)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.pbc = True
    return atoms


def carbon_monoxide_on_ruthenium():
    atoms = hcp0001("Ru", (2, 2, 4), vacuum=8)
    add_adsorbate(atoms, Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.15]]), 1.9, "ontop")
    return atoms


CRYSTALS = {
    "Cu fcc primitive": lambda: bulk("Cu"),
    "Cu fcc cubic": lambda: bulk("Cu", cubic=True),
    "W bcc": lambda: bulk("W", cubic=True),
    "Ti hcp": lambda: bulk("Ti"),
    "NaCl": lambda: bulk("NaCl", "rocksalt", a=5.64),
    "Si diamond": lambda: bulk("Si"),
    "Pt(111) + O": pt_slab_with_oxygen,
    "Ru(0001) + CO": carbon_monoxide_on_ruthenium,
}


def neighbours_of_each(structures, max_neighbors=20):
    """For every atom of every structure, in rank order: (atomic number of the source, vector)."""
    batch = StructureBatch.from_atoms(structures)
    graph = radius_graph(batch, CUTOFF, max_neighbors)
    rows = torch.column_stack([batch.numbers[graph.source].double(), graph.vectors])
    per_atom = rows.split(torch.bincount(graph.target, minlength=batch.num_atoms).tolist())
    atoms = iter(rows.numpy() for rows in per_atom)
    return [[next(atoms) for _ in structure] for structure in structures]


def neighbours(atoms, max_neighbors=20):
    return neighbours_of_each([atoms], max_neighbors)[0]


def assert_same_neighbours(found, expected):
    assert len(found) == len(expected)
    for mine, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, reference, atol=2e-9, rtol=0)


def is_cut(atoms, max_neighbors=20):
    """Atoms whose cap ends inside a shell of equal distance."""
    everything = neighbours(atoms, 0)
    distances = [np.linalg.norm(rows[:, 1:], axis=1) for rows in everything]
    return np.array([d[max_neighbors] - d[max_neighbors - 1] < 1e-6 for d in distances])


def largest_gap(vectors, others):
    """Largest distance from a vector to the nearest of the others."""
    return np.linalg.norm(vectors[:, None] - others[None], axis=-1).min(1).max()


@pytest.fixture(params=CRYSTALS)
def crystal(request):
    return CRYSTALS[request.param]()


def test_the_crystals_do_have_cut_shells(crystal):
    assert is_cut(crystal).any() or crystal.symbols[0] in ("Na", "Ti")
    assert is_cut(crystal, 15).any()


@pytest.mark.parametrize("max_neighbors", [15, 20])
def test_atom_order(crystal, max_neighbors):
    expected = neighbours(crystal, max_neighbors)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(crystal)) for _ in range(20)]
    for order, found in zip(
        orders, neighbours_of_each([crystal[order] for order in orders], max_neighbors), strict=True
    ):
        assert_same_neighbours(found, [expected[atom] for atom in order])


@pytest.mark.parametrize("max_neighbors", [15, 20])
def test_rigid_shift_wrapping_and_single_lattice_vectors(crystal, max_neighbors):
    expected = neighbours(crystal, max_neighbors)
    rng = np.random.default_rng(1)
    variants = []
    for _ in range(20):
        shifted = crystal.copy()
        shifted.positions += rng.uniform(-5, 5, 3)
        wrapped = shifted.copy()
        wrapped.wrap()
        spread = wrapped.copy()
        spread.positions += (rng.integers(-3, 4, (len(crystal), 3)) * crystal.pbc) @ crystal.cell.array
        variants += [shifted, wrapped, spread]
    for found in neighbours_of_each(variants, max_neighbors):
        assert_same_neighbours(found, expected)


@pytest.mark.parametrize("max_neighbors", [15, 20])
def test_choice_of_the_cell(crystal, max_neighbors):
    expected = neighbours(crystal, max_neighbors)
    third = int(crystal.pbc[2])
    doubled = [[2, 0, 0], [0, 1, 0], [0, 0, 1]]
    skewed = [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    doubled_and_skewed = [[1, 0, 0], [-1, 2, 0], [third, 0, 1]]
    left_handed = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    for matrix in (doubled, skewed, doubled_and_skewed, left_handed):
        cell = np.array(matrix) @ crystal.cell.array
        copies = round(abs(np.linalg.det(matrix)))
        other = (
            Atoms(crystal.numbers, positions=crystal.positions, cell=cell, pbc=crystal.pbc)
            if copies == 1
            else make_supercell(crystal, matrix, order="cell-major")
        )
        assert_same_neighbours(neighbours(other, max_neighbors), expected * copies)


def test_noise_of_float32_positions(crystal):
    expected = neighbours(crystal)
    rounded = crystal.copy()
    rounded.positions = rounded.positions.astype(np.float32)
    rounded.cell[:] = rounded.cell.array.astype(np.float32)
    for mine, reference in zip(neighbours(rounded), expected, strict=True):
        assert len(mine) == len(reference)
        assert largest_gap(mine[:, 1:], reference[:, 1:]) < 1e-4


def random_rotation(rng):
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return rotation * np.sign(np.linalg.det(rotation))


def rotated(atoms, rotation):
    return Atoms(
        atoms.numbers, positions=atoms.positions @ rotation.T, cell=atoms.cell.array @ rotation.T, pbc=atoms.pbc
    )


def as_set(rows):
    return set(map(tuple, (np.round(rows, 5) + 0.0).tolist()))


def decided_without_direction(atoms, monkeypatch):
    """Atoms whose neighbours stay the same whatever the generic direction of the last rule is."""
    expected = [as_set(rows) for rows in neighbours(atoms)]
    decided = np.ones(len(atoms), dtype=bool)
    for seed in range(12):
        monkeypatch.setattr(cap, "GENERIC_DIRECTION", tuple(np.random.default_rng(seed).normal(size=3)))
        decided &= [as_set(rows) == reference for rows, reference in zip(neighbours(atoms), expected, strict=True)]
    monkeypatch.undo()
    return decided


def test_edges_rotate_with_the_crystal_unless_it_is_symmetric(crystal, monkeypatch):
    """The last rule, the only one that sees directions, decides nothing where no rotation maps the candidates."""
    crystal.positions += 0.1
    decided = decided_without_direction(crystal, monkeypatch)
    assert decided[~is_cut(crystal)].all()
    expected = neighbours(crystal)
    rotations = [random_rotation(np.random.default_rng(seed)) for seed in range(20)]
    results = neighbours_of_each([rotated(crystal, rotation) for rotation in rotations])
    for rotation, found in zip(rotations, results, strict=True):
        for atom in np.flatnonzero(decided):
            reference = expected[atom].copy()
            reference[:, 1:] = reference[:, 1:] @ rotation.T
            assert largest_gap(found[atom][:, 1:], reference[:, 1:]) < 1e-9


def test_how_many_cut_shells_the_rotation_invariant_rules_decide(monkeypatch):
    """Pt(111)-(2x2) + O: all 21 centres are cut; crowding and handedness settle those around the adsorbate."""
    slab = pt_slab_with_oxygen()
    assert is_cut(slab).sum() == 21
    with_rules = decided_without_direction(slab, monkeypatch).sum()
    monkeypatch.setattr(cap, "SCORE_GAP", 1e9)
    without_rules = decided_without_direction(slab, monkeypatch).sum()
    print(f"centres decided by rules 1-4: {with_rules} of 21; by rules 1-2 alone: {without_rules} of 21")
    assert with_rules > without_rules


def test_choice_may_break_the_symmetry_of_a_perfect_crystal():
    """The strict cap takes 2 of 24 equivalent third neighbours of fcc: no choice has the symmetry of the crystal."""
    (rows,) = neighbours(bulk("Cu"))
    distances = np.linalg.norm(rows[:, 1:], axis=1)
    shell = distances / distances[0]
    assert np.allclose(shell, [1] * 12 + [2**0.5] * 6 + [3**0.5] * 2)
    assert np.linalg.norm(rows[:18, 1:].sum(0)) < 1e-9
    assert np.linalg.norm(rows[:, 1:].sum(0)) > 0.1
