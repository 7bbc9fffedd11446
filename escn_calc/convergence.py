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

from escn_calc.checkpoints.card import ModelCard
from escn_calc.checkpoints.checkpoint import Checkpoint
from escn_calc.checkpoints.network import build_network
from escn_calc.graph import radius_graph
from escn_calc.nn import ESCNConfig, ESCNOutput
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
    longitudes : of the edge grid.
    residual : largest change under rolls that remains, relative to the largest force and to the summed size of the
        atomic energies; float64.
    """

    longitudes: int
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
    found = _from_card(checkpoint.card) or _measured_once(checkpoint)
    if found.residual > WORTH_A_WARNING:
        warnings.warn(
            f"model {checkpoint.card.name}: with {found.longitudes} longitudes the result still changes by "
            f"{found.residual:.1e} (relative) with the edge frames; converged frames are not reached",
            FramesNotConvergedWarning,
            stacklevel=2,
        )
    return found


def _from_card(card: ModelCard) -> Convergence | None:
    residual = card.metrics.get(RESIDUAL_METRIC)
    if card.converged_longitudes is None or not isinstance(residual, float):
        return None
    return Convergence(card.converged_longitudes, residual)


def _measured_once(checkpoint: Checkpoint) -> Convergence:
    key = (checkpoint.card.sha256, checkpoint.config)
    if key not in _measured:
        _measured[key] = _bisect(checkpoint)
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
    """Return the checkpoint with the outcome of :func:`converged_longitudes` in its card."""
    found = converged_longitudes(checkpoint)
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
    checkpoint : the model.
    longitudes : of the edge grid; None for those of the checkpoint.
    structure : what to evaluate; None for a rattled Cu(111) slab with CO.
    """
    config = checkpoint.config
    network = build_network(checkpoint, torch.float64, longitudes)
    batch = StructureBatch.from_atoms([structure or _probe(checkpoint)])
    graph = radius_graph(batch, config.cutoff, config.max_neighbors)
    frames = edge_frames(graph.vectors / graph.distances[:, None])
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        outputs = [
            network(
                batch.numbers, graph.source, graph.target, graph.vectors, rolled(frames, roll_angles(len(frames), turn))
            )
            for turn in range(ROLLS + 1)
        ]
    return max(_relative_change(outputs[0], other) for other in outputs[1:])


def _relative_change(one: ESCNOutput, other: ESCNOutput) -> float:
    change = (one.node_energy.sum() - other.node_energy.sum()).abs() / one.node_energy.abs().sum()
    if one.forces is None or other.forces is None:
        return float(change)
    return float(max(change, (one.forces - other.forces).abs().max() / one.forces.abs().max()))


def _probe(checkpoint: Checkpoint) -> Atoms:
    """A rattled fcc(111) slab with a diatomic molecule on top, of elements the model accepts."""
    slab = fcc111("Cu", size=(2, 2, 3), vacuum=8.0, periodic=True)
    add_adsorbate(slab, molecule("CO"), 1.9, "ontop")
    slab.rattle(0.1, seed=1)
    most = checkpoint.config.max_num_elements - 1
    slab.numbers = np.minimum(slab.numbers, max(most, 1))
    return slab


_measured: dict[tuple[str, ESCNConfig], Convergence] = {}
