"""How the cost of a call grows with the number of atoms and with the degree L, as fitted exponents.

Run from the root of the repository: ``python -m benchmarks.scaling``. Weights are random. Atoms: face-centred copper of
500 to 10 000 atoms, the L6-M2 shape with few layers, whose work is the same in each but the first. Degrees: L = 1 ... 8
at one width, with mmax = 2 and mmax = L; multiply-adds of the network are counted in the same run, and the construction
of the Wigner matrices is timed apart. Exponents are slopes of least squares in logarithms. Times are processor times of
one thread, the fastest of several turns, so that other work on the machine changes them little.
"""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.build import bulk

from benchmarks.so2_convolution import exponent
from escn_calc.bench.arithmetic import multiply_adds
from escn_calc.bench.machine import processor_name
from escn_calc.bench.timing import timed
from escn_calc.graph import radius_graph
from escn_calc.nn import ESCN, ESCNConfig
from escn_calc.nn.fast import FastESCN
from escn_calc.nn.parameters import initialise
from escn_calc.nn.rotations import wigner_d
from escn_calc.records import versions, write_json
from escn_calc.structures import StructureBatch

COUNTS = (500, 1000, 2000, 5000, 10_000)
DEGREES = range(1, 9)
COMMON = {"cutoff": 12.0, "max_neighbors": 20, "basis_width_scalar": 2.0}


def copper(atoms: int) -> Atoms:
    """Rattled copper of exactly so many atoms, in a cell that is long in one direction."""
    cells = 5 * 5 * 4
    crystal = bulk("Cu", cubic=True).repeat((5, 5, atoms // cells))
    assert len(crystal) == atoms
    crystal.rattle(0.05, seed=1)
    return crystal


def network(**shape: Any) -> FastESCN:
    """Random weights."""
    made = ESCN(ESCNConfig(**COMMON, **shape))
    initialise(made, torch.Generator().manual_seed(0))
    return FastESCN(made.requires_grad_(False))


def inputs(atoms: int) -> tuple[torch.Tensor, ...]:
    """Numbers and edges, float32."""
    batch = StructureBatch.from_atoms([copper(atoms)])
    graph = radius_graph(batch, COMMON["cutoff"], int(COMMON["max_neighbors"]))
    return batch.numbers, graph.source, graph.target, graph.vectors.float()


@torch.inference_mode()
def row(evaluate: FastESCN, edges: tuple[torch.Tensor, ...], turns: int) -> dict[str, float]:
    """Seconds and multiply-adds of the network, and seconds of its Wigner matrices."""
    frames, *_ = evaluate.network.geometry(edges[3], None)
    lmax = max(evaluate.config.lmax_list)
    count = multiply_adds(lambda: evaluate(*edges))
    seconds = timed(lambda: evaluate(*edges), turns)["processor"]
    wigner = timed(lambda: wigner_d(frames, lmax), turns)["processor"]
    return {"multiply_adds": count, "seconds": min(seconds), "wigner_seconds": min(wigner)}


def over_atoms(counts: tuple[int, ...], layers: int, turns: int) -> dict[str, Any]:
    """Cost against the number of atoms."""
    evaluate = network(lmax_list=(6,), mmax_list=(2,), num_layers=layers)
    rows = []
    for count in counts:
        rows.append({"atoms": count, **row(evaluate, inputs(count), turns)})
        print(rows[-1], flush=True)
    kinds = ("multiply_adds", "seconds", "wigner_seconds")
    fitted = {kind: exponent(list(counts), [line[kind] for line in rows]) for kind in kinds}
    print("exponents over atoms:", fitted, flush=True)
    return {"layers": layers, "rows": rows, "exponents": fitted}


def over_degrees(whole: bool, atoms: int, turns: int) -> dict[str, Any]:
    """Cost against L, with mmax = L or mmax = min(2, L)."""
    edges, rows = inputs(atoms), []
    for degree in DEGREES:
        mmax = degree if whole else min(2, degree)
        evaluate = network(lmax_list=(degree,), mmax_list=(mmax,), num_layers=2)
        rows.append({"lmax": degree, "mmax": mmax, **row(evaluate, edges, turns)})
        print(rows[-1], flush=True)
    late = [line for line in rows if line["lmax"] >= 3]
    kinds = ("multiply_adds", "seconds", "wigner_seconds")
    fitted = {kind: exponent([line["lmax"] for line in late], [line[kind] for line in late]) for kind in kinds}
    print(f"exponents over L = 3 ... 8, mmax = {'L' if whole else 2}:", fitted, flush=True)
    return {"atoms": atoms, "rows": rows, "exponents": fitted}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most-atoms", type=int, choices=COUNTS, default=COUNTS[-1])
    parser.add_argument("--layers", type=int, default=2, help="of the network for atoms (default 2)")
    parser.add_argument("--turns", type=int, default=3, help="times each is timed (default 3)")
    parser.add_argument("--out", type=Path, help="JSON file to write, in benchmarks/results for instance")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counts = tuple(count for count in COUNTS if count <= arguments.most_atoms)
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": processor_name(),
        "load_average": os.getloadavg()[0],
        "threads": 1,
        "versions": versions(),
        "dtype": "float32",
        "atoms": over_atoms(counts, arguments.layers, arguments.turns),
        "mmax 2": over_degrees(False, 100, arguments.turns),
        "mmax = lmax": over_degrees(True, 100, arguments.turns),
    }
    if arguments.out is not None:
        write_json(arguments.out, record)


if __name__ == "__main__":
    main()
