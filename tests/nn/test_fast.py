"""The fast path gives the numbers and the derivatives of the network, in every configuration, however it is divided."""

from dataclasses import replace

import pytest
import torch

from escn_calc.nn import blockwise, fast, fast_edges
from escn_calc.nn.fast import FastESCN, mixing_on_nodes_pays
from tests.nn.test_escn import SMALL, cluster, make

CONFIGS = {
    "published": {},
    "mmax = lmax": {"mmax_list": (3,)},
    "mmax 0": {"mmax_list": (0,)},
    "two resolutions": {"lmax_list": (3, 2), "mmax_list": (1, 2)},
    "two resolutions, the second larger": {"lmax_list": (1, 3), "mmax_list": (1, 2)},
    "smooth": {"grids": "resolved", "cutoff_envelope": 5, "max_neighbors": 0, "num_sphere_samples": 50},
    "energies only": {"regress_forces": False, "energy_reduce": "mean"},
    "as few longitudes as orders": {"edge_longitudes": 2},
    "one layer": {"num_layers": 1},
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


@pytest.fixture(autouse=True)
def always_fast(monkeypatch):
    monkeypatch.setattr(fast, "mixing_on_nodes_pays", lambda *_: True)


def graph(dtype=torch.float64):
    """Edges in no order, nodes with 0, 2, 4 and 5 edges into them and other numbers out of them."""
    positions, numbers, source, target = cluster(7)
    kept = (target != 0) & ~((target == 3) & (source > 2)) & ~((target == 5) & (source < 2)) & (source != 6)
    order = torch.randperm(int(kept.sum()), generator=torch.Generator().manual_seed(3))
    source, target = source[kept][order], target[kept][order]
    return numbers, source, target, (positions[source] - positions[target]).to(dtype)


def results(evaluate, inputs, **options):
    with torch.inference_mode():
        output = evaluate(*inputs, **options)
    return [output.node_energy] if output.forces is None else [output.node_energy, output.forces]


def assert_equal(found, expected, tolerance):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_the_numbers_of_the_network(config, dtype):
    network = make(replace(SMALL, **config), dtype)
    inputs = graph(dtype)
    assert_equal(results(FastESCN(network), inputs), results(network, inputs), TOLERANCE[dtype])


@pytest.mark.parametrize("edges_at_once", [None, 1, 7])
@pytest.mark.parametrize(("edges", "numbers"), [(1, 1), (6, 3000), (1000, 1)])
def test_however_it_is_divided(monkeypatch, edges, numbers, edges_at_once):
    monkeypatch.setattr(fast_edges, "EDGES_PER_THREAD", edges)
    monkeypatch.setattr(blockwise, "BYTES_PER_THREAD", 8 * numbers)
    network = make(replace(SMALL, **CONFIGS["two resolutions"]))
    inputs = graph()
    found = results(FastESCN(network), inputs, edges_at_once=edges_at_once)
    assert_equal(found, results(network, inputs), TOLERANCE[torch.float64])


def derivatives(evaluate, **options):
    """First derivatives of energies and forces, and second ones of energies."""
    numbers, source, target, vectors = graph()
    vectors.requires_grad_()
    output = evaluate(numbers, source, target, vectors, **options)
    weights = torch.linspace(1, 2, 21, dtype=torch.float64).view(7, 3)
    (of_forces,) = torch.autograd.grad((output.forces * weights).sum(), vectors, retain_graph=True)
    (slope,) = torch.autograd.grad(output.node_energy.sum(), vectors, create_graph=True)
    (second,) = torch.autograd.grad((slope * slope.detach().roll(1, 0)).sum(), vectors)
    return [of_forces, slope.detach(), second]


@pytest.mark.parametrize(
    "options", [{}, {"checkpoint_layers": True}, {"checkpoint_layers": True, "edges_at_once": 5}], ids=str
)
@pytest.mark.parametrize("config", ["published", "two resolutions", "smooth"])
def test_the_derivatives_of_the_network(monkeypatch, config, options):
    monkeypatch.setattr(fast_edges, "EDGES_PER_THREAD", 6)
    monkeypatch.setattr(blockwise, "BYTES_PER_THREAD", 30_000)
    network = make(replace(SMALL, **CONFIGS[config]))
    assert_equal(derivatives(FastESCN(network), **options), derivatives(network), 1e-10)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_no_edges(count):
    empty = torch.zeros(0, dtype=torch.long)
    inputs = torch.ones(count, dtype=torch.long), empty, empty, torch.zeros(0, 3, dtype=torch.float64)
    network = make(SMALL)
    for ours, theirs in zip(results(FastESCN(network), inputs), results(network, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_weights_that_change_count_at_once():
    network = make(SMALL)
    evaluate, inputs = FastESCN(network), graph()
    before = results(evaluate, inputs)
    other = {name: 1.1 * value for name, value in network.state_dict().items() if "so2" in name}
    network.load_state_dict(other, strict=False)
    after = results(evaluate, inputs)
    assert not torch.equal(before[0], after[0])
    assert_equal(after, results(network, inputs), TOLERANCE[torch.float64])


def test_given_frames():
    network = make(SMALL)
    inputs = graph()
    frames = torch.linalg.qr(torch.randn(len(inputs[1]), 3, 3, dtype=torch.float64))[0]
    assert_equal(results(FastESCN(network), (*inputs, frames)), results(network, (*inputs, frames)), 1e-12)


def test_autocast_is_left_to_the_network():
    network, inputs = make(SMALL, torch.float32), graph(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(results(FastESCN(network), inputs)[0], results(network, inputs)[0])


@pytest.mark.parametrize(("neighbours", "pays"), [(1, False), (3, False), (8, True), (20, True)])
def test_where_mixing_on_nodes_pays(neighbours, pays):
    config = replace(SMALL, lmax_list=(6,), sphere_channels=128, hidden_channels=256)
    assert mixing_on_nodes_pays(config, 10, 10 * neighbours) is pays
