"""What has become of the slab between a reference and the last frame of a relaxation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from ase.geometry import find_mic

from escn_calc.adsorption.anomalies.anomaly import Anomaly, named
from escn_calc.adsorption.anomalies.neighbours import Pairs, pairs_within

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.adsorption.anomalies.thresholds import Thresholds

FIRST_SHELL = 1.25
"""Times the shortest distance around either of two atoms within which they are neighbours: between first and second
neighbours of close-packed metals (1 and 1.41) and of bcc metals (1 and 1.15, both counted)."""

LONGEST_NEAREST = 5.5
"""Å. No atom of a solid is farther from the next one; caesium has 5.3."""


def surface_anomalies(reference: Atoms, now: Atoms, slab: np.ndarray, thresholds: Thresholds) -> Iterator[Anomaly]:
    """Yield what is other in a slab than in the reference.

    Parameters
    ----------
    reference : Atoms
        The slab alone.
    now : Atoms
        The frame, with adsorbates or without.
    slab : (S,) array of int
        Indices in ``now`` of the atoms of ``reference``.
    thresholds : Thresholds
        What counts as what.
    """
    moves = displacements(reference, now, slab)
    far = np.linalg.norm(moves, axis=1)
    parted = parted_neighbours(reference, moves, thresholds.stretch)
    if len(parted.first):
        involved = tuple(slab[np.unique([parted.first, parted.second])].tolist())
        words = (
            f"reconstructed: {len(parted.first)} pairs of neighbouring slab atoms have parted by more than "
            f"{thresholds.stretch:g} times their distance, among {named(now, involved)}; "
            f"the largest displacement is {far.max():.2f} Å"
        )
        yield Anomaly("reconstructed", words, involved)
    elif len(far) and far.max() > thresholds.slab_displacement:
        moved = tuple(slab[far > thresholds.slab_displacement].tolist())
        words = f"slab atoms moved: {named(now, moved)}, by up to {far.max():.2f} Å"
        yield Anomaly("slab atoms moved", words, moved)


def displacements(reference: Atoms, now: Atoms, slab: np.ndarray) -> np.ndarray:
    """Displacements (S, 3) in Å of the slab atoms, less their median: a free slab may drift."""
    moves, _ = find_mic(now.positions[slab] - reference.positions, now.cell, now.pbc)
    return moves - np.median(moves, axis=0)


def parted_neighbours(reference: Atoms, moves: np.ndarray, stretch: float) -> Pairs:
    """Pairs of neighbours in the reference that ``moves`` (S, 3) have taken apart; each pair once."""
    pairs = neighbours(reference)
    vectors = pairs.vectors + moves[pairs.second] - moves[pairs.first]
    return pairs.where(np.linalg.norm(vectors, axis=1) > stretch * pairs.distances)


def neighbours(atoms: Atoms) -> Pairs:
    """Pairs of first neighbours, each once."""
    pairs = pairs_within(atoms, FIRST_SHELL * LONGEST_NEAREST, np.arange(len(atoms)))
    shortest = np.full(len(atoms), np.inf)
    np.minimum.at(shortest, pairs.first, pairs.distances)
    reach = FIRST_SHELL * np.maximum(shortest[pairs.first], shortest[pairs.second])
    return pairs.where((pairs.first <= pairs.second) & (pairs.distances <= reach))
