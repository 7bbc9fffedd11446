"""Labelled frames as PyTorch Geometric data: graph, labels, and which labels there are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase.stress import voigt_6_to_full_3x3_stress
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data

from escn_calc.constraints import free_indices
from escn_calc.errors import InputError
from escn_calc.integrations.pyg import to_data_list
from escn_calc.labels import LabelledFrame, Progress
from escn_calc.memory import free_bytes

#: Part of the free memory that graphs may take; the rest are built again whenever they are needed.
MEMORY_SHARE = 0.3
#: Frames whose graphs are built at once.
FRAMES_AT_ONCE = 32


class FrameDataset(Dataset[Data]):
    """Frames with their graphs, as ``torch_geometric`` data.

    Each item has the fields of :func:`escn_calc.integrations.pyg.to_data_list` and

    - ``energy`` (1,) float64 eV, ``forces`` (N, 3) float32 eV/Å and ``stress`` (1, 3, 3) float32 eV/Å³, zero where
      unknown;
    - ``has_energy`` (1,), ``has_forces`` (N,), ``has_stress`` (1,) bool: which of them are to be learned;
    - ``volume`` (1,) float64 Å³ of the cell, completed by unit vectors along directions that are not periodic;
    - ``frame`` (1,) int64, its place in ``frames``.

    All graphs are built once, which finds atoms on top of each other and counts edges. They are kept as far as
    ``memory_share`` of the free memory goes.

    Parameters
    ----------
    frames : see :func:`escn_calc.labels.read_frames`; not changed.
    cutoff : Å, inclusive.
    max_neighbors : strict cap on the edges into one atom; 0 or less for none.
    only_free_atoms : whether forces on atoms held by ``FixAtoms`` are left out.
    progress : called with the number of graphs built so far.
    memory_share : part of the free memory that graphs may take; divide it by the processes on one machine.

    Attributes
    ----------
    frames : list of LabelledFrame
    cutoff : float, Å
    edge_counts, atom_counts : (F,) int64
    repeats : (F,) int64, how often an epoch goes through each frame

    Raises
    ------
    InputError
        No frames; atoms closer than 0.01 Å; a cutoff that is not positive. The message names the frame.
    """

    def __init__(
        self,
        frames: Sequence[LabelledFrame],
        cutoff: float,
        max_neighbors: int,
        only_free_atoms: bool,
        progress: Progress | None = None,
        memory_share: float = MEMORY_SHARE,
    ) -> None:
        if not frames:
            raise InputError("there are no frames to build graphs of: give at least one")
        self.frames = list(frames)
        self.cutoff, self.max_neighbors, self.only_free_atoms = cutoff, max_neighbors, only_free_atoms
        self.atom_counts = torch.tensor([len(frame.atoms) for frame in frames])
        self.repeats = torch.tensor([frame.repeat for frame in frames])
        self._kept: list[Data] = []
        self.edge_counts = self._build_all(memory_share * free_bytes("cpu"), progress)

    def __len__(self) -> int:
        """Number of frames F."""
        return len(self.frames)

    def __getitem__(self, index: int) -> Data:
        """Graph and labels of one frame."""
        if index < len(self._kept):
            return self._kept[index]
        return self._build([index])[0]

    def _build_all(self, allowed_bytes: float, progress: Progress | None) -> Tensor:
        """Count the edges of all graphs, and keep the first ones as long as they fit."""
        counts: list[int] = []
        for indices in torch.arange(len(self.frames)).split(FRAMES_AT_ONCE):
            graphs = self._build(indices.tolist())
            counts += [graph.num_edges for graph in graphs]
            allowed_bytes -= sum(map(_bytes, graphs))
            if allowed_bytes > 0:
                self._kept += graphs
            if progress is not None:
                progress(len(counts))
        return torch.tensor(counts)

    def _build(self, indices: list[int]) -> list[Data]:
        frames = [self.frames[index] for index in indices]
        try:
            graphs = to_data_list([frame.atoms for frame in frames], self.cutoff, self.max_neighbors)
        except InputError as error:
            if len(indices) > 1:
                return [self._build([index])[0] for index in indices]
            raise InputError(f"{frames[0].origin}: {error}") from error
        for index, frame, graph in zip(indices, frames, graphs, strict=True):
            _add_labels(graph, frame, self.only_free_atoms)
            graph.frame = torch.tensor([index])
        return graphs


def _add_labels(graph: Data, frame: LabelledFrame, only_free_atoms: bool) -> None:
    natoms = len(frame.atoms)
    forces = np.zeros((natoms, 3)) if frame.forces is None else frame.forces
    learned = np.zeros(natoms, dtype=bool)
    learned[free_indices(frame.atoms) if only_free_atoms else slice(None)] = frame.forces is not None
    stress = np.zeros((3, 3)) if frame.stress is None else voigt_6_to_full_3x3_stress(frame.stress)
    graph.energy = torch.tensor([frame.energy or 0.0], dtype=torch.float64)
    graph.has_energy = torch.tensor([frame.energy is not None])
    graph.forces = torch.from_numpy(forces.astype(np.float32))
    graph.has_forces = torch.from_numpy(learned)
    graph.stress = torch.from_numpy(stress.astype(np.float32))[None]
    graph.has_stress = torch.tensor([frame.stress is not None])
    graph.volume = torch.linalg.det(graph.cell).abs()


def _bytes(graph: Data) -> int:
    return sum(value.nbytes for value in graph.to_dict().values() if isinstance(value, Tensor))
