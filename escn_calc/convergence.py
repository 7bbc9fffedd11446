"""How many longitudes the edge grid needs before the result no longer depends on the edge frames.

The SO(2) maps commute with a roll of the frame about its edge; only the SiLU on the edge grid does not, because the
published grid has few longitudes. Raising them changes no weight. The average of the published network over random
rolls is the network with many longitudes, up to second order in the scatter.
"""

import warnings
from dataclasses import dataclass, replace
from math import pi, sqrt

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from torch import Tensor

from escn_calc.checkpoints.checkpoint import Checkpoint
from escn_calc.checkpoints.network import build_network
from escn_calc.graph import radius_graph
from escn_calc.nn import ESCNConfig
from escn_calc.nn.rotations import edge_frames, rolled
from escn_calc.nn.sphere_grid import edge_grid_shape
from escn_calc.structures import StructureBatch

TARGET = 5e-8
MOST_LONGITUDES = 33
ROLLS = 2
WORTH_A_WARNING = 1e-6
NEGLIGIBLE_IN_DERIVATIVES = 1e-7
RESIDUAL_METRIC = "relative change under rolls of the edge frames that converged frames leave"


class FramesNotConvergedWarning(UserWarning):
    """No edge grid of reasonable size makes the result independent of the edge frames."""


@dataclass(frozen=True)
class Convergence:
    """Result of :func:`converged_longitudes`.

    Attributes
    ----------
    longitudes : of the edge grid; None for those of the configuration.
    residual : largest change under rolls that remains, relative to the largest force and to the summed size of the
        atomic energies; float64.
    """

    longitudes: int | None
    residual: float

    @property
    def frees_derivatives(self) -> bool:
        """Whether derivatives may leave the roll out: their error is then below 1e-6, as tested on ten models."""
        return self.residual <= NEGLIGIBLE_IN_DERIVATIVES


def converged_longitudes(checkpoint: Checkpoint) -> Convergence:
    """Return an odd number of longitudes, at most 33, whose result is free of the frames.

    Taken from the card if it is there, else measured in float64 on a rattled fcc(111) slab with a diatomic molecule,
    once per model and process. "Free" means a relative change below 5e-8 under rolls of every edge by its own angle.
    Bisection over the odd numbers finds the smallest one if the change falls steadily, and in any case one that was
    measured to be below. Where even 33 are not enough, 33 and their residual, with a
    :class:`FramesNotConvergedWarning` if that exceeds 1e-6.
    """
    found = _from_card(checkpoint) or _measured_once(checkpoint)
    if found.residual > WORTH_A_WARNING:
        warnings.warn(
            f"model {checkpoint.card.name}: with {found.longitudes} longitudes the result still changes by "
            f"{found.residual:.1e} (relative) with the edge frames; converged frames are not reached",
            FramesNotConvergedWarning,
            stacklevel=2,
        )
    return found


def grid_in_use(checkpoint: Checkpoint, frames: str) -> Convergence | None:
    """Return the edge grid behind ``frames`` and what rolls of the frames do there; None where they matter.

    Resolved grids are taken as they are; what rolls do there is in the card or measured.
    """
    if checkpoint.config.resolved:
        return _from_card(checkpoint) or _measured_once(checkpoint)
    return converged_longitudes(checkpoint) if frames == "converged" else None


def _from_card(checkpoint: Checkpoint) -> Convergence | None:
    longitudes = checkpoint.card.converged_longitudes
    residual = checkpoint.card.metrics.get(RESIDUAL_METRIC)
    if not isinstance(residual, float) or (longitudes is None) != checkpoint.config.resolved:
        return None
    return Convergence(longitudes, residual)


def _measured_once(checkpoint: Checkpoint) -> Convergence:
    key = (checkpoint.card.sha256, checkpoint.config)
    if key not in _measured:
        resolved = checkpoint.config.resolved
        _measured[key] = Convergence(None, roll_residual(checkpoint, None)) if resolved else _bisect(checkpoint)
    return _measured[key]


def _bisect(checkpoint: Checkpoint) -> Convergence:
    config = checkpoint.config
    published = max(edge_grid_shape(config, index)[1] for index in range(len(config.lmax_list)))
    counts = list(range(published | 1, MOST_LONGITUDES + 1, 2)) or [published]
    best = Convergence(counts[-1], roll_residual(checkpoint, counts[-1]))
    low, high = 0, len(counts) - 1
    while low < high:
        middle = (low + high) // 2
        residual = roll_residual(checkpoint, counts[middle])
        if residual < TARGET:
            best, high = Convergence(counts[middle], residual), middle
        else:
            low = middle + 1
    return best


def with_converged_longitudes(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with its converged edge grid, and what rolls still do there, in its card."""
    found = grid_in_use(checkpoint, "converged")
    assert found is not None
    update = {
        "converged_longitudes": found.longitudes,
        "metrics": checkpoint.card.metrics | {RESIDUAL_METRIC: float(f"{found.residual:.1e}")},
    }
    return replace(checkpoint, card=checkpoint.card.model_copy(update=update))


def roll_angles(num_edges: int, turn: int) -> Tensor:
    """A different, well-spread roll for each edge, (E,) float64; zero for turn 0."""
    edge = torch.arange(num_edges, dtype=torch.float64, device="cpu")
    return 2 * pi * torch.frac(edge * sqrt(2) + 0.3) * turn / sqrt(3)


def roll_residual(checkpoint: Checkpoint, longitudes: int | None, structure: Atoms | None = None) -> float:
    """Return the largest relative change of energy or forces under rolls of the edge frames, float64.

    Parameters
    ----------
    checkpoint : the model; without a force head its gradient takes the place of the forces.
    longitudes : of the edge grid; None for those of the checkpoint.
    structure : what to evaluate; None for a rattled Cu(111) slab with CO.
    """
    config = checkpoint.config
    network = build_network(checkpoint, torch.float64, longitudes)
    batch = StructureBatch.from_atoms([structure or _probe(checkpoint)])
    graph = radius_graph(batch, config.cutoff, config.max_neighbors)
    frames = edge_frames(graph.vectors / graph.distances[:, None])

    def evaluate(turn: int) -> tuple[Tensor, Tensor]:
        vectors = graph.vectors.detach().requires_grad_(not config.regress_forces)
        turned = rolled(frames, roll_angles(len(frames), turn))
        output = network(batch.numbers, graph.source, graph.target, vectors, turned)
        if output.forces is not None:
            return output.node_energy, output.forces
        return output.node_energy.detach(), torch.autograd.grad(output.node_energy.sum(), vectors)[0]

    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        first = evaluate(0)
        return max(_relative_change(first, evaluate(turn)) for turn in range(1, ROLLS + 1))


def _relative_change(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    (energy, forces), (other_energy, other_forces) = one, other
    change = (energy.sum() - other_energy.sum()).abs() / energy.abs().sum()
    return float(max(change, (forces - other_forces).abs().max() / forces.abs().max()))


def _probe(checkpoint: Checkpoint) -> Atoms:
    """A rattled fcc(111) slab with a diatomic molecule on top, of elements the model accepts."""
    slab = fcc111("Cu", size=(2, 2, 3), vacuum=8.0, periodic=True)
    add_adsorbate(slab, molecule("CO"), 1.9, "ontop")
    slab.rattle(0.1, seed=1)
    most = checkpoint.config.max_num_elements - 1
    slab.numbers = np.minimum(slab.numbers, max(most, 1))
    return slab


_measured: dict[tuple[str, ESCNConfig], Convergence] = {}
