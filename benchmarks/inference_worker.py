"""What the two processes behind benchmarks/reference.py share; any environment with NumPy and torch can run it.

Orders arrive as lines on the standard input (:mod:`benchmarks.training_worker`):

- ``call N``, ``graph N``, ``network N`` do it N times; answered by lists ``wall`` and ``processor`` in seconds;
- ``evaluate`` is answered by energy (eV) and forces (eV/Å) of one structure;
- ``count`` is answered by the multiply-adds of one call, as torch counts them;
- ``rate`` is answered by the multiply-adds per second of a square matrix product in float32;
- ``memory`` is answered by resident and peak memory in bytes.
"""

from collections.abc import Callable

from benchmarks.training_worker import Answer, Orders, memory
from escn_calc.bench.arithmetic import matrix_product_rates, multiply_adds
from escn_calc.bench.timing import timed


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
            orders.answer(dict(matrix_product_rates()))
        else:
            orders.answer(memory())
