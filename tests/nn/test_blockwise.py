"""Functions of rows in blocks: the same values and derivatives, whatever the blocks."""

import pytest
import torch

from escn_calc.nn import blockwise as module
from escn_calc.nn.blockwise import blockwise, rows_at_once


def numbers(rows, seed):
    return torch.randn(rows, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pairs_summed(x, y):
    """Two rows of the inputs make one of the result."""
    return (x.sin() * y.square()).unflatten(0, (-1, 2)).sum(1)


@pytest.mark.parametrize("rows", [2, 4, 6, 100])
def test_values_and_derivatives(rows):
    x, y = numbers(10, 0), numbers(10, 1)
    assert torch.equal(blockwise(pairs_summed, rows, x, y), pairs_summed(x, y))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda value: blockwise(pairs_summed, rows, value, y), x)


@pytest.mark.parametrize("recorded", [False, True])
def test_blocks_where_no_derivatives_are_recorded(recorded):
    seen = []
    with torch.set_grad_enabled(recorded):
        blockwise(lambda x: seen.append(len(x)) or x, 4, numbers(10, 0).requires_grad_())
    assert seen == ([10] if recorded else [4, 4, 2])


def test_rows_that_suit_the_caches(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(module, "BYTES_PER_THREAD", 4000)
    like = torch.zeros(7, 1)
    assert rows_at_once(100, like) == 20
    assert rows_at_once(100, like.double()) == 10
    assert rows_at_once(10_000, like) == 1
    assert rows_at_once(100, like.to("meta")) == 7
