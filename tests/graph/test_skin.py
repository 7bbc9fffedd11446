"""Graphs from reused candidates equal those of a fresh search bit for bit, and the reuse goes as far as proven."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

from escn_calc.errors import InputError
from escn_calc.graph import SkinSearch, cap, radius_graph, search_pairs
from escn_calc.graph import search as search_module
from escn_calc.graph.pairs import SEARCH_MARGIN, in_canonical_order, wrap
from escn_calc.graph.search_torch import search_torch
from escn_calc.structures import StructureBatch

SKIN = 0.6


def slab():
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    add_adsorbate(atoms, "C", 3.0, "ontop")
    return atoms


def triclinic():
    cell = [[4.1, 0.3, -0.2], [1.9, 5.0, 0.4], [-1.5, 2.2, 6.0]]
    scaled = np.random.default_rng(5).uniform(size=(7, 3))
    return Atoms("Cu3O2CH", scaled_positions=scaled, cell=cell, pbc=True)


def wire():
    return Atoms("Au3C", positions=[[0, 0, 0], [0.5, 0, 2.6], [0, 0.4, 5.2], [1.9, 0.1, 1.0]],
                 cell=[0, 0, 7.8], pbc=(False, False, True))  # fmt: skip


#: Structures and the edges asked for: cutoff (Å) and cap.
SYSTEMS = {
    "slab, capped": ([slab], 12.0, 20),
    "slab, uncapped": ([slab], 5.0, 0),
    "triclinic, capped": ([triclinic], 8.0, 20),
    "triclinic, uncapped": ([triclinic], 5.0, 0),
    "one atom and its images": ([lambda: bulk("Cu")], 7.0, 20),
    "two atoms and their images": ([lambda: bulk("NaCl", "rocksalt", a=5.6)], 6.0, 0),
    "molecule": ([lambda: molecule("CH3CH2OH")], 4.0, 20),
    "wire": ([wire], 6.0, 20),
    "batch": ([slab, triclinic, wire, lambda: bulk("Cu"), lambda: molecule("CH4"), lambda: Atoms("He")], 6.0, 12),
}


@pytest.fixture(params=["vesin", "torch"])
def each_search(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(search_module, "search_vesin", search_torch)
    return request.param


def assert_same(found, expected, message=""):
    for name in ("source", "target", "offsets", "vectors"):
        assert getattr(found, name).equal(getattr(expected, name)), f"{name} differ {message}"


def assert_fresh(structures, cutoff, max_neighbors, search, message=""):
    """The graph from reused candidates, after comparing it with that of a fresh search."""
    batch = StructureBatch.from_atoms(structures)
    found = radius_graph(batch, cutoff, max_neighbors, search)
    assert_same(found, radius_graph(batch, cutoff, max_neighbors), message)
    return found


def random_strain(rng, size):
    return np.eye(3) + rng.uniform(-size, size, (3, 3))


def lattice_vectors(atoms, rng):
    """A random lattice vector for every atom, (N, 3) in Å."""
    return (rng.integers(-2, 3, (len(atoms), 3)) * atoms.pbc) @ atoms.cell.array


class HotMotion:
    """Correlated random motion around the start, as large as that of atoms at more than 1000 K, and much else."""

    def __init__(self, atoms, seed):
        self.atoms, self.rng = atoms, np.random.default_rng(seed)
        self.start = atoms.positions.copy()
        self.away = np.zeros_like(self.start)
        self.step = np.zeros_like(self.start)

    def advance(self, changes):
        rng, atoms = self.rng, self.atoms
        self.step = 0.9 * self.step + rng.normal(scale=0.012, size=self.step.shape)
        self.away = 0.95 * self.away + self.step
        if "strain" in changes:
            strain = random_strain(rng, 0.01)
            atoms.cell[:] = atoms.cell.array @ strain
            self.start = self.start @ strain
        if "drift" in changes:
            self.start = self.start + rng.uniform(-0.5, 0.5, 3)
        if "swap" in changes and len(atoms) > 1:
            first, second = rng.choice(len(atoms), 2, replace=False)
            self.start[[first, second]] = self.start[[second, first]]
            self.away[[first, second]] = self.away[[second, first]]
        if "elements" in changes:
            atoms.numbers = rng.permutation(atoms.numbers)
        atoms.positions = self.start + self.away
        if "wrap" in changes:
            atoms.wrap()
        if "lattice" in changes:
            atoms.positions += lattice_vectors(atoms, rng)


@pytest.mark.parametrize("name", SYSTEMS)
def test_hot_trajectory(name, each_search):
    makers, cutoff, max_neighbors = SYSTEMS[name]
    rng = np.random.default_rng(0)
    motions = [HotMotion(make(), seed) for seed, make in enumerate(makers)]
    search = SkinSearch(SKIN)
    often = {"drift": 0.5, "wrap": 0.3, "lattice": 0.2, "elements": 0.1}
    rare = {"swap": 0.02, "strain": 0.03}
    steps = 200 if each_search == "vesin" else 60
    for step in range(steps):
        changes = {change for change, share in (often | rare).items() if rng.random() < share}
        for motion in motions:
            motion.advance(changes)
        assert_fresh([motion.atoms for motion in motions], cutoff, max_neighbors, search, f"in step {step}: {changes}")
    assert steps <= search.searches + search.reuses <= 2 * steps
    assert 1 <= search.searches < 0.5 * search.reuses


def test_molecular_dynamics_of_a_hot_slab():
    atoms = fcc111("Cu", (3, 3, 3), vacuum=6)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.calc = EMT()
    rng = np.random.default_rng(1)
    atoms.set_velocities(rng.normal(scale=0.05, size=(len(atoms), 3)))
    dynamics = Langevin(atoms, 4 * units.fs, temperature_K=1500, friction=0.02 / units.fs, fixcm=False, rng=rng)
    capped, uncapped = SkinSearch(SKIN), SkinSearch(SKIN)
    for step in range(200):
        dynamics.run(1)
        seen = atoms.copy()
        if step % 3 == 0:
            seen.wrap()
        assert_fresh([seen], 12.0, 20, capped, f"in step {step}")
        assert_fresh([seen], 5.0, 0, uncapped, f"in step {step}")
    for search in (capped, uncapped):
        assert 3 <= search.searches < 0.25 * search.reuses


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("deformation", ["compression", "expansion", "shear"])
def test_growing_strain(deformation, carried, each_search):
    """Cells that change a little at every step, with the atoms scaled along or left where they are."""
    change = {"compression": np.diag([-1, -0.5, -0.7]), "expansion": np.diag([1, 0.5, 0.7]),
              "shear": np.array([[0, 1, 0], [0, 0, 0.5], [-0.3, 0, 0]])}[deformation]  # fmt: skip
    structures = [slab(), triclinic(), wire(), bulk("Cu")]
    search = SkinSearch(SKIN)
    for _ in range(40):
        for atoms in structures:
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.004 * change), scale_atoms=carried)
        assert_fresh(structures, 6.0, 0, search)
    assert 2 <= search.searches <= 20


def test_expansion_that_carries_the_atoms_needs_no_search():
    """Along periodic directions; along open ones there is no cell that could carry them."""
    structures = [slab(), triclinic(), bulk("Cu")]
    search = SkinSearch(0.1)
    for _ in range(20):
        for atoms in structures:
            atoms.set_cell(atoms.cell.array * np.where(atoms.pbc, 1.01, 1.0)[:, None], scale_atoms=True)
        assert_fresh(structures, 6.0, 0, search)
    assert search.searches == 1


def test_drift_wrapping_and_lattice_vectors_need_no_search(each_search):
    """Each structure drifts its own way, through many cells, and is written down in another way at every step."""
    rng = np.random.default_rng(3)
    structures = [slab(), triclinic(), wire(), bulk("Cu"), molecule("CH4")]
    drifts = rng.uniform(-1, 1, (len(structures), 3))
    search = SkinSearch(0.1)
    for step in range(60):
        written = []
        for atoms, drift in zip(structures, drifts, strict=True):
            atoms.positions += drift
            other = atoms.copy()
            if step % 2:
                other.wrap()
            other.positions += lattice_vectors(other, rng)
            written.append(other)
        assert_fresh(written, 6.0, 0, search)
    assert (search.searches, search.reuses) == (1, 59)


def test_drift_by_half_a_cell_needs_no_search():
    """Where rounding the displacements of single atoms would put them into different cells."""
    structures = [slab(), triclinic(), wire()]
    search = SkinSearch(0.2)
    assert_fresh(structures, 6.0, 0, search)
    for atoms in structures:
        atoms.positions += 0.5 * atoms.cell.array.sum(0)
        atoms.rattle(0.01, seed=0)
    assert_fresh(structures, 6.0, 0, search)
    assert search.searches == 1


def test_exchanged_elements_need_no_search_and_exchanged_atoms_do():
    atoms = slab()
    search = SkinSearch(SKIN)
    assert_fresh([atoms], 12.0, 20, search)
    searches = search.searches
    atoms.numbers = atoms.numbers[::-1]
    assert_fresh([atoms], 12.0, 20, search)
    assert search.searches == searches
    atoms.positions[[0, -1]] = atoms.positions[[-1, 0]]
    assert_fresh([atoms], 12.0, 20, search)
    assert search.searches > searches


# How far the rule goes. The graph asks for the cutoff + SEARCH_MARGIN = R; candidates reach to R + SKIN.
CUTOFF = 5.0
ASKED = CUTOFF + SEARCH_MARGIN
REACH = ASKED + SKIN
TINY = 1e-7


def searches_after(before, after):
    """Whether a search was needed for ``after`` with the candidates of ``before``, and the edges found."""
    search = SkinSearch(SKIN)
    assert_fresh(before, CUTOFF, 0, search)
    graph = assert_fresh(after, CUTOFF, 0, search)
    return search.searches - 1, len(graph.source)


def at(*positions):
    return Atoms(f"H{len(positions)}", positions=positions)


def test_two_atoms_head_on():
    """Both move by half of the approach: the largest displacement alone would allow twice as much."""
    direction = np.array([2.0, 3.0, 6.0]) / 7
    before = [at([0, 0, 0], (REACH + TINY) * direction)]

    def closer(approach):
        return [at(0.5 * approach * direction, (REACH + TINY - 0.5 * approach) * direction)]

    assert searches_after(before, closer(SKIN - TINY)) == (0, 0)
    assert searches_after(before, closer(SKIN + TINY)) == (1, 0)
    assert searches_after(before, closer(SKIN + 3 * SEARCH_MARGIN)) == (1, 2)
    assert searches_after(before, closer(1.9 * SKIN)) == (1, 2)


@pytest.mark.parametrize("bystanders", [0, 1, 5])
def test_one_atom_moves_and_all_others_rest(bystanders):
    """The common translation is half of the displacement then, and the bound the same as without it."""
    others = [[-20.0 * (k + 1), 7, 3] for k in range(bystanders)]
    before = [at([0, 0, 0], [REACH + TINY, 0, 0], *others)]
    for approach, expected in [(SKIN - TINY, (0, 0)), (SKIN + TINY, (1, 0)), (SKIN + 3 * SEARCH_MARGIN, (1, 2))]:
        assert searches_after(before, [at([approach, 0, 0], [REACH + TINY, 0, 0], *others)]) == expected


def test_compression_brings_images_of_one_atom_closer():
    def chain(length):
        return [Atoms("H", cell=[length, 1, 1], pbc=(True, False, False))]

    limit = (REACH + TINY) * ASKED / REACH
    assert searches_after(chain(REACH + TINY), chain(limit + TINY)) == (0, 0)
    assert searches_after(chain(REACH + TINY), chain(limit - TINY)) == (1, 0)
    assert searches_after(chain(REACH + TINY), chain(limit - 3 * SEARCH_MARGIN)) == (1, 2)
    assert searches_after(chain(REACH + TINY), chain(0.9 * limit)) == (1, 2)


def test_compression_and_head_on_motion_add_up():
    """Along z in a long cell, seen across its border, while the whole drifts."""

    def pair(distance, length):
        middle = 0.02 * length + 17.3
        z = np.array([middle - 0.5 * distance, middle + 0.5 * distance])
        atoms = Atoms("H2", positions=[[0, 0, value] for value in z], cell=[20, 20, length], pbc=True)
        atoms.wrap()
        return [atoms]

    squeeze = 0.95
    before = pair(REACH + TINY, 30)
    carried = squeeze * (REACH + TINY)
    assert squeeze * REACH > ASKED
    own = squeeze * REACH - ASKED
    assert searches_after(before, pair(carried - own + TINY, squeeze * 30)) == (0, 0)
    assert searches_after(before, pair(carried - own - TINY, squeeze * 30)) == (1, 0)
    assert searches_after(before, pair(carried - own - 3 * SEARCH_MARGIN, squeeze * 30)) == (1, 2)


def test_bounds_are_per_structure():
    """Structures that move apart from one another, each with its own displacements up to half of what it may."""
    first, second = at([0, 0, 0], [3, 0, 0]), at([0, 0, 0], [0, 3, 0])
    search = SkinSearch(SKIN)
    assert_fresh([first, second], CUTOFF, 0, search)
    first.positions[1] += [0.9 * SKIN, 0, 0]
    second.positions[1] += [0, -0.9 * SKIN, 0]
    assert_fresh([first, second], CUTOFF, 0, search)
    assert search.searches == 1
    second.positions[0] += [0, 0.2 * SKIN, 0]
    assert_fresh([first, second], CUTOFF, 0, search)
    assert search.searches == 2


def test_other_cells_of_the_same_crystal():
    """Cell vectors permuted, inverted (left-handed) or sheared by lattice vectors, and back."""
    start = triclinic()
    search = SkinSearch(SKIN)
    matrices = [np.eye(3)[list(order)] for order in itertools.permutations(range(3))]
    matrices += [-np.eye(3), np.diag([1, 1, -1]), np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]])]
    for matrix in matrices:
        for cell in (matrix @ start.cell.array, start.cell.array):
            start.set_cell(cell)
            assert_fresh([start], 5.0, 0, search)


def test_a_cell_vector_along_an_open_direction_is_a_displacement():
    atoms = slab()
    atoms.pbc = (True, True, False)
    search = SkinSearch(SKIN)
    assert_fresh([atoms], 5.0, 0, search)
    atoms.positions[3] += 3 * atoms.cell.array[0]
    assert_fresh([atoms], 5.0, 0, search)
    assert search.searches == 1
    atoms.positions[3] += atoms.cell.array[2]
    graph = assert_fresh([atoms], 5.0, 0, search)
    assert search.searches == 2
    assert not (graph.target == 3).any()


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, True), (False, False, False)])
def test_cell_vectors_along_open_directions_do_not_matter(pbc):
    atoms = slab()
    atoms.pbc = pbc
    search = SkinSearch(SKIN)
    for scale in (1.0, 2.0, 0.0):
        atoms.cell[np.logical_not(pbc)] *= scale
        assert_fresh([atoms], 5.0, 0, search)
    assert search.searches == 1


def test_other_structures_are_searched_anew():
    search = SkinSearch(SKIN)
    small, large = molecule("H2O"), molecule("CH3CH2OH")
    periodic = bulk("Cu", cubic=True)
    mixed = periodic.copy()
    mixed.pbc = (True, True, False)
    batches = [[small], [large], [large, small], [small, large], [small], [], [periodic], [mixed], [periodic]]
    for count, structures in enumerate(batches, 1):
        for _ in range(2):
            assert_fresh(structures, 4.0, 0, search)
            assert search.searches == count


def test_overlaps_are_found_among_reused_candidates():
    atoms = at([0, 0, 0], [0, 0, 0.3], [2, 0, 0])
    search = SkinSearch(SKIN)
    assert_fresh([atoms], 4.0, 20, search)
    atoms.positions[1, 2] = 0.004
    message = re.escape("atom 0 (H) and atom 1 (H) of structure 0 (H3) are 0.004 Å apart, less than 0.01 Å")
    with pytest.raises(InputError, match=f"^{message}"):
        radius_graph(StructureBatch.from_atoms([atoms]), 4.0, 20, search)
    atoms.positions[1, 2] = 0.02
    assert_fresh([atoms], 4.0, 20, search)
    assert search.searches == 2  # one for each radius


def test_centres_asked_for_later():
    """Candidates are found for the centres asked for; new centres join the old ones, so that both are served then."""
    batch = StructureBatch.from_atoms([slab()])
    search = SkinSearch(SKIN)
    first, second = (torch.arange(batch.num_atoms) == atom for atom in (2, 5))
    for centres, searches in [(first, 1), (first, 1), (second, 2), (first, 2), (first | second, 2), (~first, 3)]:
        pairs = search(batch, 4.0, centres)
        assert search.searches == searches
        assert centres[pairs.target].all()
        expected = search_pairs(batch, 4.0 + SKIN, centres)
        assert pairs.target.equal(expected.target)
        assert pairs.source.equal(expected.source)
        assert pairs.offsets.equal(expected.offsets)


def test_changing_the_tensors_of_a_batch_in_place_counts_as_motion():
    batch = StructureBatch.from_atoms([triclinic()])
    search = SkinSearch(SKIN)
    radius_graph(batch, 5.0, 0, search)
    batch.positions[0] += 1.0
    assert_same(radius_graph(batch, 5.0, 0, search), radius_graph(batch, 5.0, 0))
    batch.cells.mul_(0.8)
    assert_same(radius_graph(batch, 5.0, 0, search), radius_graph(batch, 5.0, 0))
    assert search.searches == 3


def test_reset_and_no_skin():
    atoms = slab()
    search = SkinSearch(SKIN)
    for searches in (1, 2):
        assert_fresh([atoms], 5.0, 0, search)
        assert search.searches == searches
        search.reset()
    none = SkinSearch(0.0)
    for step in range(5):
        atoms.rattle(1e-6, seed=step)
        assert_fresh([atoms], 5.0, 0, none)
    assert (none.searches, none.reuses) == (5, 0)


@pytest.mark.parametrize("skin", [-0.1, math.nan, math.inf])
def test_useless_skin(skin):
    with pytest.raises(InputError, match=rf"the skin is {skin} Å: it must be finite and not negative"):
        SkinSearch(skin)


def test_far_unwrapped_atoms_under_strain():
    atoms = triclinic()
    rng = np.random.default_rng(2)
    search = SkinSearch(SKIN)
    for _ in range(10):
        atoms.set_cell(atoms.cell.array @ random_strain(rng, 0.003), scale_atoms=True)
        atoms.rattle(0.01, rng=rng)
        written = atoms.copy()
        written.positions += rng.integers(-30_000, 30_000, (len(atoms), 3)) @ atoms.cell.array
        assert_fresh([written], 5.0, 0, search)
    assert search.searches < 4


# Order.


@pytest.mark.parametrize("max_neighbors", [0, 7])
@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (0.0, 0.0, 0.0)])
def test_exact_ties_are_ordered_whatever_the_search(monkeypatch, direction, max_neighbors):
    """A direction perpendicular to whole shells: source and offset decide, not the order of the candidates."""
    monkeypatch.setattr(cap, "GENERIC_DIRECTION", direction)
    crystal = Atoms("CuOCu2", positions=[[0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 0]], cell=[4, 4, 4], pbc=True)
    moved = crystal.copy()
    moved.positions += [8, -4, 12]
    moved.positions[2] += [-4, 4, 0]
    moving = SkinSearch(3.0)
    radius_graph(StructureBatch.from_atoms([moved]), 5.0, max_neighbors, moving)
    expected = assert_fresh([crystal], 5.0, max_neighbors, SkinSearch(SKIN))
    assert_fresh([crystal], 5.0, max_neighbors, moving)
    assert moving.searches == 1 + (max_neighbors > 0 and moving.reuses == 0)
    monkeypatch.setattr(search_module, "search_vesin", search_torch)
    assert_fresh([crystal], 5.0, max_neighbors, SkinSearch(2.0))
    assert_same(radius_graph(StructureBatch.from_atoms([crystal]), 5.0, max_neighbors), expected)


def test_canonical_order_of_shuffled_pairs():
    batch = StructureBatch.from_atoms([triclinic(), slab()])
    expected = search_pairs(batch, 6.0, torch.ones(batch.num_atoms, dtype=torch.bool))
    rows = torch.column_stack([expected.target, expected.source, expected.offsets])
    rows = (rows - torch.nn.functional.pad(wrap(batch).shifts[expected.source], (2, 0))
            + torch.nn.functional.pad(wrap(batch).shifts[expected.target], (2, 0))).tolist()  # fmt: skip
    assert rows == sorted(rows)
    for seed in range(3):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)))
        sorted_again = in_canonical_order(expected.select(order), batch.num_atoms)
        for name in ("source", "target", "offsets"):
            assert getattr(sorted_again, name).equal(getattr(expected, name))
    nothing = expected.select(torch.zeros(0, dtype=torch.int64))
    assert len(in_canonical_order(nothing, 3).source) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda():
    motions = [HotMotion(make(), seed) for seed, make in enumerate(SYSTEMS["batch"][0])]
    search = SkinSearch(SKIN)
    for _ in range(50):
        for motion in motions:
            motion.advance({"wrap", "drift", "elements"})
        batch = StructureBatch.from_atoms([motion.atoms for motion in motions]).to("cuda")
        assert_same(radius_graph(batch, 6.0, 12, search), radius_graph(batch, 6.0, 12))
    assert search.searches < search.reuses
    on_cpu = batch.to("cpu")
    assert_same(radius_graph(on_cpu, 6.0, 12, search), radius_graph(on_cpu, 6.0, 12))
