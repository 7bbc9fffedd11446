"""Taking node values to edges and summing edge values on nodes are each other's derivative."""

import pytest
import torch

from escn_calc.nn.incidence import Incidence

NODES = torch.tensor([2, 0, 2, 3, 0, 2])


def values(rows, seed):
    return torch.randn(rows, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_take_and_sum():
    incidence = Incidence(NODES, 5)
    nodes, edges = values(5, 0), values(6, 1)
    assert torch.equal(incidence.take(nodes), nodes[NODES])
    expected = torch.stack([edges[node == NODES].sum(0) for node in range(5)])
    assert torch.allclose(incidence.sum(edges), expected, rtol=0, atol=1e-15)
    assert torch.equal(incidence.sum(edges)[[1, 4]], torch.zeros(2, 4, 3).double())


@pytest.mark.parametrize("nodes", [torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0, 0])])
def test_no_edges_and_one_node(nodes):
    incidence = Incidence(nodes, 1)
    edges = values(len(nodes), 2)
    assert torch.allclose(incidence.sum(edges), edges.sum(0, keepdim=True))
    assert incidence.take(values(1, 3)).shape == (len(nodes), 4, 3)


def test_derivatives_of_first_and_second_order():
    incidence = Incidence(NODES, 5)
    nodes = values(5, 4).requires_grad_()

    def function(x):
        return incidence.sum(incidence.take(x).sin()).square()

    assert torch.autograd.gradcheck(function, nodes)
    assert torch.autograd.gradgradcheck(function, nodes)


def test_sums_have_identical_bits_with_several_threads():
    generator = torch.Generator().manual_seed(0)
    nodes = torch.randint(50, (20_000,), generator=generator)
    edges = torch.randn(20_000, 64, generator=generator)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        totals = [Incidence(nodes, 50).sum(edges) for _ in range(5)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(total, totals[0]) for total in totals)
