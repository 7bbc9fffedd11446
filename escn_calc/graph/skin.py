"""Neighbour reuse: candidates found once, a *skin* further out than needed, serve as long as none can be missing.

When it searches for pairs up to a radius R, a :class:`SkinSearch` keeps all pairs up to R + s, s the skin, and the
structure they were found in: the *reference*, with positions r⁰ and cell A⁰ (rows). Later, the same atoms are at r in a
cell A. Write, with row vectors,

    A_k = A⁰_k F  for periodic directions k,       r_i = r⁰_i F + t + δ_i + k_i · A,

where F is an affine map, t a translation common to the structure, k_i integers along periodic directions, zero along
open ones, and δ_i what is left: the displacement of atom i. The pair (j, i, n) has the vector

    v = r_j - r_i + n · A = v⁰ F + δ_j - δ_i,      v⁰ = r⁰_j - r⁰_i + n⁰ · A⁰,       n⁰ = n + k_j - k_i.

So n ↔ n⁰ maps the pairs of now one to one to those of the reference, whatever F, t and k_i are. A pair that was not
kept had |v⁰| > R + s. Its length is now

    |v| ≥ |v⁰ F| - |δ_j - δ_i| > σ (R + s) - (d₁ + d₂),

σ the smallest singular value of F, d₁ and d₂ the two largest |δ_i| of its structure. (For images of one atom δ cancels,
and |v| > σ (R + s).) As long as

    σ (R + s) - (d₁ + d₂) ≥ R                                                                                    (*)

for every structure, no pair up to R is missing; otherwise the whole batch is searched again. Two atoms that approach
head-on in a cell compressed along their pair attain the bound: it cannot be raised without looking at single pairs.

The proof holds for any F, t and k_i. Those chosen here let changes pass that bring no atoms closer:

- F = I + (A⁰)⁻¹ (A - A⁰), rows of open directions of the difference set to zero. It maps the periodic cell vectors as
  required and leaves the directions perpendicular to them alone. It is exactly I when the cell has not changed.
- k_i: the displacement relative to that of the structure's first atom, in fractions of the cell, rounded. An atom that
  was wrapped, or moved by any lattice vector, has not moved.
- t: the middle between the smallest and the largest remaining displacement along each axis. A structure that drifts as
  a whole has not moved.

Rounding is left to the ``SEARCH_MARGIN`` of 1e-6 Å that the graph asks for beyond the pairs it uses.
Elements do not enter; other numbers of atoms, other periodic directions or another device mean a new search.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from escn_calc.errors import InputError
from escn_calc.graph.pairs import Pairs, boxes, relative_to_given_positions, row_times_matrix
from escn_calc.graph.search import search_pairs
from escn_calc.structures import StructureBatch


@dataclass(frozen=True)
class _Motion:
    """How a batch differs from its reference.

    Attributes
    ----------
    shifts : Tensor, (N, 3) int64
        k_i of the module docstring.
    smallest_stretch : Tensor, (B,)
        σ.
    approach : Tensor, (B,)
        d₁ + d₂ in Å.
    """

    shifts: Tensor
    smallest_stretch: Tensor
    approach: Tensor

    def loses_no_pair(self, radius: float, skin: float) -> bool:
        """The condition (*) of the module docstring, for all structures."""
        return bool((self.smallest_stretch * (radius + skin) - self.approach >= radius).all())


@dataclass(frozen=True)
class _Kept:
    """Pairs around the targets ``centres``, with offsets relative to the positions of the reference."""

    reference: StructureBatch
    centres: Tensor
    pairs: Pairs

    def is_of(self, batch: StructureBatch) -> bool:
        reference = self.reference
        return (
            reference.positions.device == batch.positions.device
            and torch.equal(reference.natoms, batch.natoms)
            and torch.equal(reference.pbc, batch.pbc)
        )

    def covers(self, centres: Tensor) -> bool:
        return not bool((centres & ~self.centres).any())

    def around(self, centres: Tensor) -> Pairs:
        """Pairs around some of the centres."""
        return self.pairs if torch.equal(centres, self.centres) else self.pairs.select(centres[self.pairs.target])


class SkinSearch:
    """A search that reuses its candidates while structures move little.

    Pass the same object as ``search`` to :func:`~escn_calc.graph.radius_graph.radius_graph` at every step. The graph is
    bit by bit that of a fresh search at every step; only the time differs. Any structures may follow one another.

    Parameters
    ----------
    skin : float
        In Å: how much further than asked to look. Two atoms may approach by this much between two searches. With 0,
        nothing but a structure that has not moved is served without a new search.

    Attributes
    ----------
    searches, reuses : int
        Calls answered by a new search, and without one.

    Raises
    ------
    InputError
        A skin that is negative or not finite.
    """

    def __init__(self, skin: float) -> None:
        if not (0.0 <= skin < math.inf):
            raise InputError(f"the skin is {skin} Å: it must be finite and not negative (0 searches at every step)")
        self.skin = skin
        self.searches = 0
        self.reuses = 0
        self._kept: dict[float, _Kept] = {}

    def __call__(self, batch: StructureBatch, radius: float, centres: Tensor) -> Pairs:
        """Return all pairs up to ``radius`` and some longer ones; a :data:`~escn_calc.graph.pairs.PairSearch`."""
        kept = self._kept.get(radius)
        if kept is None or not kept.is_of(batch):
            return self._search(batch, radius, centres, centres)
        motion = _motion(kept.reference, batch)
        if not (kept.covers(centres) and motion.loses_no_pair(radius, self.skin)):
            return self._search(batch, radius, centres, centres | kept.centres)
        self.reuses += 1
        pairs = kept.around(centres)
        return relative_to_given_positions(pairs, motion.shifts) if motion.shifts.any() else pairs

    def reset(self) -> None:
        """Forget all candidates; the next call searches."""
        self._kept.clear()

    def _search(self, batch: StructureBatch, radius: float, centres: Tensor, keep: Tensor) -> Pairs:
        """Make the batch the reference for ``radius``, with the pairs of the targets ``keep``."""
        reference = StructureBatch(**{field.name: getattr(batch, field.name).clone() for field in fields(batch)})
        kept = _Kept(reference, keep, search_pairs(reference, radius + self.skin, keep))
        self._kept[radius] = kept
        self.searches += 1
        return kept.around(centres)


def _motion(reference: StructureBatch, batch: StructureBatch) -> _Motion:
    structure, first = batch.structure_of_atom, batch.first_atoms
    change = torch.where(batch.pbc.unsqueeze(-1), batch.cells - reference.cells, 0.0)
    strain = torch.linalg.inv(reference.cells) @ change
    moved = batch.positions - reference.positions - row_times_matrix(reference.positions, strain[structure])

    fractions = row_times_matrix(moved - moved[first][structure], torch.linalg.inv(batch.cells)[structure])
    shifts = torch.where(batch.pbc[structure], fractions.round(), 0.0)
    moved = moved - row_times_matrix(shifts, batch.cells[structure])

    low, high = boxes(batch, moved)
    lengths = torch.linalg.vector_norm(moved - (0.5 * (low + high))[structure], dim=1)
    stretches = torch.linalg.svdvals(torch.eye(3, dtype=strain.dtype, device=strain.device) + strain)
    return _Motion(shifts.to(torch.int64), stretches.amin(1), _sum_of_two_largest(batch, lengths))


def _sum_of_two_largest(batch: StructureBatch, lengths: Tensor) -> Tensor:
    """d₁ + d₂ of each structure, (B,); of a single atom it is zero, as its middle is the atom itself."""
    order = torch.argsort(lengths, descending=True)
    order = order[torch.argsort(batch.structure_of_atom[order], stable=True)]
    largest = batch.first_atoms
    second = largest + (batch.natoms > 1).to(torch.int64)
    return lengths[order[largest]] + lengths[order[second]]
