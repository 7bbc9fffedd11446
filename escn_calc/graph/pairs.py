"""What every neighbour search shares: the pairs it returns, wrapping, and the edge vector.

A pair is (source j, target i, offset n) and stands for the image of atom j in cell n as seen from atom i,

    vector = r_j - r_i + n · cell        (n integer row, cell vectors in rows; Å, float64),

with positions as the user gave them. Searches work on wrapped positions r' = r - shift · cell; a pair found there with
offset n' has n = n' - shift_j + shift_i.
"""

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
        return Pairs(self.source[which], self.target[which], self.offsets[which])


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


def edge_vectors(batch: StructureBatch, pairs: Pairs) -> Tensor:
    """Vectors from target to source image, (P, 3) float64 in Å."""
    cells = batch.cells[batch.structure_of_atom[pairs.target]]
    between = batch.positions[pairs.source] - batch.positions[pairs.target]
    return between + row_times_matrix(pairs.offsets.to(between.dtype), cells)


def row_times_matrix(rows: Tensor, matrices: Tensor) -> Tensor:
    """Multiply every row vector by its own matrix, (P, 3) by (P, 3, 3)."""
    x, y, z = rows.unsqueeze(-1).unbind(-2)
    return x * matrices[:, 0] + y * matrices[:, 1] + z * matrices[:, 2]
