"""What the processes behind benchmarks/training.py share; it needs NumPy alone, so that any environment can run it.

Orders arrive as lines on the standard input, each is answered by one line of JSON; the end of the input ends a process.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

import numpy as np

Item = TypeVar("Item")
Answer = dict[str, object]

ENDLESS = 10**9
"""Batches of an epoch that never ends."""


class Orders:
    """The conversation with the process that gives the orders; everything else that is printed goes to stderr."""

    def __init__(self) -> None:
        self._answers: TextIO = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def __iter__(self) -> Iterator[list[str]]:
        """The words of every order."""
        return (line.split() for line in sys.stdin)

    def answer(self, content: Answer) -> None:
        """Answer an order."""
        self._answers.write(json.dumps(content) + "\n")


class PacedBatches(Generic[Item]):
    """A loader that hands out batches in turn, as many as it was ordered to.

    A training loop that asks for the next batch has finished the step before, which is how steps are timed.

    - ``train N`` hands out N batches; answered by ``wall`` and ``processor``, the seconds they took;
    - ``evaluate`` is answered by what ``evaluate`` finds for the first batch;
    - any other order is answered by what ``other`` returns for it;
    - ``memory`` is answered by ``resident`` and ``peak`` in bytes.
    """

    def __init__(
        self,
        orders: Orders,
        batches: list[Item],
        evaluate: Callable[[Item], Answer],
        other: Callable[[str], None] | None = None,
    ) -> None:
        self._orders, self._batches, self._evaluate, self._other = orders, batches, evaluate, other
        self._next = 0

    def __len__(self) -> int:
        """As if there were no end."""
        return ENDLESS

    def __iter__(self) -> Iterator[Item]:
        """Follow orders; leaves the process when they end."""
        for words in self._orders:
            if words[0] == "train":
                wall, processor = time.perf_counter(), time.process_time()
                for _ in range(int(words[1])):
                    yield self._batches[self._next % len(self._batches)]
                    self._next += 1
                self._orders.answer({"wall": time.perf_counter() - wall, "processor": time.process_time() - processor})
            elif words[0] == "evaluate":
                self._orders.answer(self._evaluate(self._batches[0]))
            elif words[0] == "memory":
                self._orders.answer(memory())
            elif self._other is not None:
                self._other(words[0])
                self._orders.answer({})
        sys.exit(0)


def read_setting(folder: Path) -> dict[str, Any]:
    """Return what both sides are to do: the configuration of the network, and constants of loss and optimiser."""
    content: dict[str, Any] = json.loads((folder / "setting.json").read_text())
    return content


def memory() -> Answer:
    """Resident memory of this process now and at its peak, in bytes; from Linux."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: 1024 * int(lines[entry].split()[0]) for name, entry in (("resident", "VmRSS"), ("peak", "VmHWM"))}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz file by name."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
