"""``escn report``: a screening campaign as one page."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT_STRUCTURES = 120


@click.command()
@click.argument("database")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page.  [default: the name of the database with .html; report.html for a URL]",
)
@click.option(
    "--structures",
    type=click.IntRange(min=0),
    default=DEFAULT_STRUCTURES,
    show_default=True,
    metavar="NUMBER",
    help="Show at most so many best structures, the strongest binding of every adsorbate first; each adds about 20 kB.",
)
@click.option("--overwrite", is_flag=True, help="Replace the page if it is there.")
def report(database: str, output: Path | None, structures: int, overwrite: bool) -> None:
    """Write a page about the campaign in DATABASE, the file results.db of escn screen or a postgresql:// URL.

    One HTML file that needs no network: energies in eV ranked and compared, plots, anomalies, pictures and a 3D view
    of the best structures, the methods in words, and first of all what speaks against the results. Nothing is
    recomputed. A campaign may be running.
    """
    from escn_calc.errors import InputError
    from escn_calc.report import warnings_of, write_report
    from escn_calc.screening import open_store
    from escn_calc.screening.results import campaign, results

    output = output or (Path("report.html") if "://" in database else Path(database).with_suffix(".html"))
    if output.exists() and not overwrite:
        raise InputError(f"{str(output)!r} exists; choose another --output, or give --overwrite")
    if output.exists() and Path(database).exists() and output.samefile(database):
        raise InputError(f"the page would replace the database {database!r}; choose another --output")
    store = open_store(database)
    found, about = results(store), campaign(store)
    write_report(found, about, output, structures=structures)
    for title in warnings_of(found, about):
        click.secho(f"Note: {title}", fg="yellow", err=True)
    click.echo(f"The report is {output} ({output.stat().st_size / 1e6:.1f} MB)")
