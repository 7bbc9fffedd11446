"""Errors as people know them: sums that add up over batches and processes, and the means behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from escn_calc.training.objective import LossWeights, StepInputs

SUMS = (
    "structures",
    "atoms",
    "stresses",
    "energy",
    "energy_per_atom",
    "force_components",
    "force_norm",
    "force_cosine",
    "stress_components",
    "stress_norm",
)
"""Entries of the sums: numbers of labelled structures, atoms and stresses, then sums of absolute errors of the
energy (eV) and of the energy per atom; over atoms, of the absolute errors of the three force components, of the length
of the force error (both eV/Å) and of the cosine between the forces; over structures, of the absolute errors of the nine
stress components and of the Frobenius norm of the error (both eV/Å³)."""


def error_sums(
    inputs: StepInputs, forces: Tensor, energy_errors: Tensor, force_errors: Tensor, stress_errors: Tensor | None
) -> Tensor:
    """Return :data:`SUMS` of a batch, (len(SUMS),) float64 without gradient.

    Parameters
    ----------
    inputs : labels of the batch and which of them there are.
    forces : predicted ones, (N, 3) eV/Å.
    energy_errors, force_errors, stress_errors : (B,), (N, 3) and (B, 3, 3) or None, zero where nothing is labelled.
    """
    energy_errors, force_errors, forces = (part.detach().double() for part in (energy_errors, force_errors, forces))
    labels = inputs.forces.double()
    products = lengths(forces) * lengths(labels)
    cosines = torch.where(products > 0, (forces * labels).sum(-1) / products.clamp(min=1e-30), 0.0)
    none = energy_errors.new_zeros(())
    stress = none.view(1, 1) if stress_errors is None else stress_errors.detach().double().flatten(1)
    return torch.stack(
        [
            inputs.has_energy.sum().double(),
            inputs.has_forces.sum().double(),
            none if stress_errors is None else inputs.has_stress.sum().double(),
            energy_errors.abs().sum(),
            (energy_errors.abs() / inputs.natoms).sum(),
            force_errors.abs().sum(),
            lengths(force_errors).sum(),
            (cosines * inputs.has_forces).sum(),
            stress.abs().sum(),
            lengths(stress).sum(),
        ]
    )


def figures(sums: Tensor, weights: LossWeights) -> dict[str, float]:
    """Return the errors behind sums over any number of batches; those without labels are left out.

    Parameters
    ----------
    sums : (len(SUMS),) float64, see :data:`SUMS`.
    weights : of the loss.

    Returns
    -------
    dict with ``loss``; ``energy_mae`` in eV and ``energy_mae_per_atom`` in eV/atom; ``force_mae`` of the components and
    ``force_error`` of the length in eV/Å, ``force_cosine``; ``stress_mae`` of the components in eV/Å³.
    """
    total = dict(zip(SUMS, sums.tolist(), strict=True))
    found = {"loss": 0.0}
    if structures := total["structures"]:
        found["energy_mae"] = total["energy"] / structures
        found["energy_mae_per_atom"] = total["energy_per_atom"] / structures
        found["loss"] += weights.energy * found["energy_mae" + ("_per_atom" if weights.energy_per == "atom" else "")]
    if atoms := total["atoms"]:
        found["force_mae"] = total["force_components"] / (3 * atoms)
        found["force_error"] = total["force_norm"] / atoms
        found["force_cosine"] = total["force_cosine"] / atoms
        found["loss"] += weights.forces * found["force_error"]
    if stresses := total["stresses"]:
        found["stress_mae"] = total["stress_components"] / (9 * stresses)
        found["loss"] += weights.stress * total["stress_norm"] / stresses
    return found


def lengths(vectors: Tensor) -> Tensor:
    """Norms (M,) of vectors (M, D), with derivative zero where a vector is zero."""
    squares = vectors.square().sum(-1)
    zero = squares == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())
