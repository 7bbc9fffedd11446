"""``escn bench``: how fast a model is on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from escn_calc import ESCNCalculator
from escn_calc.cli.bench_outputs import benchmark_record, check_output, print_benchmark
from escn_calc.cli.model_options import model_options
from escn_calc.records import write_json
from escn_calc.structure_input import read_structure

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (20, 40, 100)
LARGEST_SIZE = 100_000
BATCH_ON_CPU, BATCH_ON_GPU = 8, 64


@click.command(
    epilog="Exit status: 0 success, 1 error, 2 wrong usage, 130 interrupted with Ctrl-C, 143 with SIGTERM.",
)
@click.argument("structures", metavar="[STRUCTURE]...", type=click.Path(path_type=Path), nargs=-1)
@model_options
@click.option(
    "--size",
    "sizes",
    type=click.IntRange(min=1, max=LARGEST_SIZE),
    multiple=True,
    metavar="ATOMS",
    help="About how many atoms a standard slab has. Can be given several times.  [default: 20, 40, 100]",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1, max=10_000),
    metavar="NUMBER",
    help=f"Structures given to the model together.  [default: {BATCH_ON_CPU} on a CPU, {BATCH_ON_GPU} on a GPU]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, max=3600),
    default=4.0,
    show_default=True,
    help="How long the calls for each structure are repeated, in s; three times at least.",
)
@click.option(
    "--json", "output", type=click.Path(path_type=Path, dir_okay=False), help="File for all figures, as JSON."
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@click.pass_context
def bench(
    ctx: click.Context,
    structures: tuple[Path, ...],
    model: str,
    device: str,
    dtype: str,
    matmul: str,
    forces: str | None,
    frames: str,
    sizes: tuple[int, ...],
    batch: int | None,
    seconds: float,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Measure how fast a model is on this machine.

    STRUCTURE is any file that ASE can read (of several structures in it the last one counts). Without one, CO on
    rattled (111) slabs of a metal that the model knows is evaluated.

    Measured are steps per second (energy and forces of one structure, whose atoms move a little from call to call, as
    in molecular dynamics or a relaxation), structures per second in batches, memory, multiply-adds in relation to what
    a plain matrix product reaches in the same run, and the differences between batches and single structures, and from
    plain float32 and float64. Every figure is a median, with the lowest and the highest value. Other work on the
    machine slows what is measured.
    """
    if structures and sizes:
        raise click.UsageError("--size is for the standard slabs; give it or structure files, not both", ctx)
    if output is not None:
        check_output(output, structures, replace=overwrite)
    files = {str(path): read_structure(path) for path in structures}
    console = Console(stderr=True, highlight=False)
    calculator = ESCNCalculator(model, device=device, dtype=dtype, matmul=matmul, forces=forces, frames=frames)
    with console.status("Loading the model"):
        from escn_calc.bench.run import run_benchmark, stages
        from escn_calc.bench.slabs import System, known_slab

        potential = calculator.potential
    systems = [System(*file) for file in files.items()]
    systems = systems or [known_slab(size, potential.card.elements) for size in sizes or SIZES]
    batch = batch or (BATCH_ON_CPU if potential.device == "cpu" else BATCH_ON_GPU)
    with _progress_bar(console, stages(systems)) as tell:
        found = run_benchmark(calculator, systems, batch=batch, seconds=seconds, tell=tell)
    print_benchmark(found, calculator, Console(highlight=False))
    if output is not None:
        write_json(output, benchmark_record(ctx.params, calculator, found))
        click.echo(f"All figures are in {output}")


@contextmanager
def _progress_bar(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    """Draw a bar in a terminal, and nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=total, completed=-1)
        yield lambda words: bar.update(task, description=words, advance=1)
