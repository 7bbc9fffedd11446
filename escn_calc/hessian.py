"""Second derivatives of the energy by differentiating the gradient."""

import torch
from torch import Tensor

from escn_calc.energy_model import EnergyModel
from escn_calc.graph import RadiusGraph
from escn_calc.structures import StructureBatch


def hessian(model: EnergyModel, batch: StructureBatch, graph: RadiusGraph, indices: list[int]) -> Tensor:
    """Return d²E/dx² of one structure for the atoms ``indices``.

    One backward pass keeps the graph of the gradient; each row is a second one through it.

    Parameters
    ----------
    model : energies.
    batch : one structure on the CPU.
    graph : its edges.
    indices : the n atoms that move.

    Returns
    -------
    (3n, 3n) float64 eV/Å².
    """
    displacements = torch.zeros(batch.num_atoms, 3, dtype=torch.float64, device=graph.vectors.device)
    displacements.requires_grad_()
    with torch.enable_grad():
        energy = model.energies_of_displaced(batch, graph, displacements).sum()
        (gradient,) = torch.autograd.grad(energy, displacements, create_graph=True, materialize_grads=True)
        moving = torch.tensor(indices, device=gradient.device)
        rows = [_row(component, displacements, moving) for component in gradient[moving].flatten()]
    return torch.stack(rows).detach().cpu()


def _row(component: Tensor, displacements: Tensor, moving: Tensor) -> Tensor:
    if not component.requires_grad:
        return component.new_zeros(3 * len(moving))
    (row,) = torch.autograd.grad(component, displacements, retain_graph=True, materialize_grads=True)
    return row[moving].flatten()
