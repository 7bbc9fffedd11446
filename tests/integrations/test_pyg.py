"""PyTorch Geometric batches carry the same graph."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from escn_calc.errors import InputError
from escn_calc.graph import radius_graph
from escn_calc.integrations.pyg import to_pyg
from escn_calc.structures import StructureBatch


def test_batch_is_the_radius_graph_with_oc20_names():
    structures = [bulk("Cu"), molecule("H2O"), Atoms("O"), bulk("NaCl", "rocksalt", a=5.6)]
    data = to_pyg(structures, 5.0, 12)
    batch = StructureBatch.from_atoms(structures)
    graph = radius_graph(batch, 5.0, 12)
    assert torch.equal(data.edge_index, torch.stack((graph.source, graph.target)))
    assert torch.equal(data.edge_distance_vec, graph.vectors)
    assert torch.equal(data.cell_offsets, graph.offsets)
    assert torch.equal(data.atomic_numbers, batch.numbers)
    assert torch.equal(data.batch, batch.structure_of_atom)
    assert data.natoms.tolist() == [1, 3, 1, 2]
    assert data.cell.shape == (4, 3, 3)
    shift = torch.einsum("ei,eij->ej", data.cell_offsets.double(), data.cell[data.batch[data.edge_index[1]]])
    source, target = data.edge_index
    torch.testing.assert_close(data.pos[source] - data.pos[target] + shift, data.edge_distance_vec)


def test_bad_structures_are_refused():
    with pytest.raises(InputError, match="no atoms"):
        to_pyg([Atoms()], 5.0, 12)
