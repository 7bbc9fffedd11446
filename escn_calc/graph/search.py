"""Neighbour search: vesin's cell list on the CPU, one structure after the other; plain torch on other devices."""

import numpy as np
import torch
import vesin
from torch import Tensor

from escn_calc.graph.pairs import Pairs, WrappedPositions, in_canonical_order, relative_to_given_positions, wrap
from escn_calc.graph.search_torch import search_torch
from escn_calc.structures import StructureBatch


def search_pairs(batch: StructureBatch, radius: float, centres: Tensor) -> Pairs:
    """Find all pairs afresh; the :data:`~escn_calc.graph.pairs.PairSearch` that remembers nothing."""
    wrapped = wrap(batch)
    search = search_vesin if batch.positions.device.type == "cpu" else search_torch
    found = in_canonical_order(search(batch, wrapped, radius, centres), batch.num_atoms)
    return relative_to_given_positions(found, wrapped.shifts)


def search_vesin(batch: StructureBatch, wrapped: WrappedPositions, radius: float, centres: Tensor) -> Pairs:
    """Find all pairs within a radius around chosen atoms.

    Parameters
    ----------
    batch : StructureBatch
        On the CPU.
    wrapped : WrappedPositions
        Positions to search; offsets of the result refer to them.
    radius : float
        Inclusive, in Å.
    centres : Tensor, (N,) bool
        Targets wanted; structures without any are skipped.

    Returns
    -------
    Pairs
        In no particular order; images of an atom around itself included.
    """
    neighbours = vesin.NeighborList(cutoff=radius, full_list=True, n_threads=1)
    found = [np.empty((0, 2), dtype=np.int64)]
    offsets = [np.empty((0, 3), dtype=np.int64)]
    first_atoms = batch.first_atoms.tolist()
    for structure, (first, natoms) in enumerate(zip(first_atoms, batch.natoms.tolist(), strict=True)):
        if not centres[first : first + natoms].any():
            continue
        pairs, shifts = neighbours.compute(
            points=wrapped.positions[first : first + natoms].numpy(),
            box=batch.cells[structure].numpy(),
            periodic=batch.pbc[structure].numpy(),
            quantities="PS",
        )
        found.append(pairs.astype(np.int64) + first)
        offsets.append(shifts.astype(np.int64))
    target, source = torch.from_numpy(np.concatenate(found)).unbind(1)
    result = Pairs(source, target, torch.from_numpy(np.concatenate(offsets)))
    return result if centres.all() else result.select(centres[target])
