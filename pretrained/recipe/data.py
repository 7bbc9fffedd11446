"""Labelled structures as training tensors: chunks of `label.py`, graphs built once, batches by edge count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from escn_calc.graph import radius_graph
from escn_calc.structures import StructureBatch

#: How often an epoch shows each gas molecule: they are few and have few atoms, so they would weigh little otherwise.
GAS_REPEATS = 4


@dataclass(frozen=True)
class Sample:
    """One labelled structure with its graph; energies in eV, forces in eV/Å, lengths in Å."""

    numbers: Tensor
    source: Tensor
    target: Tensor
    vectors: Tensor
    energy: float
    forces: Tensor
    group: str
    repeats: int


def read_chunk(path: Path, split: str, cutoff: float) -> list[Sample]:
    """Return the samples of one chunk that belong to ``split`` ("train", "valid" or "test")."""
    with np.load(path) as chunk:
        arrays = {name: chunk[name] for name in chunk.files}
    ends = arrays["natoms"].cumsum()
    samples = []
    for index in np.flatnonzero(arrays["split"] == split):
        atoms = slice(ends[index] - arrays["natoms"][index], ends[index])
        batch = StructureBatch(
            numbers=torch.from_numpy(arrays["numbers"][atoms].astype(np.int64)),
            positions=torch.from_numpy(arrays["positions"][atoms].astype(np.float64)),
            cells=torch.from_numpy(arrays["cell"][index : index + 1].astype(np.float64)),
            pbc=torch.from_numpy(arrays["pbc"][index : index + 1]),
            natoms=torch.tensor([arrays["natoms"][index]], dtype=torch.int64),
        )
        graph = radius_graph(batch, cutoff, 0)
        samples.append(
            Sample(
                numbers=batch.numbers,
                source=graph.source,
                target=graph.target,
                vectors=graph.vectors.float(),
                energy=float(arrays["energy"][index]),
                forces=torch.from_numpy(arrays["forces"][atoms].astype(np.float32)),
                group=str(arrays["group"][index]),
                repeats=GAS_REPEATS if arrays["kind"][index] == "gas" else 1,
            )
        )
    return samples


def read_new_chunks(folder: Path, seen: set[Path], split: str, cutoff: float) -> list[Sample]:
    """Return the samples of all chunks not in ``seen``, and note them there."""
    fresh = [path for path in sorted(folder.glob("chunk-[0-9]*[0-9].npz")) if path not in seen]
    seen.update(fresh)
    return [sample for path in fresh for sample in read_chunk(path, split, cutoff)]


@dataclass(frozen=True)
class Batch:
    """Several samples as one disconnected graph."""

    numbers: Tensor
    source: Tensor
    target: Tensor
    vectors: Tensor
    energies: Tensor
    forces: Tensor
    natoms: Tensor

    @classmethod
    def of(cls, samples: list[Sample]) -> Batch:
        """Join samples, shifting their node indices."""
        natoms = torch.tensor([len(sample.numbers) for sample in samples])
        first = (natoms.cumsum(0) - natoms).tolist()
        return cls(
            numbers=torch.cat([sample.numbers for sample in samples]),
            source=torch.cat([sample.source + start for sample, start in zip(samples, first, strict=True)]),
            target=torch.cat([sample.target + start for sample, start in zip(samples, first, strict=True)]),
            vectors=torch.cat([sample.vectors for sample in samples]),
            energies=torch.tensor([sample.energy for sample in samples], dtype=torch.float64),
            forces=torch.cat([sample.forces for sample in samples]),
            natoms=natoms,
        )

    def per_structure(self, values: Tensor) -> Tensor:
        """Sum (N,) atomic values over each structure: (B,)."""
        owner = torch.repeat_interleave(torch.arange(len(self.natoms)), self.natoms)
        return values.new_zeros(len(self.natoms)).index_add(0, owner, values)


def batches(samples: list[Sample], most_edges: int, generator: torch.Generator | None) -> Iterator[Batch]:
    """Yield batches of up to ``most_edges`` edges; with a generator in random order, each sample ``repeats`` times."""
    if generator is None:
        order = list(range(len(samples)))
    else:
        repeated = [index for index, sample in enumerate(samples) for _ in range(sample.repeats)]
        order = [repeated[index] for index in torch.randperm(len(repeated), generator=generator).tolist()]
    group: list[Sample] = []
    edges = 0
    for index in order:
        sample = samples[index]
        if group and edges + len(sample.source) > most_edges:
            yield Batch.of(group)
            group, edges = [], 0
        group.append(sample)
        edges += len(sample.source)
    if group:
        yield Batch.of(group)


def fit_references(samples: list[Sample]) -> Tensor:
    """Least-squares energy per element in eV, (119,) float64, zero for elements that do not occur."""
    counts = torch.zeros(len(samples), 119, dtype=torch.float64)
    for row, sample in enumerate(samples):
        counts[row] = torch.bincount(sample.numbers, minlength=119)
    energies = torch.tensor([sample.energy for sample in samples], dtype=torch.float64)
    present = counts.sum(0) > 0
    references = torch.zeros(119, dtype=torch.float64)
    weight = 1 / counts.sum(1, keepdim=True)
    solution = torch.linalg.lstsq(counts[:, present] * weight, energies[:, None] * weight, driver="gelsd").solution
    references[present] = solution.squeeze(1)
    return references
