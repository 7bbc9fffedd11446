"""Seconds of repeated calls, and how they are summed up: by the median, with the lowest and the highest value."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")

#: Turns at least, whatever they take.
FEWEST_TURNS = 3


def timed(call: Callable[[], object], repeats: int) -> dict[str, list[float]]:
    """Seconds of ``wall`` and ``processor`` time of each of several calls."""
    seconds: dict[str, list[float]] = {"wall": [], "processor": []}
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        call()
        seconds["wall"].append(time.perf_counter() - wall)
        seconds["processor"].append(time.process_time() - processor)
    return seconds


def take_turns(
    calls: Mapping[str, Callable[[Item], object]], prepare: Callable[[int], Item], seconds: float
) -> dict[str, list[float]]:
    """Let calls take turns, so that other work on the machine slows all of them.

    Parameters
    ----------
    calls : by name; each is called once in every turn.
    prepare : makes the argument of all calls in a turn from its number, the first is 0; not timed.
    seconds : how long to go on; three turns at least.

    Returns
    -------
    dict of list of float
        Wall-clock seconds of every turn by name.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    turn, end = 0, time.perf_counter() + seconds
    while turn < FEWEST_TURNS or time.perf_counter() < end:
        item = prepare(turn)
        for name, call in calls.items():
            start = time.perf_counter()
            call(item)
            found[name].append(time.perf_counter() - start)
        turn += 1
    return found


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
