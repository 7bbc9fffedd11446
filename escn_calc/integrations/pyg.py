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
    Batch of Data with the fields of :func:`to_data_list` and ``distances`` (E,) Å.

    Raises
    ------
    InputError
        A structure cannot be used; the message names it.
    """
    parts = to_data_list(structures, cutoff, max_neighbors)
    for part in parts:
        part.distances = torch.linalg.vector_norm(part.edge_distance_vec, dim=1)
    return Batch.from_data_list(parts)


def to_data_list(structures: list[Atoms], cutoff: float, max_neighbors: int) -> list[Data]:
    """Return the radius graph of every structure.

    Parameters
    ----------
    structures : ASE Atoms; they are not changed.
    cutoff : Å, inclusive.
    max_neighbors : strict cap on the edges into one atom; 0 or less for none.

    Returns
    -------
    list of Data with ``atomic_numbers`` (N,), ``pos`` (N, 3) Å, ``cell`` (1, 3, 3) Å, ``pbc`` (1, 3), ``natoms``,
    ``edge_index`` (2, E) source and target, sorted by target, ``cell_offsets`` (E, 3) and ``edge_distance_vec`` (E, 3)
    Å from target to source; lengths in float64.

    Raises
    ------
    InputError
        A structure cannot be used; the message names it.
    """
    batch = StructureBatch.from_atoms(structures)
    graph = radius_graph(batch, cutoff, max_neighbors)
    edges_of = torch.bincount(batch.structure_of_atom[graph.target], minlength=batch.num_structures).tolist()
    atoms_of = batch.natoms.tolist()
    edge_index = torch.stack((graph.source, graph.target)).split(edges_of, dim=1)
    offsets, vectors = graph.offsets.split(edges_of), graph.vectors.split(edges_of)
    numbers, positions = batch.numbers.split(atoms_of), batch.positions.split(atoms_of)
    return [
        Data(
            atomic_numbers=numbers[index],
            pos=positions[index],
            cell=batch.cells[index : index + 1],
            pbc=batch.pbc[index : index + 1],
            natoms=atoms_of[index],
            edge_index=edge_index[index] - first,
            cell_offsets=offsets[index],
            edge_distance_vec=vectors[index],
        )
        for index, first in enumerate(batch.first_atoms.tolist())
    ]
