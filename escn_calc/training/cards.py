"""From trained weights to a model folder with a card that says how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from escn_calc.checkpoints import read_native, write_native
from escn_calc.checkpoints.card import ModelCard
from escn_calc.checkpoints.checkpoint import Checkpoint, expected_shapes, plain_config
from escn_calc.convergence import with_converged_longitudes
from escn_calc.errors import InputError
from escn_calc.training.config import CardSection
from escn_calc.training.start import Start

METRICS = {
    "loss": "validation loss",
    "energy_mae": "validation energy MAE, eV per structure",
    "energy_mae_per_atom": "validation energy MAE, eV/atom",
    "force_mae": "validation force MAE, eV/Å",
    "force_cosine": "validation force cosine",
    "stress_mae": "validation stress MAE, eV/Å³",
}
"""Figures of the objective, by their names in the card."""


@dataclass(frozen=True)
class Provenance:
    """How a model was made.

    Attributes
    ----------
    name : of the model.
    words : what ``card`` of the configuration says.
    data : sha256 of every data file, by its path as given.
    counts : numbers of structures and groups, as :attr:`escn_calc.training.data.TrainingData.counts` has them.
    group_by : what a group is.
    settings_sha256 : of the configuration, as ``record.json`` holds it.
    versions : of this package and those that numbers depend on.
    notes : what else is worth saying.
    """

    name: str
    words: CardSection
    data: Mapping[str, str]
    counts: Mapping[str, int]
    group_by: str
    settings_sha256: str
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()


def check_energy_kind(start: Start, words: CardSection, references_are_fitted: bool) -> None:
    """Make sure that energies of one kind are not trained onto references of another.

    Raises
    ------
    InputError
        The card names another kind of energy than the start has, whose references are kept.
    """
    if start.origin is None or words.energy_kind is None or references_are_fitted:
        return
    kind = start.origin.energy_kind
    if kind not in ("unknown", words.energy_kind):
        raise InputError(
            f"card.energy_kind is {words.energy_kind}, but model {start.origin.name} has {kind} energies and keeps its "
            "references; set references: fit, or leave card.energy_kind out"
        )


def trained_checkpoint(
    start: Start, weights: Mapping[str, Tensor], provenance: Provenance, figures: Mapping[str, float], epoch: int
) -> Checkpoint:
    """Return the model that a start has become.

    Parameters
    ----------
    start : what was trained, with the constants that it was trained with.
    weights : tensors of the network by name; those that follow from the configuration are not used.
    provenance : how it was made.
    figures : errors on the validation data, as named by :func:`escn_calc.training.figures.figures`.
    epoch : number of epochs done.
    """
    checkpoint = start.checkpoint
    learnt = {name: weights[name].detach().cpu().clone() for name in expected_shapes(checkpoint.config)}
    return replace(
        checkpoint,
        state={**checkpoint.state, **learnt},
        card=_card(start, provenance, {**_metrics(provenance, figures), "epochs": epoch}),
    )


def write_with_roll(folder: Path) -> None:
    """Write into the card of a model on resolved grids what rolls of the edge frames do with its trained weights.

    A calculator would otherwise measure it whenever the model is loaded. On published grids nothing is done.
    """
    checkpoint = read_native(folder)
    if checkpoint.config.resolved:
        write_native(with_converged_longitudes(checkpoint), folder, overwrite=True)


def _card(start: Start, provenance: Provenance, metrics: dict[str, int | float | str]) -> ModelCard:
    old, words = start.checkpoint.card, provenance.words
    given = {
        name: getattr(words, name)
        for name in ("licence", "not_for", "citation", "energy_kind", "energy_reference")
        if getattr(words, name) is not None
    }
    return old.model_copy(
        update={
            "name": provenance.name,
            "sha256": "",
            "source_sha256": None,
            "training_data": words.training_data or _training_data(start, provenance),
            "converged_longitudes": None,
            "familiarity": None,
            "metrics": metrics,
            "config": plain_config(start.checkpoint.config),
            "notes": (*_notes(start, provenance), *start.notes, *provenance.notes),
            **given,
        }
    )


def _training_data(start: Start, provenance: Provenance) -> str:
    files = ", ".join(Path(path).name for path in provenance.data)
    counts = provenance.counts
    own = f"{counts['training structures']} structures in {counts['training groups']} groups from {files}"
    return own if start.origin is None else f"fine-tuned on {own}; start: {start.origin.training_data}"


def _metrics(provenance: Provenance, figures: Mapping[str, float]) -> dict[str, int | float | str]:
    measured = {words: float(f"{figures[name]:.6g}") for name, words in METRICS.items() if name in figures}
    return {**provenance.counts, **measured}


def _notes(start: Start, provenance: Provenance) -> tuple[str, ...]:
    notes = [f"data {Path(path).name}: sha256 {digest}" for path, digest in provenance.data.items()]
    notes.append(f"settings: sha256 {provenance.settings_sha256}")
    notes.append("trained with " + ", ".join(f"{name} {version}" for name, version in provenance.versions.items()))
    if start.origin is not None:
        notes.append(f"start: {start.origin.name}, sha256 {start.origin.sha256}")
    if provenance.group_by == "frame":
        notes.append(
            "every structure was a group of its own: structures of one relaxation can be on both sides of the split, "
            "so the validation errors are those of interpolation"
        )
    return tuple(notes)
