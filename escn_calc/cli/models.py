"""``escn models``: which models there are, fetching, converting and verifying them."""

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Column, Table

from escn_calc.checkpoints import DEFAULT_MODEL, shipped_models
from escn_calc.checkpoints.card import CARD, WEIGHTS, ModelCard, network_size, read_document
from escn_calc.checkpoints.catalogue import (
    CATALOGUE,
    REFERENCE_STRUCTURES,
    CatalogueEntry,
    ReferenceEnergy,
    find_entry,
    get_entry,
    suggest,
)
from escn_calc.errors import CheckpointError, InputError

Rows = list[tuple[str, str]]
LONGEST_DATA_IN_LIST = 32
STATED = "the energy kind or its reference was stated by whoever converted the file"

_cache_dir_option = click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of downloaded checkpoints; else ESCN_CACHE_DIR, else the user's cache folder.",
)
_mirror_option = click.option("--mirror", help="Address that replaces FAIR's server; else ESCN_MIRROR.")
_offline_option = click.option(
    "--offline", is_flag=True, default=None, help="Never open a connection; also with ESCN_OFFLINE=1."
)


@click.group()
def models() -> None:
    """List, show, fetch, convert and verify models."""


@models.command("list")
def list_models() -> None:
    """List the shipped models and the published checkpoints."""
    _console().print(_overview())


@models.command()
@click.argument("name")
@_cache_dir_option
def show(name: str, cache_dir: Path | None) -> None:
    """Show what is known of the model NAME: a shipped or published one, or the path of a model folder or file."""
    entry = find_entry(name)
    rows = _entry_rows(entry, cache_dir) if entry is not None else _card_rows(_find_card(name))
    table = _table("", "")
    table.show_header = False
    for label, value in rows:
        table.add_row(label, value)
    _console().print(table)


@models.command()
@click.argument("name")
@_cache_dir_option
@_mirror_option
@_offline_option
def fetch(name: str, cache_dir: Path | None, mirror: str | None, offline: bool | None) -> None:
    """Download the published checkpoint NAME into the cache, or check the copy that is there."""
    from escn_calc.checkpoints.checksum import file_sha256
    from escn_calc.checkpoints.download import fetch as fetch_file

    if _is_shipped(name):
        click.echo(f"{name} is included with the package, nothing to fetch")
        return
    file = fetch_file(get_entry(name), cache_dir=cache_dir, mirror=mirror, offline=offline)
    found = file_sha256(file.path)
    if found != file.sha256:
        raise CheckpointError(
            f"{file.path}: sha256 is {found}, recorded is {file.sha256}; remove the file and fetch it again"
        )
    click.echo(f"{file.path}\nsha256 {file.sha256}")


@models.command()
@click.argument("source", metavar="MODEL")
@click.argument("folder", metavar="B/", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the model folder B if it exists.")
@click.option("--name", help="Name of the model in its card; else its published name or that of the file.")
@click.option(
    "--energy-kind", type=click.Choice(["adsorption", "total"]), help="What the energy is, where the file cannot tell."
)
@click.option("--energy-reference", metavar="TEXT", help="What the energy is relative to, where the file cannot tell.")
@_cache_dir_option
@_mirror_option
@_offline_option
def convert(
    source: str,
    folder: Path,
    overwrite: bool,
    name: str | None,
    energy_kind: str | None,
    energy_reference: str | None,
    cache_dir: Path | None,
    mirror: str | None,
    offline: bool | None,
) -> None:
    """Write MODEL as a native model folder B, which opens without pickle.

    MODEL is the path of a FAIR checkpoint, or the name of a published one, which is fetched if necessary. Also measures
    the edge grid that frames="converged" needs and keeps it in the card, so that loading B with converged frames need
    not measure it again.
    """
    from escn_calc.checkpoints import load_checkpoint
    from escn_calc.checkpoints.native import read_native, require_replaceable, write_native
    from escn_calc.convergence import with_converged_longitudes

    require_replaceable(folder, overwrite)
    if _is_native(source):
        raise InputError(f"{source} is already in the native format")
    checkpoint = load_checkpoint(source, cache_dir=cache_dir, mirror=mirror, offline=offline)
    labelled = replace(checkpoint, card=_converted_card(checkpoint.card, name, energy_kind, energy_reference))
    write_native(with_converged_longitudes(labelled), folder, overwrite=overwrite)
    card = read_native(folder).card
    click.echo(f"{folder}: {card.name}, energy kind {card.energy_kind}, sha256 {card.sha256}")


@models.command()
@click.argument("name")
@_cache_dir_option
@_mirror_option
@_offline_option
def verify(name: str, cache_dir: Path | None, mirror: str | None, offline: bool | None) -> None:
    """Recompute published energies with the published checkpoint NAME; fails if one is outside its tolerance."""
    from escn_calc.checkpoints import load_checkpoint
    from escn_calc.potential import Potential

    if find_entry(name) is None and (_is_shipped(name) or Path(name).exists()):
        raise InputError(
            f"{name} is not a published model: only those have published energies to verify against, see "
            "`escn models list`"
        )
    entry = get_entry(name)
    checkpoint = load_checkpoint(entry.name, cache_dir=cache_dir, mirror=mirror, offline=offline)
    if not entry.references:
        click.echo(f"{entry.name} has the published configuration; no energy is published to compare with")
        return
    potential = Potential(checkpoint, device="cpu", dtype="float32", frames="canonical")
    predictions = potential.evaluate([REFERENCE_STRUCTURES[ref.structure]() for ref in entry.references])
    ours = [prediction.energy for prediction in predictions]
    _console().print(_comparison(entry, ours))
    failed = [ref.structure for ref, energy in zip(entry.references, ours, strict=True) if not _agrees(ref, energy)]
    if failed:
        raise CheckpointError(f"{entry.name} does not reproduce the published energy of {', '.join(failed)}")


def _is_shipped(name: str) -> bool:
    return name == "default" or name in shipped_models()


def _is_native(name: str) -> bool:
    """Whether ``name`` means a model folder, which a published name never does."""
    if find_entry(name) is not None:
        return False
    path = Path(name).expanduser()
    return _is_shipped(name) or (path / CARD).is_file() or path.name == WEIGHTS


def _converted_card(
    card: ModelCard, name: str | None, energy_kind: str | None, energy_reference: str | None
) -> ModelCard:
    """Return the card of a file with what its user states, and with the digest of the file itself."""
    options = {"energy_kind": energy_kind, "energy_reference": energy_reference}
    stated = {key: value for key, value in options.items() if value}
    if stated and card.energy_kind != "unknown":
        raise InputError(
            f"{card.name} is known to give {card.energy_kind} energies; leave out --energy-kind and --energy-reference"
        )
    notes = (*card.notes, STATED) if stated else card.notes
    update = {**stated, "name": name or card.name, "source_sha256": card.sha256, "notes": notes}
    return card.model_copy(update=update)


def _overview() -> Table:
    """Return the table of all models, whose names are never cut: in a narrow terminal the other columns are folded."""
    rows: list[tuple[str, ...]] = []
    for name, folder in shipped_models().items():
        card = read_document(folder).card
        mark = " (default)" if name == DEFAULT_MODEL else ""
        data = textwrap.shorten(card.training_data, LONGEST_DATA_IN_LIST, placeholder=" …")
        rows.append((name + mark, network_size(card.config), data, card.energy_kind, card.forces or "none"))
    for entry in CATALOGUE.values():
        data = f"{entry.training_set.name}, {entry.split.partition(':')[0]}"
        rows.append((entry.name, network_size(entry.config), data, entry.training_set.energy_kind, _forces(entry)))
    table = _table("name", "network", "trained on", "energy", "forces")
    table.show_edge = table.pad_edge = False
    for index in (0, 3, 4):
        table.columns[index].no_wrap = True
    table.columns[0].min_width = max(len(row[0]) for row in rows)
    for row in rows:
        table.add_row(*row)
    return table


def _table(*headers: str) -> Table:
    """Return a table whose text is folded, never cut."""
    return Table(*(Column(header, overflow="fold") for header in headers))


def _comparison(entry: CatalogueEntry, ours: list[float]) -> Table:
    table = _table("structure", "ours / eV", "published / eV", "tolerance / eV", "", "source")
    table.title = entry.name
    for reference, energy in zip(entry.references, ours, strict=True):
        spread = "" if reference.spread is None else f" ± {reference.spread:.4f}"
        table.add_row(
            reference.structure,
            f"{energy:.4f}",
            f"{reference.energy:.4f}{spread} (n = {reference.draws})",
            f"{reference.tolerance:g}",
            "ok" if _agrees(reference, energy) else "[red]differs[/red]",
            reference.source,
        )
    return table


def _agrees(reference: ReferenceEnergy, energy: float) -> bool:
    return abs(energy - reference.energy) <= reference.tolerance


def _entry_rows(entry: CatalogueEntry, cache_dir: Path | None) -> Rows:
    from escn_calc.checkpoints.download import cached_path, recorded_sha256

    training, path = entry.training_set, cached_path(entry, cache_dir)
    return [
        ("name", entry.name),
        ("network", network_size(entry.config)),
        ("trained on", f"{training.name}, {entry.split}"),
        ("energy kind", training.energy_kind),
        ("energy reference", training.energy_reference),
        ("forces", _forces(entry)),
        ("elements", _elements(training.elements)),
        ("published errors", _lines(entry.metrics)),
        ("not for", training.not_for),
        ("licence", training.licence),
        ("citation", training.citation),
        ("address", entry.url),
        ("file", f"{path}{'' if path.exists() else ' (not fetched yet)'}"),
        ("recorded sha256", recorded_sha256(path) or "none yet: recorded at the first fetch"),
    ]


def _card_rows(card: ModelCard) -> Rows:
    return [
        ("name", card.name),
        ("network", network_size(card.config)),
        ("trained on", card.training_data),
        ("energy kind", card.energy_kind),
        ("energy reference", card.energy_reference),
        ("forces", card.forces or "none"),
        ("elements", _elements(card.elements)),
        ("other elements", "refused" if card.refuse_unseen_elements else "evaluated with a warning"),
        ("figures", _lines(card.metrics)),
        ("not for", card.not_for or "not stated"),
        ("licence", card.licence),
        ("citation", card.citation),
        ("sha256", card.sha256),
        *([("converted from sha256", card.source_sha256)] if card.source_sha256 else []),
        *(("note", note) for note in card.notes),
    ]


def _find_card(name: str) -> ModelCard:
    shipped = shipped_models()
    folder = shipped.get(DEFAULT_MODEL if name == "default" else name)
    if folder is not None:
        return read_document(folder).card
    if Path(name).exists():
        from escn_calc.checkpoints import load_checkpoint

        return load_checkpoint(name).card
    raise InputError(f"there is no model {name!r}; {suggest(name, [*shipped, *CATALOGUE])}")


def _forces(entry: CatalogueEntry) -> str:
    return "direct" if entry.config.get("regress_forces", True) else "none"


def _elements(elements: tuple[str, ...] | None) -> str:
    return "not known" if elements is None else " ".join(elements)


def _lines(metrics: Mapping[str, int | float | str]) -> str:
    """Return one line for each figure."""
    return "\n".join(f"{name}: {_number(value)}" for name, value in metrics.items()) or "none"


def _number(value: int | float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _console() -> Console:
    """Return a console on standard output; as wide as needed where that is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=200)
