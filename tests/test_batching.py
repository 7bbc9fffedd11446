"""Many structures at once: the same numbers as alone, and one that fails is the only one that fails."""

import pickle
import random

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from escn_calc import batching, energy_model
from escn_calc.batching import Member, evaluate_members, packed
from escn_calc.energy_model import EnergyModel
from escn_calc.errors import BatchError, CalculationError, ESCNError, InputError, OutOfMemoryError
from escn_calc.graph import radius_graph, search_pairs
from escn_calc.memory import THRIFTIEST, Size
from escn_calc.potential import Potential, Prediction
from escn_calc.structures import StructureBatch
from tests.parity import checkpoint
from tests.smooth import rattled_slab, smooth_checkpoint

TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
MOLECULES = ("H2O", "CH4", "CH3OH", "C6H6", "CO2", "C2H6")


def smooth(dtype="float64", **shape):
    return Potential(smooth_checkpoint(**shape), device="cpu", dtype=dtype, frames="canonical")


def direct(dtype="float64"):
    return Potential(checkpoint("l2m1"), device="cpu", dtype=dtype, frames="canonical")


def mixed(count, largest=40):
    """Molecules, slabs and bulks of 1 to ``largest`` atoms with all kinds of periodicity, none at rest."""
    rng = np.random.default_rng(5)
    structures = []
    while len(structures) < count:
        kind = len(structures) % 4
        if kind == 0:
            atoms = molecule(str(rng.choice(MOLECULES)), vacuum=float(rng.choice([0.0, 5.0])))
        elif kind == 1:
            atoms = fcc111(str(rng.choice(["Cu", "Pt", "Pd"])), (*rng.integers(1, 4, 2), 3), vacuum=7.0, periodic=True)
            atoms.pbc = (True, True, rng.random() < 0.5)
        elif kind == 2:
            atoms = bulk("Cu", cubic=bool(rng.random() < 0.5)).repeat(tuple(rng.integers(1, 3, 3)))
        else:
            atoms = fcc111("Pt", (2, 2, 2), vacuum=5.0)
            atoms.pbc = (rng.random() < 0.5, False, False)
        if len(atoms) <= largest:
            atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
            atoms.set_initial_magnetic_moments(None)
            structures.append(atoms)
    return structures


def overlapping():
    return Atoms("CO", positions=[[0, 0, 0], [0, 0, 0]])


def crowded():
    return Atoms("Cu", cell=np.eye(3) * 0.3, pbc=True)


def largest_difference(found, alone):
    """Relative to the largest force, or to 1 eV/Å where symmetry leaves nothing but rounding of that."""
    energy = abs(found.energy - alone.energy) / np.abs(alone.energies).sum()
    return max(energy, np.abs(found.forces - alone.forces).max() / max(np.abs(alone.forces).max(), 1.0))


def with_two_impossible(potential, count, largest=40):
    """Structures, of which number 3 and the last but one cannot be evaluated, and what the others are alone."""
    structures = mixed(count - 2, largest)
    structures.insert(3, overlapping())
    structures.insert(count - 2, crowded())
    alone = [
        None if index in (3, count - 2) else potential.evaluate([atoms])[0] for index, atoms in enumerate(structures)
    ]
    return structures, alone


def compare(structures, alone, potential, record_figure, name):
    with pytest.raises(BatchError, match=f"^2 of {len(structures)} structures failed: ") as caught:
        potential.evaluate(structures)
    bad = [index for index, prediction in enumerate(alone) if prediction is None]
    assert sorted(caught.value.errors) == bad
    assert "structure 3 (CO) are 0 Å apart" in str(caught.value.errors[bad[0]])
    assert f"structure {bad[1]} (Cu) has 37 atoms/Å³ around an atom" in str(caught.value.errors[bad[1]])
    pairs = list(zip(caught.value.results, alone, strict=True))
    assert all((found is None) == (expected is None) for found, expected in pairs)
    worst = max(largest_difference(*pair) for pair in pairs if pair[0] is not None)
    record_figure(f"{len(pairs) - 2} in batches against alone, {name}", f"{worst:.1e}")
    assert worst < TOLERANCE[potential.dtype]


def fail_at_random(monkeypatch, share):
    """Let some evaluations run out of memory, whatever their size."""
    evaluate, dice, failures = EnergyModel._evaluate, random.Random(1), []

    def moody(self, *inputs):
        if dice.random() < share:
            failures.append(inputs[0].num_structures)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return evaluate(self, *inputs)

    monkeypatch.setattr(EnergyModel, "_evaluate", moody)
    return failures


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", [direct, smooth], ids=["direct", "gradient"])
def test_as_alone(model, dtype, record_figure, monkeypatch):
    potential = model(dtype)
    structures, alone = with_two_impossible(potential, 18)
    compare(structures, alone, potential, record_figure, f"{potential.forces} {dtype}")
    failures = fail_at_random(monkeypatch, 0.3)
    compare(structures, alone, potential, record_figure, f"{potential.forces} {dtype}, memory short at random")
    assert failures


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_200_as_alone(dtype, record_figure, monkeypatch):
    potential = direct(dtype)
    structures, alone = with_two_impossible(potential, 200, largest=120)
    compare(structures, alone, potential, record_figure, dtype)
    failures = fail_at_random(monkeypatch, 0.2)
    compare(structures, alone, potential, record_figure, f"{dtype}, memory short in 20 %")
    assert failures


@pytest.mark.parametrize("forces", ["direct", "gradient"])
def test_all_ways_give_the_same(forces):
    potential = direct()
    batch = StructureBatch.from_atoms([rattled_slab(), molecule("CO2"), Atoms("C")])
    graph = radius_graph(batch, potential.config.cutoff, potential.config.max_neighbors)
    expected, *others = (
        potential._model.evaluate(batch, graph, forces, thrift=thrift) for thrift in range(1 + THRIFTIEST)
    )
    for other in others:
        for name, value in vars(expected).items():
            if value is not None:
                assert (getattr(other, name) - value).abs().max() <= 1e-12 * value.abs().max()


def test_no_structure_feels_another():
    """The derivative of the energy of one with respect to the positions of the other is zero, not small."""
    model = smooth()._model
    batch = StructureBatch.from_atoms([rattled_slab(), rattled_slab(2)])
    graph = radius_graph(batch, model.config.cutoff, model.config.max_neighbors)
    displacements = torch.zeros(batch.num_atoms, 3, dtype=torch.float64, requires_grad=True)
    energies = model._energies_of_displaced(batch, graph, displacements)
    first = batch.structure_of_atom == 0
    (gradient,) = torch.autograd.grad(energies[first].sum(), displacements)
    assert gradient[first].abs().max() > 0.1
    assert torch.equal(gradient[~first], torch.zeros_like(gradient[~first]))


def test_a_result_that_is_not_finite_is_an_error_of_its_own(monkeypatch):
    stored = checkpoint("l2m1")
    embedding = stored.state["sphere_embedding.weight"].clone()
    embedding[8] = 3e38
    broken = Potential(
        type(stored)(**{**vars(stored), "state": stored.state | {"sphere_embedding.weight": embedding}}),
        device="cpu",
        dtype="float32",
        frames="canonical",
    )
    evaluate, evaluations = EnergyModel.evaluate, []

    def counting(self, batch, *rest, **more):
        evaluations.append(batch.num_structures)
        return evaluate(self, batch, *rest, **more)

    monkeypatch.setattr(EnergyModel, "evaluate", counting)
    methane, water, copper = broken.evaluate_each([molecule("CH4"), molecule("H2O"), bulk("Cu")])
    assert evaluations == [3]
    assert isinstance(water, CalculationError) and "energy of structure 1 (H2O): not finite" in str(water)
    assert largest_difference(methane, broken.evaluate([molecule("CH4")])[0]) < 1e-6
    assert isinstance(copper, Prediction)


def test_refusals_name_the_structure():
    potential = direct()
    good, broken = molecule("CH4"), molecule("CH4")
    broken.positions[2, 0] = np.nan
    outcomes = potential.evaluate_each([good, Atoms(), broken, "CH4", Atoms("Og"), good])
    messages = [str(outcome) for outcome in outcomes[1:5]]
    assert all(isinstance(outcome, InputError) for outcome in outcomes[1:5])
    assert messages[0] == "structure 1 has no atoms: remove it from the list"
    assert messages[1].startswith("atom 2 (H) of structure 2 (CH4) is at (nan")
    assert messages[2] == "structure 3 is of type str: expected ase.Atoms"
    assert messages[3].startswith("atom 0 (Og) of structure 4 (Og): the model's element table ends at")
    assert outcomes[0].energy == outcomes[5].energy
    with pytest.raises(InputError, match="structure 0 has no atoms"):
        potential.evaluate([Atoms()])
    with pytest.raises(InputError, match=r"found one ase\.Atoms object: pass \[atoms\]"):
        potential.evaluate(good)
    assert potential.evaluate([]) == potential.evaluate_each([]) == []


def test_batch_error_names_the_first_few_and_can_be_sent():
    errors = {index: InputError(f"structure {index} is bad") for index in range(3, 10)}
    error = pickle.loads(pickle.dumps(BatchError([None] * 12, errors)))
    assert str(error).startswith("7 of 12 structures failed: [3] structure 3 is bad; [4] structure 4 is bad; ")
    assert str(error).endswith("[7] structure 7 is bad; and 2 more")
    assert list(error.errors) == list(errors) and error.results == [None] * 12


def test_too_large_is_refused_before_its_graph_is_built(monkeypatch):
    potential = direct()
    searched = []

    def search(batch, radius, centres):
        searched.append(batch.num_atoms)
        return search_pairs(batch, radius, centres)

    monkeypatch.setattr(energy_model, "affordable_bytes", lambda device: 3e7)
    huge = bulk("Cu", cubic=True).repeat(30)
    small, error = potential.evaluate_each([molecule("CH4"), huge], search)
    assert isinstance(small, Prediction) and isinstance(error, OutOfMemoryError)
    assert set(searched) == {5}
    assert "structure 1 (Cu108000): 108000 atoms with about" in str(error)
    assert "GB, but only 0.03 GB, half of what is free, may be used on cpu" in str(error)


@pytest.mark.parametrize(
    "atoms",
    [bulk("Cu").repeat((2, 1, 1)), rattled_slab(), molecule("C6H6"), Atoms("O"), bulk("NaCl", "rocksalt", a=5.6)],
    ids=["chain of cells", "slab", "molecule", "atom", "salt"],
)
def test_size_of_small_structures_is_exact(atoms):
    atoms.positions += 40.0
    batch = StructureBatch.from_atoms([atoms])
    for cutoff, cap in ((5.0, 0), (5.0, 12), (9.0, 0)):
        size = Member.of(atoms, batch, cutoff, cap).size
        assert size == Size(len(atoms), len(radius_graph(batch, cutoff, cap).source))


def test_bound_of_a_structure_alone():
    """Never too small, and so tight that the small are not counted while the crowded are."""
    for atoms in (*mixed(20), bulk("Cu"), Atoms("O")):
        batch = StructureBatch.from_atoms([atoms])
        edges = len(radius_graph(batch, 5.0, 0).source)
        assert edges <= batching._most_pairs(batch, 5.0) < 40 * max(edges, len(atoms) ** 2)
    assert batching._most_pairs(StructureBatch.from_atoms([rattled_slab()]), 5.0) < batching.FEW_PAIRS
    with pytest.raises(InputError, match="has 37 atoms/Å³ around an atom"):
        direct().evaluate([crowded()])


def test_size_of_large_structures_is_sampled(monkeypatch):
    slab = fcc111("Cu", (8, 8, 6), vacuum=10.0, periodic=True)
    batch = StructureBatch.from_atoms([slab])
    edges = len(radius_graph(batch, 6.0, 0).source)
    assert Member.of(slab, batch, 6.0, 0).size.edges == pytest.approx(edges, rel=0.15)
    monkeypatch.setattr(batching, "DISTANCES", 20_000)
    assert Member.of(slab, batch, 6.0, 0).size.edges == pytest.approx(edges, rel=0.35)


def test_atoms_on_one_spot_are_refused_in_no_time():
    heap = Atoms("Cu20000", positions=np.zeros((20_000, 3)))
    with pytest.raises(InputError, match=r"structure 0 \(Cu20000\) has \d+ atoms/Å³ around an atom"):
        direct().evaluate([heap])


def members(*edges):
    return [
        Member(Atoms("H"), StructureBatch.from_atoms([Atoms("H")], index), Size(1, number), number)
        for index, number in enumerate(edges)
    ]


def indices(batch):
    return [member.index for member in batch]


@pytest.mark.parametrize(("limit", "expected"), [(100, [[0, 1, 2], [3], [4]]), (39, [[0], [1], [2], [3], [4]])])
def test_batches_are_filled_in_order(limit, expected):
    found = packed(members(40, 40, 20, 150, 40), lambda size: size.edges <= limit)
    assert [indices(batch) for batch in found] == expected


def run(evaluate, count=8):
    calls = []

    def recording(batch, thrift):
        calls.append((indices(batch), thrift))
        return evaluate(batch, thrift)

    found = [(member.index, outcome) for member, outcome in evaluate_members(members(*[1] * count), bool, recording)]
    return calls, found


def test_halving_finds_the_culprit():
    def evaluate(batch, thrift):
        if 5 in indices(batch):
            raise InputError("five")
        return [member.index for member in batch]

    calls, found = run(evaluate)
    assert [outcome for _, outcome in found[:5]] == [0, 1, 2, 3, 4] and str(found[5][1]) == "five"
    assert [index for index, _ in found] == list(range(8))
    assert [batch for batch, _ in calls] == [[*range(8)], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]]


def test_one_alone_is_tried_with_less_and_less_memory():
    def evaluate(batch, thrift):
        if len(batch) > 1 or thrift < 3:
            raise OutOfMemoryError("full")
        return ["done"]

    calls, found = run(evaluate, 2)
    assert calls == [([0, 1], 0), *(([0], thrift) for thrift in range(4)), *(([1], thrift) for thrift in range(4))]
    assert found == [(0, "done"), (1, "done")]


def test_what_never_fits_is_an_error_with_nothing_held():
    held = []

    def evaluate(batch, thrift):
        tensors = Tracked()
        held.append(tensors.alive)
        raise OutOfMemoryError("full")

    class Tracked:
        def __init__(self):
            self.alive = [True]

        def __del__(self):
            self.alive[0] = False

    calls, ((_, error),) = run(evaluate, 1)
    assert len(calls) == 1 + THRIFTIEST and isinstance(error, ESCNError)
    assert held == [[False]] * len(calls)


def test_inside_inference_mode():
    potential = smooth()
    expected = potential.evaluate_each([rattled_slab(), molecule("CO2")])
    with torch.inference_mode():
        found = potential.evaluate_each([rattled_slab(), molecule("CO2")])
    assert all(largest_difference(*pair) == 0 for pair in zip(found, expected, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("forces", ["direct", "gradient"])
def test_memory_is_measured_on_cuda(forces, record_figure):
    potential = Potential(checkpoint("l6m2"), device="cuda", dtype="float32", frames="canonical", forces=forces)
    structures = mixed(60)
    potential.evaluate(structures)
    (factor,) = potential._model._measured.values()
    record_figure(f"CUDA memory against the estimate, {forces}", f"{factor:.2f}")
    assert 0.3 < factor < 3
