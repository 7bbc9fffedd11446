"""Throughput of ``relax_batch`` beside ASE's optimiser, one structure after the other, with the same potential.

Run from the root of the repository: ``python -m benchmarks.batch_relaxation``; on a GPU with ``--device cuda
--structures 64``. Both ways relax the same structures with the same optimiser and limits, and take turns, block after
block, so that a busy machine slows both. Structures that are relaxed one by one are evaluated by one
``ESCNCalculator``, whose potential is the one of the batch; it reuses neighbours from step to step, as it does for
users. Neither writes files.

Per line: relaxations per second of wall time, median over the blocks (lowest to highest); evaluations per second; peak
memory while it ran (on a CPU the resident memory of the process, weights and libraries included; on a GPU what torch
has allocated there). The last column is the ratio of the times of neighbouring blocks, processor time on a CPU, which
other work changes little, and wall time on a GPU; median (lowest to highest).
"""

from __future__ import annotations

import argparse
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ase.optimize
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.constraints import FixAtoms

from escn_calc import ESCNCalculator, relax_batch
from escn_calc.batch_relaxation import BATCH_OPTIMIZERS
from escn_calc.bench.machine import machine_name
from escn_calc.bench.timing import spread
from escn_calc.records import versions, write_json
from escn_calc.relax_result import EnergyRiseWarning

METALS = ("Cu", "Ag", "Au", "Pd", "Pt", "Rh")
SIZES = {
    "small": ((1, 1, 3), (1, 2, 3), (2, 2, 2), (2, 2, 3)),
    "slabs": ((2, 2, 5), (2, 3, 4), (2, 3, 5), (3, 3, 4)),
}
"""Atoms along and across the surface, and layers: 4 to 14 atoms, and 21 to 38, with the adsorbate."""

SECONDS_BETWEEN_LOOKS = 0.005


def structure(kind: str, number: int) -> Atoms:
    """A rattled slab with O or CO on it; all layers but the two upper ones are fixed."""
    atoms = fcc111(METALS[number % len(METALS)], SIZES[kind][number // 2 % 4], vacuum=7.0, periodic=True)
    adsorbate = molecule("CO") if number % 2 else "O"
    add_adsorbate(atoms, adsorbate, 1.9 if number % 2 else 1.3, "fcc", mol_index=-1 if number % 2 else 0)
    atoms.info.clear()
    atoms.rattle(0.05, seed=number)
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() > 2))
    return atoms


@dataclass
class Memory:
    """Peak memory in bytes of a stretch of work."""

    peak: int = 0


@contextmanager
def measured_memory(device: str) -> Iterator[Memory]:
    """Follow the memory of a GPU by torch's own count, that of a CPU by looking again and again."""
    memory = Memory()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield memory
        memory.peak = torch.cuda.max_memory_allocated()
        return
    done = threading.Event()

    def look() -> None:
        while not done.wait(SECONDS_BETWEEN_LOOKS):
            memory.peak = max(memory.peak, resident_bytes())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield memory
    finally:
        done.set()
        watcher.join()


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Measured:
    """One way of relaxing; one entry for each block."""

    name: str
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)

    def run(self, relax: Callable[..., int], task: tuple[Any, ...], device: str) -> None:
        """Relax once and note time, evaluations and memory."""
        with measured_memory(device) as memory:
            start, processor_start = time.perf_counter(), time.process_time()
            self.evaluations.append(relax(*task))
            self.processor_seconds.append(time.process_time() - processor_start)
            self.seconds.append(time.perf_counter() - start)
        self.peak_bytes.append(memory.peak)

    def line(self, kind: str, structures: int, ratio: str) -> str:
        """Line of the table."""
        evaluations = [number / seconds for number, seconds in zip(self.evaluations, self.seconds, strict=True)]
        relaxations = [structures / seconds for seconds in self.seconds]
        memory = f"{max(self.peak_bytes) / 2**30:.2f}"
        return f"| {kind} | {self.name} | {spread(relaxations)} | {spread(evaluations)} | {memory} | {ratio} |"


def one_by_one(structures: list[Atoms], calculator: ESCNCalculator, optimizer: str, fmax: float, steps: int) -> int:
    """Relax with ASE, and return the number of evaluations."""
    evaluations = 0
    for atoms in structures:
        moving = atoms.copy()
        moving.calc = calculator
        with getattr(ase.optimize, optimizer)(moving, logfile=None) as search:
            search.run(fmax=fmax, steps=steps)
            evaluations += search.nsteps + 1
    return evaluations


def together(structures: list[Atoms], calculator: ESCNCalculator, optimizer: str, fmax: float, steps: int) -> int:
    """Relax with ``relax_batch``, and return the number of evaluations."""
    results = relax_batch(structures, calculator.potential, optimizer=optimizer, fmax=fmax, steps=steps)
    return sum(result.steps + 1 for result in results)


def measure(arguments: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Let both ways take turns on structures of one kind, print the table, and return the record."""
    structures = [structure(kind, number) for number in range(arguments.structures)]
    calculator = ESCNCalculator(arguments.model, device=arguments.device, forces=arguments.forces)
    device = calculator.potential.device
    task = (structures, calculator, arguments.optimizer, arguments.fmax, arguments.steps)
    ways = {"ASE, one by one": one_by_one, "relax_batch": together}
    measured = {name: Measured(name) for name in ways}
    for relax in ways.values():
        relax(structures[:4], calculator, arguments.optimizer, arguments.fmax, 1)
    for _ in range(arguments.blocks):
        for name, relax in ways.items():
            measured[name].run(relax, task, device)
    alone, batch = measured.values()
    times = [way.seconds if device == "cuda" else way.processor_seconds for way in (alone, batch)]
    ratios = [one / other for one, other in zip(*times, strict=True)]
    print(alone.line(kind, len(structures), "1"))
    print(batch.line(kind, len(structures), spread(ratios)), flush=True)
    return {
        "structures": kind,
        "atoms": [len(atoms) for atoms in structures],
        "ways": [asdict(way) for way in measured.values()],
        "one_by_one_over_batch": ratios,
    }


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="name or path (default: the shipped one)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--forces", choices=("direct", "gradient"), help="default: as the model was trained")
    parser.add_argument("--kinds", nargs="+", choices=SIZES, default=list(SIZES), help="default: all")
    parser.add_argument("--structures", type=int, default=16, help="of each kind (default 16)")
    parser.add_argument("--optimizer", choices=BATCH_OPTIMIZERS, default="LBFGS")
    parser.add_argument("--fmax", type=float, default=0.05, help="eV/Å (default 0.05)")
    parser.add_argument("--steps", type=int, default=20, help="largest number of steps (default 20)")
    parser.add_argument("--blocks", type=int, default=3, help="turns of each way (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU (default 1)")
    parser.add_argument("--out", type=Path, help="JSON file to write, in benchmarks/results for instance")
    arguments = parser.parse_args()
    if arguments.out is not None and arguments.out.exists():
        parser.error(f"{arguments.out} exists: choose another --out")
    warnings.simplefilter("ignore", EnergyRiseWarning)
    torch.set_num_threads(arguments.threads)
    print("| structures | | relaxations/s | evaluations/s | peak, GiB | times faster |\n" + "|---" * 6 + "|")
    rows = [measure(arguments, kind) for kind in arguments.kinds]
    if arguments.out is not None:
        settings = {name: value for name, value in vars(arguments).items() if name != "out"}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        machine = {"machine": machine_name(), "load_average": os.getloadavg()[0], "versions": versions()}
        write_json(arguments.out, {**machine, "settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
