"""Throughput of ``Potential.evaluate`` for many structures beside one after the other, with the same potential.

Run from the root of the repository: ``python -m benchmarks.batching``; on a GPU with ``--device cuda --structures 64``.
Both ways evaluate the same structures and take turns, block after block, so that a busy machine slows both.
``--edges 250 500 1000 2000`` lets the batches of a CPU have so many edges per thread: each number takes turns with the
others, and the one in use is marked.

Per line: structures per second of wall time, median over the blocks (lowest to highest); processor time per structure,
which other work on the machine changes little; peak memory while it ran (on a CPU the resident memory of the process,
weights and libraries included; on a GPU what torch has allocated there). The last column is the ratio of the times of
neighbouring blocks, processor time on a CPU and wall time on a GPU, median (lowest to highest).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule

from benchmarks.batch_relaxation import measured_memory
from escn_calc import load_potential
from escn_calc.bench.machine import machine_name
from escn_calc.bench.timing import spread
from escn_calc.memory import EDGES_TOGETHER
from escn_calc.potential import Potential
from escn_calc.records import versions, write_json

METALS = ("Cu", "Pd", "Pt", "Rh")
MOLECULES = ("H2O", "CH4", "CH3OH", "C2H6", "CO2", "CH3CH2OH")
SLABS = {"20-40": ((2, 2, 5), (2, 3, 4), (3, 3, 4)), "60-120": ((4, 4, 4), (4, 5, 4), (5, 5, 4))}
CLASSES = ("<15", *SLABS)
"""Numbers of atoms."""


def structure(size: str, number: int) -> Atoms:
    """A rattled molecule, small crystal or slab with an adsorbate."""
    metal = METALS[number % len(METALS)]
    if size == "<15" and number % 3 < 2:
        atoms = molecule(MOLECULES[number // 3 % len(MOLECULES)], vacuum=5.0)
    elif size == "<15":
        atoms = bulk(metal, cubic=True)
    else:
        atoms = fcc111(metal, SLABS[size][number % 3], vacuum=7.0, periodic=True)
        add_adsorbate(atoms, molecule("CO"), 1.9, "fcc", mol_index=1)
    atoms.rattle(0.05, seed=number)
    return atoms


@dataclass
class Measured:
    """One way of evaluating; one entry for each block."""

    name: str
    wall_seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)

    def run(self, evaluate: Callable[[], object], device: str) -> None:
        """Evaluate once and note time and memory."""
        with measured_memory(device) as memory:
            wall, processor = time.perf_counter(), time.process_time()
            evaluate()
            self.wall_seconds.append(time.perf_counter() - wall)
            self.processor_seconds.append(time.process_time() - processor)
        self.peak_bytes.append(memory.peak)

    def line(self, size: str, structures: int, ratio: str) -> str:
        """Line of the table."""
        throughput = spread([structures / seconds for seconds in self.wall_seconds])
        processor = f"{1e3 * median(self.processor_seconds) / structures:.3g}"
        memory = f"{max(self.peak_bytes) / 2**30:.2f}"
        return f"| {size} | {self.name} | {throughput} | {processor} | {memory} | {ratio} |"


def one_by_one(potential: Potential, structures: list[Atoms]) -> None:
    """Evaluate each by itself."""
    for atoms in structures:
        potential.evaluate([atoms])


def together(potential: Potential, structures: list[Atoms], edges: int) -> None:
    """Evaluate the list, in batches of up to so many edges per thread."""
    with patch("escn_calc.potential.EDGES_TOGETHER", edges):
        potential.evaluate(structures)


def measure(arguments: argparse.Namespace, potential: Potential, size: str) -> dict[str, Any]:
    """Let all ways take turns on structures of one size, print the table, and return the record."""
    structures = [structure(size, number) for number in range(arguments.structures)]
    ways: dict[str, Callable[[], None]] = {"one by one": lambda: one_by_one(potential, structures)}
    for edges in arguments.edges:
        name = f"together, {edges} edges" + (" (in use)" if edges == EDGES_TOGETHER else "")
        ways[name] = lambda edges=edges: together(potential, structures, edges)
    one_by_one(potential, structures[:3])
    together(potential, structures[:3], EDGES_TOGETHER)
    measured = [Measured(name) for name in ways]
    for _ in range(arguments.blocks):
        for way in measured:
            way.run(ways[way.name], potential.device)
    alone, *_ = measured
    clock = "wall_seconds" if potential.device == "cuda" else "processor_seconds"
    for way in measured:
        ratios = [one / other for one, other in zip(getattr(alone, clock), getattr(way, clock), strict=True)]
        print(way.line(size, len(structures), spread(ratios)), flush=True)
    return {
        "atoms": size,
        "structures": [len(atoms) for atoms in structures],
        "ways": [asdict(way) for way in measured],
    }


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="name or path (default: the shipped one)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", default="float32", help="float32 or float64")
    parser.add_argument("--forces", choices=("direct", "gradient"), help="default: as the model was trained")
    parser.add_argument("--sizes", nargs="+", choices=CLASSES, default=list(CLASSES), help="default: all")
    parser.add_argument("--structures", type=int, default=16, help="of each size (default 16)")
    parser.add_argument("--edges", nargs="+", type=int, default=[EDGES_TOGETHER], help="per thread of a CPU")
    parser.add_argument("--blocks", type=int, default=5, help="turns of each way (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU (default 1)")
    parser.add_argument("--out", type=Path, help="JSON file to write, in benchmarks/results for instance")
    arguments = parser.parse_args()
    if arguments.out is not None and arguments.out.exists():
        parser.error(f"{arguments.out} exists: choose another --out")
    torch.set_num_threads(arguments.threads)
    potential = load_potential(arguments.model, device=arguments.device, dtype=arguments.dtype, forces=arguments.forces)
    print("| atoms | | structures/s | processor ms | peak, GiB | times faster |\n" + "|---" * 6 + "|")
    rows = [measure(arguments, potential, size) for size in arguments.sizes]
    if arguments.out is not None:
        settings = {name: value for name, value in vars(arguments).items() if name != "out"}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        machine = {"machine": machine_name(), "load_average": os.getloadavg()[0], "versions": versions()}
        write_json(arguments.out, {**machine, "settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
