"""Campaigns on Dask workers: the same results, and clear words when something is wrong with the workers."""

from __future__ import annotations

import os
from dataclasses import replace
from threading import Timer

import dask
import pytest

from escn_calc.errors import CalculationError, InputError
from escn_calc.screening import DaskEngine, dask_client, open_store, prepare, run_campaign, work_of
from escn_calc.screening.cost import speed_of
from escn_calc.screening.dask_cluster import check_address
from escn_calc.screening.dask_engine import NoWorkersWarning
from escn_calc.screening.model import load
from tests.screening.campaigns import campaign, rows, run

distributed = pytest.importorskip("distributed")


def client_with(threads: int):
    """A worker in this process."""
    return distributed.Client(processes=False, n_workers=1, threads_per_worker=threads, dashboard_address=None)


def engine_of(client, prepared, batch_size: int | None = None) -> DaskEngine:
    return DaskEngine(client, work_of(prepared.campaign, prepared.facts, batch_size))


def test_the_same_as_in_this_process(tmp_path):
    (tmp_path / "here").mkdir()
    run(tmp_path / "here")
    prepared = prepare(campaign(tmp_path))
    with client_with(1) as client:
        engine = engine_of(client, prepared, 3)
        assert engine.workers == 1 and "Dask workers of" in engine.words
        speed = speed_of(engine, prepared.plan.tasks)
        assert speed.device == "cpu" and speed.seconds_per_atom > 0
        outcome = run_campaign(prepared, engine)
    assert outcome.lost == ()
    here, there = (rows(open_store(folder / "out/results.db")) for folder in (tmp_path / "here", tmp_path))
    assert here.keys() == there.keys()
    for key, row in here.items():
        assert (row.state, row.energy) == (there[key].state, there[key].energy)
        assert row.data["versions"] == there[key].data["versions"]


def test_workers_with_several_threads_are_refused(tmp_path):
    prepared = prepare(campaign(tmp_path))
    with client_with(2) as client, pytest.raises(InputError, match=r"a Dask worker has 2 threads.*--nthreads 1"):
        run_campaign(prepared, engine_of(client, prepared))


def test_a_scheduler_that_goes_away(tmp_path):
    prepared = prepare(campaign(tmp_path))
    with client_with(1) as client, pytest.raises(CalculationError, match="the Dask scheduler is gone"):
        run_campaign(prepared, engine_of(client, prepared), kept=lambda ended: client.shutdown())
    kept = len(rows(prepared.store))
    assert 0 < kept < 20
    assert len(run(tmp_path)) == 20 - kept


def test_workers_of_this_machine_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr("escn_calc.screening.dask_engine.PATIENCE_S", 0.2)
    prepared = prepare(campaign(tmp_path))
    ended = []
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "100ms"}), client_with(1) as client:

        def stop_the_worker_once(one) -> None:
            ended.append(one)
            if len(ended) == 3:
                client.sync(client.cluster.workers[0].close)

        run_campaign(prepared, engine_of(client, prepared), kept=stop_the_worker_once)
    assert len(ended) == len(rows(prepared.store)) == 20


def test_local_workers_leave_the_environment_as_it_was(tmp_path):
    """Nannies write the threads of their workers into it, which all later processes would take for the user's wish."""
    before = dict(os.environ)
    with dask_client("local:1", campaign(tmp_path).config.calculator):
        assert dict(os.environ) != before
    assert dict(os.environ) == before


def test_a_scheduler_without_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("escn_calc.screening.dask_engine.PATIENCE_S", 0.2)
    prepared = prepare(campaign(tmp_path))
    with (
        distributed.LocalCluster(processes=False, n_workers=0, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster.scheduler_address) as client,
        pytest.warns(
            NoWorkersWarning, match="the Dask workers of .*: there are none; waiting for some to come"
        ) as told,
    ):
        timer = Timer(1.0, cluster.scale, [1])
        timer.start()
        run_campaign(prepared, engine_of(client, prepared))
    assert told and len(rows(prepared.store)) == 20


def test_other_weights_on_a_worker_are_refused(tmp_path):
    prepared = prepare(campaign(tmp_path))
    work = replace(work_of(prepared.campaign, prepared.facts, None), sha256="a" * 64)
    with pytest.raises(InputError, match=r"have the sha256 None here, and a+ where the campaign was planned"):
        work.load()


def test_a_process_loads_the_model_once(tmp_path):
    model = campaign(tmp_path).config.calculator
    assert load(model) is load(model.model_copy())


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("local:0", "'local:0': the number of workers is '0'; write for example local:2"),
        ("local:two", "the number of workers is 'two'"),
        ("host:8786", "'host:8786' is no address of Dask workers; give tcp://host:port of a scheduler"),
    ],
)
def test_bad_addresses(address, message):
    with pytest.raises(InputError, match=message):
        check_address(address)


def test_no_scheduler(tmp_path):
    check_address("tcp://127.0.0.1:9")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(InputError, match=r"there is no Dask scheduler at 'tcp://127\.0\.0\.1:9'"),
        dask_client("tcp://127.0.0.1:9", campaign(tmp_path).config.calculator),
    ):
        pass
