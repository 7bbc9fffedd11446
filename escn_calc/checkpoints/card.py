"""What a model is: the facts a user needs before trusting a number it returns."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from escn_calc.errors import CheckpointError

CARD = "card.json"
EnergyKind = Literal["adsorption", "total", "unknown"]


class ModelCard(BaseModel):
    """Provenance and limits of one set of weights.

    Attributes
    ----------
    name : catalogue name, or the name of the file or folder the model was read from.
    sha256 : hexadecimal digest of the weight file as it lies on disk.
    licence : licence of the weights, in words.
    elements : chemical symbols seen in training; None where that is not known.
    cutoff : radius of the neighbour graph in Å.
    energy_kind : what ``energy`` means; "unknown" is never replaced by a guess.
    energy_reference : the zero of the energy scale, in words.
    training_data, citation : where the model comes from.
    forces : "direct" if the network has a force head, None if it predicts energies only.
    refuse_unseen_elements : True if a structure with an element outside ``elements`` is an error.
    converged_longitudes : longitudes of the edge grid behind ``frames="converged"``; None if not measured.
    metrics : published or measured errors; the unit is part of the key or of the value.
    not_for : what the model must not be used for.
    config : the hyperparameters as used, see :class:`escn_calc.nn.config.ESCNConfig`.
    notes : what the reader of the file found worth saying.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    licence: str
    elements: tuple[str, ...] | None
    cutoff: float
    energy_kind: EnergyKind
    energy_reference: str
    training_data: str
    citation: str
    forces: Literal["direct"] | None
    refuse_unseen_elements: bool = False
    converged_longitudes: int | None = None
    metrics: dict[str, float | str] = {}
    not_for: str = ""
    config: dict[str, bool | int | float | str | list[int] | None]
    notes: tuple[str, ...] = ()


def read_card(folder: Path) -> ModelCard:
    """Read the card of a native model folder, without its weights and without torch.

    Raises
    ------
    CheckpointError
        If ``card.json`` is missing or malformed.
    """
    path = folder / CARD
    try:
        return ModelCard.model_validate(json.loads(path.read_bytes())["card"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no readable model card ({error})") from error
