"""Reads the checkpoints written by FAIR's training code. The only module that unpickles.

``torch.load`` is called with ``weights_only=True`` and a fixed short list of additional harmless types, after
:mod:`escn_calc.checkpoints.archive` has read the pickle's opcodes; there is no fallback to anything less.

Which weights are used: ``state_dict`` as it stands. Files of type ``best_checkpoint.pt`` hold the averaged (EMA)
weights there. Files of type ``checkpoint.pt`` hold the raw weights there and the averages in ``ema``, as a list
without names; since fairchem 1.2.0 FAIR's own calculator ignores that list, and so does this reader: assigning
unnamed tensors by position could swap two of the same shape unnoticed. The card says so.

Which energy it is: a file says nothing about the meaning of its energy. If its configuration and its normaliser
constants both equal those of a published checkpoint and no element references are added, it was trained on that
checkpoint's normalised labels: the energy is of the same kind, and the card names the ground. Name, split and metrics
of the published checkpoint are claimed only if the file also has its name or was fetched from the catalogue. In all
other cases the energy kind is "unknown".
"""

import math
import pathlib
import pickle
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from escn_calc.checkpoints.archive import inspect_archive
from escn_calc.checkpoints.card import ModelCard, errors_naming
from escn_calc.checkpoints.catalogue import CATALOGUE, CatalogueEntry, TrainingSet
from escn_calc.checkpoints.checkpoint import (
    NUM_ELEMENT_REFERENCES,
    Checkpoint,
    Normalizers,
    derived_shapes,
    plain_config,
)
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.checkpoints.fair_config import describe_model
from escn_calc.errors import CheckpointError
from escn_calc.nn.config import ESCNConfig

DERIVED_COPIES = re.compile(
    r"layer_blocks\.\d+\.message_block\.edge_block\.distance_expansion\.(offset|fc1\.weight|fc1\.bias)"
    r"|Jd_\d+"
    r"|SO3_grid\..+"
    r"|.*\.mappingReduced\..+"
    r"|sphere_points|sphharm_weights(\.\d+)?|distance_expansion\.offset"
)
"""Keys that repeat or follow from others. Those the network has are kept, the others are left out."""

ENERGY_NAMES = ("energy", "target")
FORCE_NAMES = ("forces", "grad_target")
UNKNOWN_REFERENCE = "the file does not say what its energy is relative to"
UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch's weights-only unpickler is known to raise on a malformed file: found by changing bytes at random."""
_UNPICKLING = threading.Lock()
MATCHING_DIGITS = 1e-6
"""Relative: normaliser constants are stored in float32."""


def _plain_dict(*_: object) -> dict[object, object]:
    """Stand in for ``defaultdict`` and its factories, which weights-only loading cannot fill."""
    return {}


SAFE_GLOBALS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    (pathlib.PurePosixPath, "pathlib.PosixPath"),
    (pathlib.PurePosixPath, "pathlib._local.PosixPath"),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
    (_plain_dict, "collections.defaultdict"),
    (_plain_dict, "builtins.dict"),
    (_plain_dict, "builtins.list"),
]


def read_fair(
    path: str | Path, *, entry: CatalogueEntry | None = None, expected_sha256: str | None = None
) -> Checkpoint:
    """Read a FAIR ``.pt`` file of any of the three layouts.

    Parameters
    ----------
    path : the file.
    entry : what the file must be; None to find out from its name, configuration and constants.
    expected_sha256 : refuse the file, before any of it is unpickled, if its digest is another.

    Raises
    ------
    InputError
        If there is no such file.
    CheckpointError
        If the file is damaged, foreign, unsafe, not eSCN, another network than ``entry``, or does not fit the
        network it describes; begins with the path.
    """
    path = Path(path)
    inspect_archive(path)
    sha256 = file_sha256(path)
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise CheckpointError(f"{path}: sha256 is {sha256}, recorded is {expected_sha256}; the file has changed")
    content = _load(path)
    with errors_naming(path):
        return _interpret(content, path, sha256, entry)


def _load(path: Path) -> Mapping[str, object]:
    try:
        content = _unpickle(path)
    except UNPICKLING_ERRORS as error:
        raise CheckpointError(
            f"{path}: cannot be unpickled ({type(error).__name__}): the file is damaged, or it holds objects that "
            "no eSCN checkpoint needs; it is not opened with less protection"
        ) from error
    if not isinstance(content, Mapping) or "state_dict" not in content or "config" not in content:
        found = ", ".join(sorted(map(str, content))[:8]) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{path}: not a FAIR checkpoint: expected entries state_dict and config, found {found}")
    return content


def _unpickle(path: Path) -> object:
    """Load with exactly our safe types, one thread after the other.

    Torch's list is process-wide, and other packages (torch-geometric among them) add to it; it is put back as it was.
    """
    with _UNPICKLING:
        others = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(SAFE_GLOBALS)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(others)


def _interpret(content: Mapping[str, object], path: Path, sha256: str, entry: CatalogueEntry | None) -> Checkpoint:
    settings = content["config"]
    if not isinstance(settings, Mapping):
        raise CheckpointError(f"entry config is {type(settings).__name__}, expected a mapping")
    model = describe_model(settings)
    if entry is not None:
        _require_published(model.config, entry)
    normalizers, origin = _read_normalizers(content.get("normalizers"), settings)
    references = _read_element_references(content.get("elementrefs"))
    matches = _published_matches(model.config, normalizers) if references is None else []
    identity = _identify(path, matches, entry)
    notes = [identity.note, origin, *_training_notes(content, settings)]
    return Checkpoint(
        config=model.config,
        state=_read_state(content["state_dict"], model.config, model.prefixes),
        normalizers=normalizers,
        element_references=references,
        card=_make_card(identity, sha256, model.config, tuple(note for note in notes if note)),
    )


def _read_state(stored: object, config: ESCNConfig, prefixes: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Return the stored weights under the network's own keys, without repeated and stale derived tensors."""
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"entry state_dict is {type(stored).__name__}, expected a mapping")
    derived = derived_shapes(config)
    state: dict[str, Tensor] = {}
    for stored_key, tensor in stored.items():
        key = _flat_key(str(stored_key), prefixes)
        if key == "sphharm_weights":
            key = "sphharm_weights.0"
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{key} is {type(tensor).__name__}, expected a tensor")
        if DERIVED_COPIES.fullmatch(key) and key not in derived:
            continue
        if key in state:
            raise CheckpointError(f"two stored keys both mean {key}")
        state[key] = tensor.detach().contiguous()
    return state


def _flat_key(key: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    """Strip ``module.`` as often as it leads, then map the layout's own prefix to the flat key."""
    while key.startswith("module."):
        key = key.removeprefix("module.")
    for found, wanted in prefixes:
        if key.startswith(found):
            return wanted + key.removeprefix(found)
    return key


def _read_normalizers(stored: object, settings: Mapping[str, object]) -> tuple[Normalizers, str]:
    """Return the constants of the file, else of its configuration, else the identity; and a note on the latter two."""
    if stored:
        if not isinstance(stored, Mapping):
            raise CheckpointError(f"entry normalizers is {type(stored).__name__}, expected a mapping")
        constants = {str(name): _stored_constants(str(name), value) for name, value in stored.items()}
        return _normalizers(constants), ""
    constants = _configured_constants(settings)
    if constants:
        return _normalizers(constants), "normaliser constants were taken from the file's configuration"
    return Normalizers(), "the file has no normaliser constants: network outputs are taken as eV and eV/Å"


def _stored_constants(name: str, value: object) -> tuple[float, float]:
    """Read one normaliser: ``mean`` with ``std`` (until 2024) or ``rmsd``."""
    if not isinstance(value, Mapping) or "mean" not in value or not ("std" in value or "rmsd" in value):
        raise CheckpointError(f"normaliser {name} is not a mapping with mean and std or rmsd")
    return _number(f"mean of normaliser {name}", value["mean"]), _number(
        f"deviation of normaliser {name}", value["std"] if "std" in value else value["rmsd"]
    )


def _configured_constants(settings: Mapping[str, object]) -> dict[str, tuple[float, float]]:
    """Read the constants a training configuration states; empty if it asks for no normalisation."""
    dataset = settings.get("dataset")
    if not isinstance(dataset, Mapping):
        return {}
    transforms = dataset.get("transforms")
    normalizer = transforms.get("normalizer") if isinstance(transforms, Mapping) else None
    if normalizer:
        if not isinstance(normalizer, Mapping):
            raise CheckpointError("the configuration names a file of normaliser constants and the checkpoint has none")
        return {
            str(name): (_configured(values, "mean", str(name)), _configured(values, "stdev", str(name)))
            for name, values in normalizer.items()
        }
    if not dataset.get("normalize_labels"):
        return {}
    names = [name for name in ("target", "grad_target") if f"{name}_mean" in dataset]
    if "target" not in names:
        raise CheckpointError("the configuration says normalize_labels, but neither it nor the file has the constants")
    return {name: tuple(_configured(dataset, f"{name}_{part}", name) for part in ("mean", "std")) for name in names}  # type: ignore[misc]


def _configured(values: object, part: str, name: str) -> float:
    if not isinstance(values, Mapping) or part not in values:
        raise CheckpointError(f"normaliser {name} has no {part} in the configuration, and the file has no normalisers")
    return _number(f"{part} of normaliser {name}", values[part])


def _normalizers(constants: Mapping[str, tuple[float, float]]) -> Normalizers:
    for name in constants:
        if name not in ENERGY_NAMES + FORCE_NAMES:
            raise CheckpointError(f"normaliser {name} belongs to an output that eSCN does not have")
    energy = next((constants[name] for name in ENERGY_NAMES if name in constants), (0.0, 1.0))
    force = next((constants[name] for name in FORCE_NAMES if name in constants), (0.0, 1.0))
    return Normalizers(energy_mean=energy[0], energy_std=energy[1], force_mean=force[0], force_std=force[1])


def _number(what: str, value: object) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.item())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    shape = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    raise CheckpointError(f"{what} is a {type(value).__name__} {shape}, expected one number".replace(" ,", ","))


def _read_element_references(stored: object) -> Tensor | None:
    """Return the (119,) energies in eV that are added per atom, or None."""
    if not stored:
        return None
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"entry elementrefs is {type(stored).__name__}, expected a mapping")
    if set(stored) != {"energy"}:
        raise CheckpointError(f"element references are for {sorted(map(str, stored))}, expected energy alone")
    values = stored["energy"]
    tensor = values.get("element_references") if isinstance(values, Mapping) else None
    if not isinstance(tensor, Tensor) or tensor.numel() != NUM_ELEMENT_REFERENCES:
        found = f"shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise CheckpointError(f"element references have {found}, expected {NUM_ELEMENT_REFERENCES} values")
    return tensor.detach().reshape(-1).to(torch.float64).clone()


@dataclass(frozen=True)
class _Identity:
    """What a file is, as far as can be told, and on what ground."""

    name: str
    training_set: TrainingSet | None
    entry: CatalogueEntry | None
    note: str


def _identify(path: Path, matches: list[CatalogueEntry], known: CatalogueEntry | None) -> _Identity:
    if known is not None:
        note = "" if known in matches else "the file's constants or references differ from the documented ones"
        return _Identity(known.name, known.training_set, known, note)
    if not matches:
        return _Identity(path.stem, None, None, "")
    for entry in matches:
        if path.name in (entry.file_name, f"{entry.name}.pt"):
            note = "taken for the published checkpoint: file name, configuration and normaliser constants are the same"
            return _Identity(entry.name, entry.training_set, entry, note)
    note = f"configuration and normaliser constants are those of {' and '.join(entry.name for entry in matches)}"
    return _Identity(path.stem, matches[0].training_set, None, note)


def _require_published(config: ESCNConfig, entry: CatalogueEntry) -> None:
    found, published = asdict(config), asdict(_published_config(entry))
    differing = [name for name in found if found[name] != published[name]]
    if differing:
        details = "; ".join(f"{name} is {found[name]}, not {published[name]}" for name in differing)
        raise CheckpointError(
            f"its configuration is not that of the published {entry.name}: {details}. "
            "To use this file all the same, load it by its path"
        )


def _published_config(entry: CatalogueEntry) -> ESCNConfig:
    return ESCNConfig(**entry.config)  # type: ignore[arg-type]


def _published_matches(config: ESCNConfig, normalizers: Normalizers) -> list[CatalogueEntry]:
    """Find the published checkpoints with this configuration and these normaliser constants."""
    found = (normalizers.energy_mean, normalizers.energy_std, normalizers.force_mean, normalizers.force_std)
    return [
        entry
        for entry in CATALOGUE.values()
        if config == _published_config(entry)
        and all(
            math.isclose(published, value, rel_tol=MATCHING_DIGITS)
            for published, value in zip((*entry.energy_normalizer, *entry.force_normalizer), found, strict=True)
        )
    ]


def _make_card(identity: _Identity, sha256: str, config: ESCNConfig, notes: tuple[str, ...]) -> ModelCard:
    training, entry = identity.training_set, identity.entry
    data = "unknown" if training is None else f"{training.name}, {entry.split if entry else 'which part is not known'}"
    return ModelCard(
        name=identity.name,
        sha256=sha256,
        licence=training.licence if training else "unknown",
        elements=training.elements if training else None,
        cutoff=config.cutoff,
        energy_kind=training.energy_kind if training else "unknown",
        energy_reference=training.energy_reference if training else UNKNOWN_REFERENCE,
        training_data=data,
        citation=training.citation if training else "unknown",
        forces="direct" if config.regress_forces else None,
        metrics=dict(entry.metrics) if entry else {},
        not_for=training.not_for if training else "",
        config=plain_config(config),
        notes=notes,
    )


def _training_notes(content: Mapping[str, object], settings: Mapping[str, object]) -> list[str]:
    notes = []
    if content.get("ema"):
        notes.append(
            "the file holds raw weights and, beside them, averaged (EMA) ones; the raw ones are used, as FAIR's last "
            "calculator did. For the averaged ones use best_checkpoint.pt of the same training run"
        )
    command = settings.get("cmd")
    if isinstance(command, Mapping) and command.get("commit"):
        notes.append(f"trained with code version {command['commit']}")
    return notes
