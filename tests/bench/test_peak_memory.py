"""What counts as memory, and what does not."""

import torch

from escn_calc.bench.peak_memory import peak_memory


def test_peak_memory_counts_what_is_alive_together():
    x = torch.zeros(1000)

    def chain():
        first = x + 1
        second = first + 1
        del first
        return (second * 2)[:10]

    assert peak_memory(chain) == 2 * x.nbytes
    assert peak_memory(lambda: x.view(10, 100)[3:]) == 0


def test_peak_memory_counts_what_is_kept_for_derivatives():
    x = torch.zeros(1000, requires_grad=True)

    def chain():
        values = x
        for _ in range(10):
            values = values.exp()
        return values

    assert peak_memory(chain) == 10 * x.nbytes
