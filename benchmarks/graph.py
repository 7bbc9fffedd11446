"""Time of the radius graph with and without the growing search radius, and with and without a skin.

Run ``python benchmarks/graph.py``. The two of each comparison alternate in one run, and their graphs are checked to be
equal. Prints the median time of both and their ratio; for the skin also how large a part the canonical order is.
"""

import statistics
import time
from collections.abc import Callable
from importlib import import_module
from unittest.mock import patch

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, fcc111

from escn_calc.graph import RadiusGraph, SkinSearch, radius_graph, search_pairs
from escn_calc.graph.pairs import in_canonical_order
from escn_calc.structures import StructureBatch

module = import_module("escn_calc.graph.radius_graph")

REPEATS = 15
CUTOFF, CAP = 12.0, 20
#: Cutoff (Å) of models that keep all neighbours.
UNCAPPED_CUTOFF = 6.0
SKIN = 0.5
STEPS = 100


def timed(build: Callable[[], RadiusGraph]) -> tuple[float, RadiusGraph]:
    """Seconds and result."""
    start = time.perf_counter()
    graph = build()
    return time.perf_counter() - start, graph


def timed_from(batch: StructureBatch, first_radius: float) -> tuple[float, RadiusGraph]:
    """Seconds and result of one search that first looks up to ``first_radius`` times the cutoff."""
    with patch.object(module, "FIRST_RADIUS", first_radius):
        return timed(lambda: radius_graph(batch, CUTOFF, CAP))


def check_equal(first: RadiusGraph, second: RadiusGraph) -> None:
    """Bit by bit."""
    for name in ("source", "target", "offsets", "vectors"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


def compare_search_radii() -> None:
    """Print one line per structure."""
    growing = module.FIRST_RADIUS
    ideal = bulk("Cu", cubic=True).repeat((6, 6, 7))
    rattled = ideal.copy()
    rattled.rattle(0.1, seed=1)
    slab = fcc111("Cu", size=(3, 3, 4), vacuum=10.0, periodic=True)
    for name, atoms in (("slab, ideal", slab), ("bulk, ideal", ideal), ("bulk, rattled", rattled)):
        batch = StructureBatch.from_atoms([atoms])
        short, full = [], []
        for _ in range(REPEATS):
            seconds, graph = timed_from(batch, growing)
            short.append(seconds)
            seconds, whole = timed_from(batch, 1.0)
            full.append(seconds)
        check_equal(graph, whole)
        ours, theirs = statistics.median(short), statistics.median(full)
        print(f"{name}, {len(atoms)} atoms: {1e3 * ours:.1f} ms, full search {theirs / ours:.1f} times as long")


def hot_steps(atoms: Atoms) -> list[StructureBatch]:
    """Atoms that vibrate about their sites (0.2 Å, period 100 steps): copper at 1000 K in steps of 2 fs."""
    rng = np.random.default_rng(0)
    away, velocity = np.zeros((len(atoms), 3)), np.zeros((len(atoms), 3))
    turn, friction, size = 2 * np.pi / 100, 0.05, 0.2 / 3**0.5
    batches = []
    for _ in range(STEPS):
        noise = rng.normal(scale=size * turn * (2 * friction) ** 0.5, size=away.shape)
        velocity = (1 - friction) * velocity - turn**2 * away + noise
        away = away + velocity
        moved = atoms.copy()
        moved.positions += away
        batches.append(StructureBatch.from_atoms([moved]))
    return batches


def compare_skin() -> None:
    """Print one line per structure and cap: whole runs, new searches of the skin included."""
    for size in ((3, 3, 4), (12, 12, 7)):
        slab = fcc111("Cu", size=size, vacuum=10.0, periodic=True)
        for cutoff, cap in ((CUTOFF, CAP), (UNCAPPED_CUTOFF, 0)):
            reusing, searching, ordering = [], [], []
            skin = SkinSearch(SKIN)
            for batch in hot_steps(slab):
                seconds, reused = timed(lambda: radius_graph(batch, cutoff, cap, skin))  # noqa: B023
                reusing.append(seconds)
                seconds, fresh = timed(lambda: radius_graph(batch, cutoff, cap))  # noqa: B023
                searching.append(seconds)
                check_equal(reused, fresh)
                ordering.append(seconds_of_canonical_order(batch, cutoff, cap))
            total = sum(searching)
            print(
                f"slab, {len(slab)} atoms, {cutoff:g} Å, cap {cap}: {1e3 * sum(reusing) / STEPS:.1f} ms with a skin of "
                f"{SKIN} Å ({skin.searches} searches in {STEPS} steps), without {total / sum(reusing):.2f} times as "
                f"long, of which the canonical order {sum(ordering) / total:.0%}"
            )


def seconds_of_canonical_order(batch: StructureBatch, cutoff: float, cap: int) -> float:
    """Time to sort the candidates of the first search, which start out shuffled."""
    everywhere = torch.ones(batch.num_atoms, dtype=torch.bool)
    pairs = search_pairs(batch, module.FIRST_RADIUS * cutoff if cap > 0 else cutoff, everywhere)
    shuffled = pairs.select(torch.from_numpy(np.random.default_rng(0).permutation(len(pairs.source))))
    start = time.perf_counter()
    in_canonical_order(shuffled, batch.num_atoms)
    return time.perf_counter() - start


def main() -> None:
    """Print all comparisons."""
    compare_search_radii()
    compare_skin()


if __name__ == "__main__":
    main()
