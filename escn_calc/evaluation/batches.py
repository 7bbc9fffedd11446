"""Many structures through a model, in batches that its device holds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from ase import Atoms
from ase.data import chemical_symbols

from escn_calc.errors import CalculationError, InputError
from escn_calc.graph import radius_graph
from escn_calc.memory import layers_need_checkpointing
from escn_calc.potential import DTYPES, Potential, Prediction
from escn_calc.structures import StructureBatch

EDGES_ON_CPU = 4000
"""A CPU is not faster with more: the intermediate values only leave its caches."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Size:
    """Atoms and edges of one structure or of several together."""

    atoms: int = 0
    edges: int = 0

    def __add__(self, other: "Size") -> "Size":
        return Size(self.atoms + other.atoms, self.edges + other.edges)


def refused_elements(numbers: Iterable[int], potential: Potential) -> frozenset[int]:
    """Those of some atomic numbers whose elements a model does not take."""
    card = potential.card
    known = card.elements if card.refuse_unseen_elements and card.elements is not None else chemical_symbols
    return frozenset(
        number
        for number in numbers
        if number >= potential.config.max_num_elements or chemical_symbols[number] not in known
    )


def structure_size(atoms: Atoms, origin: str, potential: Potential) -> Size:
    """Count atoms and edges.

    Raises
    ------
    InputError
        The structure cannot be evaluated; the message begins with ``origin``.
    """
    try:
        batch = StructureBatch.from_atoms([atoms])
        graph = radius_graph(batch, potential.config.cutoff, potential.config.max_neighbors)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error
    return Size(len(atoms), len(graph.source))


def plan_batches(sizes: Sequence[Size], potential: Potential) -> list[list[int]]:
    """Divide structures, in their order, into batches.

    A batch ends where the next structure would take it beyond what the memory of the device holds for a backward pass
    without recomputation, or on a CPU beyond ``EDGES_ON_CPU`` edges. A larger structure is a batch by itself.

    Returns
    -------
    list of list of int
        Indices of the structures of each batch.
    """
    batches: list[list[int]] = []
    total = Size()
    for index, size in enumerate(sizes):
        if batches and _fits(total + size, potential):
            batches[-1].append(index)
            total = total + size
        else:
            batches.append([index])
            total = size
    return batches


def _fits(size: Size, potential: Potential) -> bool:
    if potential.device == "cpu" and size.edges > EDGES_ON_CPU:
        return False
    return not layers_need_checkpointing(
        potential.config, size.atoms, size.edges, DTYPES[potential.dtype], potential.device
    )


def evaluate_batches(
    structures: Sequence[Atoms], batches: list[list[int]], potential: Potential, progress: Progress
) -> list[Prediction]:
    """Evaluate all structures.

    Where the device runs out of memory, all batches still to come are halved.

    Parameters
    ----------
    structures : sequence of Atoms
    batches : list of list of int
        From :func:`plan_batches`.
    progress : callable
        Told how many structures are done, and how many there are.

    Raises
    ------
    CalculationError
        A single structure does not fit into memory, or has no finite result.
    """
    predictions: dict[int, Prediction] = {}
    pending = list(batches)
    while pending:
        found = _evaluate_unless_too_large([structures[index] for index in pending[0]], potential)
        if found is None:
            pending = [half for batch in pending for half in _halves(batch)]
            continue
        predictions.update(zip(pending.pop(0), found, strict=True))
        progress(len(predictions), len(structures))
    return [predictions[index] for index in range(len(structures))]


def _evaluate_unless_too_large(structures: list[Atoms], potential: Potential) -> list[Prediction] | None:
    try:
        return potential.evaluate(structures)
    except CalculationError as error:
        if len(structures) == 1 or not isinstance(error.__cause__, torch.cuda.OutOfMemoryError):
            raise
        return None


def _halves(batch: list[int]) -> Iterator[list[int]]:
    middle = len(batch) // 2
    if middle:
        yield batch[:middle]
    yield batch[middle:]
