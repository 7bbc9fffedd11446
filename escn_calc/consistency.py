"""How far the forces of a model are from what forces should be, measured on one structure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from escn_calc.convergence import roll_angles
from escn_calc.energy_model import EnergyModel, Evaluation
from escn_calc.graph import RadiusGraph, radius_graph
from escn_calc.nn.rotations import edge_frames, rolled
from escn_calc.structures import StructureBatch

ROLLS = 5
ROTATIONS = 10


@dataclass(frozen=True)
class ForceConsistency:
    """Figures of merit of one structure; forces in eV/Å, energies in eV, differences as root mean squares.

    Attributes
    ----------
    forces_kind : the kind of forces that roll and rotation errors are about, "direct" or "gradient".
    gradient_size : size of a component of the gradient forces.
    direct_error : difference of a component of the direct forces from the gradient; None without a force head.
    largest_direct_error : the largest of these differences.
    net_direct_force, net_gradient_force : length of the sum of the forces over all atoms; a gradient has none.
    roll_energy, roll_forces : change under rolls of the edge frames, each edge by its own angle, the roll left out of
        derivatives; zero in an exact network, and the reason for ``frames="converged"``.
    rotation_energy, rotation_forces : change when the structure is rotated (and the forces back).
    """

    forces_kind: str
    gradient_size: float
    direct_error: float | None
    largest_direct_error: float | None
    net_direct_force: float | None
    net_gradient_force: float
    roll_energy: float
    roll_forces: float
    rotation_energy: float
    rotation_forces: float


def force_consistency(model: EnergyModel, batch: StructureBatch, kind: str | None) -> ForceConsistency:
    """Compare direct forces with the gradient, and results with those of rolled frames and rotated structures.

    Parameters
    ----------
    model : what is measured.
    batch : one structure on the CPU.
    kind : "direct" or "gradient", the forces whose roll and rotation errors are wanted; None for the gradient.
    """
    graph = _graph(model, batch)
    gradient = _forces(model.evaluate(batch, graph, "gradient"))
    direct = _forces(model.evaluate(batch, graph, "direct")) if model.config.regress_forces else None
    kind = kind or "gradient"
    unrolled = _rolled(model, batch, graph, kind, 0)
    rolls = [_change(unrolled, _rolled(model, batch, graph, kind, turn)) for turn in range(1, ROLLS + 1)]
    here = model.evaluate(batch, graph, kind)
    rotations = [_change(here, _rotated(model, batch, kind, matrix)) for matrix in _rotations()]
    roll_energy, roll_forces = _rms(rolls)
    rotation_energy, rotation_forces = _rms(rotations)
    return ForceConsistency(
        forces_kind=kind,
        gradient_size=_size(gradient),
        direct_error=None if direct is None else _size(direct - gradient),
        largest_direct_error=None if direct is None else float((direct - gradient).abs().max()),
        net_direct_force=None if direct is None else float(direct.sum(0).norm()),
        net_gradient_force=float(gradient.sum(0).norm()),
        roll_energy=roll_energy,
        roll_forces=roll_forces,
        rotation_energy=rotation_energy,
        rotation_forces=rotation_forces,
    )


def _rolled(model: EnergyModel, batch: StructureBatch, graph: RadiusGraph, kind: str, turn: int) -> Evaluation:
    frames = rolled(edge_frames(graph.vectors / graph.distances[:, None]), roll_angles(len(graph.source), turn))
    return model.evaluate(batch, graph, kind, frames.to(model.dtype).to(model.device))


def _rotated(model: EnergyModel, batch: StructureBatch, kind: str, matrix: Tensor) -> Evaluation:
    """Evaluate the structure rotated by ``matrix`` and rotate its forces back."""
    turned = replace(batch, positions=batch.positions @ matrix.T, cells=batch.cells @ matrix.T)
    evaluation = model.evaluate(turned, _graph(model, turned), kind)
    return replace(evaluation, forces=_forces(evaluation) @ matrix)


def _rotations() -> list[Tensor]:
    matrices = Rotation.random(ROTATIONS, random_state=0).as_matrix()
    return [torch.from_numpy(matrix) for matrix in matrices]


def _graph(model: EnergyModel, batch: StructureBatch) -> RadiusGraph:
    return radius_graph(batch, model.config.cutoff, model.config.max_neighbors)


def _forces(evaluation: Evaluation) -> Tensor:
    assert evaluation.forces is not None
    return evaluation.forces


def _change(here: Evaluation, there: Evaluation) -> tuple[float, float]:
    """Differences of energy (eV) and, root mean square, of force components (eV/Å)."""
    return float(there.energies.sum() - here.energies.sum()), _size(_forces(there) - _forces(here))


def _rms(changes: list[tuple[float, float]]) -> tuple[float, float]:
    """Root mean square of each of the two numbers."""
    energies, forces = zip(*changes, strict=True)
    return _root_mean_square(energies), _root_mean_square(forces)


def _root_mean_square(values: Sequence[float]) -> float:
    return sqrt(sum(value * value for value in values) / len(values))


def _size(forces: Tensor) -> float:
    return float(forces.square().mean().sqrt())
