"""What relaxes the structures of a campaign: a model of this package, or any ASE calculator.

The description is what travels to workers and into databases; each process loads the model itself, once.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from escn_calc.adsorption.energies import EnergyKind
from escn_calc.screening.calculators import CalculatorPotential, has_stress, make_calculator
from escn_calc.screening.config import CalculatorSection, ModelSection

if TYPE_CHECKING:
    from escn_calc.potential import Potential
    from escn_calc.screening.config_file import CampaignFile


@dataclass(frozen=True)
class ModelFacts:
    """What has to be known of a model before anything is computed.

    Attributes
    ----------
    identity : dict
        What makes its numbers, as values that JSON can hold: another value makes another database.
    name : str
        For people.
    sha256 : str or None
        Of the weights; None for a calculator.
    energy_kind : str
        ``"total"``, ``"adsorption"`` or ``"unknown"``.
    energy_reference, citation, not_for : str
        In words.
    elements : tuple of str or None
        Those the model knows; None if that is not known.
    refuses_others : bool
        Whether structures with other elements cannot be evaluated.
    cutoff : float or None
        Å within which an atom feels others; None if that is not known.
    has_forces, has_stress : bool
        Whether positions, and cells, can relax.
    knows_what_is_familiar : bool
        Whether it can tell surroundings of atoms that are unlike all that it was trained on.
    """

    identity: dict[str, Any]
    name: str
    sha256: str | None
    energy_kind: EnergyKind
    energy_reference: str
    citation: str
    not_for: str
    elements: tuple[str, ...] | None
    refuses_others: bool
    cutoff: float | None
    has_forces: bool
    has_stress: bool
    knows_what_is_familiar: bool


def model_of(campaign: CampaignFile) -> ModelSection | CalculatorSection:
    """Return what a campaign relaxes with; a model that is beside the YAML file has its path as name."""
    config = campaign.config
    if config.calculator is not None:
        return config.calculator
    model = config.model or ModelSection()
    from escn_calc.checkpoints import find_entry, shipped_models

    if model.name in ("default", *shipped_models()) or find_entry(model.name) is not None:
        return model
    return model.model_copy(update={"name": str(campaign.beside(model.name))})


def facts_of(model: ModelSection | CalculatorSection) -> ModelFacts:
    """Return what is known of a model without putting it on a device.

    Raises
    ------
    InputError, CheckpointError, DownloadError
        It cannot be read or made.
    """
    return _facts_of_calculator(model) if isinstance(model, CalculatorSection) else _facts_of_model(model)


def load(model: ModelSection | CalculatorSection) -> Potential | CalculatorPotential:
    """Make a model ready to evaluate; in each process once.

    Raises
    ------
    InputError, CheckpointError, DownloadError
        It cannot be read or made, or there is no such device.
    """
    return _load(type(model), model.model_dump_json())


@lru_cache(maxsize=1)
def _load(section: type[ModelSection] | type[CalculatorSection], settings: str) -> Potential | CalculatorPotential:
    model = section.model_validate_json(settings)
    if isinstance(model, CalculatorSection):
        return CalculatorPotential(make_calculator(model.factory, model.arguments))
    from escn_calc.potential import load_potential

    return load_potential(
        model.name,
        device=model.device,
        dtype=model.dtype,
        matmul=model.matmul,
        forces=model.forces,
        frames=model.frames,
    )


def _facts_of_model(model: ModelSection) -> ModelFacts:
    from escn_calc.checkpoints import load_checkpoint

    card = load_checkpoint(model.name).card
    forces = model.forces or card.forces
    return ModelFacts(
        identity={
            "name": card.name,
            "sha256": card.sha256,
            "dtype": model.dtype,
            "matmul": model.matmul,
            "frames": model.frames,
            "forces": forces,
        },
        name=card.name,
        sha256=card.sha256,
        energy_kind=card.energy_kind,
        energy_reference=card.energy_reference,
        citation=card.citation,
        not_for=card.not_for,
        elements=card.elements,
        refuses_others=card.refuse_unseen_elements,
        cutoff=card.cutoff,
        has_forces=forces is not None,
        has_stress=forces == "gradient",
        knows_what_is_familiar=card.familiarity is not None,
    )


def _facts_of_calculator(section: CalculatorSection) -> ModelFacts:
    calculator = make_calculator(section.factory, section.arguments)
    return ModelFacts(
        identity={
            "calculator": section.factory,
            "arguments": section.arguments,
            "version": _version_of(section.factory),
            "energy_kind": section.energy_kind,
        },
        name=section.factory,
        sha256=None,
        energy_kind=section.energy_kind,
        energy_reference=section.energy_reference,
        citation="",
        not_for="",
        elements=None,
        refuses_others=False,
        cutoff=section.cutoff,
        has_forces=True,
        has_stress=has_stress(calculator),
        knows_what_is_familiar=False,
    )


def _version_of(factory: str) -> str | None:
    """Version that the package of a callable, which has been imported, gives itself; None if it gives none."""
    package = sys.modules[factory.partition(":")[0].partition(".")[0]]
    found = getattr(package, "__version__", None)
    return None if found is None else str(found)
