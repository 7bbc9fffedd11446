"""The native format: a folder with ``model.safetensors`` and ``card.json``, opened without any pickle.

``card.json`` holds the card, the normaliser constants, the element references and the sha256 of the weight file;
``model.safetensors`` holds the tensors under the keys the network uses.
"""

import os
import shutil
import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from escn_calc.checkpoints.card import CARD, WEIGHTS, NativeDocument, errors_naming, read_document
from escn_calc.checkpoints.checkpoint import Checkpoint, plain_config
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.errors import CheckpointError, InputError
from escn_calc.nn.config import ESCNConfig


def read_native(folder: str | Path) -> Checkpoint:
    """Read a model folder.

    Raises
    ------
    InputError
        If ``folder`` is not a folder with ``model.safetensors`` and ``card.json``.
    CheckpointError
        If the card is malformed, the weights differ from their recorded sha256, or do not fit the configuration.
    """
    folder = Path(folder)
    document = read_document(folder)
    weights = folder / WEIGHTS
    recorded, found = document.files.get(WEIGHTS), file_sha256(weights)
    if found != recorded or found != document.card.sha256:
        raise CheckpointError(
            f"{weights}: sha256 is {found}, {CARD} records {recorded}; the folder is damaged or mixed up"
        )
    energies = document.element_references
    references = None if energies is None else torch.tensor(energies, dtype=torch.float64, device="cpu")
    with errors_naming(folder / CARD):
        config = _read_config(document)
    with errors_naming(folder):
        return Checkpoint(
            config=config,
            state=_read_tensors(weights),
            normalizers=document.normalizers,
            element_references=references,
            card=document.card,
        )


def _read_config(document: NativeDocument) -> ESCNConfig:
    try:
        return ESCNConfig(**document.card.config)  # type: ignore[arg-type]
    except TypeError as error:
        raise CheckpointError(f"configuration is malformed ({error})") from error


def write_native(checkpoint: Checkpoint, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write a model folder, all of it or nothing: a temporary folder beside it is renamed at the end.

    Parameters
    ----------
    checkpoint : what to write; its card gets the sha256 of the new weight file.
    folder : target; its parent is created. An empty folder is used.
    overwrite : replace a model folder that is already there; anything else is never replaced.

    Raises
    ------
    InputError
        If the target exists and must not be replaced.
    """
    folder = Path(folder).absolute()
    require_replaceable(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    draft.mkdir()
    try:
        _write_files(checkpoint, draft)
        _swap(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as tensors:
            return {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is not a valid safetensors file ({error})") from error


def require_replaceable(folder: Path, overwrite: bool) -> None:
    """Raise ``InputError`` unless :func:`write_native` may write to ``folder``."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} exists and is not a folder")
    if not any(folder.iterdir()):
        return
    if not overwrite:
        raise InputError(
            f"{folder} exists and is not empty; choose another folder, or replace the model in it with overwrite=True "
            "(at the command line --overwrite)"
        )
    if not (folder / CARD).is_file():
        raise InputError(f"{folder} exists and is not a model folder (no {CARD}); it is not overwritten")


def _write_files(checkpoint: Checkpoint, folder: Path) -> None:
    weights = folder / WEIGHTS
    save_file({key: tensor.contiguous() for key, tensor in sorted(checkpoint.state.items())}, weights)
    sha256 = file_sha256(weights)
    references = checkpoint.element_references
    document = NativeDocument(
        files={WEIGHTS: sha256},
        normalizers=checkpoint.normalizers,
        element_references=None if references is None else tuple(references.tolist()),
        card=checkpoint.card.model_copy(update={"sha256": sha256, "config": plain_config(checkpoint.config)}),
    )
    (folder / CARD).write_text(document.model_dump_json(indent=1) + "\n", encoding="utf-8")
    weights.chmod((folder / CARD).stat().st_mode)
    for path in (weights, folder / CARD):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _swap(draft: Path, folder: Path) -> None:
    """Put ``draft`` in the place of ``folder``, which may exist; the old one comes back if that fails."""
    if not folder.exists():
        draft.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.old")
    folder.rename(old)
    try:
        draft.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)
