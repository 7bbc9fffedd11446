"""Element references and normalisers of a run: fitted from scratch, kept or fitted again for a start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch_geometric.data import Data

from escn_calc.checkpoints.card import Normalizers
from escn_calc.checkpoints.checkpoint import Checkpoint
from escn_calc.energy_model import sum_over_edges
from escn_calc.errors import InputError
from escn_calc.labels import LabelledFrame
from escn_calc.nn.incidence import Incidence
from escn_calc.nn.repulsion import zbl_energy
from escn_calc.potential import Potential
from escn_calc.training.distributed import World
from escn_calc.training.graphs import FrameDataset
from escn_calc.training.references import extend_references, fit_normalizers, fit_references
from escn_calc.training.start import Start


def with_fitted_constants(
    start: Start, data: FrameDataset, references: Literal["fit", "keep"] | None, device: str, max_edges: int
) -> Start:
    """Return the start with the constants that it is trained with.

    Parameters
    ----------
    start : the model.
    data : structures that it will be trained on.
    references : "fit" for references that take what the network leaves, by least squares; else those of the start, with
        fitted ones for added elements alone.
    device : where the network is evaluated.
    max_edges : edges of structures evaluated together.
    """
    if start.origin is None:
        return _from_scratch(start, data)
    checkpoint = start.checkpoint
    if references == "fit":
        bare = replace(checkpoint, element_references=None)
        found = fit_references(data.frames, _predicted(bare, data, device, max_edges))
        if found is None:
            raise InputError("references: fit needs energies, and no training structure has one; set references: keep")
        start = _with(start, replace(checkpoint, element_references=found.values), found.notes)
    elif start.added:
        predicted = _predicted(checkpoint, data, device, max_edges)
        found = extend_references(checkpoint.element_references, start.added, data.frames, predicted)
        start = _with(start, replace(checkpoint, element_references=found.values), found.notes)
    return _with_force_scale(start, data.frames) if start.new_force_head else start


def constants_record(start: Start) -> dict[str, Any]:
    """Return the constants as JSON can hold them, to the last bit, and what is to be known about them."""
    references = start.checkpoint.element_references
    return {
        "normalizers": asdict(start.checkpoint.normalizers),
        "element_references": None if references is None else references.tolist(),
        "notes": list(start.notes),
    }


def with_recorded_constants(start: Start, record: dict[str, Any]) -> Start:
    """Return the start with the constants that its run began with."""
    values = record["element_references"]
    references = None if values is None else torch.tensor(values, dtype=torch.float64)
    normalizers = Normalizers(**record["normalizers"])
    checkpoint = replace(start.checkpoint, normalizers=normalizers, element_references=references)
    return replace(start, checkpoint=checkpoint, notes=tuple(record["notes"]))


def shared_constants(start: Start, world: World) -> Start:
    """Return the start with the constants of the first process, so that all have the same to the last bit."""
    checkpoint = start.checkpoint
    if world.size == 1:
        return start
    references = checkpoint.element_references
    normalizers = torch.tensor(list(asdict(checkpoint.normalizers).values()), dtype=torch.float64)
    values = normalizers if references is None else torch.cat((normalizers, references))
    values = world.sum(values if world.is_first else torch.zeros_like(values)).cpu()
    count = len(normalizers)
    shared = replace(
        checkpoint,
        normalizers=Normalizers(*values[:count].tolist()),
        element_references=None if references is None else values[count:],
    )
    return replace(start, checkpoint=shared)


def _from_scratch(start: Start, data: FrameDataset) -> Start:
    checkpoint = start.checkpoint
    frames = data.frames
    if checkpoint.config.repulsion is not None:
        frames = [beyond_repulsion(frame, data[index], data.cutoff) for index, frame in enumerate(frames)]
    found = fit_references(frames)
    values = None if found is None else found.values
    normalizers = fit_normalizers(frames, values, checkpoint.config.energy_reduce)
    fitted = replace(checkpoint, normalizers=normalizers, element_references=values)
    return _with(start, fitted, () if found is None else found.notes)


def beyond_repulsion(frame: LabelledFrame, graph: Data, cutoff: float) -> LabelledFrame:
    """Take the repulsion that the network adds by itself from the energy and the forces of a frame."""
    source, target = graph.edge_index
    vectors = graph.edge_distance_vec.clone().requires_grad_()
    with torch.enable_grad():
        energy = zbl_energy(graph.atomic_numbers, source, target, vectors.norm(dim=-1), cutoff).sum()
    (slopes,) = torch.autograd.grad(energy, vectors, materialize_grads=True)
    ends = Incidence(source, len(frame.atoms)), Incidence(target, len(frame.atoms))
    forces, _ = sum_over_edges(slopes, vectors.detach(), *ends)
    return replace(
        frame,
        energy=None if frame.energy is None else frame.energy - float(energy.detach()),
        forces=None if frame.forces is None else frame.forces - forces.numpy(),
    )


def _with_force_scale(start: Start, frames: Sequence[LabelledFrame]) -> Start:
    checkpoint = start.checkpoint
    fitted = fit_normalizers(frames, checkpoint.element_references, checkpoint.config.energy_reduce)
    normalizers = replace(checkpoint.normalizers, force_mean=fitted.force_mean, force_std=fitted.force_std)
    return replace(start, checkpoint=replace(checkpoint, normalizers=normalizers))


def _with(start: Start, checkpoint: Checkpoint, notes: tuple[str, ...]) -> Start:
    return replace(start, checkpoint=checkpoint, notes=start.notes + notes)


def _predicted(checkpoint: Checkpoint, data: FrameDataset, device: str, max_edges: int) -> Tensor:
    """Energies (F,) in eV of all structures, before training."""
    energies_only = replace(checkpoint, card=checkpoint.card.model_copy(update={"forces": None}))
    potential = Potential(energies_only, device=device, dtype="float32", frames="canonical")
    energies: list[float] = []
    for first, last in _pieces(data.edge_counts.tolist(), max_edges):
        structures = [frame.atoms for frame in data.frames[first:last]]
        energies += [prediction.energy for prediction in potential.evaluate(structures)]
    return torch.tensor(energies, dtype=torch.float64)


def _pieces(sizes: Sequence[int], most: int) -> list[tuple[int, int]]:
    """First and last + 1 of consecutive pieces of at most ``most`` together, or of one."""
    pieces, first, total = [], 0, 0
    for index, size in enumerate(sizes):
        if index > first and total + size > most:
            pieces.append((first, index))
            first, total = index, 0
        total += size
    return [*pieces, (first, len(sizes))] if sizes else []
