"""The traced and the compiled step against the plain objective."""

import pytest
import torch
from torch_geometric.data import Batch

from escn_calc.errors import InputError
from escn_calc.training.compiled import CompiledObjective
from escn_calc.training.loader import PaddedSize
from tests.training.objectives import dataset, objective


def batch_of(*indices):
    data = dataset()
    return Batch.from_data_list([data[index] for index in indices])


def size_of(batch):
    return PaddedSize(len(batch.batch), batch.edge_index.shape[1], batch.num_graphs)


def gradients(module, plain, batch, counts=None):
    """Loss, sums and gradients of a batch."""
    plain.zero_grad(set_to_none=True)
    losses = module(batch, counts)
    (3 * losses.total).backward()
    return losses, {name: weight.grad for name, weight in plain.named_parameters()}


def assert_agrees(backend, forces, dtype, tolerance):
    plain = objective(forces, dtype=dtype)
    plain.network.sphere_embedding.weight.requires_grad_(False)
    first, second = batch_of(0, 1), batch_of(2, 3)
    second.has_forces[::2] = False
    second = Batch.from_data_list(second.to_data_list())
    compiled = CompiledObjective(plain, size_of(first), backend)
    for batch, counts in ((first, None), (second, torch.tensor([3.0, 20.0, 1.5], dtype=torch.float64))):
        if size_of(batch) != size_of(first):
            batch = first.clone()
            batch.energy = batch.energy + 1.0
        expected, wanted = gradients(plain, plain, batch, counts)
        found, got = gradients(compiled, plain, batch, counts)
        assert found.total.item() == pytest.approx(expected.total.item(), rel=tolerance)
        assert torch.allclose(found.sums, expected.sums, rtol=tolerance)
        assert got.pop("network.sphere_embedding.weight") is None
        for name, gradient in got.items():
            scale = wanted[name].abs().max().item()
            assert (gradient - wanted[name]).abs().max().item() <= tolerance * scale, name
        with torch.no_grad():
            for weight in plain.parameters():
                weight.mul_(1.01)


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_traced_step_agrees_with_the_plain_one(forces):
    assert_agrees("eager", forces, torch.float64, 1e-11)


@pytest.mark.slow
def test_compiled_step_agrees_with_the_plain_one():
    assert_agrees("inductor", "gradient", torch.float32, 1e-4)


def test_other_sizes_and_evaluation_use_the_plain_objective():
    plain, batch = objective(), batch_of(0, 1)
    compiled = CompiledObjective(plain, PaddedSize(1, 1, 1), "inductor")
    assert torch.equal(compiled(batch).total, plain(batch).total)
    compiled = CompiledObjective(plain, size_of(batch), "inductor")
    with torch.no_grad():
        assert not compiled(batch).total.requires_grad


def test_missing_compiler_is_named(monkeypatch):
    inductor = pytest.importorskip("torch._inductor.config")
    batch = batch_of(0)
    torch.compiler.reset()
    without = inductor.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True})
    with without, pytest.raises(InputError, match=r"needs a working C\+\+ compiler .* train without compilation"):
        CompiledObjective(objective(), size_of(batch))
