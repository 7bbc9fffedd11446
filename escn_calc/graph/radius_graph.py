"""The radius graph of a batch: who sends messages to whom.

Semantics are those the published checkpoints were trained with: all pairs with distance ≤ cutoff, images of an atom
around itself included, each target keeping strictly its ``max_neighbors`` nearest sources; what happens among equal
distances is the rule in :mod:`escn_calc.graph.cap`. Periodic directions are those of each structure.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from escn_calc.errors import InputError
from escn_calc.graph.cap import nearest
from escn_calc.graph.pairs import SEARCH_MARGIN, Pairs, PairSearch, edge_vectors, up_to
from escn_calc.graph.search import search_pairs
from escn_calc.structures import StructureBatch

#: Atoms closer than this (Å) are refused.
OVERLAP_DISTANCE = 0.01
#: A distance may exceed the cutoff by this much (Å), so that rounding does not decide about a shell at the cutoff.
CUTOFF_ROUNDING = 1.0e-8
#: Fraction of the cutoff searched first; atoms with too few neighbours there are searched again up to the cutoff.
FIRST_RADIUS = 0.6


@dataclass(frozen=True, eq=False)
class RadiusGraph:
    """Directed edges, sorted by target, then by the rank among the target's neighbours (nearest first).

    Attributes
    ----------
    source, target : Tensor, (E,) int64
        Atoms of the batch; messages run from source to target.
    offsets : Tensor, (E, 3) int64
        Cell of the source image, relative to the positions as given.
    vectors : Tensor, (E, 3) float64
        positions[source] - positions[target] + offsets · cell in Å: from target to source.
    """

    source: Tensor
    target: Tensor
    offsets: Tensor
    vectors: Tensor

    @property
    def distances(self) -> Tensor:
        """Edge lengths in Å, (E,) float64."""
        return torch.linalg.vector_norm(self.vectors, dim=1)


def radius_graph(
    batch: StructureBatch, cutoff: float, max_neighbors: int, search: PairSearch = search_pairs
) -> RadiusGraph:
    """Build the radius graph on the device of the batch.

    Parameters
    ----------
    batch : StructureBatch
    cutoff : float
        Inclusive, in Å.
    max_neighbors : int
        Nearest sources kept per target; ≤ 0 keeps all.
    search : PairSearch
        Where the candidates come from; the graph is bit by bit the same for every search. A
        :class:`~escn_calc.graph.skin.SkinSearch` reuses those of earlier calls.

    Returns
    -------
    RadiusGraph
        Possibly without edges.

    Raises
    ------
    InputError
        Two atoms, or an atom and a periodic image, closer than 0.01 Å; a cutoff that is not positive and finite.
    """
    if not (0.0 < cutoff < math.inf):
        raise InputError(f"the cutoff is {cutoff} Å: it must be positive and finite")
    unfinished = torch.ones(batch.num_atoms, dtype=torch.bool, device=batch.positions.device)
    parts: list[Pairs] = []
    for radius in _search_radii(cutoff, max_neighbors):
        pairs, vectors = _pairs_within(batch, radius, unfinished, search)
        _refuse_overlaps(batch, pairs, vectors)
        selection = nearest(batch.numbers, pairs.source, pairs.target, vectors, max_neighbors, radius)
        finished = selection.finished if radius < cutoff else unfinished
        parts.append(pairs.select(selection.kept[finished[pairs.target[selection.kept]]]))
        unfinished = unfinished & ~finished
        if not unfinished.any():
            break
    return _graph(batch, parts)


def _search_radii(cutoff: float, max_neighbors: int) -> list[float]:
    return [FIRST_RADIUS * cutoff, cutoff] if max_neighbors > 0 else [cutoff]


def _pairs_within(batch: StructureBatch, radius: float, centres: Tensor, search: PairSearch) -> tuple[Pairs, Tensor]:
    """All pairs up to ``radius`` around the chosen centres, in canonical order, and their vectors."""
    pairs = search(batch, radius + SEARCH_MARGIN, centres)
    vectors = edge_vectors(batch, pairs)
    inside = up_to(radius + CUTOFF_ROUNDING, vectors).nonzero().squeeze(1)
    return pairs.select(inside), vectors.index_select(0, inside)


def _refuse_overlaps(batch: StructureBatch, pairs: Pairs, vectors: Tensor) -> None:
    distances = torch.linalg.vector_norm(vectors, dim=1)
    overlapping = distances < OVERLAP_DISTANCE
    if not overlapping.any():
        return
    where = overlapping.nonzero().squeeze(1)
    edge = int(where[torch.argmin(pairs.target[where] * batch.num_atoms + pairs.source[where])])
    first, second = int(pairs.target[edge]), int(pairs.source[edge])
    structure = batch.describe_structure(int(batch.structure_of_atom[first]))
    offset = pairs.offsets[edge].tolist()
    image = f" (image in cell {offset})" if any(offset) else ""
    raise InputError(
        f"{batch.describe_atom(first)} and {batch.describe_atom(second)}{image} of {structure} are "
        f"{float(distances[edge]):.2g} Å apart, less than {OVERLAP_DISTANCE} Å: remove one of them"
    )


def _graph(batch: StructureBatch, parts: list[Pairs]) -> RadiusGraph:
    """Join the finished parts; each is sorted by target and rank, and no target occurs in two of them."""
    pairs = Pairs(
        torch.cat([part.source for part in parts]),
        torch.cat([part.target for part in parts]),
        torch.cat([part.offsets for part in parts]),
    )
    if len(parts) > 1:
        pairs = pairs.select(torch.argsort(pairs.target, stable=True))
    return RadiusGraph(pairs.source, pairs.target, pairs.offsets, edge_vectors(batch, pairs))
