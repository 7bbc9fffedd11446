"""Batches of about the same number of edges, in an order that depends on seed, epoch and rank alone.

The cost of a batch goes with its edges, so batches are filled up to a number of edges; two further limits on atoms and
structures, taken from the data, make it possible to bring all batches to one size (for a network compiled for it) by
filler structures.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from torch_geometric.data import Batch, Data

from escn_calc.errors import InputError
from escn_calc.nn.rotations import SINGULAR_DIRECTION
from escn_calc.training.graphs import FrameDataset

#: Share of the batches, filled by edges alone, that keep within the limits on atoms and structures.
WITHIN_LIMITS = 0.9
#: Length of filler edges, as a fraction of the cutoff.
FILLER_LENGTH = 0.9
#: Filler atoms have at most this many times the mean number of neighbours of real ones.
FILLER_CROWDING = 8
#: Time for which a worker outlives SIGTERM: that which batch systems leave a job before they kill it.
GRACE_SECONDS = 30
#: Atomic number of filler atoms.
FILLER_NUMBER = 1


@dataclass(frozen=True)
class PaddedSize:
    """Atoms, edges and structures of every batch, filler included."""

    atoms: int
    edges: int
    structures: int


@dataclass(frozen=True)
class BatchLimits:
    """What closes a batch; a frame that exceeds the edges by itself is a batch of its own."""

    edges: int
    atoms: int
    structures: int

    @classmethod
    def of(cls, dataset: FrameDataset, max_edges: int) -> BatchLimits:
        """Limits on atoms and structures that most batches of up to ``max_edges`` in random order keep.

        Raises
        ------
        InputError
            If ``max_edges`` is not positive.
        """
        if max_edges < 1:
            raise InputError(f"batches of up to {max_edges} edges are empty: give a positive number")
        order = np.random.default_rng(0).permutation(_repeated(dataset))
        batches = _filled(order.tolist(), dataset, cls(max_edges, int(dataset.atom_counts.sum()), len(order)))
        atoms = [int(dataset.atom_counts[batch].sum()) for batch in batches]
        structures = [len(batch) for batch in batches]
        return cls(
            max_edges,
            max(math.ceil(np.quantile(atoms, WITHIN_LIMITS)), int(dataset.atom_counts.max())),
            math.ceil(np.quantile(structures, WITHIN_LIMITS)),
        )


def padded_size(dataset: FrameDataset, max_edges: int) -> PaddedSize:
    """Return a size in which every batch of every epoch fits, with at least one filler structure.

    Filler edges are so many that each filler atom has at most 8 times the mean number of neighbours.
    """
    limits = BatchLimits.of(dataset, max_edges)
    edges = max(limits.edges, int(dataset.edge_counts.max()))
    structures = limits.structures + 1
    degree = max(1.0, float(dataset.edge_counts.sum() / dataset.atom_counts.sum()))
    spread = math.ceil(edges / (FILLER_CROWDING * degree))
    return PaddedSize(limits.atoms + structures + spread, edges, structures)


class EdgeBatchSampler(Sampler[list[int]]):
    """Batches of frames for one of several ranks.

    Over all ranks an epoch goes through every frame ``repeat`` times where shuffled, in a new order each epoch, and
    once in the given order where not. Where shuffled, all ranks have the same number of batches: batches are halved
    until their number divides by the number of ranks. Only if all of them hold a single frame by then, fewer frames
    than there are ranks are left out of the epoch.

    Parameters
    ----------
    dataset : frames with their edge counts.
    max_edges : edges of a batch; a larger frame is a batch of its own.
    seed : of the order.
    shuffle : False for evaluation.
    rank, world_size : this process and the number of processes.

    Raises
    ------
    InputError
        ``max_edges`` is not positive, or there are fewer frames to shuffle than ranks.
    """

    def __init__(
        self, dataset: FrameDataset, max_edges: int, seed: int, shuffle: bool, rank: int = 0, world_size: int = 1
    ) -> None:
        if shuffle and len(dataset) < world_size:
            raise InputError(f"{len(dataset)} frame(s) cannot be shared by {world_size} processes: use fewer processes")
        self._dataset, self._limits = dataset, BatchLimits.of(dataset, max_edges)
        self._seed, self._shuffle, self._rank, self._world_size = seed, shuffle, rank, world_size
        self.set_position(0)

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Let the next iterations go through ``epoch``, from its batch number ``batch`` on."""
        self._batches = self._of_this_rank(epoch)
        self._first = batch

    def batches_in(self, epoch: int) -> int:
        """Number of batches of an epoch, the same on all ranks if shuffled; it differs a little between epochs."""
        return len(self._of_this_rank(epoch))

    def __iter__(self) -> Iterator[list[int]]:
        """Indices of the frames of each batch, from the position on; the position stays."""
        return iter(self._batches[self._first :])

    def __len__(self) -> int:
        """Number of batches from the position to the end of its epoch."""
        return max(0, len(self._batches) - self._first)

    def _of_this_rank(self, epoch: int) -> list[list[int]]:
        batches = _divisible(_filled(self._order(epoch), self._dataset, self._limits), self._world_size)
        left_over = len(batches) % self._world_size if self._shuffle else 0
        return batches[: len(batches) - left_over][self._rank :: self._world_size]

    def _order(self, epoch: int) -> list[int]:
        if not self._shuffle:
            return list(range(len(self._dataset)))
        shuffled: list[int] = np.random.default_rng((self._seed, epoch)).permutation(_repeated(self._dataset)).tolist()
        return shuffled


def make_loader(
    dataset: FrameDataset,
    max_edges: int,
    seed: int,
    shuffle: bool,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    padded: PaddedSize | None = None,
) -> DataLoader[Batch]:
    """Return a loader of ``torch_geometric`` batches, its ``batch_sampler`` an :class:`EdgeBatchSampler`.

    Parameters
    ----------
    dataset, max_edges, seed, shuffle, rank, world_size : see :class:`EdgeBatchSampler`.
    workers : processes that prepare batches; 0 for this one. The batches do not depend on it.
    padded : bring all batches to this size, see :func:`padded_size`; None leaves them as they are. Filler structures
        come last; their labels are absent (``has_*`` False), their ``frame`` is -1.
    """
    return DataLoader(
        dataset,
        batch_sampler=EdgeBatchSampler(dataset, max_edges, seed, shuffle, rank, world_size),
        collate_fn=Collate(dataset.cutoff, padded),
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_outlive_signals,
        generator=torch.Generator().manual_seed(seed),
    )


def _outlive_signals(worker: int) -> None:
    """Let a worker go on for a while when a terminal or a batch system signals all processes: training ends first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE_SECONDS))


@dataclass(frozen=True)
class Collate:
    """Joins graphs to a batch, and fills it up to a size if there is one."""

    cutoff: float
    padded: PaddedSize | None

    def __call__(self, graphs: Sequence[Data]) -> Batch:
        """Join graphs, those of filler structures last."""
        filler = [] if self.padded is None else self._filler(graphs, self.padded)
        return Batch.from_data_list([*graphs, *filler])

    def _filler(self, graphs: Sequence[Data], size: PaddedSize) -> list[Data]:
        """Single atoms without edges, and one structure with the atoms and edges that remain."""
        single = size.structures - len(graphs) - 1
        atoms = size.atoms - sum(graph.num_nodes for graph in graphs) - single
        edges = size.edges - sum(graph.num_edges for graph in graphs)
        if single < 0 or atoms < 1 or edges < 0:
            raise InputError(
                f"a batch of {len(graphs)} structures does not fit into {size}, which needs room for one filler "
                "structure: take the size from padded_size of the same data and edges"
            )
        lone = _filler_structure(1, 0, self.cutoff)
        return [*[lone] * single, _filler_structure(atoms, edges, self.cutoff)]


def _filler_structure(atoms: int, edges: int, cutoff: float) -> Data:
    """Atoms with the same number of edges into each, as far as possible, from the next one, and no labels.

    The edges point against the singular direction of the edge frames, where these are smoothest.
    """
    target = torch.arange(edges) * atoms // max(edges, 1)
    direction = -torch.tensor(SINGULAR_DIRECTION, dtype=torch.float64)
    vector = FILLER_LENGTH * cutoff * direction / direction.norm()
    return Data(
        atomic_numbers=torch.full((atoms,), FILLER_NUMBER),
        pos=torch.zeros(atoms, 3, dtype=torch.float64),
        cell=torch.eye(3, dtype=torch.float64)[None],
        pbc=torch.zeros(1, 3, dtype=torch.bool),
        natoms=atoms,
        edge_index=torch.stack(((target + 1) % atoms, target)),
        cell_offsets=torch.zeros(edges, 3, dtype=torch.int64),
        edge_distance_vec=vector.repeat(edges, 1),
        energy=torch.zeros(1, dtype=torch.float64),
        has_energy=torch.zeros(1, dtype=torch.bool),
        forces=torch.zeros(atoms, 3, dtype=torch.float32),
        has_forces=torch.zeros(atoms, dtype=torch.bool),
        stress=torch.zeros(1, 3, 3, dtype=torch.float32),
        has_stress=torch.zeros(1, dtype=torch.bool),
        volume=torch.ones(1, dtype=torch.float64),
        frame=torch.tensor([-1]),
    )


def _repeated(dataset: FrameDataset) -> np.ndarray:
    return np.repeat(np.arange(len(dataset)), dataset.repeats.numpy())


def _filled(order: Sequence[int], dataset: FrameDataset, limits: BatchLimits) -> list[list[int]]:
    """Cut an order of frames into batches, each as full as the limits allow."""
    edge_counts, atom_counts = dataset.edge_counts.tolist(), dataset.atom_counts.tolist()
    batches: list[list[int]] = []
    edges = atoms = 0
    for index in order:
        edges, atoms = edges + edge_counts[index], atoms + atom_counts[index]
        full = edges > limits.edges or atoms > limits.atoms
        if not batches or full or len(batches[-1]) == limits.structures:
            batches.append([])
            edges, atoms = edge_counts[index], atom_counts[index]
        batches[-1].append(index)
    return batches


def _divisible(batches: list[list[int]], world_size: int) -> list[list[int]]:
    """Halve the batches with the most frames, in place of the original, until their number divides, if it can."""
    while len(batches) % world_size:
        longest = max(range(len(batches)), key=lambda number: len(batches[number]))
        if len(batches[longest]) == 1:
            break
        middle = len(batches[longest]) // 2
        halves = [batches[longest][:middle], batches[longest][middle:]]
        batches = [*batches[:longest], *halves, *batches[longest + 1 :]]
    return batches
