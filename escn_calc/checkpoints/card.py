"""What a model is: the facts a user needs before trusting a number it returns."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from escn_calc.errors import CheckpointError, InputError
from escn_calc.familiarity import Familiarity

CARD = "card.json"
WEIGHTS = "model.safetensors"
EnergyKind = Literal["adsorption", "total", "unknown"]


class ModelCard(BaseModel):
    """Provenance and limits of one set of weights.

    Attributes
    ----------
    name : catalogue name, or the name of the file or folder the model was read from.
    sha256 : hexadecimal digest of the weight file as it lies on disk.
    source_sha256 : digest of the file a native model was converted from; None if it was not converted.
    licence : licence of the weights, in words.
    elements : chemical symbols seen in training; None where that is not known.
    cutoff : radius of the neighbour graph in Å.
    energy_kind : what ``energy`` means; "unknown" is never replaced by a guess.
    energy_reference : the zero of the energy scale, in words.
    training_data, citation : where the model comes from.
    forces : the forces it was trained with: "direct" by a force head, "gradient" as -dE/dx; None for energies only.
    refuse_unseen_elements : True if a structure with an element outside ``elements`` is an error.
    converged_longitudes : longitudes of the edge grid behind ``frames="converged"``; None if not measured.
    metrics : published or measured figures; the unit is part of the key or of the value.
    not_for : what the model must not be used for.
    config : the hyperparameters as used, see :class:`escn_calc.nn.config.ESCNConfig`.
    notes : what the reader of the file found worth saying.
    familiarity : which surroundings of atoms it knows, see :mod:`escn_calc.familiarity`; None where that is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    source_sha256: str | None = None
    licence: str
    elements: tuple[str, ...] | None
    cutoff: float
    energy_kind: EnergyKind
    energy_reference: str
    training_data: str
    citation: str
    forces: Literal["direct", "gradient"] | None
    refuse_unseen_elements: bool = False
    converged_longitudes: int | None = None
    metrics: dict[str, int | float | str] = {}
    not_for: str = ""
    config: dict[str, bool | int | float | str | list[int] | None]
    notes: tuple[str, ...] = ()
    familiarity: Familiarity | None = None


@dataclass(frozen=True)
class Normalizers:
    """Constants that turn raw network outputs x into energies and forces: x * std + mean.

    Energies in eV, forces in eV/Å. The defaults leave the outputs unchanged.
    """

    energy_mean: float = 0.0
    energy_std: float = 1.0
    force_mean: float = 0.0
    force_std: float = 1.0

    def __post_init__(self) -> None:
        for name in ("energy_mean", "energy_std", "force_mean", "force_std"):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise CheckpointError(f"normaliser constant {name} is {value}, not a finite number")
            if name.endswith("_std") and value <= 0:
                raise CheckpointError(f"normaliser constant {name} is {value}, but must be positive")


class NativeDocument(BaseModel):
    """Content of ``card.json``: the card, the constants, and the sha256 of the weight file by its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["escn-calc"] = "escn-calc"
    format_version: Literal[1] = 1
    files: dict[str, str]
    normalizers: Normalizers
    element_references: tuple[float, ...] | None
    card: ModelCard


def read_document(folder: Path) -> NativeDocument:
    """Read and check the ``card.json`` of a native model folder, without its weights and without torch.

    Raises
    ------
    InputError
        If ``folder`` is not a folder with ``model.safetensors`` and ``card.json``.
    CheckpointError
        If the card is malformed.
    """
    for name in (CARD, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is not a model folder: it has no file {name}")
    path = folder / CARD
    try:
        with errors_naming(path):
            return NativeDocument.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the document"
        raise CheckpointError(f"{path}: {where}: {problem['msg']}") from error


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Put ``path`` before the message of every CheckpointError raised within."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def network_size(config: Mapping[str, object]) -> str:
    """Architecture in short, as in the published names."""
    lmax, mmax = (str(config[name]).strip("[](),") for name in ("lmax_list", "mmax_list"))
    return f"lmax {lmax}, mmax {mmax}, {config['num_layers']} layers"
