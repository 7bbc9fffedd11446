"""Time of the radius graph with and without the growing search radius, alternating in one run.

Run ``python benchmarks/graph.py``. Prints the median time of both and their ratio, after checking that both graphs are
equal.
"""

import statistics
import time
from importlib import import_module
from unittest.mock import patch

import torch
from ase.build import bulk, fcc111

from escn_calc.graph import RadiusGraph
from escn_calc.structures import StructureBatch

module = import_module("escn_calc.graph.radius_graph")

REPEATS = 15
CUTOFF, CAP = 12.0, 20


def timed(batch: StructureBatch, first_radius: float) -> tuple[float, RadiusGraph]:
    """Seconds and result of one search that first looks up to ``first_radius`` times the cutoff."""
    with patch.object(module, "FIRST_RADIUS", first_radius):
        start = time.perf_counter()
        graph = module.radius_graph(batch, CUTOFF, CAP)
        return time.perf_counter() - start, graph


def main() -> None:
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
            seconds, graph = timed(batch, growing)
            short.append(seconds)
            seconds, whole = timed(batch, 1.0)
            full.append(seconds)
        assert torch.equal(graph.source, whole.source)
        assert torch.equal(graph.vectors, whole.vectors)
        ours, theirs = statistics.median(short), statistics.median(full)
        print(f"{name}, {len(atoms)} atoms: {1e3 * ours:.1f} ms, full search {theirs / ours:.1f} times as long")


if __name__ == "__main__":
    main()
