"""``escn train``: from a YAML file and labelled structures to a model, in files that a stopped run goes on from."""

from __future__ import annotations

import os
import signal
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from escn_calc.cli import Terminated

if TYPE_CHECKING:
    from rich.table import Table

    from escn_calc.training import TrainingConfig, TrainingResult


@click.command(
    epilog="Exit status: 0 finished, 1 error, 2 wrong usage, 130 interrupted with Ctrl-C, 143 with SIGTERM (in both "
    "cases the state is kept, and the same command goes on from it)."
)
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--device", type=click.Choice(("auto", "cpu", "cuda")), help="Where to train.  [default: what CONFIG says, or auto]"
)
@click.option("--overwrite", is_flag=True, help="Remove the results of an earlier run in the folder and begin again.")
def train(config: Path, device: str | None, overwrite: bool) -> None:
    """Train a model as the YAML file CONFIG says, from scratch or from any model that can be loaded.

    Results, in the folder `out` of CONFIG: best/ and last/ (models, for ESCNCalculator and --model), log.csv and
    curves.png (losses; errors in eV/atom, eV/Å and eV/Å³), record.json (what was run) and state/. Where state/ is
    there the run goes on, bit by bit as if it had never stopped.

    Several GPUs: torchrun --nproc-per-node 4 --no-python escn train CONFIG
    """
    from escn_calc.cli.train_progress import training_display
    from escn_calc.training import load_config
    from escn_calc.training import train as run_training

    settings = load_config(config)
    if device is not None:
        settings = settings.model_copy(update={"device": device})
    console = _console()
    with training_display(console, settings.schedule.epochs) as display:
        result = run_training(
            settings,
            overwrite=overwrite,
            report=lambda stage: console.print(stage, style="dim"),
            callbacks=(display,),
        )
    console.print(summary_table(settings, result))
    console.print(f"Results are in {settings.out}/", soft_wrap=True)
    if not result.finished:
        console.print("The same command goes on from here", soft_wrap=True)
        raise Terminated if result.signal == signal.SIGTERM else KeyboardInterrupt


def summary_table(config: TrainingConfig, result: TrainingResult) -> Table:
    """Lay out the result for the terminal."""
    from rich.table import Table

    from escn_calc.convergence import RESIDUAL_METRIC

    table = Table(title="Training; errors are those of the best model", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    done = "[green]finished[/green]" if result.finished else "[yellow]interrupted[/yellow]"
    table.add_row("result", f"{done}: epoch {result.epochs} of {config.schedule.epochs}, step {result.steps}")
    table.add_row("time", f"{result.seconds:.1f} s")
    for name, value in result.metrics.items():
        if name != RESIDUAL_METRIC:
            table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    return table


def _console() -> Console:
    """Standard error, for the first of several processes; the others say nothing."""
    if os.environ.get("RANK", "0") == "0":
        return Console(stderr=True, highlight=False)
    return Console(file=StringIO())
