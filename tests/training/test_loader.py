"""Batches by edges: nothing lost, nothing twice, the same order again, one size where wanted."""

import signal
import subprocess
from collections import Counter
from dataclasses import replace

import pytest
import torch

from escn_calc.errors import InputError
from escn_calc.training.graphs import FrameDataset
from escn_calc.training.loader import BatchLimits, Collate, EdgeBatchSampler, PaddedSize, make_loader, padded_size
from tests.training.data_files import varied_frames

MAX_EDGES = 400


@pytest.fixture(scope="module")
def dataset() -> FrameDataset:
    frames = varied_frames(45)
    frames[3] = replace(frames[3], repeat=4)
    return FrameDataset(frames, 4.0, 0, only_free_atoms=True)


def all_batches(dataset, epoch=0, world_size=1, shuffle=True, seed=0):
    samplers = [EdgeBatchSampler(dataset, MAX_EDGES, seed, shuffle, rank, world_size) for rank in range(world_size)]
    for sampler in samplers:
        sampler.set_position(epoch)
    return [list(sampler) for sampler in samplers]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_every_frame_once_per_repeat_and_equal_batches_on_all_ranks(dataset, world_size):
    for epoch in range(3):
        ranks = all_batches(dataset, epoch, world_size)
        assert len({len(batches) for batches in ranks}) == 1
        seen = Counter(index for batches in ranks for batch in batches for index in batch)
        assert seen == Counter(range(45)) + Counter({3: 3})


def test_without_shuffling_each_frame_once_in_order(dataset):
    (batches,) = all_batches(dataset, epoch=5, shuffle=False)
    assert [index for batch in batches for index in batch] == list(range(45))


def test_limits_hold_and_batches_are_well_filled(dataset):
    limits = BatchLimits.of(dataset, MAX_EDGES)
    (batches,) = all_batches(dataset)
    edges = [int(dataset.edge_counts[batch].sum()) for batch in batches]
    assert max(edges) <= MAX_EDGES
    assert max(int(dataset.atom_counts[batch].sum()) for batch in batches) <= limits.atoms
    assert max(map(len, batches)) <= limits.structures
    assert sum(edges) / len(edges) > 0.5 * MAX_EDGES


def test_a_frame_with_too_many_edges_is_a_batch_of_its_own(dataset):
    largest = int(dataset.edge_counts.max())
    sampler = EdgeBatchSampler(dataset, largest - 1, 0, True)
    holders = [batch for batch in sampler if int(dataset.edge_counts[batch].max()) == largest]
    assert holders
    assert all(sum(int(dataset.edge_counts[index]) > 0 for index in batch) == 1 for batch in holders)


def test_the_order_depends_on_seed_and_epoch_only(dataset):
    assert all_batches(dataset, 2) == all_batches(dataset, 2)
    assert all_batches(dataset, 2) != all_batches(dataset, 3)
    assert all_batches(dataset, 2) != all_batches(dataset, 2, seed=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_goes_on_with_the_same_batches(dataset, workers):
    before = torch.random.get_rng_state()
    whole = make_loader(dataset, MAX_EDGES, seed=3, shuffle=True)
    whole.batch_sampler.set_position(4)
    wanted = [batch.frame.tolist() for batch in whole]
    resumed = make_loader(dataset, MAX_EDGES, seed=3, shuffle=True, workers=workers)
    resumed.batch_sampler.set_position(4, batch=2)
    assert len(resumed) == len(wanted) - 2
    assert resumed.batch_sampler.batches_in(4) == len(wanted)
    assert [batch.frame.tolist() for batch in resumed] == wanted[2:]
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_survive_signals_meant_for_the_training(dataset, number):
    batches = iter(make_loader(dataset, MAX_EDGES, seed=3, shuffle=True, workers=1))
    next(batches)
    (worker,) = batches._workers
    subprocess.run(["kill", f"-{int(number)}", str(worker.pid)], check=True)
    assert len(list(batches)) > 1
    assert worker.is_alive()


def test_batches_join_graphs(dataset):
    batch = next(iter(make_loader(dataset, MAX_EDGES, seed=0, shuffle=False)))
    parts = [dataset[index] for index in batch.frame.tolist()]
    assert batch.num_graphs == len(parts)
    assert batch.energy.shape == (len(parts),) and batch.stress.shape == (len(parts), 3, 3)
    assert batch.natoms.tolist() == [part.num_nodes for part in parts]
    assert batch.batch.bincount().tolist() == batch.natoms.tolist() == batch.ptr.diff().tolist()
    assert torch.equal(batch.edge_distance_vec, torch.cat([part.edge_distance_vec for part in parts]))
    shift = torch.einsum("ei,eij->ej", batch.cell_offsets.double(), batch.cell[batch.batch[batch.edge_index[1]]])
    source, target = batch.edge_index
    torch.testing.assert_close(batch.pos[source] - batch.pos[target] + shift, batch.edge_distance_vec)


@pytest.mark.parametrize("world_size", [1, 3])
def test_padded_batches_have_one_size_and_real_ones_are_untouched(dataset, world_size):
    size = padded_size(dataset, MAX_EDGES)
    for epoch in range(5):
        padded = make_loader(dataset, MAX_EDGES, 0, True, world_size=world_size, padded=size)
        plain = make_loader(dataset, MAX_EDGES, 0, True, world_size=world_size)
        for loader in (padded, plain):
            loader.batch_sampler.set_position(epoch)
        for batch, real in zip(padded, plain, strict=True):
            assert (batch.num_nodes, batch.num_edges, batch.num_graphs) == (size.atoms, size.edges, size.structures)
            assert len(batch.ptr) == size.structures + 1
            assert torch.equal(batch.edge_index[:, : real.num_edges], real.edge_index)
            assert torch.equal(batch.forces[: real.num_nodes], real.forces)
            assert torch.equal(batch.has_forces[: real.num_nodes], real.has_forces)
            assert not batch.has_forces[real.num_nodes :].any()
            assert not batch.has_energy[real.num_graphs :].any() and not batch.has_stress[real.num_graphs :].any()
            assert (batch.frame[real.num_graphs :] == -1).all()
            check_filler_edges(batch, real, dataset.cutoff)


def check_filler_edges(batch, real, cutoff):
    source, target = batch.edge_index[:, real.num_edges :]
    assert (source >= real.num_nodes).all() and (target >= real.num_nodes).all()
    assert (batch.edge_index[1].diff() >= 0).all()
    lengths = batch.edge_distance_vec[real.num_edges :].norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.9 * cutoff))
    mean = real.num_edges / max(1, real.num_nodes)
    crowding = batch.edge_index[1].bincount(minlength=batch.num_nodes)[real.num_nodes :].max()
    assert crowding <= max(8 * 2 * mean, 8)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_batches_of_one_frame_are_shared_without_empty_ones(world_size):
    """Five frames, none of which shares a batch: learnt from in equal numbers, validated every one of them once."""
    large = FrameDataset([frame for frame in varied_frames(15) if len(frame.atoms) == 4], 4.0, 0, True)
    samplers = {
        shuffle: [EdgeBatchSampler(large, 10, 0, shuffle, rank, world_size) for rank in range(world_size)]
        for shuffle in (True, False)
    }
    assert [len(sampler) for sampler in samplers[True]] == [5 // world_size] * world_size
    for shuffle, ranks in samplers.items():
        batches = [batch for sampler in ranks for batch in sampler]
        assert {len(batch) for batch in batches} == {1}
        frames = sorted(index for batch in batches for index in batch)
        assert len(set(frames)) == len(frames) and (shuffle or frames == [0, 1, 2, 3, 4])


def test_a_batch_that_does_not_fit_is_refused(dataset):
    graphs = [dataset[0], dataset[1]]
    collate = Collate(dataset.cutoff, PaddedSize(atoms=100, edges=1000, structures=2))
    with pytest.raises(InputError, match="a batch of 2 structures does not fit into PaddedSize"):
        collate(graphs)


def test_bad_settings_are_refused(dataset):
    with pytest.raises(InputError, match="batches of up to 0 edges are empty"):
        make_loader(dataset, 0, 0, True)
    with pytest.raises(InputError, match=r"45 frame\(s\) cannot be shared by 46 processes"):
        EdgeBatchSampler(dataset, MAX_EDGES, 0, True, 0, 46)


def test_frames_without_any_edge():
    lone = FrameDataset([frame for frame in varied_frames(30) if len(frame.atoms) == 1], 4.0, 0, True)
    size = padded_size(lone, 100)
    batches = list(make_loader(lone, 100, 0, True, padded=size))
    assert sum(int((batch.frame >= 0).sum()) for batch in batches) == 10
    assert {(batch.num_nodes, batch.num_edges, batch.num_graphs) for batch in batches} == {
        (size.atoms, size.edges, size.structures)
    }
