"""From Atoms to energies and forces: stored numbers, symmetries, batches, reproducibility, refusals."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from scipy.spatial.transform import Rotation

from escn_calc.checkpoints.checkpoint import Checkpoint, Normalizers
from escn_calc.checkpoints.network import build_network
from escn_calc.convergence import (
    RESIDUAL_METRIC,
    TARGET,
    FramesNotConvergedWarning,
    converged_longitudes,
    roll_residual,
)
from escn_calc.errors import CalculationError, CheckpointError, InputError, OutOfMemoryError
from escn_calc.graph import radius_graph
from escn_calc.nn.fast import FastESCN
from escn_calc.nn.rotations import edge_frames, rolled
from escn_calc.potential import Potential, Prediction, ReducedPrecisionWarning, load_potential
from escn_calc.structures import StructureBatch
from tests.parity import MODELS, checkpoint, checkpoint_path, structures
from tests.tolerances import CALCULATOR_PARITY, REORDERED

CONVERGING = ["fine_grid", "l6m2", "multires", "silu_basis"]


def slab():
    atoms = fcc111("Pt", size=(2, 2, 3), vacuum=6.0, periodic=True)
    atoms += Atoms("CO", positions=atoms.positions[-1] + [[0.1, 0.2, 1.9], [0.3, 0.1, 3.05]])
    atoms.rattle(0.05, seed=3)
    return atoms


def cluster():
    """The same atoms without periodic images: many directions, few edges."""
    atoms = slab()
    atoms.pbc = False
    return atoms


def uncapped(model, dtype="float64", frames="canonical"):
    """A stored model whose cap is lifted, so that no tie can blur a symmetry."""
    stored = checkpoint(model)
    config = replace(stored.config, max_neighbors=0)
    return Potential(replace(stored, config=config), device="cpu", dtype=dtype, frames=frames)


def difference(one, other, force_map=lambda forces: forces):
    """Relative energy and force differences of two predictions."""
    energy = abs(one.energy - other.energy) / np.abs(one.energies).sum()
    return energy, np.abs(force_map(one.forces) - other.forces).max() / np.abs(other.forces).max()


def has_stored_edges(stored, config):
    graph = radius_graph(StructureBatch.from_atoms([stored.atoms]), config.cutoff, config.max_neighbors)
    if len(graph.source) != len(stored.source):
        return False
    for atom in range(len(stored.atoms)):
        ours, theirs = graph.vectors[graph.target == atom], stored.vectors[stored.target == atom]
        if len(ours) != len(theirs) or torch.cdist(ours, theirs).min(dim=1).values.max() > 1e-4:
            return False
    return True


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_fine_grid_reproduces_stored_numbers(dtype, record_figure):
    """The whole way from Atoms where the stored edges are ours, the stored edges with our frames elsewhere."""
    model = checkpoint("fine_grid")
    potential = load_potential(checkpoint_path("fine_grid"), dtype=dtype, device="cpu")
    network = build_network(model, getattr(torch, dtype))
    largest = max(np.abs(stored.forces).max() for stored in structures("fine_grid"))
    errors, own_graph = [], 0
    for stored in structures("fine_grid"):
        if has_stored_edges(stored, model.config):
            (prediction,) = potential.evaluate([stored.atoms])
            energy, forces, atomic = prediction.energy, prediction.forces, prediction.energies
            own_graph += 1
        else:
            vectors = stored.vectors.to(getattr(torch, dtype))
            with torch.inference_mode():
                out = network(torch.from_numpy(stored.atoms.numbers), stored.source, stored.target, vectors)
            atomic = out.node_energy.double().numpy() * model.normalizers.energy_std
            energy = atomic.sum() + model.normalizers.energy_mean
            forces = out.forces.double().numpy() * model.normalizers.force_std
        errors.append(
            (abs(energy - stored.energy) / np.abs(atomic).sum(), np.abs(forces - stored.forces).max() / largest)
        )
    worst = np.max(errors, axis=0)
    record_figure(f"calculator on fine_grid {dtype}", f"energy {worst[0]:.1e}, forces {worst[1]:.1e}")
    assert own_graph == 5
    assert (worst < CALCULATOR_PARITY[dtype]).all()


@pytest.mark.filterwarnings("ignore::escn_calc.convergence.FramesNotConvergedWarning")
@pytest.mark.parametrize("model", MODELS)
def test_converged_frames(model, record_figure):
    """Longitudes found on one structure hold on another; models that cannot get there report how far they come."""
    found = converged_longitudes(checkpoint(model))
    elsewhere = roll_residual(checkpoint(model), found.longitudes, slab())
    published = roll_residual(checkpoint(model), None, slab())
    record_figure(
        f"converged frames {model}",
        f"{found.longitudes} longitudes, residual {found.residual:.1e} (probe), {elsewhere:.1e} (other slab); "
        f"published grid {published:.1e}",
    )
    assert elsewhere <= published
    if model in CONVERGING:
        assert found.longitudes < 33
        assert found.residual < TARGET
        assert elsewhere < 1e-6
    else:
        assert found.residual < 1e-3


def test_frames_that_do_not_converge_are_reported():
    with pytest.warns(FramesNotConvergedWarning, match=r"model checkpoint: with 33 longitudes .* changes by 1\.\de-04"):
        load_potential(checkpoint_path("l3m3_full"), frames="converged", device="cpu")


def test_convergence_of_a_model_without_heavy_elements():
    stored = checkpoint("l2m1")
    config = replace(stored.config, max_num_elements=7)
    state = {key: value[:7] if "embedding" in key else value for key, value in stored.state.items()}
    assert converged_longitudes(replace(stored, config=config, state=state)).longitudes > 3


def test_converged_longitudes_of_the_card_are_taken():
    stored = checkpoint("l4m2")
    update = {"converged_longitudes": 21, "metrics": {RESIDUAL_METRIC: 3e-5}}
    carded = replace(stored, card=stored.card.model_copy(update=update))
    with pytest.warns(FramesNotConvergedWarning, match=r"with 21 longitudes .* changes by 3\.0e-05"):
        potential = Potential(carded, device="cpu", dtype="float32", frames="converged")
    assert potential.config.edge_longitudes == 21


def turned(atoms, rotation):
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ rotation.T)
    copy.positions = atoms.positions @ rotation.T
    return copy


def rotation_errors(evaluate, atoms, count=100):
    """Root mean square relative errors of energy and forces over random rotations."""
    reference = evaluate(atoms)
    errors = [
        difference(evaluate(turned(atoms, rotation)), reference, lambda f, r=rotation: f @ r)
        for rotation in Rotation.random(count, random_state=0).as_matrix()
    ]
    return np.sqrt(np.mean(np.square(errors), axis=0))


@pytest.mark.parametrize("frames", ["canonical", "converged"])
def test_rotations(frames, record_figure):
    """100 random rotations: what the published grids and output points leave, stated, not hidden."""
    potential = load_potential(checkpoint_path("l6m2"), dtype="float64", frames=frames, device="cpu")
    energy, force = rotation_errors(lambda atoms: potential.evaluate([atoms])[0], cluster())
    record_figure(f"100 rotations, l6m2, {frames} frames", f"rms energy {energy:.1e}, forces {force:.1e} (relative)")
    assert energy < 0.01
    assert force < 0.1


def test_rotations_of_the_reference_are_no_better(record_figure):
    """The same network with frames rolled at random in every call, as the reference evaluates it."""
    model = checkpoint("l6m2")
    network, generator = build_network(model, torch.float64), torch.Generator().manual_seed(0)

    def as_the_reference(atoms):
        graph = radius_graph(StructureBatch.from_atoms([atoms]), model.config.cutoff, model.config.max_neighbors)
        frames = edge_frames(graph.vectors / graph.distances[:, None])
        rolls = 2 * torch.pi * torch.rand(len(frames), generator=generator, dtype=torch.float64)
        numbers = torch.from_numpy(atoms.numbers)
        with torch.inference_mode():
            out = network(numbers, graph.source, graph.target, graph.vectors, rolled(frames, rolls))
        atomic = out.node_energy.numpy()
        return Prediction(float(atomic.sum()), atomic, out.forces.numpy(), "unknown", "direct")

    potential = load_potential(checkpoint_path("l6m2"), dtype="float64", device="cpu")
    energy, force = rotation_errors(as_the_reference, cluster())
    ours = rotation_errors(lambda atoms: potential.evaluate([atoms])[0], cluster())
    record_figure("100 rotations, l6m2, random frames", f"rms energy {energy:.1e}, forces {force:.1e} (relative)")
    assert ours[0] < 3 * energy
    assert ours[1] < 1.5 * force


def test_finer_grids_and_points_remove_the_rotation_error(record_figure):
    """The same weights on fine grids: what remains is the finite number of output points."""
    stored = checkpoint("l2m1")
    config = replace(stored.config, max_neighbors=0, resolution=24, num_sphere_samples=4096)
    learned = {k: v for k, v in stored.state.items() if not k.startswith(("sphere_points", "sphharm"))}
    fine = Checkpoint(config, learned, stored.normalizers, None, stored.card)
    potential = Potential(fine, device="cpu", dtype="float64", frames="canonical")
    atoms = cluster()[8:]
    (reference,) = potential.evaluate([atoms])
    rotation = Rotation.from_euler("xyz", [0.3, 1.1, -0.4]).as_matrix()
    energy, force = difference(potential.evaluate([turned(atoms, rotation)])[0], reference, lambda f: f @ rotation)
    record_figure("rotation, l2m1 weights on fine grids", f"energy {energy:.1e}, forces {force:.1e} (relative)")
    assert energy < 1e-5
    assert force < 1e-4


def test_permutation_translation_wrapping(record_figure):
    potential = load_potential(checkpoint_path("l6m2"), dtype="float64", device="cpu")
    atoms = slab()
    (reference,) = potential.evaluate([atoms])
    order = np.random.default_rng(0).permutation(len(atoms))
    permuted = potential.evaluate([atoms[order]])[0]
    errors = [difference(permuted, reference, lambda f: f[np.argsort(order)])]
    shifted = atoms.copy()
    shifted.positions += [1.3, -7.7, 0.4]
    wrapped = shifted.copy()
    wrapped.wrap()
    scattered = atoms.copy()
    scattered.positions += np.random.default_rng(1).integers(-3, 4, (len(atoms), 3)) @ atoms.cell.array
    errors += [difference(potential.evaluate([copy])[0], reference) for copy in (shifted, wrapped, scattered)]
    worst = np.max(errors, axis=0)
    record_figure("permutation, translation, wrapping, l6m2", f"energy {worst[0]:.1e}, forces {worst[1]:.1e}")
    assert (worst < REORDERED["float64"] * 10).all()


def test_supercells_repeat_the_forces(record_figure):
    """Extensive: no cap, so no tie decides; a total-energy reading, the mean of the normaliser taken off."""
    potential = uncapped("l2m1")
    mean = checkpoint("l2m1").normalizers.energy_mean
    atoms = slab()
    (reference,) = potential.evaluate([atoms])
    (double,) = potential.evaluate([make_supercell(atoms, np.diag([2, 1, 1]))])
    record_figure("supercell, l2m1", f"energy {abs(double.energy + mean - 2 * reference.energy):.1e} eV of twice")
    assert double.energy - mean == pytest.approx(2 * (reference.energy - mean), rel=1e-11)
    np.testing.assert_allclose(
        double.forces[: len(atoms)], reference.forces, atol=1e-10 * np.abs(reference.forces).max()
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_mixed_batches_equal_single_evaluations(dtype, record_figure):
    potential = load_potential(checkpoint_path("l4m2"), dtype=dtype, device="cpu")
    half_open = slab()
    half_open.pbc = (True, True, False)
    many = [slab(), molecule("CH3OH"), bulk("Ni"), half_open, Atoms("O"), bulk("NaCl", "rocksalt", a=5.6)]
    errors = []
    for together, atoms in zip(potential.evaluate(many), many, strict=True):
        (alone,) = potential.evaluate([atoms])
        scale = max(np.abs(alone.forces).max(), 1.0)
        force = np.abs(together.forces - alone.forces).max() / scale
        errors.append((abs(together.energy - alone.energy) / np.abs(alone.energies).sum(), force))
    worst = np.max(errors, axis=0)
    record_figure(f"mixed batch against single, l4m2 {dtype}", f"energy {worst[0]:.1e}, forces {worst[1]:.1e}")
    assert (worst < REORDERED[dtype]).all()
    assert potential.evaluate([]) == []


def test_repeated_calls_are_identical_to_the_last_bit():
    potential = load_potential(checkpoint_path("l6m2"), device="cpu")
    first, *others = [potential.evaluate([slab()])[0] for _ in range(5)]
    for other in others:
        assert other.energy == first.energy
        assert np.array_equal(other.forces, first.forces)


def test_thread_count_changes_rounding_only():
    potential = load_potential(checkpoint_path("l6m2"), dtype="float64", device="cpu")
    before = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results += potential.evaluate([slab()])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert max(difference(*results)) < REORDERED["float64"]


def test_concurrent_threads_get_their_own_results():
    potential = load_potential(checkpoint_path("l2m1"), dtype="float64", device="cpu")
    many = [slab() for _ in range(4)]
    for index, atoms in enumerate(many):
        atoms.positions[-1, 2] += 0.1 * index
    expected = [potential.evaluate([atoms])[0].energy for atoms in many]
    found = [0.0] * len(many)

    def work(index):
        found[index] = potential.evaluate([many[index]])[0].energy

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(many))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_seed_and_default_dtype_are_neither_read_nor_changed():
    expected = load_potential(checkpoint_path("l4m2"), device="cpu").evaluate([slab()])[0].forces
    torch.manual_seed(123)
    seeded = torch.random.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        found = load_potential(checkpoint_path("l4m2"), device="cpu").evaluate([slab()])[0].forces
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.array_equal(found, expected)
    assert torch.equal(torch.random.get_rng_state(), seeded)
    assert torch.is_grad_enabled()


def test_input_is_not_changed():
    atoms = slab()
    atoms.positions += 20.0
    before = atoms.copy()
    load_potential(checkpoint_path("l2m1"), device="cpu").evaluate([atoms])
    assert before == atoms
    assert atoms.info == before.info


def test_atomic_energies_sum_to_the_energy_references_included():
    stored = checkpoint("l2m1")
    references = torch.linspace(0, -50, 119, dtype=torch.float64)
    referenced = Potential(
        replace(stored, element_references=references), device="cpu", dtype="float32", frames="canonical"
    )
    (plain,) = load_potential(checkpoint_path("l2m1"), device="cpu").evaluate([slab()])
    (prediction,) = referenced.evaluate([slab()])
    assert prediction.energies.sum() == pytest.approx(prediction.energy, abs=1e-9)
    assert prediction.energy - plain.energy == pytest.approx(float(references[slab().numbers].sum()), abs=1e-9)


def test_mean_and_spread_of_both_normalisers_are_applied():
    stored = checkpoint("l2m1")
    raw = Potential(replace(stored, normalizers=Normalizers()), device="cpu", dtype="float64", frames="canonical")
    scaled = replace(stored, normalizers=Normalizers(energy_mean=3.0, energy_std=2.0, force_mean=0.3, force_std=5.0))
    (plain,) = raw.evaluate([slab()])
    (prediction,) = Potential(scaled, device="cpu", dtype="float64", frames="canonical").evaluate([slab()])
    assert prediction.energy == pytest.approx(2.0 * plain.energy + 3.0, rel=1e-12)
    np.testing.assert_allclose(prediction.forces, 5.0 * plain.forces + 0.3, rtol=1e-12)


def test_float32_stays_float32_inside_autocast():
    potential = load_potential(checkpoint_path("l2m1"), device="cpu")
    (expected,) = potential.evaluate([slab()])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = potential.evaluate([slab()])
        assert torch.is_autocast_enabled("cpu")
    assert found.energy == expected.energy
    assert np.array_equal(found.forces, expected.forces)


def test_reduced_matmul_precision_is_reported():
    potential = load_potential(checkpoint_path("l2m1"), device="cpu")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.warns(ReducedPrecisionWarning, match=r"set_float32_matmul_precision\('high'\) is in force"):
            potential.evaluate([slab()])
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_default_device_of_torch_does_not_matter():
    (expected,) = load_potential(checkpoint_path("multires"), device="cpu").evaluate([slab()])
    torch.set_default_device("meta")
    try:
        (found,) = load_potential(checkpoint_path("multires"), device="cpu").evaluate([slab()])
    finally:
        torch.set_default_device(None)
    assert np.array_equal(found.forces, expected.forces)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore::escn_calc.potential.TurningFramesWarning")
@pytest.mark.parametrize("forces", ["direct", "gradient"])
@pytest.mark.parametrize("model", ["l6m2", "multires"])
def test_cuda_agrees_with_cpu(model, forces):
    many = [slab(), molecule("CH3OH"), bulk("Ni"), Atoms("O")]
    for dtype in ("float32", "float64"):
        options = {"dtype": dtype, "forces": forces}
        on_cpu = load_potential(checkpoint_path(model), device="cpu", **options).evaluate(many)
        on_cuda = load_potential(checkpoint_path(model), device="cuda", **options).evaluate(many)
        again = load_potential(checkpoint_path(model), device="cuda", **options).evaluate(many)
        for cpu, cuda, repeat in zip(on_cpu, on_cuda, again, strict=True):
            scale = max(np.abs(cpu.forces).max(), 1.0)
            assert abs(cpu.energy - cuda.energy) / np.abs(cpu.energies).sum() < REORDERED[dtype]
            assert np.abs(cpu.forces - cuda.forces).max() / scale < REORDERED[dtype]
            assert np.array_equal(cuda.forces, repeat.forces)


def test_mean_reduction_divides_by_the_number_of_atoms():
    stored = checkpoint("l2m1")
    mean = replace(stored, config=replace(stored.config, energy_reduce="mean"))
    (total,) = Potential(stored, device="cpu", dtype="float64", frames="canonical").evaluate([slab()])
    (average,) = Potential(mean, device="cpu", dtype="float64", frames="canonical").evaluate([slab()])
    shift = stored.normalizers.energy_mean
    assert average.energy - shift == pytest.approx(1000 * (total.energy - shift) / len(slab()), rel=1e-10)


def test_energy_only_model():
    stored = checkpoint("l2m1")
    state = {key: value for key, value in stored.state.items() if not key.startswith("force_block")}
    config = replace(stored.config, regress_forces=False)
    card = stored.card.model_copy(update={"forces": None})
    energy_only = replace(stored, config=config, state=state, card=card)
    potential = Potential(energy_only, device="cpu", dtype="float32", frames="canonical")
    (prediction,) = potential.evaluate([slab()])
    assert prediction.forces is None
    assert prediction.forces_kind is None
    assert converged_longitudes(energy_only).longitudes > 3


def test_a_card_that_promises_forces_without_a_head_is_refused():
    stored = checkpoint("l2m1")
    state = {key: value for key, value in stored.state.items() if not key.startswith("force_block")}
    with pytest.raises(CheckpointError, match="direct forces, but the configuration has no force head"):
        replace(stored, config=replace(stored.config, regress_forces=False), state=state)


def test_overflow_is_an_error_not_a_nan():
    stored = checkpoint("l2m1")
    state = {key: value * 1e30 if "fc2_sphere" in key else value for key, value in stored.state.items()}
    potential = Potential(replace(stored, state=state), device="cpu", dtype="float32", frames="canonical")
    with pytest.raises(CalculationError, match=r"energy of structure 0 \(CH4\): not finite.*float64"):
        potential.evaluate([molecule("CH4"), molecule("H2O")])


@pytest.mark.parametrize(
    "failure",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_out_of_memory_is_named(failure, monkeypatch):
    potential = load_potential(checkpoint_path("l2m1"), device="cpu")

    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(FastESCN, "__call__", fail)
    with pytest.raises(OutOfMemoryError, match=r"structure 0 \(CH4\): out of memory on cpu; use a smaller structure"):
        potential.evaluate([molecule("CH4")])


def test_other_failures_of_torch_are_named(monkeypatch):
    potential = load_potential(checkpoint_path("l2m1"), device="cpu")

    def fail(*_, **__):
        raise RuntimeError("something else\nand a stack of C++")

    monkeypatch.setattr(FastESCN, "__call__", fail)
    with pytest.raises(CalculationError, match=r"structure 0 \(CH4\): the evaluation failed on cpu: something else$"):
        potential.evaluate([molecule("CH4")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "dtype is 'float16', but must be one of float32, float64"),
        ({"device": "tpu"}, "device is 'tpu', but must be one of auto, cpu, cuda, mps"),
        ({"frames": "random"}, "frames is 'random', but must be one of canonical, converged"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(InputError, match=message):
        load_potential(checkpoint_path("l2m1"), **options)


def test_missing_devices_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"'cuda' was asked for.*finds no CUDA device"):
        load_potential(checkpoint_path("l2m1"), device="cuda")
    with pytest.raises(InputError, match="no Apple GPU"):
        load_potential(checkpoint_path("l2m1"), device="mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(InputError, match="no float64"):
        load_potential(checkpoint_path("l2m1"), device="mps", dtype="float64")


def test_too_heavy_elements_are_refused():
    potential = load_potential(checkpoint_path("l2m1"), device="cpu")
    with pytest.raises(InputError, match="element table ends at"):
        potential.evaluate([Atoms("Og")])
