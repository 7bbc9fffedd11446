"""Models: reading FAIR's files and the native format, the catalogue of published checkpoints, fetching them.

This module imports neither torch nor any reader until one is needed.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from escn_calc.checkpoints.catalogue import CATALOGUE, find_entry, suggest
from escn_calc.errors import InputError

if TYPE_CHECKING:
    from escn_calc.checkpoints.card import ModelCard, Normalizers
    from escn_calc.checkpoints.checkpoint import Checkpoint
    from escn_calc.checkpoints.fair import read_fair
    from escn_calc.checkpoints.native import read_native, write_native

__all__ = [
    "DEFAULT_MODEL",
    "Checkpoint",
    "ModelCard",
    "Normalizers",
    "load_checkpoint",
    "read_fair",
    "read_native",
    "shipped_models",
    "write_native",
]

DEFAULT_MODEL = "escn-small-fcc"
WEIGHT_SUFFIXES = (".pt", ".pth", ".ckpt", ".pt2", ".safetensors")

_HOMES = {
    "Checkpoint": "checkpoint",
    "Normalizers": "card",
    "ModelCard": "card",
    "read_fair": "fair",
    "read_native": "native",
    "write_native": "native",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def load_checkpoint(
    model: str | Path,
    *,
    cache_dir: str | Path | None = None,
    mirror: str | None = None,
    offline: bool | None = None,
) -> "Checkpoint":
    """Load a model by name or path.

    Parameters
    ----------
    model : ``"default"`` or the name of another shipped model; the name of a published checkpoint (upper and lower
        case being the same), which is downloaded at first use; the path of a FAIR ``.pt`` file; or the path of a
        native model folder or of the ``model.safetensors`` in it. In a string, names come before paths; a ``Path``
        is never a name.
    cache_dir : folder of downloaded checkpoints; default ``ESCN_CACHE_DIR`` or the user's cache folder.
    mirror : http(s) address below which the published files are found; default ``ESCN_MIRROR`` or FAIR's server.
    offline : never open a connection; default ``ESCN_OFFLINE``.

    Raises
    ------
    InputError
        If no model has that name and no file that path.
    CheckpointError
        If the file is damaged, unsafe, not an eSCN, or another network than the published one of that name.
    DownloadError
        If a published checkpoint cannot be fetched.
    """
    from escn_calc.checkpoints.fair import read_fair
    from escn_calc.checkpoints.native import read_native

    if isinstance(model, Path):
        return _load_path(model)
    name = model
    if not name.strip():
        raise InputError("the model name is empty; name a model, or leave it out for the default one")
    shipped = shipped_models()
    if name == "default" or name in shipped:
        return read_native(_shipped_folder(DEFAULT_MODEL if name == "default" else name))
    entry = find_entry(name)
    if entry is not None:
        from escn_calc.checkpoints.download import fetch

        file = fetch(entry, cache_dir=cache_dir, mirror=mirror, offline=offline)
        return read_fair(file.path, entry=entry, expected_sha256=file.sha256)
    if Path(name).expanduser().exists() or _looks_like_path(name):
        return _load_path(Path(name))
    raise InputError(f"there is no model {name!r}; {suggest(name, ['default', *shipped, *CATALOGUE])}")


def _load_path(path: Path) -> "Checkpoint":
    from escn_calc.checkpoints.card import WEIGHTS
    from escn_calc.checkpoints.fair import read_fair
    from escn_calc.checkpoints.native import read_native

    path = path.expanduser()
    if path.is_dir():
        return read_native(path)
    if path.name == WEIGHTS:
        return read_native(path.parent)
    if path.exists():
        return read_fair(path)
    raise InputError(f"there is no file or folder {path}")


def shipped_models() -> dict[str, Path]:
    """Name and folder of every model that came with this package."""
    package = Path(__file__).resolve().parents[1]
    for home in (package / "_pretrained", package.parent / "pretrained"):
        if home.is_dir():
            return {card.parent.name: card.parent for card in sorted(home.glob("*/card.json"))}
    return {}


def _shipped_folder(name: str) -> Path:
    folder = shipped_models().get(name)
    if folder is None:
        raise InputError(f"the model {name!r} did not come with this installation; name another model, or reinstall")
    return folder


def _looks_like_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.startswith(("~", ".")) or name.endswith(WEIGHT_SUFFIXES)
