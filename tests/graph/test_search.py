"""Both searches against brute force, ASE and matscipy: every pbc combination, skewed, left-handed and small cells."""

import itertools

import matscipy.neighbours
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list

from escn_calc.graph import search_torch as search_torch_module
from escn_calc.graph.pairs import edge_vectors, relative_to_given_positions, wrap
from escn_calc.graph.search import search_vesin
from escn_calc.graph.search_torch import search_torch
from escn_calc.structures import StructureBatch

SEARCHES = {"vesin": search_vesin, "torch": search_torch}
PBC = list(itertools.product([False, True], repeat=3))


def random_cell(rng, size):
    """Skewed by up to 45 degrees, left-handed in half of the cases."""
    cell = size * (np.eye(3) * rng.uniform(0.6, 1.4, 3) + rng.uniform(-0.35, 0.35, (3, 3)))
    return cell if rng.random() < 0.5 else cell[[1, 0, 2]]


def random_structure(rng, pbc, size=4.0, natoms=7, spread=1.0):
    cell = random_cell(rng, size)
    scaled = rng.uniform(-spread, 1 + spread, (natoms, 3))
    return Atoms(f"C{natoms}", positions=scaled @ cell, cell=cell, pbc=pbc)


def pairs_of(search, structures, radius, centres=None):
    """Every pair found, as sorted rows (target, source, offset)."""
    batch = StructureBatch.from_atoms(structures)
    wrapped = wrap(batch)
    centres = torch.ones(batch.num_atoms, dtype=torch.bool) if centres is None else centres
    pairs = relative_to_given_positions(search(batch, wrapped, radius, centres), wrapped.shifts)
    assert (torch.linalg.vector_norm(edge_vectors(batch, pairs), dim=1) <= radius + 1e-9).all()
    rows = torch.column_stack([pairs.target, pairs.source, pairs.offsets]).tolist()
    assert len({tuple(row) for row in rows}) == len(rows)
    return sorted(map(tuple, rows))


def brute_force(atoms, radius, first=0):
    """All pairs by enumerating every image of a range that is surely large enough, with positions as given."""
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    scaled = atoms.cell.scaled_positions(atoms.positions)
    reach = np.ceil(radius / heights + np.ptp(scaled, axis=0)).astype(int) * atoms.pbc
    found = []
    for offset in itertools.product(*[range(-n, n + 1) for n in reach]):
        vectors = atoms.positions[None] + np.array(offset) @ atoms.cell.array - atoms.positions[:, None]
        for target, source in np.argwhere((vectors**2).sum(-1) <= radius**2):
            if target != source or any(offset):
                found.append((int(target) + first, int(source) + first, *offset))
    return sorted(found)


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("pbc", PBC)
def test_equal_to_brute_force_and_ase_and_matscipy(name, pbc):
    rng = np.random.default_rng(sum(flag << k for k, flag in enumerate(pbc)))
    for size, radius, spread in [(4.0, 3.0, 1.0), (2.0, 5.0, 0.0), (9.0, 4.0, 3.0), (3.0, 2.5, 20.0)]:
        atoms = random_structure(rng, pbc, size=size, spread=spread)
        found = pairs_of(SEARCHES[name], [atoms], radius)
        assert found == brute_force(atoms, radius)
        assert found == _oracle(primitive_neighbor_list("ijS", atoms.pbc, atoms.cell.array, atoms.positions, radius))
        inside = atoms.copy()
        inside.wrap(eps=0)
        oracle = matscipy.neighbours.neighbour_list("ijS", inside, radius)
        assert pairs_of(SEARCHES[name], [inside], radius) == _oracle(oracle)


def _oracle(pairs):
    target, source, offsets = pairs
    return sorted(map(tuple, np.column_stack([target, source, offsets]).tolist()))


@pytest.mark.parametrize("name", SEARCHES)
def test_one_batch_of_all_pbc_combinations_keeps_them_apart(name):
    rng = np.random.default_rng(1)
    structures = [random_structure(rng, pbc, natoms=3 + k) for k, pbc in enumerate(PBC)]
    first = np.cumsum([0] + [len(atoms) for atoms in structures])
    expected = []
    for atoms, start in zip(structures, first.tolist(), strict=False):
        expected += brute_force(atoms, 3.5, start)
    assert pairs_of(SEARCHES[name], structures, 3.5) == expected


@pytest.mark.parametrize("name", SEARCHES)
def test_only_the_centres_asked_for(name):
    rng = np.random.default_rng(2)
    structures = [random_structure(rng, pbc) for pbc in PBC]
    centres = torch.from_numpy(rng.random(7 * len(PBC)) < 0.3)
    centres[14:21] = False
    everything = pairs_of(SEARCHES[name], structures, 4.0)
    assert pairs_of(SEARCHES[name], structures, 4.0, centres) == [pair for pair in everything if centres[pair[0]]]
    assert pairs_of(SEARCHES[name], structures, 4.0, torch.zeros_like(centres)) == []


@pytest.mark.parametrize("name", SEARCHES)
def test_molecule_without_cell_and_atoms_far_apart(name):
    near_and_far = Atoms("C4", positions=[[0, 0, 0], [1.2, 0, 0], [9e5, -9e5, 9e5], [9e5, -9e5, 9e5 + 1.5]])
    assert pairs_of(SEARCHES[name], [near_and_far], 3.0) == [
        (0, 1, 0, 0, 0), (1, 0, 0, 0, 0), (2, 3, 0, 0, 0), (3, 2, 0, 0, 0)
    ]  # fmt: skip


@pytest.mark.parametrize("name", SEARCHES)
def test_one_atom_per_cell_sees_its_images(name):
    cubic = Atoms("Po", cell=[3.0, 3.0, 3.0], pbc=True)
    assert len(pairs_of(SEARCHES[name], [cubic], 3.01)) == 6
    assert len(pairs_of(SEARCHES[name], [cubic], 4.25)) == 18
    assert all(source == target == 0 for target, source, *_ in pairs_of(SEARCHES[name], [cubic], 10.0))


def test_torch_search_in_small_chunks_finds_the_same(monkeypatch):
    structures = [random_structure(np.random.default_rng(k), pbc) for k, pbc in enumerate(PBC)]
    expected = pairs_of(search_torch, structures, 4.0)
    monkeypatch.setattr(search_torch_module, "_CHUNK", 50)
    assert pairs_of(search_torch, structures, 4.0) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_search_equals_vesin():
    structures = [random_structure(np.random.default_rng(k), pbc, natoms=30) for k, pbc in enumerate(PBC)]
    batch = StructureBatch.from_atoms(structures).to("cuda")
    pairs = search_torch(batch, wrap(batch), 5.0, torch.ones(batch.num_atoms, dtype=torch.bool, device="cuda"))
    pairs = relative_to_given_positions(pairs, wrap(batch).shifts)
    found = torch.column_stack([pairs.target, pairs.source, pairs.offsets]).tolist()
    assert sorted(map(tuple, found)) == pairs_of(search_vesin, structures, 5.0)


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_strongly_skewed_cells(name, order):
    """Plane spacings (0.7 Å) far below the vector lengths, and different from those of the transposed cell."""
    cell = np.array([[2.5, 0.0, 0.0], [9.0, 2.6, 0.0], [4.0, -7.0, 2.4]])[list(order)]
    atoms = Atoms("C2", positions=[[0.1, 0.2, 0.3], [1.3, 1.4, 1.5]], cell=cell, pbc=True)
    found = pairs_of(SEARCHES[name], [atoms], 4.0)
    assert found == _oracle(primitive_neighbor_list("ijS", atoms.pbc, cell, atoms.positions, 4.0))
