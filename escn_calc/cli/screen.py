"""``escn screen``: a screening campaign from a YAML file to a database of results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from escn_calc.errors import CalculationError, ESCNError
from escn_calc.options import DEVICES

if TYPE_CHECKING:
    from escn_calc.cli.screen_outputs import Display
    from escn_calc.screening import Outcome, Prepared
    from escn_calc.screening.cost import Cost
    from escn_calc.screening.local import Engine
    from escn_calc.screening.relaxing import Work
    from escn_calc.screening.tasks import Task

INCOMPLETE = 3
MOST_RESULTS_READ = 20_000
GO_ON = "The same command goes on from here"


@click.command(
    epilog="Exit status: 0 everything that was planned has a row, 1 error, 2 wrong usage, 3 some tasks were lost with "
    "their workers, 130 interrupted with Ctrl-C, 143 with SIGTERM. Rows that are written stay whatever happens; the "
    "same command does the rest."
)
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print the plan and what it will cost, and write nothing.")
@click.option(
    "--dask",
    metavar="WHERE",
    help="Relax on Dask workers: local:N for N on this machine, tcp://host:port of a scheduler, or its scheduler file "
    "(*.json).  [default: in this process]",
)
@click.option(
    "--device", type=click.Choice(DEVICES), help="Where the model runs.  [default: what CONFIG says, or auto]"
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Structures that are relaxed together, and at most lost with a process.  [default: what suits the device]",
)
@click.option("--retry-failed", is_flag=True, help="Relax again what could not be evaluated before.")
def screen(
    config: Path, dry_run: bool, dask: str | None, device: str | None, batch_size: int | None, retry_failed: bool
) -> None:
    """Relax adsorbates on surfaces as the YAML file CONFIG says, and find the best placement of each.

    Results go to the folder `out` of CONFIG: results.db, an ASE database with a row for each relaxation (bulks, gas
    molecules, clean slabs, slabs with adsorbates), and screen.json, the record of the run. What has a row is not done
    again. Make tables with escn export, a page with escn report.
    """
    from escn_calc.cli.screen_outputs import Display, ScreenRecord, plan_table, results_table
    from escn_calc.screening import prepare, read_campaign, work_of
    from escn_calc.screening.results import results

    console = Console(stderr=True, highlight=False)
    campaign = read_campaign(config)
    if device is not None:
        campaign = campaign.on_device(device)
    if dask is not None:
        from escn_calc.screening.dask_cluster import check_address

        check_address(dask)
    with console.status("Building the structures"):
        prepared = prepare(campaign)
    waiting = prepared.missing(retry=retry_failed)
    with _engine(dask, work_of(campaign, prepared.facts, batch_size)) as engine:
        cost = _estimate(waiting, prepared, engine, console)
        console.print(plan_table(prepared, waiting, cost))
        for note in prepared.plan.notes:
            console.print(f"Note: {note}", style="yellow", soft_wrap=True)
        if dry_run:
            return
        display = Display(console, ScreenRecord.of(prepared, cost, engine.words))
        outcome = _run(prepared, engine, display, retry_failed)
    if prepared.plan.counts["adslab"] <= MOST_RESULTS_READ:
        Console(highlight=False).print(results_table(results(prepared.store)))
    click.echo(f"Results are in {prepared.store.place.name}")
    if outcome.lost:
        click.echo(f"{len(outcome.lost)} relaxations were lost with their workers; run the command again", err=True)
        raise click.exceptions.Exit(INCOMPLETE)


def _estimate(waiting: Sequence[Task], prepared: Prepared, engine: Engine, console: Console) -> Cost | None:
    """Time a few evaluations; None if there is nothing to do, or if they fail in a campaign that has worked before."""
    from escn_calc.screening.cost import estimate, speed_of
    from escn_calc.screening.store import mean_evaluations

    if not waiting:
        return None
    try:
        with console.status(f"Timing a few evaluations in {engine.words}"):
            speed = speed_of(engine, waiting)
    except CalculationError as error:
        if not prepared.finished:
            raise
        console.print(f"Note: no estimate of the time: {error}", style="yellow", markup=False, soft_wrap=True)
        return None
    return estimate(waiting, speed, engine.workers, mean_evaluations(prepared.finished))


def _run(prepared: Prepared, engine: Engine, display: Display, retry: bool) -> Outcome:
    """Run and keep the record; an error says how far it got."""
    from escn_calc.screening import run_campaign

    try:
        with display:
            outcome = run_campaign(prepared, engine, retry=retry, started=display.started, kept=display.kept)
    except KeyboardInterrupt:
        display.close("interrupted")
        click.echo(GO_ON, err=True)
        raise
    except ESCNError as error:
        if display.tally is None:
            raise
        finished = f"{display.tally.finished} of {display.tally.total} relaxations have a row"
        raise type(error)(f"{str(error).rstrip('.')}. {finished}. {GO_ON}") from error
    display.close("incomplete" if outcome.lost else "finished")
    return outcome


@contextmanager
def _engine(dask: str | None, work: Work) -> Iterator[Engine]:
    """Where to relax."""
    if dask is None:
        from escn_calc.screening import LocalEngine

        yield LocalEngine(work)
        return
    from escn_calc.screening import DaskEngine, dask_client

    with dask_client(dask, work.model) as client:
        yield DaskEngine(client, work)
