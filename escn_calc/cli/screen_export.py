"""``escn export``: the results of a screening campaign as a table for other programs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("database")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The table: a .csv or a .parquet file."
)
@click.option("--overwrite", is_flag=True, help="Replace the table if it is there.")
def export(database: str, output: Path, overwrite: bool) -> None:
    """Write a table of the results in DATABASE, the file results.db of escn screen or a postgresql:// URL.

    One line for each placement: adsorption energies in eV per adsorbed molecule, forces in eV/Å, coverages in
    monolayers. A campaign may be running.
    """
    from escn_calc.errors import InputError
    from escn_calc.screening import open_store
    from escn_calc.screening.export import check_table_path, write_table
    from escn_calc.screening.results import results

    check_table_path(output)
    if output.exists() and not overwrite:
        raise InputError(f"{str(output)!r} exists; choose another --output, or give --overwrite")
    found = results(open_store(database))
    write_table(found, output)
    click.echo(f"{len(found)} placements are in {output}")
