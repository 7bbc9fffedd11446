"""Throughput of a screening campaign beside a plain ASE loop over the same tasks, and scaling from one worker to two.

Run from the root of the repository: ``python -m benchmarks.screening``; on a machine with a GPU or more cores with
``--device cuda`` or ``--workers 4``. Tasks are placements of ``examples/screen_metals.yaml``, lattices as given. The
ways take turns, block after block, so that a busy machine slows all of them.

- *ASE loop*: one structure after the other with ASE's optimiser and one ``ESCNCalculator``, nothing written.
- *campaign*: ``run_campaign`` in one process, the database and the anomalies included.
- *1 worker*, *N workers*: the same on Dask workers with one thread each, which have loaded the model before the clock
  starts.

Per line: relaxations per second of wall time, median over the blocks (lowest to highest). The ratio of the campaign to
the loop is also given in processor time, which other work changes little. Scaling efficiency is the rate of N workers
over N times that of one. Final energies are compared between all ways.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import ase.optimize
import torch

from escn_calc import ESCNCalculator
from escn_calc.records import versions, write_json
from escn_calc.relax_result import EnergyRiseWarning
from escn_calc.screening import (
    DaskEngine,
    LocalEngine,
    Prepared,
    dask_client,
    prepare,
    read_campaign,
    run_campaign,
    work_of,
)
from escn_calc.screening.local import Engine
from escn_calc.screening.store import Store
from escn_calc.screening.tasks import Task

EXAMPLE = Path("examples/screen_metals.yaml")
SAME_ENERGY = 5e-3
"""eV. Relaxations in other batches differ by rounding, which their last steps can amplify."""


@dataclass
class Way:
    """One way of relaxing; one entry for each block."""

    name: str
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)

    def run(self, relax: Callable[[Sequence[Task]], dict[str, float]], tasks: Sequence[Task]) -> dict[str, float]:
        """Relax once and note the time; returns the final energies by key."""
        began, processor_began = time.perf_counter(), time.process_time()
        energies = relax(tasks)
        self.processor_seconds.append(time.process_time() - processor_began)
        self.seconds.append(time.perf_counter() - began)
        return energies

    def line(self, number: int) -> str:
        """Line of the table."""
        rates = sorted(number / seconds for seconds in self.seconds)
        return f"{self.name:12s} {statistics.median(rates):8.3f} ({rates[0]:.3f} to {rates[-1]:.3f}) relaxations/s"


def loop(calculator: ESCNCalculator, tasks: Sequence[Task]) -> dict[str, float]:
    """What one would write with ASE alone."""
    energies = {}
    for task in tasks:
        atoms = task.atoms.copy()
        atoms.calc = calculator
        optimizer = getattr(ase.optimize, task.settings.optimizer)
        optimizer(atoms, logfile=None).run(fmax=task.settings.fmax, steps=task.settings.steps)
        energies[task.key] = atoms.get_potential_energy()
    return energies


def in_campaign(prepared: Prepared, engine: Engine, tasks: Sequence[Task]) -> dict[str, float]:
    """Carry out a part of the plan in a new database."""
    with tempfile.TemporaryDirectory() as folder:
        plan = replace(prepared.plan, stages=((), (), tuple(tasks)))
        part = replace(prepared, plan=plan, store=Store.at(Path(folder) / "results.db"), finished={})
        run_campaign(part, engine)
        return {row.task: row.energy for row in part.store.rows()}


@contextmanager
def workers(prepared: Prepared, number: int) -> Iterator[DaskEngine]:
    """Workers that have loaded the model."""
    work = work_of(prepared.campaign, prepared.facts, None)
    with dask_client(f"local:{number}", work.model) as client:
        engine = DaskEngine(client, work)
        client.run(work.load)
        yield engine


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=12, help="placements in each block (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="to be compared with one (default: %(default)s)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # for the workers
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", EnergyRiseWarning)

    campaign = read_campaign(EXAMPLE).on_device(options.device)
    campaign = replace(campaign, config=campaign.config.model_copy(update={"lattice": "fixed"}))
    prepared = prepare(campaign)
    placements = prepared.plan.stages[-1]
    tasks = placements[:: max(1, len(placements) // options.tasks)][: options.tasks]
    model = campaign.config.model
    assert model is not None  # on_device has set it
    calculator = ESCNCalculator(model.name, device=options.device, dtype=model.dtype, forces=model.forces)
    with ExitStack() as stack:
        local = LocalEngine(work_of(campaign, prepared.facts, None))
        one = stack.enter_context(workers(prepared, 1))
        several = stack.enter_context(workers(prepared, options.workers))
        ways = {
            "ASE loop": lambda tasks: loop(calculator, tasks),
            "campaign": lambda tasks: in_campaign(prepared, local, tasks),
            "1 worker": lambda tasks: in_campaign(prepared, one, tasks),
            f"{options.workers} workers": lambda tasks: in_campaign(prepared, several, tasks),
        }
        measured = [Way(name) for name in ways]
        for relax in list(ways.values())[:2]:
            relax(tasks[:1])  # what is only done once
        largest = 0.0
        for _ in range(options.blocks):
            found = [way.run(relax, tasks) for way, relax in zip(measured, ways.values(), strict=True)]
            largest = max(largest, *(abs(found[0][key] - other[key]) for other in found[1:] for key in found[0]))
    report(measured, len(tasks), options.workers, largest)
    if options.output is not None:
        about = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "versions": versions()}
        figures = {"tasks": len(tasks), "largest_difference_eV": largest, "ways": [asdict(way) for way in measured]}
        write_json(options.output, {**about, **figures})


def report(ways: Sequence[Way], number: int, workers: int, largest: float) -> None:
    """Print the figures."""
    for way in ways:
        print(way.line(number))
    plain, campaign, one, several = ways
    speedup = statistics.median(a / b for a, b in zip(plain.seconds, campaign.seconds, strict=True))
    processor = statistics.median(
        a / b for a, b in zip(plain.processor_seconds, campaign.processor_seconds, strict=True)
    )
    efficiency = statistics.median(a / (workers * b) for a, b in zip(one.seconds, several.seconds, strict=True))
    print(f"campaign over ASE loop: {speedup:.2f} in wall time, {processor:.2f} in processor time")
    print(f"scaling efficiency 1 → {workers} workers: {efficiency:.2f}")
    print(f"largest difference of final energies: {1e3 * largest:.2f} meV")
    if largest > SAME_ENERGY:
        raise SystemExit(f"the ways do not agree to {1e3 * SAME_ENERGY:g} meV: the figures mean nothing")


if __name__ == "__main__":
    main()
