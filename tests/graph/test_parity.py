"""Edge sets of the reference implementation, wherever the cap does not cut a shell of equal distances."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from escn_calc.graph import radius_graph
from escn_calc.structures import StructureBatch

PARITY = Path(__file__).parents[1] / "data" / "parity"
MODELS = sorted(folder.name for folder in PARITY.iterdir() if folder.is_dir())
#: The reference worked in float32: distances closer than this (Å) are a tie to it.
REFERENCE_TIE = 1e-4


def test_fixtures_are_there():
    assert len(MODELS) == 11


@pytest.mark.parametrize("model", MODELS)
def test_edge_sets(model):
    config = json.loads((PARITY / model / "info.json").read_text())["config"]
    cutoff, limit = config["cutoff"], config["max_neighbors"]
    with np.load(PARITY / model / "reference.npz") as file:
        stored = dict(file)
    names = sorted({key.split("/")[0] for key in stored})
    structures = [
        Atoms(*[stored[f"{name}/{key}"] for key in ("numbers", "positions")], cell=stored[f"{name}/cell"],
              pbc=stored[f"{name}/pbc"])
        for name in names
    ]  # fmt: skip
    batch = StructureBatch.from_atoms(structures)
    graph, everything = radius_graph(batch, cutoff, limit), radius_graph(batch, cutoff, 0)

    uncut, cut = 0, 0
    for name, first, natoms in zip(names, batch.first_atoms.tolist(), batch.natoms.tolist(), strict=True):
        source, target = stored[f"{name}/edge_index"]
        offsets = stored[f"{name}/cell_offsets"]
        for atom in range(natoms):
            theirs = {(int(source[edge]), *map(int, offsets[edge])) for edge in np.flatnonzero(target == atom)}
            mine = graph.target == atom + first
            our_offsets = graph.offsets[mine].tolist()
            ours = {(j - first, *n) for j, n in zip(graph.source[mine].tolist(), our_offsets, strict=True)}
            assert len(ours) == len(theirs) == int(mine.sum())
            distances = everything.distances[everything.target == atom + first].numpy()
            assert len(ours) == min(limit, len(distances))
            if len(distances) > limit and distances[limit] - distances[limit - 1] < REFERENCE_TIE:
                cut += 1
                continue
            uncut += 1
            assert ours == theirs, f"{name}, atom {atom}"
    print(f"{model}: {uncut} centres equal, {cut} with a cut shell")
    assert uncut > cut


def test_stored_vectors():
    with np.load(PARITY / "l6m2" / "reference.npz") as stored:
        name = "pt111_O"
        atoms = Atoms(stored[f"{name}/numbers"], stored[f"{name}/positions"], cell=stored[f"{name}/cell"], pbc=True)
        graph = radius_graph(StructureBatch.from_atoms([atoms]), 12.0, 20)
        ours = np.column_stack([graph.target, graph.source, graph.offsets, graph.vectors])
        theirs = np.column_stack([stored[f"{name}/edge_index"][::-1].T, stored[f"{name}/cell_offsets"],
                                  stored[f"{name}/edge_vec"]])  # fmt: skip
    assert atoms.pbc.all()
    ours, theirs = (rows[np.lexsort(rows[:, :5].T)] for rows in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
