"""The tables that ``escn bench`` shows, and its record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escn_calc.cli.outputs import model_record, settings_record
from escn_calc.errors import InputError
from escn_calc.records import versions

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from escn_calc.bench.accuracy import Difference
    from escn_calc.bench.run import Benchmark
    from escn_calc.bench.speed import Speed
    from escn_calc.calculator import ESCNCalculator


def check_output(output: Path, structures: Iterable[Path], *, replace: bool) -> None:
    """Make sure that the record can be written and that nothing would be lost.

    Raises
    ------
    InputError
        It is a structure file, or exists and is not to be replaced, or has no folder.
    """
    if not output.parent.is_dir():
        raise InputError(f"there is no folder {str(output.parent)!r} for the file {output.name!r}; make it first")
    if not output.exists():
        return
    for structure in structures:
        if structure.exists() and output.samefile(structure):
            raise InputError(f"the figures would replace the structure file {str(structure)!r}; choose another --json")
    if not replace:
        raise InputError(f"{str(output)!r} exists; choose another --json, or give --overwrite")


def benchmark_record(settings: dict[str, Any], calculator: ESCNCalculator, found: Benchmark) -> dict[str, Any]:
    """Collect what was run and what came out, as values that JSON can hold."""
    settings = {**settings, "structures": [str(path) for path in settings["structures"]]}
    return {
        "command": "escn bench",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": found.machine,
        "versions": versions(),
        "model": model_record(calculator),
        "settings": settings_record(settings),
        "matrix_product_multiply_adds_per_second": found.matrix_product_rate,
        "structures": [asdict(speed) for speed in found.speeds],
        "differences": {
            "atoms": found.compared_atoms,
            "units": {"energy_per_atom": "eV", "forces": "eV/Å"},
            "largest": [asdict(difference) for difference in found.differences],
        },
    }


def print_benchmark(found: Benchmark, calculator: ESCNCalculator, console: Console) -> None:
    """Show all tables."""
    console.print(speed_table(found.speeds))
    console.print(cost_table(found.speeds, found.matrix_product_rate))
    console.print(difference_table(found.differences, found.compared_atoms))
    console.print(setting_table(found, calculator))


def speed_table(speeds: tuple[Speed, ...]) -> Table:
    """Lay out evaluations per second, alone and in batches."""
    from escn_calc.bench.timing import spread

    batch = f"structures/s, {speeds[0].batch} together"
    table = _table("Speed, median (lowest to highest)", ("structure", "atoms", "steps/s", "graph", batch, "gain"))
    for speed in speeds:
        table.add_row(
            speed.name,
            str(speed.atoms),
            spread(speed.steps_per_second),
            f"{speed.graph_share:.1%}",
            spread(speed.structures_per_second),
            f"{speed.gain:.2f}",
        )
    table.caption = "A step: energy and forces of one structure. Graph: its share; the network has the rest."
    return table


def cost_table(speeds: tuple[Speed, ...], rate: float) -> Table:
    """Lay out what a call takes, and what there is room for."""
    headings = ("structure", "edges", "memory, MB", "atoms that fit", "10⁹ multiply-adds", "of full rate")
    table = _table("Cost of a step", headings)
    for speed in speeds:
        table.add_row(
            speed.name,
            str(speed.edges),
            f"{speed.peak_bytes / 1e6:.3g}",
            "" if speed.most_atoms is None else str(speed.most_atoms),
            f"{speed.multiply_adds / 1e9:.3g}",
            f"{speed.reached(rate):.1%}",
        )
    table.caption = "Memory: without weights. Fit: by estimate, now. Full rate: that of a large matrix product."
    return table


def difference_table(differences: tuple[Difference, ...], atoms: int) -> Table:
    """Lay out the largest differences."""
    headings = ("compared with", "energy, meV/atom", "forces, meV/Å", "of the largest force")
    table = _table(f"Largest differences, batches of {atoms} atoms", headings)
    for difference in differences:
        forces, relative = difference.forces, difference.relative_forces
        table.add_row(
            difference.against,
            f"{1000 * difference.energy_per_atom:.1e}",
            "" if forces is None else f"{1000 * forces:.1e}",
            "" if relative is None else f"{relative:.1e}",
        )
    return table


def setting_table(found: Benchmark, calculator: ESCNCalculator) -> Table:
    """Lay out what was measured, and on what."""
    from rich.markup import escape
    from rich.table import Table

    potential, machine = calculator.potential, found.machine
    table = Table(title="Setting", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("machine", escape(f"{machine['name']}, {machine['threads']} of {machine['processors']} threads"))
    if machine["load_average"] is not None:
        table.add_row("load before", f"{machine['load_average']:.1f} (other work slows what is measured)")
    table.add_row("matrix product", f"{found.matrix_product_rate / 1e9:.3g}·10⁹ multiply-adds/s in {potential.dtype}")
    forces = f"{potential.forces or 'no'} forces"
    products = [] if potential.matmul == "full" else [f"products in {potential.matmul}"]
    evaluated = (potential.dtype, *products, forces, f"{potential.frames} frames", potential.device)
    table.add_row("evaluated in", ", ".join(evaluated))
    table.add_row("model", escape(potential.card.name))
    table.add_row("model sha256", potential.card.sha256)
    table.add_row("versions", ", ".join(f"{name} {number}" for name, number in versions().items()))
    return table


def _table(title: str, headings: tuple[str, ...]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    return table
