"""What training makes small: errors of energies, forces and stresses in physical units.

With the errors dE of a structure, dF of an atom and dS of a stress tensor (Frobenius norm), and averages over what is
labelled,

    loss = w_E <|dE|> + w_F <||dF||> + w_S <||dS||>,

the losses of the eSCN paper (L1 for energies, L2 norm for forces; arXiv 2302.03655). Under ``energy_per="atom"`` dE is
divided by the number of atoms. Energies are compared after the constants of the model (mean and element references)
were taken off the labels in float64, so that large total energies cost no digits.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from escn_calc.checkpoints.card import Normalizers
from escn_calc.energy_model import OutputUnits, sum_over_edges
from escn_calc.errors import InputError
from escn_calc.nn import ESCN
from escn_calc.nn.incidence import Incidence
from escn_calc.training.figures import error_sums, lengths

ForcesKind = Literal["direct", "gradient"]
Precision = Literal["float32", "float64", "bfloat16"]


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the loss: 1/eV, Å/eV and Å³/eV.

    Attributes
    ----------
    energy, forces, stress : at least 0.
    energy_per : whether energy errors count per structure or per atom.
    """

    energy: float
    forces: float
    stress: float = 0.0
    energy_per: Literal["structure", "atom"] = "structure"

    def __post_init__(self) -> None:
        for name in ("energy", "forces", "stress"):
            weight = getattr(self, name)
            if not 0.0 <= weight < math.inf:
                raise InputError(f"the loss weight of {name} is {weight}: it must be a finite number of at least 0")
        if self.energy == self.forces == self.stress == 0.0:
            raise InputError("all loss weights are 0: there is nothing to train on")


class Losses(NamedTuple):
    """What one batch gives.

    Attributes
    ----------
    total : scalar in the dtype of the network; its gradient trains.
    sums : (len(SUMS),) float64 without gradient, see :mod:`escn_calc.training.figures`.
    """

    total: Tensor
    sums: Tensor


class StepInputs(NamedTuple):
    """A batch as the tensors that the loss depends on; N atoms, E edges, B structures.

    Attributes
    ----------
    numbers, source, target : (N,), (E,), (E,).
    vectors : (E, 3) Å in the dtype of the network.
    structure_of_atom, natoms : (N,), (B,).
    energies : (B,) float64 eV, labels without the constants of the model.
    forces, stresses, volumes : (N, 3) eV/Å, (B, 3, 3) eV/Å³ and (B,) Å³ in the dtype of the network.
    has_energy, has_forces, has_stress : (B,), (N,), (B,) bool.
    counts : (3,) float64, by what the sums over structures, atoms and stresses are divided.
    """

    numbers: Tensor
    source: Tensor
    target: Tensor
    vectors: Tensor
    structure_of_atom: Tensor
    natoms: Tensor
    energies: Tensor
    forces: Tensor
    stresses: Tensor
    volumes: Tensor
    has_energy: Tensor
    has_forces: Tensor
    has_stress: Tensor
    counts: Tensor


class Predicted(NamedTuple):
    """Energies (B,) float64 eV without constants, forces (N, 3) eV/Å, stresses (B, 3, 3) eV/Å³ or None."""

    energies: Tensor
    forces: Tensor
    stresses: Tensor | None


class Objective(nn.Module):
    """The loss of a network on a batch.

    Parameters
    ----------
    network : in float64 for ``precision="float64"``, else in float32; trained are the weights that require a gradient.
        For gradient forces the force head, which nothing depends on then, is frozen here.
    normalizers, references : constants of the model; references (119,) float64 eV, or None.
    weights : of the terms.
    forces : "direct" from the force head, "gradient" as -dE/dx.
    precision : of the network; "bfloat16" keeps float32 weights, edges and sums, and computes the layers under
        ``torch.autocast`` in training; in evaluation mode nothing is reduced, as in a calculator.

    Raises
    ------
    InputError
        A stress is to be trained with direct forces, direct forces without a force head, or the network has another
        dtype.
    """

    references: Tensor | None

    def __init__(
        self,
        network: ESCN,
        normalizers: Normalizers,
        references: Tensor | None,
        weights: LossWeights,
        forces: ForcesKind,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        _check(network, weights, forces, precision)
        if forces == "gradient" and network.force_block is not None:
            network.force_block.requires_grad_(False)
        self.network = network
        self.weights = weights
        self.forces = forces
        self.precision = precision
        self._normalizers = normalizers
        self.register_buffer("references", references, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.network.sphere_embedding.weight.dtype

    def forward(self, batch: Batch, counts: Tensor | None = None) -> Losses:
        """Return the loss of a batch on the device of the network.

        Parameters
        ----------
        batch : with the fields of :mod:`escn_calc.training.graphs`.
        counts : (3,) divisors for the sums over structures, atoms and stresses; None for the labelled ones of this
            batch. With the mean of :func:`label_counts` over all ranks, the mean of the losses and of the gradients
            over the ranks is that of the joined batch.
        """
        return self.losses(self.inputs(batch, label_counts(batch) if counts is None else counts))

    def inputs(self, batch: Batch, counts: Tensor) -> StepInputs:
        """Return the tensors of a batch that the loss depends on."""
        source, target = batch.edge_index
        natoms = torch.as_tensor(batch.natoms, device=source.device)
        structures = Incidence(batch.batch, len(natoms))
        zeros = torch.zeros(len(batch.batch), dtype=torch.float64, device=source.device)
        constants = self._units.with_constants(zeros, batch.atomic_numbers, natoms[batch.batch])
        return StepInputs(
            numbers=batch.atomic_numbers,
            source=source,
            target=target,
            vectors=batch.edge_distance_vec.to(self.dtype),
            structure_of_atom=batch.batch,
            natoms=natoms,
            energies=batch.energy.double() - structures.sum(constants),
            forces=batch.forces.to(self.dtype),
            stresses=batch.stress.to(self.dtype),
            volumes=batch.volume.to(self.dtype),
            has_energy=batch.has_energy,
            has_forces=batch.has_forces,
            has_stress=batch.has_stress,
            counts=counts.to(source.device),
        )

    def losses(self, inputs: StepInputs) -> Losses:
        """Return the loss of a batch from its tensors alone."""
        predicted = self.predict(inputs)
        energy_errors = (predicted.energies - inputs.energies).to(self.dtype) * inputs.has_energy
        force_errors = (predicted.forces - inputs.forces) * inputs.has_forces[:, None]
        energy = (energy_errors / inputs.natoms if self.weights.energy_per == "atom" else energy_errors).abs().sum()
        counts = inputs.counts.to(self.dtype)
        total = self.weights.energy * _mean(energy, counts[0])
        total = total + self.weights.forces * _mean(lengths(force_errors).sum(), counts[1])
        stress_errors = None
        if predicted.stresses is not None:
            stress_errors = (predicted.stresses - inputs.stresses) * inputs.has_stress[:, None, None]
            total = total + self.weights.stress * _mean(lengths(stress_errors.flatten(1)).sum(), counts[2])
        return Losses(total, error_sums(inputs, predicted.forces, energy_errors, force_errors, stress_errors))

    def predict(self, inputs: StepInputs) -> Predicted:
        """Return what the labels are compared with."""
        if self.forces == "gradient":
            return self._with_gradient(inputs)
        energies, forces = self._outputs(inputs, inputs.vectors)
        assert forces is not None
        return Predicted(energies, forces, None)

    def _with_gradient(self, inputs: StepInputs) -> Predicted:
        differentiated = self.training and torch.is_grad_enabled() and self.weights.forces + self.weights.stress > 0
        vectors = inputs.vectors.detach().requires_grad_()
        with torch.enable_grad():
            energies, _ = self._outputs(inputs, vectors)
            total = energies.sum()
        (slopes,) = torch.autograd.grad(
            total,
            vectors,
            create_graph=differentiated,
            retain_graph=self.training and torch.is_grad_enabled(),
            materialize_grads=True,
        )
        ends = (Incidence(end, len(inputs.numbers)) for end in (inputs.source, inputs.target))
        forces, virials = sum_over_edges(slopes, inputs.vectors, *ends)
        strain_derivatives = Incidence(inputs.structure_of_atom, len(inputs.natoms)).sum(virials)
        return Predicted(energies, forces, strain_derivatives / inputs.volumes[:, None, None])

    def _outputs(self, inputs: StepInputs, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Energies of the structures (B,) and direct forces (N, 3)."""
        edges = (inputs.numbers, inputs.source, inputs.target, vectors)
        reduced = self.training and self.precision == "bfloat16"
        with torch.autocast(vectors.device.type, torch.bfloat16, enabled=reduced):
            output = self.network(*edges)
        with torch.autocast(vectors.device.type, enabled=False):
            energies = self._units.energies(output, *edges, inputs.natoms[inputs.structure_of_atom])
            totals = Incidence(inputs.structure_of_atom, len(inputs.natoms)).sum(energies.double())
            return totals, self._units.forces(output)

    @property
    def _units(self) -> OutputUnits:
        return OutputUnits(self.network.config, self._normalizers, self.references)


def trainable(network: ESCN) -> ESCN:
    """Make a network from a checkpoint, which comes frozen, ready for training, and return it."""
    return network.requires_grad_(True).train()


def label_counts(batch: Batch) -> Tensor:
    """Numbers of labelled structures, atoms and stresses of a batch, (3,) float64."""
    return torch.stack([has.sum() for has in (batch.has_energy, batch.has_forces, batch.has_stress)]).double()


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """``total / count``, zero where nothing is counted."""
    return total / torch.where(count > 0, count, 1.0)


def _check(network: ESCN, weights: LossWeights, forces: str, precision: str) -> None:
    if forces not in get_args(ForcesKind):
        raise InputError(f"forces is {forces!r}: it must be 'direct' or 'gradient'")
    if precision not in get_args(Precision):
        raise InputError(f"precision is {precision!r}: it must be one of {', '.join(get_args(Precision))}")
    if forces == "direct" and weights.stress > 0:
        raise InputError(
            f"the loss weight of stress is {weights.stress}, but the forces are direct: only gradient forces have a "
            "stress; choose them, or a weight of 0"
        )
    if forces == "direct" and network.force_block is None:
        raise InputError("the network has no force head for direct forces: choose gradient forces, or add a head")
    wanted = torch.float64 if precision == "float64" else torch.float32
    found = network.sphere_embedding.weight.dtype
    if found != wanted:
        raise InputError(f"precision {precision} needs a network in {wanted}, found {found}: build it in that dtype")
