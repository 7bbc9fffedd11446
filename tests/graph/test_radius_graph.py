"""What the graph of a batch contains, in what order, and what is refused."""

import itertools
import math
import re
import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.neighborlist import primitive_neighbor_list

from escn_calc.errors import InputError
from escn_calc.graph import radius_graph
from escn_calc.graph import search as search_module
from escn_calc.graph.search_torch import search_torch
from escn_calc.structures import StructureBatch

PBC = list(itertools.product([False, True], repeat=3))
radius_graph_module = sys.modules["escn_calc.graph.radius_graph"]


def graph_of(*structures, cutoff=12.0, max_neighbors=20):
    return radius_graph(StructureBatch.from_atoms(list(structures)), cutoff, max_neighbors)


def slab(rattle=0.0, pbc=True):
    atoms = fcc111("Cu", (2, 2, 4), vacuum=8)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    add_adsorbate(atoms, "C", 3.0, "ontop")
    atoms.pbc = pbc
    atoms.rattle(rattle, seed=1)
    return atoms


def assert_same(first, second):
    for name in ("source", "target", "offsets", "vectors"):
        assert getattr(first, name).equal(getattr(second, name)), name


def test_vectors_point_from_target_to_source_image():
    atoms = slab(0.05)
    graph = graph_of(atoms)
    r = torch.from_numpy(atoms.positions)
    cell = torch.from_numpy(atoms.cell.array)
    expected = r[graph.source] - r[graph.target] + graph.offsets.double() @ cell
    assert torch.allclose(graph.vectors, expected, atol=1e-12, rtol=0)
    assert graph.vectors.dtype == torch.float64
    assert torch.allclose(graph.distances, expected.norm(dim=1))


def test_sorted_by_target_then_distance_and_strictly_capped():
    graph = graph_of(slab(0.05))
    assert (graph.target.diff() >= 0).all()
    within = graph.target.diff() == 0
    assert (graph.distances.diff()[within] >= -1e-5).all()
    assert torch.bincount(graph.target).tolist() == [20] * 18


@pytest.mark.parametrize("pbc", PBC)
@pytest.mark.parametrize(("cutoff", "max_neighbors"), [(6.0, 0), (6.0, 5), (4.0, 20), (9.0, 20)])
def test_keeps_the_nearest_of_ase_neighbour_list(pbc, cutoff, max_neighbors):
    """Images of an atom around itself come in pairs ±n of equal distance, also here: such a pair may be cut."""
    atoms = slab(0.1, pbc)
    graph = graph_of(atoms, cutoff=cutoff, max_neighbors=max_neighbors)
    i, j, d, offsets = primitive_neighbor_list("ijdS", atoms.pbc, atoms.cell.array, atoms.positions, cutoff)
    rows = np.column_stack([i, j, offsets])
    limit = np.full(len(atoms), np.inf)
    for atom in np.unique(i):
        limit[atom] = np.sort(d[i == atom])[:max_neighbors][-1] if max_neighbors > 0 else np.inf
    certain = set(map(tuple, rows[d < limit[i] - 1e-5].tolist()))
    possible = set(map(tuple, rows[d < limit[i] + 1e-5].tolist()))
    found = list(map(tuple, torch.column_stack([graph.target, graph.source, graph.offsets]).tolist()))
    assert certain <= set(found) <= possible
    counts = np.bincount(i, minlength=len(atoms))
    expected_counts = np.minimum(counts, max_neighbors) if max_neighbors > 0 else counts
    assert torch.bincount(graph.target, minlength=len(atoms)).tolist() == expected_counts.tolist()
    assert len(possible) - len(certain) <= 2 * len(atoms)


def test_cutoff_is_inclusive_wherever_the_structure_stands():
    rng = np.random.default_rng(0)
    for position in [np.zeros(3), *rng.uniform(-50, 50, (50, 3))]:
        cubic = Atoms("Po", positions=[position], cell=[3.1, 3.1, 3.1], pbc=True)
        pair = Atoms("H2", positions=[position, position + np.array([0, 3.1, 0])])
        assert len(graph_of(cubic, cutoff=3.1).source) == 6
        assert len(graph_of(cubic, cutoff=3.1 - 1e-6).source) == 0
        assert len(graph_of(pair, cutoff=3.1).source) == 2


@pytest.mark.parametrize("max_neighbors", [1, 12, 13, 20, 60, 10_000])
def test_searching_in_two_steps_changes_nothing(monkeypatch, max_neighbors):
    structures = [slab(), slab(0.1), bulk("Cu"), molecule("CH3CH2OH"), Atoms("H"), bulk("NaCl", "rocksalt", a=5.6)]
    monkeypatch.setattr(radius_graph_module, "FIRST_RADIUS", 1.0)
    expected = graph_of(*structures, max_neighbors=max_neighbors)
    for fraction in (0.2, 0.3, 0.45, 0.6, 0.9):
        monkeypatch.setattr(radius_graph_module, "FIRST_RADIUS", fraction)
        assert_same(graph_of(*structures, max_neighbors=max_neighbors), expected)


def test_first_radius_that_ends_inside_a_shell_changes_nothing(monkeypatch):
    """Distances of 3.000004 and 3.000012 Å form one shell; a first search up to 3.00001 Å sees only half of it."""
    atoms = Atoms("HCuO", positions=[[0, 0, 0], [3.000004, 0, 0], [0, 3.000012, 0]])
    monkeypatch.setattr(radius_graph_module, "FIRST_RADIUS", 3.00001 / 6)
    graph = graph_of(atoms, cutoff=6.0, max_neighbors=1)
    assert graph.source[graph.target == 0].tolist() == [2]


def test_torch_search_gives_the_same_graph(monkeypatch):
    structures = [slab(), slab(0.1, (True, True, False)), bulk("Cu"), molecule("CH4"), Atoms("H")]
    expected = graph_of(*structures)
    monkeypatch.setattr(search_module, "search_vesin", search_torch)
    assert_same(graph_of(*structures), expected)


def test_batch_of_mixed_pbc_equals_single_structures():
    structures = [slab(0.05, pbc) for pbc in PBC]
    structures += [bulk("Cu"), molecule("H2O"), bulk("W").repeat((2, 1, 3)), Atoms("He")]
    together = graph_of(*structures)
    first = 0
    for atoms in structures:
        alone = graph_of(atoms)
        mine = (together.target >= first) & (together.target < first + len(atoms))
        assert (together.source[mine] - first).equal(alone.source)
        assert (together.target[mine] - first).equal(alone.target)
        assert together.offsets[mine].equal(alone.offsets)
        assert together.vectors[mine].equal(alone.vectors)
        first += len(atoms)


def test_structures_without_edges():
    assert len(graph_of(Atoms("H")).source) == 0
    assert len(graph_of(Atoms("H2", positions=[[0, 0, 0], [0, 0, 13]])).source) == 0
    graph = graph_of(Atoms("H"), molecule("H2"), Atoms("He"))
    assert graph.target.tolist() == [1, 2]
    assert graph.source.tolist() == [2, 1]
    empty = graph_of()
    assert (len(empty.source), tuple(empty.offsets.shape), tuple(empty.vectors.shape)) == (0, (0, 3), (0, 3))


def test_far_unwrapped_atoms():
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.rattle(0.1, seed=2)
    moved = atoms.copy()
    moved.positions += np.random.default_rng(0).integers(-50_000, 50_000, (len(atoms), 3)) @ atoms.cell.array
    expected, found = graph_of(atoms), graph_of(moved)
    assert found.source.equal(expected.source)
    assert torch.allclose(found.vectors, expected.vectors, atol=1e-8, rtol=0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, math.nan, math.inf])
def test_useless_cutoff(cutoff):
    with pytest.raises(InputError, match=rf"the cutoff is {cutoff} Å: it must be positive and finite"):
        graph_of(molecule("H2"), cutoff=cutoff)


def test_overlapping_atoms_are_named():
    water = molecule("H2O")
    broken = Atoms("CuOCu", positions=[[0, 0, 0], [2, 0, 0], [0, 0, 0.009]])
    message = (
        "atom 0 (Cu) and atom 2 (Cu) of structure 1 (Cu2O) are 0.009 Å apart, less than 0.01 Å: remove one of them"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        graph_of(water, broken)


def test_coinciding_atoms_and_images_are_named():
    with pytest.raises(InputError, match=r"atom 0 \(H\) and atom 1 \(O\) of structure 0 \(HO\) are 0 Å apart"):
        graph_of(Atoms("HO", positions=[[1, 1, 1], [1, 1, 1]]))
    image = Atoms("HO", positions=[[0, 0, 0.002], [0, 0, 4.999]], cell=[5, 5, 5], pbc=True)
    message = "atom 0 (H) and atom 1 (O) (image in cell [0, 0, -1]) of structure 0 (HO) are 0.003 Å apart"
    with pytest.raises(InputError, match=re.escape(message)):
        graph_of(image)
    image.pbc = False
    assert len(graph_of(image).source) == 2
    assert len(graph_of(Atoms("HO", positions=[[0, 0, 0], [0, 0, 0.0101]])).source) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graph_equals_cpu_graph():
    structures = [slab(), slab(0.1, (True, True, False)), bulk("Cu"), molecule("CH4"), Atoms("H")]
    batch = StructureBatch.from_atoms(structures)
    found, expected = radius_graph(batch.to("cuda"), 12.0, 20), radius_graph(batch, 12.0, 20)
    assert found.source.cpu().equal(expected.source)
    assert found.offsets.cpu().equal(expected.offsets)
    assert torch.allclose(found.vectors.cpu(), expected.vectors, atol=1e-12, rtol=0)
