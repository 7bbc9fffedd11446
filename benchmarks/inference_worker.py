"""What the two processes behind benchmarks/reference.py share; any environment with NumPy and torch can run it.

Orders arrive as lines on the standard input (:mod:`benchmarks.training_worker`):

- ``call N``, ``graph N``, ``network N`` do it N times; answered by lists ``wall`` and ``processor`` in seconds;
- ``evaluate`` is answered by energy (eV) and forces (eV/Å) of one structure;
- ``count`` is answered by the multiply-adds of one call, as torch counts them;
- ``rate`` is answered by the multiply-adds per second of a square matrix product in float32;
- ``memory`` is answered by resident and peak memory in bytes.
"""

import time
from collections.abc import Callable

import torch

from benchmarks.multiply_adds import multiply_adds
from benchmarks.training_worker import Answer, Orders, memory

#: Rows and columns of the matrices behind ``rate``.
SIZE = 1536


def timed(call: Callable[[], object], repeats: int) -> dict[str, list[float]]:
    """Wall-clock and processor seconds of each of several calls."""
    seconds: dict[str, list[float]] = {"wall": [], "processor": []}
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        call()
        seconds["wall"].append(time.perf_counter() - wall)
        seconds["processor"].append(time.process_time() - processor)
    return seconds


def matrix_products() -> dict[str, float]:
    """Multiply-adds per second of wall-clock and of processor time, the best of five products."""
    matrix = torch.ones(SIZE, SIZE)
    torch.mm(matrix, matrix)
    seconds = timed(lambda: torch.mm(matrix, matrix), 5)
    return {name: SIZE**3 / min(values) for name, values in seconds.items()}


def follow(
    orders: Orders, facts: Answer, calls: dict[str, Callable[[], object]], evaluate: Callable[[], Answer]
) -> None:
    """Do as ordered until the orders end; ``facts`` are told first."""
    orders.answer(facts)
    for words in orders:
        if words[0] in calls:
            orders.answer(dict(timed(calls[words[0]], int(words[1]))))
        elif words[0] == "evaluate":
            orders.answer(evaluate())
        elif words[0] == "count":
            orders.answer({"multiply_adds": multiply_adds(calls["call"])})
        elif words[0] == "rate":
            orders.answer(dict(matrix_products()))
        else:
            orders.answer(memory())
