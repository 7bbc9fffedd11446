"""Inference side by side with the reference implementation, fairchem-core 1.10.

Run from the root of the repository: ``python -m benchmarks.reference --reference-python PATH``, where PATH is an
interpreter of an environment with fairchem-core 1.10 (and NumPy, torch, torch_geometric, ASE, e3nn).

Two processes evaluate the same slab with the same network, whose weights are random and amplified so that activations
are not linear and forces not tiny. They take turns, so that a busy machine slows both. First they are compared: our
network on the graph and with the frames that the reference drew at random; a difference above 2e-5 of the largest force
(3e-2 with ``--matmul bfloat16``) ends the run. Then whole calls (structure to energy and forces on the host), network
and graph are timed apart, and the multiply-adds of a call are counted by torch in both. Peak memory is that of the
whole process. The rate of a matrix product in float32 is measured in the same run; the fraction of it that the counted
multiply-adds reach says how far the time is from arithmetic alone.

Ratios are times of the reference over ours: median over the pairs (lowest to highest), by wall clock and by processor
time, which is less sensitive to other load; with several threads waiting threads count as busy.
"""

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inference_task import MODELS, SLABS, model_settings, write_task
from benchmarks.training import Worker, started
from benchmarks.training_task import TRAINING
from escn_calc.bench.machine import processor_name
from escn_calc.bench.timing import spread
from escn_calc.records import versions, write_json

#: Largest difference of forces over the largest force, and of energies over what the network adds to its mean.
TOLERANCE = {"full": 2e-5, "bfloat16": 3e-2}
PARTS = ("call", "network", "graph")
OURS, REFERENCE = "ours", "reference"


def compare(workers: dict[str, Worker], tolerance: float) -> float:
    """Relative difference of the two implementations on the reference's graph and frames; ends a run that is wrong."""
    theirs, ours = workers[REFERENCE].order("evaluate"), workers[OURS].order("evaluate")
    forces = np.asarray(theirs["forces"])
    difference = float(np.abs(np.asarray(ours["forces"]) - forces).max() / np.abs(forces).max())
    energy = abs(ours["energy"] - theirs["energy"]) / abs(theirs["energy"] - TRAINING["mean"])
    if not max(difference, energy) <= tolerance:
        raise SystemExit(f"the implementations differ by {difference:.1e} (forces) and {energy:.1e} (energy)")
    return difference


def take_turns(workers: dict[str, Worker], pairs: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Seconds of every part: by part, by implementation, wall clock and processor."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for part in PARTS:
        found[part] = {name: {"wall": [], "processor": []} for name in workers}
        for turn in range(pairs + 1):
            for name, worker in workers.items():
                seconds = worker.order(f"{part} 1")
                if turn:
                    for clock, values in seconds.items():
                        found[part][name][clock] += values
    return found


def ratios(seconds: dict[str, dict[str, list[float]]], clock: str) -> list[float]:
    """Reference over ours, pair by pair."""
    return [theirs / mine for theirs, mine in zip(seconds[REFERENCE][clock], seconds[OURS][clock], strict=True)]


def measure(arguments: argparse.Namespace, model: str, atoms: int, folder: Path) -> dict[str, Any]:
    """Everything about one network and one slab."""
    write_task(folder, model, atoms, arguments.batch)
    task = (str(folder), str(arguments.threads))
    commands = {
        OURS: (sys.executable, "-m", "benchmarks.inference_ours", *task, arguments.matmul),
        REFERENCE: (arguments.reference_python, "-m", "benchmarks.inference_reference", *task),
    }
    with ExitStack() as stack:
        workers = {name: stack.enter_context(started(*command)) for name, command in commands.items()}
        before = {name: worker.order("memory")["resident"] for name, worker in workers.items()}
        difference = compare(workers, TOLERANCE[arguments.matmul])
        print(f"{model}, {atoms} atoms x {arguments.batch}: largest difference {difference:.1e}", flush=True)
        seconds = take_turns(workers, arguments.pairs)
        peak = {name: worker.order("memory")["peak"] for name, worker in workers.items()}
        counts = {name: worker.order("count")["multiply_adds"] for name, worker in workers.items()}
        rate = workers[OURS].order("rate")
        facts = {name: worker.facts for name, worker in workers.items()}
    return {
        "model": model,
        "network": model_settings(model),
        "atoms": atoms,
        "batch": arguments.batch,
        "facts": facts,
        "largest_difference": difference,
        "seconds": seconds,
        "multiply_adds": counts,
        "matrix_product_multiply_adds_per_second": rate,
        "peak_bytes": peak,
        "bytes_before_the_first_call": before,
    }


def show(row: dict[str, Any]) -> None:
    """Print what was found."""
    for part, seconds in row["seconds"].items():
        print(f"  {part}: wall {spread(ratios(seconds, 'wall'))}, processor {spread(ratios(seconds, 'processor'))}")
    calls = row["seconds"]["call"][OURS]
    graph = sum(row["seconds"]["graph"][OURS]["processor"]) / sum(calls["processor"])
    rate = row["matrix_product_multiply_adds_per_second"]
    counts, peak = row["multiply_adds"], row["peak_bytes"]
    reached = [counts[OURS] / statistics.median(calls[clock]) / rate[clock] for clock in ("wall", "processor")]
    print(f"  graph: {graph:.1%} of our call; peak memory: {peak[REFERENCE] / peak[OURS]:.2f} times as much")
    print(f"  multiply-adds: {counts[OURS] / 1e9:.1f}e9, reference {counts[REFERENCE] / 1e9:.1f}e9; ", end="")
    print(f"of the rate of a matrix product: {reached[0]:.0%} by wall clock, {reached[1]:.0%} by processor", flush=True)


def main() -> None:
    """Read the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", required=True, help="interpreter that has fairchem-core 1.10")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--atoms", nargs="+", type=int, choices=SLABS, default=[38])
    parser.add_argument("--batch", type=int, default=1, help="copies of the slab in one call (default 1)")
    parser.add_argument("--pairs", type=int, default=7, help="timed turns of each part (default 7)")
    parser.add_argument("--threads", type=int, default=2, help="of each process (default 2)")
    parser.add_argument("--matmul", choices=TOLERANCE, default="full", help="our products of matrices (default full)")
    parser.add_argument("--out", type=Path, help="JSON file to write, in benchmarks/results for instance")
    arguments = parser.parse_args()
    if arguments.out is not None and arguments.out.exists():
        parser.error(f"{arguments.out} exists: choose another --out")
    rows = []
    for model in arguments.models:
        for atoms in arguments.atoms:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(arguments, model, atoms, Path(folder)))
            show(rows[-1])
    if arguments.out is not None:
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": processor_name(),
            "load_average": os.getloadavg()[0],
            "threads": arguments.threads,
            "versions": versions(),
            "dtype": "float32",
            "matmul": arguments.matmul,
            "rows": rows,
        }
        write_json(arguments.out, record)


if __name__ == "__main__":
    main()
