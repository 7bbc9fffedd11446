"""Training throughput side by side with the reference implementation, fairchem-core 1.10.

Run from the root of the repository: ``python -m benchmarks.training --reference-python PATH``, where PATH is an
interpreter of an environment with fairchem-core 1.10 (and NumPy, torch, torch_geometric, ASE, e3nn). The reference is
not needed for anything else.

Three processes train the same network from the same weights on the same batches: our loop with direct forces, the
reference's own loop (``OCPTrainer.train``), and our loop with gradient forces, which the reference cannot train. They
take turns, block after block, so that a busy machine slows all of them. All get the same graphs and labels, float32,
the L1 loss of energies and the L2 loss of forces in the same normalisation, AdamW with the same decay, clipping and
averaged weights. Preparing batches is left out. Before anything is timed, energies, forces, loss and length of the
gradient of the two implementations are compared, with our edge frames in both, at the first weights and after a few
steps; the reference then returns to frames drawn at random, which is how it trains.

Per line: structures per second of wall time, median over the blocks (lowest to highest); peak resident memory, and how
much of it came after weights and batches were read; time over that of our direct forces as the median of the ratios
of neighbouring blocks (lowest to highest), by wall clock and by processor time, which is less sensitive to other load.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training_task import MODELS, PUBLISHED_LAYERS, TRAINING, slab, write_task
from escn_calc.bench.machine import processor_name
from escn_calc.bench.timing import spread
from escn_calc.records import versions, write_json

ROOT = Path(__file__).resolve().parents[1]
#: Steps before the second comparison.
CHECKED_STEPS = 3
#: Largest relative difference of the two implementations in float32; a few 1e-6 is usual.
TOLERANCE = 5e-5
OURS, REFERENCE, GRADIENT = "ours, direct forces", "reference, direct forces", "ours, gradient forces"


class Worker:
    """A process that follows orders (:mod:`benchmarks.training_worker`)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.facts = self._read()

    def order(self, order: str) -> dict[str, Any]:
        """Give an order, wait, and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a process ended early: {' '.join(map(str, self._process.args))}")  # type: ignore[arg-type]
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def started(*command: str) -> Iterator[Worker]:
    """Start a worker, and end it afterwards."""
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Worker(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def largest_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Over energies, forces, loss and gradient, each relative to the largest value of its kind.

    Energies are compared with the spread that the network gives them, without the mean of the normalisation.
    """
    found = []
    for name in ("energies", "forces", "loss", "gradient"):
        mine, other = (np.asarray(answer[name], dtype=np.float64) for answer in (ours, theirs))
        size = np.abs(other - TRAINING["mean"] if name == "energies" else other).max()
        found.append(np.abs(mine - other).max() / size)
    return float(np.max(found))


def compare(ours: Worker, reference: Worker) -> dict[str, float]:
    """Check both implementations against each other, at the first weights and after the same steps."""
    drawn = reference.order("evaluate")
    reference.order("fixed")
    start = reference.order("evaluate")
    found = {
        "first weights": largest_difference(ours.order("evaluate"), start),
        "reference, frames drawn at random": largest_difference(drawn, start),
    }
    for worker in (ours, reference):
        worker.order(f"train {CHECKED_STEPS}")
    found[f"after {CHECKED_STEPS} steps"] = largest_difference(ours.order("evaluate"), reference.order("evaluate"))
    reference.order("random")
    return found


@dataclass(frozen=True)
class Measured:
    """One line of the table; seconds per step of every block, bytes."""

    name: str
    wall: tuple[float, ...]
    processor: tuple[float, ...]
    peak: int
    start: int

    def throughput(self, structures: int) -> str:
        """Structures per second."""
        return spread([structures / seconds for seconds in self.wall])

    def line(self, first: "Measured", structures: int) -> str:
        """Line of the table, with ratios to the times of ``first``."""
        wall = [mine / other for mine, other in zip(self.wall, first.wall, strict=True)]
        processor = [mine / other for mine, other in zip(self.processor, first.processor, strict=True)]
        memory = f"{self.peak / 2**30:.2f} | {(self.peak - self.start) / 2**30:.2f}"
        return f"| {self.name} | {self.throughput(structures)} | {memory} | {spread(wall)} | {spread(processor)} |"


def measure(workers: dict[str, Worker], start: dict[str, int], blocks: int, steps: int) -> list[Measured]:
    """Let the workers take turns; ``start`` is their memory in bytes before all training."""
    times: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for worker in workers.values():
        worker.order("train 1")
    for _ in range(blocks):
        for name, worker in workers.items():
            times[name].append(worker.order(f"train {steps}"))
    return [
        Measured(
            name,
            tuple(block["wall"] / steps for block in times[name]),
            tuple(block["processor"] / steps for block in times[name]),
            worker.order("memory")["peak"],
            start[name],
        )
        for name, worker in workers.items()
    ]


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare, measure, print, and return the record."""
    settings = MODELS[arguments.model] | {"num_layers": arguments.layers}
    write_task(folder, settings, arguments.structures)
    threads = str(arguments.threads)
    ours = (sys.executable, "-m", "benchmarks.training_ours", str(folder))
    reference = (arguments.reference_python, "-m", "benchmarks.training_reference", str(folder), threads)
    with ExitStack() as stack:
        workers = {
            OURS: stack.enter_context(started(*ours, "direct", threads)),
            REFERENCE: stack.enter_context(started(*reference)),
        }
        if not arguments.direct_only:
            workers[GRADIENT] = stack.enter_context(started(*ours, "gradient", threads))
        reference_facts = {f"reference {name}": fact for name, fact in workers[REFERENCE].facts.items()}
        facts = workers[OURS].facts | reference_facts
        start = {name: worker.order("memory")["resident"] for name, worker in workers.items()}
        compared = compare(workers[OURS], workers[REFERENCE])
        print_setting(arguments, settings, facts, compared)
        refuse_difference(compared)
        measured = measure(workers, start, arguments.blocks, arguments.steps)
    print("\n| | structures/s | peak, GiB | of it training | time, wall clock | time, processor |\n" + "|---" * 6 + "|")
    for row in measured:
        print(row.line(measured[0], arguments.structures))
    return record(arguments, settings, versions() | reference_facts, compared, measured)


def record(
    arguments: argparse.Namespace,
    settings: dict[str, Any],
    software: dict[str, Any],
    compared: dict[str, float],
    measured: list[Measured],
) -> dict[str, Any]:
    """Everything that was set and found, for a file."""
    return {
        "machine": processor_name(),
        "load_average": os.getloadavg()[0],
        "threads": arguments.threads,
        "versions": software,
        "network": settings,
        "training": TRAINING,
        "structures_per_batch": arguments.structures,
        "atoms_per_structure": len(slab(0)),
        "steps_per_block": arguments.steps,
        "largest_relative_difference": compared,
        "rows": [
            {
                "name": row.name,
                "structures_per_second": arguments.structures / statistics.median(row.wall),
                "wall_seconds_per_step": row.wall,
                "processor_seconds_per_step": row.processor,
                "peak_resident_bytes": row.peak,
                "resident_bytes_before_training": row.start,
            }
            for row in measured
        ],
    }


def print_setting(
    arguments: argparse.Namespace, settings: dict[str, Any], facts: dict[str, Any], compared: dict[str, float]
) -> None:
    """What is measured, and how far the implementations differ."""
    layers = f"{settings['num_layers']} layers"
    if arguments.model == "L6-M2" and settings["num_layers"] != PUBLISHED_LAYERS:
        layers += f" ({PUBLISHED_LAYERS} in the published model)"
    print(f"{arguments.model}, {layers}, {facts['parameters'] / 1e6:.1f} million parameters, float32")
    print(f"{arguments.structures} structures of {len(slab(0))} atoms per batch, {arguments.blocks} blocks of ", end="")
    print(f"{arguments.steps} steps; {processor_name()}, {arguments.threads} thread(s)")
    print(", ".join(f"{name} {fact}" for name, fact in facts.items() if name != "parameters"))
    for name, difference in compared.items():
        print(f"largest relative difference, {name}: {difference:.1e}", flush=True)


def refuse_difference(compared: dict[str, float]) -> None:
    """End where the implementations do not compute the same."""
    for name in ("first weights", f"after {CHECKED_STEPS} steps"):
        if not compared[name] <= TOLERANCE:
            raise SystemExit(f"{name}: the implementations differ by {compared[name]:.1e}, more than {TOLERANCE:.0e}")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", required=True, help="interpreter that has fairchem-core 1.10")
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--layers", type=int, default=4, help="default 4")
    parser.add_argument("--structures", type=int, default=4, help="in a batch (default 4)")
    parser.add_argument("--blocks", type=int, default=5, help="turns of each process (default 5)")
    parser.add_argument("--steps", type=int, default=4, help="steps of one turn (default 4)")
    parser.add_argument("--threads", type=int, default=1, help="of each process (default 1)")
    parser.add_argument("--direct-only", action="store_true", help="leave gradient forces out, which take most memory")
    parser.add_argument("--out", type=Path, help="JSON file to write, in benchmarks/results for instance")
    arguments = parser.parse_args()
    if arguments.out is not None and arguments.out.exists():
        parser.error(f"{arguments.out} exists: choose another --out")
    with tempfile.TemporaryDirectory() as folder:
        found = run(arguments, Path(folder))
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, found)


if __name__ == "__main__":
    main()
