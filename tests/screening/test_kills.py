"""Campaigns on Dask workers of which the driver or a worker is killed at any moment: every result once, none lost."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from escn_calc.cli import main
from escn_calc.screening import dask_client, open_store
from escn_calc.screening.config import CalculatorSection
from tests.screening.campaigns import KNOWN, rows, run, settings, write_campaign

dask = pytest.importorskip("dask")
psutil = pytest.importorskip("psutil")
pytest.importorskip("distributed")

PRELOADED = [
    "distributed",
    "escn_calc.cli.screen_outputs",
    "escn_calc.screening.dask_cluster",
    "escn_calc.screening.dask_engine",
    "escn_calc.screening.results",
    "escn_calc.screening.run",
    "ase.calculators.emt",
    "tests.screening.test_kills",
]
LOADED_PROCESSES = get_context("forkserver")
LOADED_PROCESSES.set_forkserver_preload(PRELOADED)

OUTPUT = Path("output.txt")
INCOMPLETE = 3

CAMPAIGN = settings(
    calculator={
        "factory": "tests.screening.calculators:SlowEMT",
        "arguments": {"seconds": 0.01},
        "energy_kind": "total",
    },
    adsorbates=["H", "O", "C"],
    lattice="isotropic",
    relaxation={"fmax": 0.1, "steps": 30},
)
"""Two lattices, three gas molecules, two slabs and 24 placements that take a tenth of a second and more."""


def child(arguments: list[str]) -> None:
    """The command, with its output in a file."""
    output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    main(arguments)


def start(address: str, *options: str) -> BaseProcess:
    process = LOADED_PROCESSES.Process(target=child, args=(["screen", "campaign.yaml", "--dask", address, *options],))
    process.start()
    return process


@dataclass(frozen=True)
class Workers:
    """Workers on this machine, which are started again when they die."""

    address: str
    cluster: object

    def keep_up(self) -> None:
        """Start workers again whose nannies have given up, as whoever runs a cluster does."""
        self.cluster.scale(2)

    def kill_one(self, chance: random.Random) -> bool:
        """Kill a worker that lives; return whether there was one."""
        pids = [nanny.pid for nanny in self.cluster.workers.values() if nanny.pid is not None]
        if not pids:
            return False
        os.kill(chance.choice(pids), signal.SIGKILL)
        return True


@contextmanager
def two_workers() -> Iterator[Workers]:
    forkserver.ensure_running()  # before Dask has other modules loaded
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        dask_client("local:2", CalculatorSection.model_validate(CAMPAIGN["calculator"])) as client,
    ):
        yield Workers(client.scheduler_info()["address"], client.cluster)


def count() -> int:
    """Number of rows; 0 without a database."""
    if not Path("out/results.db").exists():
        return 0
    with closing(sqlite3.connect("out/results.db", timeout=20)) as connection:
        return connection.execute("SELECT COUNT(*) FROM systems").fetchone()[0]


def states(path: Path) -> dict[str, str]:
    return {key: row.state for key, row in rows(open_store(path)).items()}


def check_same(reference: Path) -> None:
    """Each task once, with the same state and energy as in the undisturbed run."""
    expected, found = rows(open_store(reference)), rows(open_store("out/results.db"))
    assert {key: row.state for key, row in found.items()} == {key: row.state for key, row in expected.items()}
    for key, row in found.items():
        assert row.energy == pytest.approx(expected[key].energy, abs=1e-3)
        assert row.toatoms().positions == pytest.approx(expected[key].toatoms().positions, abs=0.05)
    assert sorted(path.name for path in Path("out").iterdir()) == ["results.db", "screen.json"]


def disturb(workers: Workers, kills: int, chance: random.Random) -> list[int]:
    """Run a campaign, killing its driver or a worker again and again; return how many rows there were each time.

    A third of the kills come at any time from the start of the driver, the others soon after some more results.
    """
    found: list[int] = []
    driver = start(workers.address)
    while len(found) < kills:
        if len(found) % 3 == 0:
            driver.join(chance.uniform(0.0, 1.0))
        else:
            wanted = count() + chance.randint(1, 3)
            while driver.is_alive() and count() < wanted:
                workers.keep_up()
                time.sleep(0.02)
            driver.join(chance.uniform(0.0, 0.2))
        if driver.exitcode not in (None, -signal.SIGKILL, INCOMPLETE):
            break  # it has finished in the meantime
        if chance.random() < 0.5:
            driver.kill()
            driver.join()
        elif not workers.kill_one(chance):
            continue
        found.append(count())
        if not driver.is_alive():
            driver = start(workers.address)
    while driver.exitcode in (None, -signal.SIGKILL, INCOMPLETE):
        if not driver.is_alive():
            driver = start(workers.address)
        workers.keep_up()
        driver.join(0.5)
    assert driver.exitcode == 0, OUTPUT.read_text()
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """Database of an undisturbed run in one process."""
    folder = tmp_path_factory.mktemp("reference")
    run(folder, CAMPAIGN)
    return folder / "out/results.db"


def test_a_few_kills(reference, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_campaign(tmp_path, CAMPAIGN)
    with two_workers() as workers:
        found = disturb(workers, 6, random.Random(3))
    assert sorted(found) == found
    check_same(reference)


@pytest.mark.slow
def test_a_hundred_kills(reference, tmp_path, monkeypatch, record_figure):
    """Of driver or worker, in as many campaigns as it takes."""
    chance = random.Random(11)
    killed: list[int] = []
    campaigns = 0
    monkeypatch.chdir(tmp_path)
    write_campaign(tmp_path, CAMPAIGN)
    with two_workers() as workers:
        while len(killed) < 100:
            folder = tmp_path / str(campaigns)
            folder.mkdir()
            monkeypatch.chdir(folder)
            write_campaign(folder, CAMPAIGN)
            killed += disturb(workers, min(12, 100 - len(killed)), chance)
            check_same(reference)
            campaigns += 1
    amid = sum(0 < number < len(states(reference)) for number in killed)
    record_figure(
        "kills of driver or worker", f"{len(killed)} in {campaigns} campaigns, {amid} of them amid the results"
    )
    assert amid > 50


def test_workers_die_with_their_driver(tmp_path, monkeypatch):
    """Those that the driver has started; the next driver does the rest."""
    monkeypatch.chdir(tmp_path)
    slow = {**KNOWN["calculator"], "arguments": {"seconds": 0.2}}
    write_campaign(tmp_path, calculator=slow)
    driver = start("local:1")
    while count() < 2:
        assert driver.is_alive(), OUTPUT.read_text()
        time.sleep(0.02)
    workers = psutil.Process(driver.pid).children(recursive=True)
    assert workers
    driver.kill()
    driver.join()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    left = 20 - count()
    assert 0 < left < 20
    assert len(run(tmp_path, calculator=slow)) == left


def test_a_structure_that_kills_workers_costs_only_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deadly = {"factory": "tests.screening.calculators:Deadly", "energy_kind": "total"}
    write_campaign(tmp_path, calculator=deadly, bulks=["Cu"], placements={"mode": "random", "number": 2})
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), two_workers() as workers:
        driver = start(workers.address, "--batch-size", "4")
        driver.join()
    assert driver.exitcode == INCOMPLETE, OUTPUT.read_text()
    assert "were lost with their workers; run the command again" in OUTPUT.read_text()
    found = rows(open_store("out/results.db"))
    assert sorted(row.name for row in found.values()) == [
        "Cu(111)",
        "Cu(111) H random-0",
        "Cu(111) H random-1",
        "H2",
        "H2O",
    ]
