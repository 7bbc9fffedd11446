"""Throughput of a screening campaign beside a plain ASE loop over the same tasks, and scaling from one worker to two.

Run from the root of the repository: ``python -m benchmarks.screening``; on a machine with a GPU or more cores with
``--device cuda`` or ``--workers 4``. Tasks are placements of ``examples/screen_metals.yaml``, lattices as given, none
ended early by an anomaly. The ways take turns, block after block, so that a busy machine slows all of them.

- *ASE loop*: one structure after the other with ASE's optimiser and one ``ESCNCalculator``, nothing written.
- *campaign*: ``run_campaign`` in one process, the database and the anomalies included.
- *1 worker*, *N workers*: the same on Dask workers with one thread each, which have loaded the model before the clock
  starts.

Per line: relaxations per second of wall time, median over the blocks (lowest to highest). The ratio of the campaign to
the loop is also given in processor time, which other work changes little. Scaling efficiency is the rate of N workers
over N times that of one; the wait for the last batch is part of it, and is short if there are many batches for each
worker. Final energies are compared between all ways.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import ase.optimize
import torch

from escn_calc import ESCNCalculator
from escn_calc.bench.machine import machine_name
from escn_calc.bench.timing import spread
from escn_calc.records import versions, write_json
from escn_calc.relax_result import EnergyRiseWarning
from escn_calc.screening import (
    CampaignFile,
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
        return f"{self.name:10s} {spread([number / seconds for seconds in self.seconds])} relaxations/s"


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
def workers(prepared: Prepared, number: int, batch_size: int | None) -> Iterator[DaskEngine]:
    """Workers that have loaded the model."""
    work = work_of(prepared.campaign, prepared.facts, batch_size)
    with dask_client(f"local:{number}", work.model) as client:
        client.run(work.load)
        yield DaskEngine(client, work)


def campaign_of(arguments: argparse.Namespace, out: Path) -> CampaignFile:
    """The example as it is measured."""
    campaign = read_campaign(EXAMPLE).on_device(arguments.device)
    config = campaign.config
    changes = {
        "out": out,
        "lattice": "fixed",
        "relaxation": config.relaxation.model_copy(update={"steps": arguments.steps}),
        "anomalies": config.anomalies.model_copy(update={"stop": False}),
    }
    return replace(campaign, config=config.model_copy(update=changes))


def measure(arguments: argparse.Namespace, prepared: Prepared) -> dict[str, Any]:
    """Let all ways take turns, print the figures, and return them."""
    placements = prepared.plan.stages[-1]
    tasks = placements[:: max(1, len(placements) // arguments.tasks)][: arguments.tasks]
    work = work_of(prepared.campaign, prepared.facts, arguments.batch_size)
    model = prepared.campaign.config.model
    assert model is not None  # on_device has set it
    calculator = ESCNCalculator(model.name, device=model.device, dtype=model.dtype, forces=model.forces)
    with ExitStack() as stack:
        one, several = (
            stack.enter_context(workers(prepared, number, arguments.batch_size)) for number in (1, arguments.workers)
        )
        ways = {
            "ASE loop": lambda tasks: loop(calculator, tasks),
            "campaign": lambda tasks: in_campaign(prepared, LocalEngine(work), tasks),
            "1 worker": lambda tasks: in_campaign(prepared, one, tasks),
            f"{arguments.workers} workers": lambda tasks: in_campaign(prepared, several, tasks),
        }
        measured = [Way(name) for name in ways]
        for relax in ways.values():
            relax(tasks[:1])  # what is only done once
        largest = 0.0
        for _ in range(arguments.blocks):
            found = [way.run(relax, tasks) for way, relax in zip(measured, ways.values(), strict=True)]
            largest = max(largest, *(abs(found[0][key] - other[key]) for other in found[1:] for key in found[0]))
    for way in measured:
        print(way.line(len(tasks)))
    return {
        "tasks": len(tasks),
        "atoms": [len(task.atoms) for task in tasks],
        "ways": [asdict(way) for way in measured],
        "largest_difference_eV": largest,
        **ratios(measured, arguments.workers),
    }


def ratios(ways: Sequence[Way], workers: int) -> dict[str, list[float]]:
    """Compare neighbouring blocks."""
    plain, campaign, one, several = ways
    return {
        "campaign_over_loop_wall": _quotients(plain.seconds, campaign.seconds),
        "campaign_over_loop_processor": _quotients(plain.processor_seconds, campaign.processor_seconds),
        "scaling_efficiency": [quotient / workers for quotient in _quotients(one.seconds, several.seconds)],
    }


def _quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=48, help="placements in each block (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=150, help="largest number of steps (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=3, help="turns of each way (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="to be compared with one (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, help="relaxed together (default: what suits the device)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file to write, in benchmarks/results for instance")
    arguments = parser.parse_args()
    if arguments.workers < 2:
        parser.error("--workers must be 2 or more")
    if arguments.out is not None and arguments.out.exists():
        parser.error(f"{arguments.out} exists: choose another --out")
    os.environ["OMP_NUM_THREADS"] = "1"  # for the workers
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", EnergyRiseWarning)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, prepare(campaign_of(arguments, Path(folder))))
    for name in ("campaign_over_loop_wall", "campaign_over_loop_processor", "scaling_efficiency"):
        print(f"{name.replace('_', ' ')}: {spread(figures[name])}")
    print(f"largest difference of final energies: {1e3 * figures['largest_difference_eV']:.2f} meV")
    if figures["largest_difference_eV"] > SAME_ENERGY:
        raise SystemExit(f"the ways do not agree to {1e3 * SAME_ENERGY:g} meV: the figures mean nothing")
    if arguments.out is not None:
        settings = {name: value for name, value in vars(arguments).items() if name != "out"}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        machine = {"machine": machine_name(), "load_average": os.getloadavg()[0], "versions": versions()}
        write_json(arguments.out, {**machine, "settings": settings, **figures})


if __name__ == "__main__":
    main()
