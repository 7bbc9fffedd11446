"""Where training begins: a network from scratch, or any model that can be loaded.

A start may be extended by elements it has never seen and may change its kind of forces. Which weights it has follows
from that; which of them are trained is decided later (:func:`escn_calc.training.optimisation.freeze`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from escn_calc.checkpoints import load_checkpoint
from escn_calc.checkpoints.card import ModelCard, Normalizers
from escn_calc.checkpoints.catalogue import ESCN_CITATION
from escn_calc.checkpoints.checkpoint import Checkpoint, plain_config
from escn_calc.checkpoints.network import build_network
from escn_calc.convergence import RESIDUAL_METRIC
from escn_calc.errors import CheckpointError, InputError
from escn_calc.nn import ESCN, ESCNConfig
from escn_calc.nn.parameters import initialise

if TYPE_CHECKING:
    from escn_calc.labels import LabelledFrame
    from escn_calc.training.config import GridSize, ModelSection

FORCE_HEAD = "force_block."
EMBEDDING = "_embedding.weight"


@dataclass(frozen=True, eq=False)
class Start:
    """A model to be trained.

    Attributes
    ----------
    checkpoint : network, weights and constants; its card lists all elements that it may see, and the kind of forces to
        be trained.
    origin : card of the model it was made from; None from scratch, where normalisers and references are still to be
        fitted.
    added : elements that ``origin`` has not seen.
    new_force_head : whether the force head is untrained although the rest is not.
    notes : what was changed, for the card.
    """

    checkpoint: Checkpoint
    origin: ModelCard | None
    added: tuple[str, ...] = ()
    new_force_head: bool = False
    notes: tuple[str, ...] = ()


def make_start(section: ModelSection, train: Sequence[LabelledFrame], seed: int) -> Start:
    """Return the model that a configuration begins with.

    Parameters
    ----------
    section : the part ``model`` of the configuration.
    train : structures that it will be trained on.
    seed : of everything drawn at random.

    Raises
    ------
    InputError
        The model has not seen an element of the training data, is asked to learn one that it knows or that is not in
        the data, or cannot be extended.
    CheckpointError, DownloadError
        The model cannot be used or fetched.
    """
    if section.network is not None:
        return from_scratch(section.network, section.forces or "gradient", train, seed)
    assert section.start is not None
    checkpoint = load_checkpoint(section.start)
    origin = checkpoint.card
    checkpoint = with_elements(with_grids(checkpoint, section.grids), section.add_elements)
    start = Start(checkpoint, origin, tuple(section.add_elements), notes=_extension_notes(section.add_elements))
    refuse_unknown_elements(train, start)
    refuse_absent_elements(section.add_elements, train)
    return with_forces(start, section.forces or origin.forces or "gradient", seed)


def from_scratch(
    config: ESCNConfig, forces: Literal["direct", "gradient"], train: Sequence[LabelledFrame], seed: int
) -> Start:
    """Return an untrained network for the elements of the training data."""
    config = replace(config, regress_forces=forces == "direct")
    elements = elements_of(train)
    highest = atomic_numbers[elements[-1]]
    if highest >= config.max_num_elements:
        raise InputError(
            f"the training data hold {elements[-1]}, atomic number {highest}, but model.network.max_num_elements is "
            f"{config.max_num_elements}; set it to {highest + 1} or more"
        )
    network = ESCN(config)
    initialise(network, torch.Generator().manual_seed(seed))
    card = ModelCard(
        name="untrained",
        sha256="",
        licence="not stated",
        elements=elements,
        cutoff=config.cutoff,
        energy_kind="unknown",
        energy_reference="that of the training data",
        training_data="",
        citation=ESCN_CITATION,
        forces=forces,
        refuse_unseen_elements=True,
        config=plain_config(config),
    )
    state = {name: weight.detach() for name, weight in network.named_parameters()}
    return Start(Checkpoint(config, state, Normalizers(), None, card), origin=None)


def with_grids(checkpoint: Checkpoint, sizes: Mapping[GridSize, int]) -> Checkpoint:
    """Return the same weights on other sphere grids.

    Parameters
    ----------
    checkpoint : a model.
    sizes : those that change, by their names in :class:`escn_calc.nn.ESCNConfig`.

    Raises
    ------
    CheckpointError
        The network cannot have such grids.
    """
    if not sizes:
        return checkpoint
    values: dict[str, Any] = {str(name): size for name, size in sizes.items()}
    update = {
        "config": checkpoint.card.config | values,
        "converged_longitudes": None,
        "metrics": {name: value for name, value in checkpoint.card.metrics.items() if name != RESIDUAL_METRIC},
    }
    card = checkpoint.card.model_copy(update=update)
    return replace(checkpoint, config=replace(checkpoint.config, **values), card=card)


def with_elements(checkpoint: Checkpoint, added: Mapping[str, str | None]) -> Checkpoint:
    """Return a model that knows further elements, their references zero until they are fitted.

    Parameters
    ----------
    checkpoint : the model; where its card does not list elements, all that it has embeddings for count as known.
    added : symbols, each with the known element whose embeddings the new one begins with, in the nodes and in the edges
        of every layer; None for the mean over the known ones.

    Raises
    ------
    InputError
        An added element is known already, one to be copied is not, or the network cannot hold so many elements.
    """
    if not added:
        return checkpoint
    known = _known_numbers(checkpoint)
    for symbol, like in added.items():
        if checkpoint.card.elements is not None and symbol in checkpoint.card.elements:
            raise InputError(f"model.add_elements: model {checkpoint.card.name} knows {symbol} already; leave it out")
        if like is not None and atomic_numbers[like] not in known:
            raise InputError(
                f"model.add_elements: {symbol} cannot begin as {like}, which model {checkpoint.card.name} does not "
                f"know either; known are {_words(chemical_symbols[number] for number in known)}"
            )
    size = max(checkpoint.config.max_num_elements, *(atomic_numbers[symbol] + 1 for symbol in added))
    try:
        config = replace(checkpoint.config, max_num_elements=size)
    except CheckpointError as error:
        raise InputError(f"model.add_elements: the network cannot be extended: {error}") from error
    rows = {atomic_numbers[new]: None if like is None else atomic_numbers[like] for new, like in added.items()}
    state = {
        name: _extended(weight, size, known, rows) if name.endswith(EMBEDDING) else weight
        for name, weight in checkpoint.state.items()
    }
    elements, references = checkpoint.card.elements, checkpoint.element_references
    if elements is not None:
        elements = in_periodic_order({*elements, *added})
    if references is not None:
        references = references.index_fill(0, torch.tensor(list(rows)), 0.0)
    card = checkpoint.card.model_copy(update={"elements": elements, "config": plain_config(config)})
    return replace(checkpoint, config=config, state=state, element_references=references, card=card)


def with_forces(start: Start, forces: Literal["direct", "gradient"], seed: int) -> Start:
    """Return a start whose network has a force head exactly if ``forces`` are direct; a new head is untrained."""
    checkpoint = start.checkpoint
    config = replace(checkpoint.config, regress_forces=forces == "direct")
    card = checkpoint.card.model_copy(update={"forces": forces, "config": plain_config(config)})
    state = {name: weight for name, weight in checkpoint.state.items() if not name.startswith(FORCE_HEAD)}
    notes, new_head = start.notes, False
    if forces == "direct" and checkpoint.config.regress_forces:
        state = checkpoint.state
    elif forces == "direct":
        new_head = True
        state |= _untrained_force_head(config, seed)
        notes += ("the start had no force head; a new one was trained",)
    elif checkpoint.config.regress_forces:
        notes += ("the force head of the start was left out; forces are the gradient of the energy",)
    return replace(
        start,
        checkpoint=replace(checkpoint, config=config, state=state, card=card),
        new_force_head=new_head,
        notes=notes,
    )


def knowing_only(start: Start, elements: tuple[str, ...]) -> Start:
    """Return a start that has forgotten all other elements, because its references are fitted to these alone."""
    checkpoint = start.checkpoint
    lost = sorted(set(checkpoint.card.elements or ()) - set(elements))
    card = checkpoint.card.model_copy(update={"elements": elements, "refuse_unseen_elements": True})
    notes = start.notes
    if lost:
        notes += (f"the references were fitted again, so elements that the data do not hold are lost: {_words(lost)}",)
    return replace(start, checkpoint=replace(checkpoint, card=card), notes=notes)


def network_to_train(checkpoint: Checkpoint, dtype: torch.dtype) -> ESCN:
    """Return the network of a start.

    On resolved grids the energy does not depend on the roll of the edge frames, so derivatives leave it out, as the
    calculator does; on the published ones it does, and gradient forces contain the turning of the frames.
    """
    return build_network(checkpoint, dtype, roll_in_derivative=not checkpoint.config.resolved)


def refuse_unknown_elements(frames: Iterable[LabelledFrame], start: Start) -> None:
    """Raise ``InputError`` for a structure with an element that the model does not know; the message names both."""
    known = set(_known_numbers(start.checkpoint))
    for frame in frames:
        unknown = sorted({int(number) for number in frame.atoms.numbers} - known)
        if unknown:
            raise InputError(
                f"{frame.origin} holds {_words(chemical_symbols[number] for number in unknown)}, which model "
                f"{start.checkpoint.card.name} has not seen; add it under model.add_elements, with training structures "
                "that hold it, or leave the structure out"
            )


def refuse_untrained_elements(frames: Iterable[LabelledFrame], elements: Sequence[str]) -> None:
    """Raise ``InputError`` for a structure with an element other than those trained on; the message names both."""
    for frame in frames:
        if untrained := in_periodic_order(set(frame.atoms.symbols) - set(elements)):
            raise InputError(
                f"{frame.origin} holds {_words(untrained)}, which no training structure holds; leave the structure out "
                "or train on more"
            )


def refuse_absent_elements(added: Iterable[str], train: Sequence[LabelledFrame]) -> None:
    """Raise ``InputError`` for an added element that no training structure holds."""
    present = elements_of(train)
    for symbol in added:
        if symbol not in present:
            raise InputError(
                f"model.add_elements: no training structure holds {symbol}, so it cannot be learnt; leave it out"
            )


def elements_of(frames: Iterable[LabelledFrame]) -> tuple[str, ...]:
    """Symbols of all elements in the structures, in the order of the periodic table."""
    return in_periodic_order({symbol for frame in frames for symbol in set(frame.atoms.symbols)})


def in_periodic_order(symbols: Iterable[str]) -> tuple[str, ...]:
    """Sort symbols by atomic number."""
    return tuple(sorted(symbols, key=lambda symbol: atomic_numbers[symbol]))


def _known_numbers(checkpoint: Checkpoint) -> list[int]:
    if checkpoint.card.elements is None:
        return list(range(1, min(checkpoint.config.max_num_elements, len(chemical_symbols))))
    return sorted(atomic_numbers[symbol] for symbol in checkpoint.card.elements)


def _extended(table: Tensor, size: int, known: list[int], rows: dict[int, int | None]) -> Tensor:
    """Embeddings (size, C): rows of ``table``, the mean of the known ones beyond, copies or that mean for ``rows``."""
    mean = table[known].mean(dim=0)
    extended = torch.cat((table, mean.expand(size - len(table), -1)))
    for row, like in rows.items():
        extended[row] = mean if like is None else table[like]
    return extended


def _untrained_force_head(config: ESCNConfig, seed: int) -> dict[str, Tensor]:
    network = ESCN(config)
    initialise(network, torch.Generator().manual_seed(seed))
    return {name: weight.detach() for name, weight in network.named_parameters() if name.startswith(FORCE_HEAD)}


def _extension_notes(added: Mapping[str, str | None]) -> tuple[str, ...]:
    if not added:
        return ()
    words = (f"{new} (begun as {like or 'the mean of the known elements'})" for new, like in added.items())
    return (f"elements added to the start: {', '.join(words)}",)


def _words(symbols: Iterable[str]) -> str:
    return ", ".join(symbols)
