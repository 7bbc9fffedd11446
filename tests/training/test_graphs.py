"""Frames become graphs with labels and with flags for the labels they lack."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms

from escn_calc.errors import InputError
from escn_calc.graph import radius_graph
from escn_calc.labels import LabelledFrame
from escn_calc.structures import StructureBatch
from escn_calc.training.graphs import FrameDataset
from tests.training.data_files import frame, slab, varied_frames

CUTOFF = 4.0


def test_items_are_radius_graphs_with_counts():
    frames = varied_frames(40)
    dataset = FrameDataset(frames, CUTOFF, 12, only_free_atoms=False)
    assert len(dataset) == 40
    for number in (0, 1, 2, 33, 39):
        graph = radius_graph(StructureBatch.from_atoms([frames[number].atoms]), CUTOFF, 12)
        item = dataset[number]
        assert torch.equal(item.edge_index, torch.stack((graph.source, graph.target)))
        assert torch.equal(item.edge_distance_vec, graph.vectors)
        assert item.edge_distance_vec.dtype == item.pos.dtype == torch.float64
        assert item.frame.tolist() == [number]
        assert dataset.edge_counts[number] == item.num_edges
        assert dataset.atom_counts[number] == item.num_nodes == len(frames[number].atoms)
    assert dataset[2].num_edges == 0


def test_labels_and_flags():
    atoms = slab()
    forces = np.arange(12.0).reshape(4, 3)
    stress = np.arange(1.0, 7.0)
    full = LabelledFrame(atoms, -35000.123456789, forces, stress, "a", "x@0", repeat=3)
    bare = LabelledFrame(atoms, None, forces, None, "a", "x@1")
    dataset = FrameDataset([full, bare, frame(atoms)], CUTOFF, 0, only_free_atoms=False)
    item = dataset[0]
    assert item.energy.tolist() == [-35000.123456789]
    assert torch.equal(item.forces, torch.from_numpy(forces).float())
    assert item.stress.tolist() == [[[1, 6, 5], [6, 2, 4], [5, 4, 3]]]
    assert item.volume.item() == pytest.approx(atoms.get_volume())
    assert item.has_energy.all() and item.has_forces.all() and item.has_stress.all()
    assert not dataset[1].has_energy.any() and not dataset[1].has_stress.any()
    assert not dataset[2].has_forces.any()
    assert dataset[2].forces.tolist() == np.zeros((4, 3)).tolist()
    assert dataset.repeats.tolist() == [3, 1, 1]


def test_forces_on_fixed_atoms_can_be_left_out():
    counted_from_the_end = slab()
    counted_from_the_end.set_constraint(FixAtoms(indices=[-4, -3]))
    for atoms in (slab(), counted_from_the_end):
        item = FrameDataset([frame(atoms, forces=np.ones((4, 3)))], CUTOFF, 0, only_free_atoms=True)[0]
        assert item.has_forces.tolist() == [False, False, True, True]


def test_volume_is_positive_without_a_cell():
    assert FrameDataset([frame(Atoms("O"))], CUTOFF, 0, only_free_atoms=True)[0].volume.item() == 1.0


@pytest.mark.parametrize(("free", "held"), [(0.0, 0), (70_000.0, 32)])
def test_graphs_that_do_not_fit_are_built_again(free, held, monkeypatch):
    frames = varied_frames(70)
    kept = FrameDataset(frames, CUTOFF, 0, True)
    monkeypatch.setattr("escn_calc.training.graphs.free_bytes", lambda device: free)
    rebuilt = FrameDataset(frames, CUTOFF, 0, True, memory_share=1.0)
    assert (len(kept._kept), len(rebuilt._kept)) == (70, held)
    assert kept.edge_counts.tolist() == rebuilt.edge_counts.tolist()
    for number in (0, 31, 32, 69):
        first, second = kept[number].to_dict(), rebuilt[number].to_dict()
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(second[name])), name


def test_progress_counts_frames():
    done = []
    FrameDataset(varied_frames(40), CUTOFF, 0, True, progress=done.append)
    assert done == [32, 40]


def test_frames_that_cannot_be_used_are_named():
    overlapping = Atoms("H2", [[0, 0, 0], [0, 0, 0.001]])
    frames = [frame(bulk("Cu")), frame(overlapping, origin="data.traj@7")]
    with pytest.raises(InputError, match=r"data\.traj@7: atom 0 \(H\) and atom 1 \(H\).*apart"):
        FrameDataset(frames, CUTOFF, 0, True)
    with pytest.raises(InputError, match="there are no frames"):
        FrameDataset([], CUTOFF, 0, True)
    with pytest.raises(InputError, match="the cutoff is -1"):
        FrameDataset([frame(bulk("Cu"))], -1, 0, True)
