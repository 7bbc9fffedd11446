"""What a training run does: the models behind the YAML file of ``escn train``.

Lengths are in Å, energies in eV, forces in eV/Å and stresses in eV/Å³. Every contradiction that can be seen without
data is found here. The file is read by :func:`escn_calc.training.config_file.load_config`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidatorFunctionWrapHandler, field_validator, model_validator

from escn_calc.errors import CheckpointError
from escn_calc.nn.config import ESCNConfig
from escn_calc.yaml_config import FilePath, Section, contradiction

GridSize = Literal["resolution", "edge_longitudes", "num_sphere_samples"]
ForcesKind = Literal["direct", "gradient"]


def _symbol(value: str) -> str:
    from ase.data import atomic_numbers

    if atomic_numbers.get(value, 0) < 1:
        raise ValueError(f"{value!r} is not the symbol of an element")
    return value


Symbol = Annotated[str, AfterValidator(_symbol)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class ModelSection(Section):
    """Which network is trained, and from where.

    Attributes
    ----------
    start : name or path of the model to fine-tune; None to train from scratch.
    network : shape of a network trained from scratch; whether it has a force head says ``forces``.
    name : in the card; None for the name of the output folder.
    forces : "gradient" (-dE/dx) or "direct" (a force head); None for those of the start, from scratch "gradient".
    add_elements : elements that the start does not know, each with the one whose embeddings it begins with; None for
        the mean of the known ones.
    grids : sizes of the sphere grids of a start, by their names in :class:`escn_calc.nn.ESCNConfig`, where they are to
        be others; weights do not depend on them, and coarser ones cost less.
    freeze : patterns of weights that stay as they are.
    """

    start: str | None = None
    network: ESCNConfig | None = None
    name: Annotated[str, Field(min_length=1)] | None = None
    forces: ForcesKind | None = None
    add_elements: dict[Symbol, Symbol | None] = Field(default_factory=dict)
    grids: dict[GridSize, Annotated[int, Field(strict=True)]] = Field(default_factory=dict)
    freeze: tuple[str, ...] = ()

    @field_validator("network", mode="wrap")
    @classmethod
    def _network_that_can_be_built(cls, value: object, build: ValidatorFunctionWrapHandler) -> ESCNConfig | None:
        if isinstance(value, dict):
            if "regress_forces" in value:
                raise ValueError("regress_forces follows from model.forces; leave it out")
            value = {name: tuple(entry) if isinstance(entry, list) else entry for name, entry in value.items()}
        try:
            network: ESCNConfig | None = build(value)
        except CheckpointError as error:
            raise ValueError(str(error)) from error
        return network

    @field_validator("add_elements", mode="before")
    @classmethod
    def _list_or_mapping(cls, value: object) -> object:
        return dict.fromkeys(value) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _one_beginning(self) -> ModelSection:
        if (self.start is None) == (self.network is None):
            found = "neither" if self.start is None else "both"
            raise ValueError(f"found {found} of start and network; give start to fine-tune, network to begin anew")
        if self.start is None and self.grids:
            raise ValueError("grids changes those of a start; give those of a network from scratch under network")
        if self.start is None and self.add_elements:
            raise ValueError("add_elements extends a start; a network from scratch learns all elements of the data")
        return self


class SourceSection(Section):
    """Files of labelled structures: a path, which frames of it, how often each is seen in an epoch."""

    path: FilePath
    index: str = ":"
    repeat: Count = 1

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str | Path) else value


class LabelsSection(Section):
    """Names of the labels in ``atoms.info`` and ``atoms.arrays``; None for ASE's own results."""

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None


class DataSection(Section):
    """What is learnt, and what decides whether it was.

    Attributes
    ----------
    train, validation : files of labelled structures.
    validation_fraction : part of the groups of ``train`` to validate with, in the place of ``validation``.
    group_by : what keeps frames together: "composition", "file", "frame", or a key of ``atoms.info`` such as "sid".
    labels : names of the labels.
    only_free_atoms : whether forces on fixed atoms are left out of loss and errors.
    """

    train: Annotated[tuple[SourceSection, ...], Field(min_length=1)]
    validation: tuple[SourceSection, ...] = ()
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    group_by: Annotated[str, Field(min_length=1)]
    labels: LabelsSection = LabelsSection()
    only_free_atoms: bool = True

    @field_validator("train", "validation", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if isinstance(value, str | Path | dict):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_validation(self) -> DataSection:
        if bool(self.validation) == (self.validation_fraction is not None):
            found = "both" if self.validation else "neither"
            raise ValueError(f"found {found} of validation and validation_fraction; give one of them")
        return self


class LossSection(Section):
    """Weights of the errors in the loss; ``energy_per`` says of what the energy error is taken."""

    energy: NotNegative = 4.0
    forces: NotNegative = 100.0
    stress: NotNegative = 0.0
    energy_per: Literal["structure", "atom"] = "structure"

    @model_validator(mode="after")
    def _something_to_learn(self) -> LossSection:
        if self.energy == self.forces == self.stress == 0:
            raise ValueError("all weights are zero; give at least one of energy, forces and stress a weight")
        return self


class GroupSection(Section):
    """Weights with a learning rate of their own, by a pattern of their names."""

    match: Annotated[str, Field(min_length=1)]
    learning_rate: Positive


class OptimizerSection(Section):
    """AdamW: rates, the largest norm of the gradient (None: any), decay of the averaged weights (None: no average)."""

    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    groups: tuple[GroupSection, ...] = ()
    clip: Positive | None = 10.0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = 0.999


class ScheduleSection(Section):
    """How long, and the course of the learning rate.

    Attributes
    ----------
    epochs : passes through the training data.
    warm_up_steps : steps in which the rate rises from zero.
    decay : "cosine" over all epochs, or "step": times ``factor`` after every ``step_epochs``.
    final : smallest rate, relative to the largest.
    """

    epochs: Count
    warm_up_steps: Annotated[int, Field(ge=0)] = 100
    decay: Literal["cosine", "step"] = "cosine"
    final: Annotated[float, Field(ge=0, le=1)] = 0.01
    step_epochs: Positive | None = None
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _keys_of_the_decay(self) -> ScheduleSection:
        if self.decay == "step" and self.step_epochs is None:
            raise ValueError("decay: step needs step_epochs, the number of epochs after which the rate falls")
        given = [name for name in ("step_epochs", "factor") if name in self.model_fields_set]
        if self.decay == "cosine" and given:
            raise ValueError(f"{given[0]} means nothing with decay: cosine; leave it out, or set decay: step")
        return self


class BatchSection(Section):
    """Size of a step on one device: structures are added as long as their edges together are at most this many."""

    edges: Count = 2500


class IntervalSection(Section):
    """How often the errors on the validation data are computed."""

    epochs: Count = 1


class CardSection(Section):
    """What the card of the model says; None for what the card of the start says."""

    training_data: str | None = None
    licence: str | None = None
    not_for: str | None = None
    citation: str | None = None
    energy_kind: Literal["adsorption", "total"] | None = None
    energy_reference: str | None = None


class TrainingConfig(Section):
    """A training run.

    Attributes
    ----------
    out : folder of all results.
    references : "fit" takes element references and normalisers from the data, "keep" those of the start, with fitted
        references for added elements alone; None for "keep" with a start and "fit" from scratch.
    precision : of the network; "bfloat16" keeps float32 weights and computes products in bfloat16.
    compile : whether a step is compiled.
    workers : processes that prepare batches beside the training.
    seed : of initial weights, split and order.
    save_every_minutes : between two states that a killed run can go on from.
    """

    out: FilePath
    model: ModelSection
    data: DataSection
    references: Literal["fit", "keep"] | None = None
    loss: LossSection = LossSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection
    batch: BatchSection = BatchSection()
    precision: Literal["float32", "float64", "bfloat16"] = "float32"
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    validate_every: IntervalSection = IntervalSection()
    save_every_minutes: Positive = 10.0
    card: CardSection = CardSection()

    @model_validator(mode="after")
    def _parts_that_fit(self) -> TrainingConfig:
        if self.model.forces == "direct" and self.loss.stress > 0:
            raise contradiction(
                ("loss", "stress"), "is above zero, but only gradient forces have a stress; set model.forces: gradient"
            )
        if self.model.start is None and self.references == "keep":
            raise contradiction(("references",), "keep needs model.start, whose references are kept; leave it out")
        if self.model.start is None and self.card.energy_kind is None:
            raise contradiction(
                ("card", "energy_kind"),
                "is missing: say for the new network whether the energies of the data are total or adsorption energies",
            )
        return self
