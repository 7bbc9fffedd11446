"""Radius graphs as PyTorch Geometric batches with the field names of OC20, for users who train their own networks."""

import torch
from ase import Atoms
from torch_geometric.data import Batch, Data

from escn_calc.graph import radius_graph
from escn_calc.structures import StructureBatch


def to_pyg(structures: list[Atoms], cutoff: float, max_neighbors: int) -> Batch:
    """Return the radius graphs of ``structures`` as one ``torch_geometric`` batch.

    Parameters
    ----------
    structures : ASE Atoms; they are not changed.
    cutoff : Å, inclusive.
    max_neighbors : strict cap on the edges into one atom; 0 or less for none.

    Returns
    -------
    Batch of Data with ``atomic_numbers`` (N,), ``pos`` (N, 3) Å, ``cell`` (1, 3, 3) Å, ``pbc`` (1, 3), ``natoms``,
    ``edge_index`` (2, E) source and target, ``cell_offsets`` (E, 3), ``edge_distance_vec`` (E, 3) Å from target to
    source and ``distances`` (E,) Å; lengths in float64.

    Raises
    ------
    InputError
        A structure cannot be used; the message names it.
    """
    batch = StructureBatch.from_atoms(structures)
    graph = radius_graph(batch, cutoff, max_neighbors)
    structure_of_edge = batch.structure_of_atom[graph.target]
    parts = []
    for index, (first, size) in enumerate(zip(batch.first_atoms.tolist(), batch.natoms.tolist(), strict=True)):
        atoms, edges = slice(first, first + size), structure_of_edge == index
        parts.append(
            Data(
                atomic_numbers=batch.numbers[atoms],
                pos=batch.positions[atoms],
                cell=batch.cells[index : index + 1],
                pbc=batch.pbc[index : index + 1],
                natoms=size,
                edge_index=torch.stack((graph.source[edges], graph.target[edges])) - first,
                cell_offsets=graph.offsets[edges],
                edge_distance_vec=graph.vectors[edges],
                distances=graph.distances[edges],
            )
        )
    return Batch.from_data_list(parts)
