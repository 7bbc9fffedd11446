"""The cap: the ``limit`` nearest neighbours of every atom, and which ones where distances are equal.

Ideal crystals have shells of equal distance, and a strict cap often ends inside one. The rule here ranks the candidates
of a target by, in this order,

1. distance, where a *shell* is a run of distances whose consecutive gaps are at most ``SHELL_GAP``;
   a shell that fits is kept whole;

and in the shell that the cap cuts by

2. atomic number of the source, lighter first;
3. crowding: s_c = Σ_m w_m exp(-d_cm² / R²), smaller first;
4. handedness: h_c = p_c · (U_c x V_c) / R³ with U_c = Σ_m w_m exp(-d_cm² / R²) p_m,
   V_c = Σ_m w_m exp(-3 d_cm² / R²) p_m, smaller first;
5. the projection of p_c on the fixed ``GENERIC_DIRECTION``, smaller first; equal ones in the order given.

p_c is the vector from the target to candidate c, R the length of the shell's vectors, m runs over all neighbours of
the target in the shells up to and including the cut one, d_cm = |p_c - p_m|, and w_m is the atomic number of m divided
by the mean over all m. Values of 3 and 4 closer than ``SCORE_GAP`` count as equal.

Rules 1 to 4 do not change under rotation. Rule 5 decides only among candidates that rules 1 to 4 cannot tell apart,
as a rule because a rotation maps one onto another, so that no choice that rotates with the structure exists.
All five are made of edge vectors and atomic numbers alone, hence independent of the order of the atoms, of translation,
of wrapping and of the choice of the cell.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

#: Distances (Å) no further apart than this belong to one shell: far above rounding, also that of float32 coordinates.
SHELL_GAP = 1.0e-5
#: Scores of rules 3 and 4 (no unit) no further apart than this are equal.
SCORE_GAP = 2.0e-4
#: No short lattice vector of a common crystal, in a common orientation, is perpendicular to this.
GENERIC_DIRECTION = (2**0.5 - 1, 3 ** (1 / 3) / 2, (5**0.5 + 1) / 2)
#: Distances d_cm computed at a time.
_CHUNK = 20_000_000
#: Bins of distance in which candidates are counted.
_BINS = 40


@dataclass(frozen=True)
class Selection:
    """Candidates that the cap keeps.

    Attributes
    ----------
    kept : Tensor, (K,) int64
        Indices of candidates, sorted by target, then by rank.
    finished : Tensor, (N,) bool
        Targets whose kept neighbours cannot change when candidates beyond the searched radius are added.
    """

    kept: Tensor
    finished: Tensor


@dataclass(frozen=True)
class _Shells:
    """Shells of all targets, sorted by target and distance; S shells in all, one value per shell."""

    target: Tensor
    size: Tensor
    first_rank: Tensor
    radius: Tensor

    def cut_by(self, limit: int) -> Tensor:
        return (self.first_rank < limit) & (self.first_rank + self.size > limit)

    def closing(self, limit: int) -> Tensor:
        """Shells that hold the last neighbour kept."""
        return (self.first_rank < limit) & (self.first_rank + self.size >= limit)


def nearest(
    numbers: Tensor, source: Tensor, target: Tensor, vectors: Tensor, limit: int, searched_radius: float
) -> Selection:
    """Select the nearest neighbours of every target by the rule of this module.

    Parameters
    ----------
    numbers : Tensor, (N,) int64
        Atomic numbers.
    source, target : Tensor, (P,) int64
        Candidates, in any order. Sums are taken, and equal projections ranked, in this order: canonically sorted
        candidates (see :mod:`escn_calc.graph.pairs`) give bit by bit the same selection, whichever search found them.
    vectors : Tensor, (P, 3) float64
        From target to source, in Å.
    limit : int
        Neighbours kept per target; ≤ 0 keeps all.
    searched_radius : float
        The candidates are complete up to this distance (Å).

    Returns
    -------
    Selection
    """
    distances = torch.linalg.vector_norm(vectors, dim=1)
    if limit <= 0:
        everything = torch.arange(len(source), device=source.device)
        shell_of = refine(target, distances, SHELL_GAP)
        kept = _ranked(everything, shell_of, vectors)
        return Selection(kept, torch.zeros(len(numbers), dtype=torch.bool, device=source.device))

    near = _near(target, distances, limit, len(numbers))
    source, target, vectors, distances = (
        values.index_select(0, near) for values in (source, target, vectors, distances)
    )
    shell_of = refine(target, distances, SHELL_GAP)
    shells = _shells(shell_of, target, distances, len(numbers))
    reached = (shells.first_rank < limit)[shell_of].nonzero().squeeze(1)
    ties = _resolve_cut_shells(reached, numbers, source, target, vectors, shell_of, shells, limit)
    ranked = _ranked(reached, ties, vectors)
    rank = torch.arange(len(ranked), device=ranked.device) - _starts(target[ranked], len(numbers))[target[ranked]]

    finished = torch.zeros(len(numbers), dtype=torch.bool, device=source.device)
    safe = shells.closing(limit) & (shells.radius + SHELL_GAP < searched_radius)
    finished[shells.target[safe]] = True
    return Selection(near[ranked[rank < limit]], finished)


def refine(groups: Tensor, values: Tensor, gap: float) -> Tensor:
    """Split groups where sorted values jump by more than ``gap``.

    Parameters
    ----------
    groups : Tensor, (P,) int64
    values : Tensor, (P,)
        Compared within a group.
    gap : float
        Largest difference of neighbouring values that stay together.

    Returns
    -------
    Tensor, (P,) int64
        New groups, numbered from 0 in the order (old group, value).
    """
    order = torch.argsort(values, stable=True)
    order = order[torch.argsort(groups[order], stable=True)]
    sorted_groups, sorted_values = groups[order], values[order]
    starts = torch.zeros_like(order)
    starts[1:] = (sorted_groups[1:] != sorted_groups[:-1]) | (sorted_values[1:] - sorted_values[:-1] > gap)
    refined = torch.empty_like(order)
    refined[order] = starts.cumsum(0)
    return refined


def _near(target: Tensor, distances: Tensor, limit: int, num_atoms: int) -> Tensor:
    """Indices of all candidates in the shells up to the last that the cap reaches, and of few others.

    Distances are counted in bins that are wider than any shell; the shell that holds neighbour number ``limit`` ends in
    the bin of that neighbour or in the next one.
    """
    if len(target) == 0:
        return torch.zeros_like(target)
    widest_shell = float(torch.bincount(target).max()) * SHELL_GAP
    bin_of = (distances / max(float(distances.max()) / _BINS, widest_shell)).to(torch.int64)
    bins = int(bin_of.max()) + 1
    count = torch.bincount(target * bins + bin_of, minlength=num_atoms * bins).view(num_atoms, bins)
    bin_of_last = (count.cumsum(1) < limit).sum(1)
    return (bin_of <= bin_of_last[target] + 1).nonzero().squeeze(1)


def _shells(shell_of: Tensor, target: Tensor, distances: Tensor, num_atoms: int) -> _Shells:
    size = torch.bincount(shell_of)
    shell_target = torch.empty_like(size)
    shell_target[shell_of] = target
    radius = distances.new_zeros(len(size)).scatter_reduce_(0, shell_of, distances, "amax")
    first = size.cumsum(0) - size
    return _Shells(shell_target, size, first - _starts(target, num_atoms)[shell_target], radius)


def _starts(target: Tensor, num_atoms: int) -> Tensor:
    """Index at which each target begins when candidates are sorted by target, (N,)."""
    counts = torch.bincount(target, minlength=num_atoms)
    return counts.cumsum(0) - counts


def _ranked(candidates: Tensor, groups: Tensor, vectors: Tensor) -> Tensor:
    """Sort candidates by group and, within it, along the generic direction (rule 5)."""
    along = vectors[candidates] @ vectors.new_tensor(GENERIC_DIRECTION)
    order = torch.argsort(along, stable=True)
    return candidates[order[torch.argsort(groups[order], stable=True)]]


def _resolve_cut_shells(
    reached: Tensor,
    numbers: Tensor,
    source: Tensor,
    target: Tensor,
    vectors: Tensor,
    shell_of: Tensor,
    shells: _Shells,
    limit: int,
) -> Tensor:
    """Group the candidates ``reached`` in the order of rules 1 to 4; whole shells stay one group."""
    groups, shell = shell_of[reached], shell_of[reached]
    is_cut = shells.cut_by(limit)[shell]
    if not is_cut.any():
        return groups
    weights = numbers[source[reached]].to(vectors.dtype)
    groups = refine(groups, torch.where(is_cut, weights, 0.0), 0.5)
    crowding, handedness = _scores(is_cut, target[reached], vectors[reached], weights, shells.radius[shell])
    return refine(refine(groups, crowding, SCORE_GAP), handedness, SCORE_GAP)


def _scores(is_cut: Tensor, target: Tensor, vectors: Tensor, weights: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Crowding and handedness of the members of cut shells, zero for all others; each (P,)."""
    crowding, handedness = torch.zeros_like(weights), torch.zeros_like(weights)
    cut = is_cut.nonzero().squeeze(1)
    cut = cut[torch.argsort(target[cut], stable=True)]
    targets, row_of_cut = torch.unique_consecutive(target[cut], return_inverse=True)
    rows = torch.full((int(target.max()) + 1,), -1, device=target.device)
    rows[targets] = torch.arange(len(targets), device=target.device)
    members = (rows[target] >= 0).nonzero().squeeze(1)
    members = members[torch.argsort(rows[target[members]], stable=True)]

    member_table = _table(members, rows[target[members]], len(targets))
    cut_table = _table(cut, row_of_cut, len(targets))
    rows_per_chunk = max(1, _CHUNK // (member_table.shape[1] * cut_table.shape[1]))
    for some_members, some_cut in zip(member_table.split(rows_per_chunk), cut_table.split(rows_per_chunk), strict=True):
        scale = radius[some_cut[:, :1]].unsqueeze(-1)
        around = vectors[some_members] / scale
        candidates = vectors[some_cut] / scale
        weight = torch.where(some_members >= 0, weights[some_members], 0.0)
        mean_weight = weight.sum(1, keepdim=True) / (some_members >= 0).sum(1, keepdim=True)
        weight = (weight / mean_weight).unsqueeze(1)
        near = torch.exp(-torch.cdist(candidates, around, compute_mode="donot_use_mm_for_euclid_dist").square())
        wide, narrow = weight * near, weight * near * near * near
        is_candidate = some_cut >= 0
        triple = (candidates * torch.linalg.cross(wide @ around, narrow @ around)).sum(-1)
        crowding[some_cut[is_candidate]] = wide.sum(-1)[is_candidate]
        handedness[some_cut[is_candidate]] = triple[is_candidate]
    return crowding, handedness


def _table(items: Tensor, row: Tensor, num_rows: int) -> Tensor:
    """Items, sorted by row, as a table filled up with -1, (rows, longest row)."""
    counts = torch.bincount(row, minlength=num_rows)
    column = torch.arange(len(items), device=items.device) - (counts.cumsum(0) - counts)[row]
    table = items.new_full((num_rows, int(counts.max())), -1)
    table[row, column] = items
    return table
