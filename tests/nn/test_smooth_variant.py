"""Resolved grids, rolls, orientations and layer checkpointing of the smooth variant."""

from dataclasses import asdict, replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from escn_calc.checkpoints.checkpoint import Checkpoint, derived_shapes, expected_shapes
from escn_calc.checkpoints.fair_config import describe_model
from escn_calc.checkpoints.native import read_native, write_native
from escn_calc.checkpoints.network import build_network
from escn_calc.errors import CheckpointError
from escn_calc.graph import radius_graph
from escn_calc.nn import ESCN, ESCNConfig
from escn_calc.nn.config import LARGEST_RESOLVED
from escn_calc.nn.harmonics import solid_harmonics
from escn_calc.nn.heads import PointHarmonics
from escn_calc.nn.rotations import edge_frames, rolled
from escn_calc.nn.sphere_grid import (
    LEBEDEV_DEGREES,
    edge_grid_matrices,
    edge_grid_shape,
    gauss_latitudes,
    grid_points,
    lebedev_points,
    node_grid_matrices,
    node_grid_size,
)
from escn_calc.nn.sphere_points import golden_spiral, output_points
from escn_calc.structures import StructureBatch
from tests.smooth import (
    TYPICAL_FORCE,
    energy_and_gradient,
    rattled_slab,
    smooth_checkpoint,
    smooth_config,
    write_smooth_model,
)

RESOLVED = ESCNConfig(lmax_list=(3,), mmax_list=(2,), grids="resolved", max_neighbors=0)
MEV = 1e-3


def graph_inputs(atoms, config):
    batch = StructureBatch.from_atoms([atoms])
    graph = radius_graph(batch, config.cutoff, config.max_neighbors)
    return batch.numbers, graph.source, graph.target, graph.vectors


@pytest.mark.parametrize("latitudes", [1, 4, 7, 12])
def test_gauss_grids_integrate_products_of_harmonics_up_to_their_degree(latitudes):
    """Y_l Y_l' with l + l' <= 2 n - 1 integrates to the identity; one degree more does not."""
    points, weights = grid_points(latitudes, 2 * latitudes, gauss_latitudes)
    assert weights.sum().item() == pytest.approx(4 * torch.pi, rel=1e-14)
    torch.testing.assert_close(points.norm(dim=-1), torch.ones(len(points), dtype=torch.float64), rtol=0, atol=1e-15)
    degree = latitudes - 1
    lower, upper = solid_harmonics(points, degree), solid_harmonics(points, degree + 1)
    overlap = lower.T @ (weights[:, None] * upper)
    size = (degree + 1) ** 2
    identity = torch.eye(size, (degree + 2) ** 2, dtype=torch.float64)
    torch.testing.assert_close(overlap, identity, rtol=0, atol=1e-13)
    beyond = upper.T @ (weights[:, None] * upper) - torch.eye((degree + 2) ** 2, dtype=torch.float64)
    assert beyond.abs().max() > 1e-2


@pytest.mark.parametrize("degree", LEBEDEV_DEGREES)
def test_lebedev_grids_integrate_products_of_harmonics_up_to_their_degree(degree):
    points, weights = lebedev_points(degree)
    assert weights.sum().item() == pytest.approx(4 * torch.pi, rel=1e-13)
    assert weights.min() > 0
    assert len(points) < 0.75 * (degree + 1) ** 2 / 2 or degree < 10
    lower = solid_harmonics(points, min(degree // 2, 11))
    overlap = lower.T @ (weights[:, None] * lower)
    torch.testing.assert_close(overlap, torch.eye(lower.shape[1], dtype=torch.float64), rtol=0, atol=1e-12)
    if degree <= 21:
        beyond = solid_harmonics(points, degree // 2 + 1)
        overlap = beyond.T @ (weights[:, None] * beyond)
        assert (overlap - torch.eye(len(overlap), dtype=torch.float64)).abs().max() > 1e-2


def test_the_next_lebedev_grid_is_taken():
    assert len(lebedev_points(25)[0]) == len(lebedev_points(29)[0]) == 302
    assert LEBEDEV_DEGREES[-1] == 2 * LARGEST_RESOLVED - 1


@pytest.mark.parametrize("config", [RESOLVED, replace(RESOLVED, lmax_list=(6,), mmax_list=(3,), resolution=7)])
def test_resolved_grids_return_the_coefficients_they_are_given(config):
    for to_grid, from_grid in (node_grid_matrices(config), edge_grid_matrices(config, 0)):
        lmax, mmax = config.lmax_list[0], config.mmax_list[0]
        kept = [index for index in range((lmax + 1) ** 2) if abs(order(index)) <= mmax]
        identity = torch.eye(len(kept), dtype=torch.float64)
        torch.testing.assert_close(from_grid[:, kept].T @ to_grid[:, kept], identity, rtol=0, atol=1e-13)


def order(index):
    degree = int(index**0.5)
    return index - degree * (degree + 1)


def test_shapes_of_resolved_grids():
    assert edge_grid_shape(RESOLVED, 0) == (4, 19)
    assert node_grid_size(RESOLVED) == 434
    chosen = replace(RESOLVED, resolution=9, edge_longitudes=7)
    assert edge_grid_shape(chosen, 0) == (4, 7)
    assert node_grid_size(chosen) == 110
    assert edge_grid_shape(replace(chosen, mmax_list=(1,)), 0) == (4, 4)
    assert edge_grid_shape(replace(RESOLVED, mmax_list=(0,)), 0) == (4, 1)


def test_output_points():
    points, weights = output_points(replace(RESOLVED, num_sphere_samples=2 * 6**2))
    assert points.shape == (72, 3)
    assert weights.sum().item() == pytest.approx(1, rel=1e-14)
    second_moments = points.T @ (weights[:, None] * points)
    torch.testing.assert_close(second_moments, torch.eye(3, dtype=torch.float64) / 3, rtol=0, atol=1e-15)


def test_published_output_points_keep_their_radii_and_equal_weights():
    points, weights = output_points(ESCNConfig(num_sphere_samples=50))
    assert torch.equal(points, golden_spiral(50))
    assert (weights == 1 / 50).all()


def test_direct_forces_are_weighted_by_the_quadrature():
    """A force head whose samples are a vector field v . p returns v / 3: the second moments of the points."""
    config = replace(smooth_config(), regress_forces=True, num_sphere_samples=2 * 5**2)
    network = ESCN(config, torch.float64)
    vector = torch.tensor([0.3, -1.1, 0.7], dtype=torch.float64)
    network.load_state_dict(smooth_checkpoint().state, strict=False)
    network.force_block.forward = lambda samples: (network.sphere_points @ vector).expand(len(samples), -1)
    with torch.no_grad():
        forces = network(*graph_inputs(rattled_slab(), config)).forces
    torch.testing.assert_close(forces, (vector / 3).expand(14, 3), rtol=0, atol=1e-14)


def test_resolved_tables_keep_double_precision_and_stay_out_of_files():
    config = smooth_config()
    network = ESCN(config, torch.float64)
    assert set(network.state_dict()) == set(expected_shapes(config)) | set(derived_shapes(config))
    harmonics = next(network.sphharm_weights.buffers())
    assert torch.equal(harmonics, solid_harmonics(network.sphere_points, config.lmax_list[0]))
    assert not torch.equal(harmonics, harmonics.float().double())


def test_published_tables_are_those_of_fair():
    config = ESCNConfig(num_layers=1, sphere_channels=4, hidden_channels=4, edge_channels=4)
    network = ESCN(config, torch.float64)
    assert set(network.state_dict()) == set(expected_shapes(config)) | set(derived_shapes(config))
    assert torch.equal(network.sphere_points, golden_spiral(128).float().double())


def test_point_harmonics_of_two_resolutions():
    config = ESCNConfig(lmax_list=(3, 1), mmax_list=(1, 1), sphere_channels=2, num_sphere_samples=20)
    points = golden_spiral(20)
    x = torch.randn(5, 16, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = PointHarmonics(config, points).double()(x)
    expected = torch.cat((solid_harmonics(points, 3) @ x[..., :2], solid_harmonics(points, 1) @ x[:, :4, 2:]), -1)
    torch.testing.assert_close(samples, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grids": "fine"}, "grids is 'fine', but must be 'published' or 'resolved'"),
        ({"num_sphere_samples": 100}, r"num_sphere_samples is 100, .* take 2 n\^2 points, such as 98 or 128"),
        ({"num_sphere_samples": 1}, r"such as 2 or 2"),
        ({"resolution": 3}, "resolution is 3, but degrees up to 3 need at least 4"),
        ({"resolution": 67}, "resolution is 67, but resolved grids are known up to 66"),
        ({"edge_longitudes": 4}, "edge_longitudes is 4, but orders up to 2 need at least 5"),
    ],
)
def test_refused_configurations(change, message):
    with pytest.raises(CheckpointError, match=message):
        replace(RESOLVED, **change)


def test_resolved_resolutions_may_be_odd():
    assert node_grid_size(replace(RESOLVED, resolution=9)) == 110
    with pytest.raises(CheckpointError, match="must be an even number of latitudes"):
        replace(RESOLVED, grids="published", resolution=9)


def energy(network, vectors, inputs, frames=None):
    numbers, source, target, _ = inputs
    with torch.inference_mode():
        return network(numbers, source, target, vectors, frames).node_energy.sum().item()


DRIVEN = {"gain": 1.1, "resolution": None}
"""Default grids, and weights that drive the activations far out of their linear range."""


def spread(mmax=1, **changes):
    """Largest change of the energy (eV) of a slab under random rotations, and under random rolls of all frames."""
    model = smooth_checkpoint(mmax=mmax, **DRIVEN)
    config = replace(model.config, **changes)
    network = ESCN(config, torch.float64).requires_grad_(False)
    network.load_state_dict(model.state, strict=False)
    inputs = graph_inputs(rattled_slab(), config)
    vectors = inputs[-1]
    rotations = torch.from_numpy(Rotation.random(6, rng=1).as_matrix())
    turned = [energy(network, vectors @ rotation.T, inputs) for rotation in rotations]
    frames = edge_frames(vectors / vectors.norm(dim=-1, keepdim=True))
    generator = torch.Generator().manual_seed(2)
    angles = 2 * torch.pi * torch.rand(6, len(frames), generator=generator, dtype=torch.float64)
    rolls = [energy(network, vectors, inputs, rolled(frames, a)) for a in angles]
    scale = model.normalizers.energy_std
    return (max(turned) - min(turned)) * scale, (max(rolls) - min(rolls)) * scale


@pytest.mark.parametrize("mmax", [1, 2])
def test_neither_orientation_nor_rolls_matter(mmax, record_figure):
    rotation, roll = spread(mmax)
    record_figure(
        f"smooth random model, mmax {mmax}, default grids",
        f"rotation {rotation / MEV:.1e} meV, roll {roll / MEV:.1e} meV",
    )
    assert rotation < 1 * MEV
    assert roll < 1 * MEV


@pytest.mark.parametrize(
    "coarse", [{"resolution": 3}, {"num_sphere_samples": 2 * 3**2}, {"grids": "published"}], ids=lambda d: next(iter(d))
)
def test_the_orientation_matters_where_nodes_or_outputs_are_coarse(coarse):
    rotation, _ = spread(**coarse)
    assert rotation > 5 * MEV


def test_rolls_do_not_matter_with_the_fewest_longitudes_where_orders_end_at_one():
    _, roll = spread(edge_longitudes=3)
    assert roll < 1e-9 * MEV


@pytest.mark.parametrize(
    "coarse", [{"mmax": 2, "edge_longitudes": 5}, {"grids": "published"}], ids=lambda d: next(iter(d))
)
def test_rolls_matter_where_the_edge_grid_is_coarse(coarse):
    _, roll = spread(**coarse)
    assert roll > 5 * MEV


def test_forces_of_the_smooth_model_are_of_the_order_of_one_ev_per_angstrom():
    model = smooth_checkpoint()
    _, gradient = energy_and_gradient(build_network(model, torch.float64), rattled_slab(seed=5))
    typical = (gradient * model.normalizers.energy_std).square().mean().sqrt().item()
    assert 0.3 * TYPICAL_FORCE < typical < 3 * TYPICAL_FORCE


def test_leaving_the_roll_out_of_the_derivative_changes_nothing_where_it_does_not_matter():
    model = smooth_checkpoint()
    without = build_network(model, torch.float64, roll_in_derivative=False)
    assert not without.roll_in_derivative
    exact = ESCN(model.config, torch.float64, roll_in_derivative=True).requires_grad_(False)
    exact.load_state_dict(model.state, strict=False)
    energies, gradients = zip(*(energy_and_gradient(n, rattled_slab()) for n in (without, exact)), strict=True)
    torch.testing.assert_close(energies[0], energies[1], rtol=1e-13, atol=0)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-6 * gradients[1].abs().max()


@pytest.mark.parametrize("asked", [True, False])
def test_published_networks_leave_the_roll_out_on_request_only(asked):
    model = smooth_checkpoint()
    config = replace(model.config, grids="published", cutoff_envelope=None, repulsion=None)
    checkpoint = Checkpoint(config, model.state, model.normalizers, None, model.card)
    assert build_network(checkpoint, torch.float64, roll_in_derivative=asked).roll_in_derivative is asked


SIX_LAYERS = smooth_config(layers=6)


def six_layers():
    return build_network(smooth_checkpoint(layers=6), torch.float64)


@pytest.mark.parametrize("config", [{}, {"cutoff_envelope": None}], ids=["envelope", "no envelope"])
def test_checkpointed_layers_give_the_same_bits(config):
    network = build_network(smooth_checkpoint(layers=3, **config), torch.float64)
    numbers, source, target, vectors = graph_inputs(rattled_slab(), network.config)
    results = []
    for recompute in (False, True):
        v = vectors.clone().requires_grad_()
        value = network(numbers, source, target, v, checkpoint_layers=recompute).node_energy.sum()
        (slope,) = torch.autograd.grad(value, v, create_graph=True)
        (second,) = torch.autograd.grad((slope * slope.detach().roll(1, 0)).sum(), v)
        results.append((value.detach(), slope.detach(), second))
    for plain, again in zip(*results, strict=True):
        assert torch.equal(plain, again)


def test_checkpointed_layers_give_weights_the_same_gradients():
    inputs = graph_inputs(rattled_slab(), SIX_LAYERS)
    gradients = []
    for recompute in (False, True):
        network = six_layers().requires_grad_(True)
        network(*inputs, checkpoint_layers=recompute).node_energy.sum().backward()
        gradients.append([weight.grad for weight in network.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)


def saved_bytes(network, inputs, recompute):
    """Bytes of the distinct storages kept for the derivative."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    numbers, source, target, vectors = inputs
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(numbers, source, target, vectors.clone().requires_grad_(), checkpoint_layers=recompute)
    return sum(storage.nbytes() for storage in storages.values())


def test_checkpointed_layers_save_memory(record_figure):
    inputs = graph_inputs(rattled_slab(), SIX_LAYERS)
    plain, again = (saved_bytes(six_layers(), inputs, recompute) for recompute in (False, True))
    record_figure("kept for the gradient, 6 layers", f"{plain / 2**20:.1f} MB, checkpointed {again / 2**20:.1f} MB")
    assert plain > 3 * again


def test_nothing_is_checkpointed_where_no_derivative_is_recorded():
    network = six_layers()
    inputs = graph_inputs(rattled_slab(), SIX_LAYERS)
    with torch.inference_mode():
        plain, asked = (network(*inputs, checkpoint_layers=recompute).node_energy for recompute in (False, True))
    assert torch.equal(plain, asked)


def test_native_round_trip_keeps_the_variant(tmp_path):
    folder = write_smooth_model(tmp_path / "model")
    copy = read_native(folder)
    assert copy.config == smooth_config()
    assert (copy.config.grids, copy.config.cutoff_envelope, copy.config.repulsion) == ("resolved", 6, "zbl")
    assert copy.card.forces == "gradient"
    assert all(torch.equal(copy.state[key], tensor) for key, tensor in smooth_checkpoint().state.items())


def test_cards_without_the_new_options_load(tmp_path):
    """Cards written before the smooth variant existed mean the published network."""
    model = smooth_checkpoint()
    config = replace(model.config, grids="published", cutoff_envelope=None, repulsion=None)
    write_native(Checkpoint(config, model.state, model.normalizers, None, model.card), tmp_path / "model")
    card = tmp_path / "model" / "card.json"
    lines = card.read_text().splitlines(keepends=True)
    old = [line for line in lines if not any(f'"{name}":' in line for name in ("grids", "cutoff_envelope"))]
    old_text = "".join(old).replace(',\n   "repulsion": null', "")
    assert "repulsion" not in old_text
    card.write_text(old_text)
    assert read_native(tmp_path / "model").config == config


@pytest.mark.parametrize(("option", "value"), [("cutoff_envelope", 6), ("grids", "resolved"), ("repulsion", "zbl")])
def test_fair_files_cannot_name_the_variant(option, value):
    known = {"lmax_list": [4], "mmax_list": [2], "max_neighbors": 20}
    assert describe_model({"model": "escn", "model_attributes": known}).config.grids == "published"
    with pytest.raises(CheckpointError, match=f"option {option} .* is not known to eSCN"):
        describe_model({"model": "escn", "model_attributes": {**known, option: value}})


def test_the_variant_is_off_by_default():
    off = {"grids": "published", "cutoff_envelope": None, "repulsion": None}
    assert off.items() <= asdict(ESCNConfig()).items()
    assert not ESCNConfig().resolved
