"""What every neighbour search shares: the pairs it returns, wrapping, and the edge vector.

A pair is (source j, target i, offset n) and stands for the image of atom j in cell n as seen from atom i,

    vector = r_j - r_i + n · cell        (n integer row, cell vectors in rows; Å, float64),

with positions as the user gave them. Searches work on wrapped positions r' = r - shift · cell; a pair found there with
offset n' has n = n' - shift_j + shift_i.

The canonical order sorts pairs by target, then source, then offset. Offsets of one source and target all change by the
same vector when positions are wrapped, so the order is the same whatever positions they refer to.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from escn_calc.structures import StructureBatch

#: Searches look this much (Å) beyond the radius asked for; the pairs are then selected by their final distance.
SEARCH_MARGIN = 1.0e-6


@dataclass(frozen=True)
class Pairs:
    """Directed pairs of atoms.

    Attributes
    ----------
    source, target : Tensor, (P,) int64
        Atoms of the batch.
    offsets : Tensor, (P, 3) int64
        Cell of the source image, relative to the positions the search was given.
    """

    source: Tensor
    target: Tensor
    offsets: Tensor

    def select(self, which: Tensor) -> "Pairs":
        """Return the pairs that a mask or an index tensor selects."""
        index = which.nonzero().squeeze(1) if which.dtype == torch.bool else which
        return Pairs(*(values.index_select(0, index) for values in (self.source, self.target, self.offsets)))


#: ``search(batch, radius, centres)`` returns pairs whose target is among ``centres``, (N,) bool: all up to ``radius``,
#: perhaps longer ones too, in canonical order, with offsets relative to the positions as given.
PairSearch = Callable[[StructureBatch, float, Tensor], Pairs]


@dataclass(frozen=True)
class WrappedPositions:
    """Positions moved into the cell along periodic directions.

    Attributes
    ----------
    positions : Tensor, (N, 3) float64
        Wrapped positions in Å.
    shifts : Tensor, (N, 3) int64
        positions = original - shifts · cell.
    """

    positions: Tensor
    shifts: Tensor


def wrap(batch: StructureBatch) -> WrappedPositions:
    """Move every atom into its cell along the periodic directions."""
    structure = batch.structure_of_atom
    fractional = row_times_matrix(batch.positions, torch.linalg.inv(batch.cells)[structure])
    shifts = torch.where(batch.pbc[structure], fractional.floor(), 0.0)
    positions = batch.positions - row_times_matrix(shifts, batch.cells[structure])
    return WrappedPositions(positions, shifts.to(torch.int64))


def relative_to_given_positions(pairs: Pairs, shifts: Tensor) -> Pairs:
    """Turn offsets between wrapped positions into offsets between the positions as given."""
    return Pairs(pairs.source, pairs.target, pairs.offsets - shifts[pairs.source] + shifts[pairs.target])


def in_canonical_order(pairs: Pairs, num_atoms: int) -> Pairs:
    """Sort pairs by target, source and offset; the key fits in 64 bits for every batch that fits in memory."""
    if len(pairs.source) == 0:
        return pairs
    lowest = pairs.offsets.amin(0)
    x, y, z = (pairs.offsets - lowest).unbind(1)
    _, ny, nz = (pairs.offsets.amax(0) - lowest + 1).unbind()
    offset = (x * ny + y) * nz + z
    return pairs.select(torch.argsort((pairs.target * num_atoms + pairs.source) * (offset.max() + 1) + offset))


def edge_vectors(batch: StructureBatch, pairs: Pairs) -> Tensor:
    """Vectors from target to source image, (P, 3) float64 in Å; bit by bit independent of the other pairs."""
    cells = batch.cells if batch.num_structures == 1 else batch.cells[batch.structure_of_atom[pairs.target]]
    between = batch.positions.index_select(0, pairs.source) - batch.positions.index_select(0, pairs.target)
    return between + row_times_matrix(pairs.offsets.to(between.dtype), cells)


def up_to(radius: float, vectors: Tensor) -> Tensor:
    """Vectors no longer than ``radius``, (P,) bool; decided bit by bit independently of the other vectors."""
    x, y, z = vectors.unbind(1)
    return x * x + y * y + z * z <= radius**2


def boxes(batch: StructureBatch, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest coordinates of each structure's atoms, each (B, 3)."""
    index = batch.structure_of_atom[:, None].expand(-1, 3)
    empty = positions.new_zeros(batch.num_structures, 3)
    low = empty.scatter_reduce(0, index, positions, "amin", include_self=False)
    high = empty.scatter_reduce(0, index, positions, "amax", include_self=False)
    return low, high


def row_times_matrix(rows: Tensor, matrices: Tensor) -> Tensor:
    """Multiply every row vector by its own matrix, (P, 3) by (P, 3, 3), or all by the same one, (1, 3, 3)."""
    x, y, z = rows.unsqueeze(-1).unbind(-2)
    return x * matrices[:, 0] + y * matrices[:, 1] + z * matrices[:, 2]
