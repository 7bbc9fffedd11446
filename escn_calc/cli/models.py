"""``escn models``: which models there are, fetching, converting and verifying them."""

from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from escn_calc.checkpoints import DEFAULT_MODEL, shipped_models
from escn_calc.checkpoints.card import ModelCard, read_card
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
    table = Table("name", "network", "trained on", "energy", "forces")
    for name, folder in shipped_models().items():
        card = read_card(folder)
        mark = " (default)" if name == DEFAULT_MODEL else ""
        table.add_row(name + mark, _network_size(card), card.training_data, card.energy_kind, card.forces or "none")
    for entry in CATALOGUE.values():
        data = f"{entry.training_set.name}, {entry.split.partition(':')[0]}"
        table.add_row(entry.name, entry.size, data, entry.training_set.energy_kind, _forces(entry))
    _console().print(table)


@models.command()
@click.argument("name")
@_cache_dir_option
def show(name: str, cache_dir: Path | None) -> None:
    """Show what is known of the model NAME: a shipped or published one, or the path of a model folder or file."""
    entry = find_entry(name)
    rows = _entry_rows(entry, cache_dir) if entry is not None else _card_rows(_find_card(name))
    table = Table(show_header=False)
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

    file = fetch_file(get_entry(name), cache_dir=cache_dir, mirror=mirror, offline=offline)
    found = file_sha256(file.path)
    if found != file.sha256:
        raise CheckpointError(
            f"{file.path}: sha256 is {found}, recorded is {file.sha256}; remove the file and fetch it again"
        )
    click.echo(f"{file.path}\nsha256 {file.sha256}")


@models.command()
@click.argument("source", metavar="A.pt", type=click.Path(path_type=Path))
@click.argument("folder", metavar="B/", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the model folder B if it exists.")
def convert(source: Path, folder: Path, overwrite: bool) -> None:
    """Write the FAIR checkpoint A.pt as a native model folder B, which opens without pickle.

    Also measures the edge grid that frames="converged" needs and keeps it in the card, so that loading B with
    converged frames need not measure it again.
    """
    from escn_calc.checkpoints.fair import read_fair
    from escn_calc.checkpoints.native import read_native, require_replaceable, write_native
    from escn_calc.convergence import with_converged_longitudes

    require_replaceable(folder, overwrite)
    write_native(with_converged_longitudes(read_fair(source)), folder, overwrite=overwrite)
    card = read_native(folder).card
    click.echo(f"{folder}: {card.name}, energy kind {card.energy_kind}, sha256 {card.sha256}")


@models.command()
@click.argument("name")
@_cache_dir_option
@_mirror_option
@_offline_option
def verify(name: str, cache_dir: Path | None, mirror: str | None, offline: bool | None) -> None:
    """Recompute published energies with the published checkpoint NAME; fails if one is outside its tolerance."""
    from escn_calc.checkpoints.download import fetch as fetch_file
    from escn_calc.checkpoints.fair import read_fair
    from escn_calc.nn.config import ESCNConfig
    from escn_calc.potential import Potential

    entry = get_entry(name)
    file = fetch_file(entry, cache_dir=cache_dir, mirror=mirror, offline=offline)
    checkpoint = read_fair(file.path, entry=entry, expected_sha256=file.sha256)
    if checkpoint.config != ESCNConfig(**entry.config):  # type: ignore[arg-type]
        raise CheckpointError(f"{file.path}: its configuration is not that of the published {entry.name}")
    potential = Potential(checkpoint, device="cpu", dtype="float32", frames="canonical")
    if not entry.references:
        click.echo(f"{entry.name} was read and fits its configuration; no energy computed with it has been published")
        return
    predictions = potential.evaluate([REFERENCE_STRUCTURES[ref.structure]() for ref in entry.references])
    ours = [prediction.energy for prediction in predictions]
    _console().print(_comparison(entry, ours))
    failed = [ref.structure for ref, energy in zip(entry.references, ours, strict=True) if not _agrees(ref, energy)]
    if failed:
        raise CheckpointError(f"{entry.name} does not reproduce the published energy of {', '.join(failed)}")


def _comparison(entry: CatalogueEntry, ours: list[float]) -> Table:
    table = Table("structure", "ours / eV", "published / eV", "tolerance / eV", "", "source", title=entry.name)
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
        ("network", entry.size),
        ("trained on", f"{training.name}, {entry.split}"),
        ("energy kind", training.energy_kind),
        ("energy reference", training.energy_reference),
        ("forces", _forces(entry)),
        ("elements", _elements(training.elements)),
        ("published errors", _metrics(entry.metrics)),
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
        ("network", _network_size(card)),
        ("trained on", card.training_data),
        ("energy kind", card.energy_kind),
        ("energy reference", card.energy_reference),
        ("forces", card.forces or "none"),
        ("elements", _elements(card.elements)),
        ("other elements", "refused" if card.refuse_unseen_elements else "evaluated with a warning"),
        ("errors", _metrics(card.metrics)),
        ("not for", card.not_for or "not stated"),
        ("licence", card.licence),
        ("citation", card.citation),
        ("sha256", card.sha256),
        *(("note", note) for note in card.notes),
    ]


def _find_card(name: str) -> ModelCard:
    shipped = shipped_models()
    folder = shipped.get(DEFAULT_MODEL if name == "default" else name)
    if folder is not None:
        return read_card(folder)
    if Path(name).exists():
        from escn_calc.checkpoints import load_checkpoint

        return load_checkpoint(name).card
    raise InputError(f"there is no model {name!r}; {suggest(name, [*shipped, *CATALOGUE])}")


def _network_size(card: ModelCard) -> str:
    config = card.config
    lmax, mmax = (", ".join(str(order) for order in _as_list(config[key])) for key in ("lmax_list", "mmax_list"))
    return f"lmax {lmax}, mmax {mmax}, {config['num_layers']} layers"


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _forces(entry: CatalogueEntry) -> str:
    return "direct" if entry.config.get("regress_forces", True) else "none"


def _elements(elements: tuple[str, ...] | None) -> str:
    return "not known" if elements is None else " ".join(elements)


def _metrics(metrics: Mapping[str, float | str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in metrics.items()) or "none"


def _console() -> Console:
    """Return a console on standard output; as wide as needed where that is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=200)
