"""Channel maps with fewer bits: what is reduced, what is not, and by how much results change."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from escn_calc.nn import fast, products
from escn_calc.nn.fast import FastESCN
from escn_calc.nn.products import BFloat16Linear, TF32Linear, reduce_products, sum_of_products
from tests.nn.test_escn import SMALL, make
from tests.nn.test_fast import graph, results

#: Relative to the largest value; each factor is rounded by up to 2e-3.
BFLOAT16 = 7e-3


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def mixing_on_nodes(request, monkeypatch):
    monkeypatch.setattr(fast, "mixing_on_nodes_pays", lambda *_: request.param)


def reduced(matmul="bfloat16"):
    network = make(SMALL, torch.float32)
    reduce_products(network, matmul)
    return network


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def test_results_change_by_the_rounding_of_channel_maps(mixing_on_nodes):
    inputs = graph(torch.float32)
    expected = results(make(SMALL, torch.float32), inputs)
    for found, exact in zip(results(FastESCN(reduced()), inputs), expected, strict=True):
        assert found.dtype == torch.float32
        assert 1e-5 < relative(found, exact) < BFLOAT16


def test_both_paths_multiply_what_is_rounded_alike(monkeypatch):
    network, inputs = reduced(), graph(torch.float32)
    monkeypatch.setattr(fast, "mixing_on_nodes_pays", lambda *_: True)
    for found, plain in zip(results(FastESCN(network), inputs), results(network, inputs), strict=True):
        assert relative(found, plain) < BFLOAT16


def test_gradients_change_likewise(mixing_on_nodes):
    slopes = []
    for network in (reduced(), make(SMALL, torch.float32)):
        numbers, source, target, vectors = graph(torch.float32)
        vectors.requires_grad_()
        energies = FastESCN(network)(numbers, source, target, vectors).node_energy
        slopes += torch.autograd.grad(energies.sum(), vectors)
    assert slopes[0].dtype == torch.float32
    assert 1e-5 < relative(*slopes) < 2 * BFLOAT16


def test_edges_and_heads_stay_as_they_are():
    network = reduced()
    kinds = {name: type(module) for name, module in network.named_modules() if hasattr(module, "weight")}
    kept = {name for name, kind in kinds.items() if kind is not BFloat16Linear}
    inside = {name for name in kept if name.startswith("layer_blocks")}
    assert inside == {name for name in kinds if ".edge_block." in name}
    assert {"energy_block.fc1", "force_block.fc3", "sphere_embedding"} <= kept
    assert not {tensor.dtype for tensor in network.buffers()} - {torch.float32}


class DtypesOfProducts(TorchDispatchMode):
    """Collects the name and dtype of every matrix product; those of rotations and grids are batched ones."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm", "addmm_", "bmm", "baddbmm"):
            self.seen.add((name, found.dtype))
        return found


def test_rotations_and_grids_multiply_in_float32(mixing_on_nodes):
    network, inputs = reduced(), graph(torch.float32)
    with torch.no_grad(), DtypesOfProducts() as products_made:
        FastESCN(network)(*inputs)
    assert ("mm", torch.bfloat16) in products_made.seen
    assert {dtype for name, dtype in products_made.seen if name != "mm"} == {torch.float32}


def test_edges_are_those_of_the_exact_network():
    numbers, *edges = graph(torch.float32)
    networks = reduced(), make(SMALL, torch.float32)
    of_reduced, of_exact = (FastESCN(network)._edges(len(numbers), *edges, None, None)[0] for network in networks)
    for name in ("basis", "envelope", "wigner"):
        torch.testing.assert_close(getattr(of_reduced, name), getattr(of_exact, name), rtol=0, atol=0)
    torch.testing.assert_close(of_reduced.target.rows, of_exact.target.rows, rtol=0, atol=0)


def test_sums_are_rounded_once():
    ones = torch.ones(1, 1)
    pairs = [(ones, ones), (ones * 2**-8, ones), (ones * 2**-8, ones)]
    small = [(x, w.bfloat16()) for x, w in pairs]
    assert sum_of_products(small).item() == sum_of_products(pairs).item() == 1 + 2**-7


def test_tf32_switches_torch_for_its_own_products_only(monkeypatch):
    exact, seen = torch.nn.Linear(3, 2), []
    real = products._tf32
    setting = torch.backends.cuda.matmul
    before = torch.get_float32_matmul_precision(), setting.fp32_precision

    def watched():
        seen.append(setting.fp32_precision)
        return real()

    monkeypatch.setattr(products, "_tf32", watched)
    x = torch.randn(4, 3, requires_grad=True)
    mapped = TF32Linear(exact)(x)
    torch.testing.assert_close(mapped, exact(x))
    (gradient,) = torch.autograd.grad(mapped.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    twice = 2 * exact.weight.T @ exact.weight
    torch.testing.assert_close(second, twice.sum(0).expand(4, 3))
    assert seen == [before[1]] * 4
    assert (torch.get_float32_matmul_precision(), setting.fp32_precision) == before


def test_tf32_is_switched_off_after_an_error():
    before = torch.backends.cuda.matmul.fp32_precision
    with pytest.raises(RuntimeError), products._tf32():
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        raise RuntimeError
    assert torch.backends.cuda.matmul.fp32_precision == before
