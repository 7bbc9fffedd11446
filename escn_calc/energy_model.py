"""A network together with the constants that give its outputs units: energies in eV, and their derivatives.

Positions enter through the edge vectors v_e = r_source - r_target + n_e · cell only. With g_e = dE/dv_e, from one
backward pass, forces and virials are sums over edges,

    F_i = Σ_{e into i} g_e - Σ_{e out of i} g_e,        W_i = Σ_{e into i} (g_e v_e^T + v_e g_e^T) / 2,

so the forces of a structure add up to zero, and dE/dε = Σ_i W_i for a strain ε of cell and positions together.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from ase.build import bulk
from torch import Tensor

from escn_calc.checkpoints.card import Normalizers
from escn_calc.checkpoints.checkpoint import Checkpoint
from escn_calc.checkpoints.network import build_network
from escn_calc.convergence import Convergence
from escn_calc.errors import OutOfMemoryError
from escn_calc.graph import RadiusGraph, radius_graph
from escn_calc.memory import NEGLIGIBLE, Footprint, Size, Way, affordable_bytes, ways
from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.escn import ESCNOutput
from escn_calc.nn.fast import FastESCN
from escn_calc.nn.incidence import Incidence
from escn_calc.nn.products import TAKING_TURNS, reduce_products
from escn_calc.nn.repulsion import zbl_energy
from escn_calc.structures import StructureBatch

PROBE = bulk("H", "fcc", a=3.6, cubic=True).repeat((2, 1, 1))
"""As many edges as a metal, few enough for the largest networks."""
MOST_ATOMS = 10**9
"""Beyond any memory."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results for a batch of N atoms, float64 on the CPU.

    Attributes
    ----------
    energies : (N,) eV, references and mean included.
    forces : (N, 3) eV/Å, or None.
    virials : (N, 3, 3) eV, symmetric, the derivative of the energy by a strain shared out among the atoms; None unless
        the forces are gradients.
    """

    energies: Tensor
    forces: Tensor | None
    virials: Tensor | None


@dataclass(frozen=True, eq=False)
class OutputUnits:
    """What gives the raw outputs of a network their units; the same for evaluation and for training.

    Attributes
    ----------
    config : of the network.
    normalizers : constants of the linear map to eV and eV/Å.
    references : (119,) float64 eV by atomic number, or None.
    """

    config: ESCNConfig
    normalizers: Normalizers
    references: Tensor | None

    def energies(
        self, output: ESCNOutput, numbers: Tensor, source: Tensor, target: Tensor, vectors: Tensor, atoms_around: Tensor
    ) -> Tensor:
        """Energies of the atoms (N,) in eV, repulsion included, without constants.

        Parameters
        ----------
        output : of the network for the arguments that follow.
        numbers, source, target, vectors : atomic numbers (N,), edges (E,) and their vectors (E, 3) in Å.
        atoms_around : (N,) number of atoms in the structure of each atom.
        """
        energies = output.node_energy * self.normalizers.energy_std
        if self.config.energy_reduce == "mean":
            energies = energies / atoms_around
        if self.config.repulsion == "zbl":
            energies = energies + zbl_energy(numbers, source, target, vectors.norm(dim=-1), self.config.cutoff)
        return energies

    def forces(self, output: ESCNOutput) -> Tensor | None:
        """Forces (N, 3) of the force head in eV/Å; None without one."""
        if output.forces is None:
            return None
        return output.forces * self.normalizers.force_std + self.normalizers.force_mean

    def with_constants(self, energies: Tensor, numbers: Tensor, atoms_around: Tensor) -> Tensor:
        """Add to float64 ``energies`` (N,) the mean, shared out evenly, and the references of the elements."""
        total = energies + self.normalizers.energy_mean / atoms_around.double()
        return total if self.references is None else total + self.references[numbers]


def sum_over_edges(slopes: Tensor, vectors: Tensor, sources: Incidence, targets: Incidence) -> tuple[Tensor, Tensor]:
    """Forces (N, 3) and virials (N, 3, 3) from ``slopes`` dE/dv (E, 3) of the edge ``vectors`` (E, 3)."""
    virials = targets.sum(slopes[:, :, None] * vectors[:, None, :])
    return targets.sum(slopes) - sources.sum(slopes), (virials + virials.transpose(1, 2)) / 2


class EnergyModel:
    """Energies, direct forces and derivatives of one checkpoint on one device.

    Parameters
    ----------
    checkpoint : configuration, weights and constants.
    device : where the network is evaluated.
    dtype : of its arithmetic.
    edge_grid : longitudes of the edge grid, and what rolls of the frames do there; None for those of the checkpoint,
        where nothing is known about rolls.
    checkpoint_layers : whether a backward pass keeps only the input of each layer and computes the rest again;
        None: where keeping everything would take too much of the free memory.
    matmul : how channel maps multiply: "full", or a key of :data:`escn_calc.nn.products.REDUCED`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str,
        dtype: torch.dtype,
        edge_grid: Convergence | None,
        checkpoint_layers: bool | None,
        matmul: str = "full",
    ) -> None:
        self.network = build_network(
            checkpoint,
            dtype,
            None if edge_grid is None else edge_grid.longitudes,
            roll_in_derivative=edge_grid is None or not edge_grid.frees_derivatives,
            shared=True,
        ).to(device)
        if matmul != "full":
            reduce_products(self.network, matmul)
        self._fast = FastESCN(self.network)
        self.device, self.dtype = device, dtype
        self.checkpoint_layers = checkpoint_layers
        self._units = OutputUnits(self.network.config, checkpoint.normalizers, checkpoint.element_references)
        self._on_nodes, self._on_edges = Footprint.on_nodes(self.config), Footprint.on_edges(self.config)
        self._measured: dict[bool, float] = {}

    @property
    def config(self) -> ESCNConfig:
        """Hyperparameters of the network as evaluated."""
        return self.network.config

    def evaluate(
        self,
        batch: StructureBatch,
        graph: RadiusGraph,
        forces: str | None,
        frames: Tensor | None = None,
        thrift: int = 0,
    ) -> Evaluation:
        """Evaluate a batch on its graph, in a way that the free memory allows.

        Parameters
        ----------
        batch, graph : structures on the CPU, edges on any device.
        forces : "direct", "gradient", or None for energies only.
        frames : (E, 3, 3) edge frames; None for the canonical ones.
        thrift : how many of the fastest ways to leave out, see :func:`escn_calc.memory.ways`.

        Raises
        ------
        OutOfMemoryError
            By estimate, no way fits into the free memory.
        """
        way = self._affordable_way(Size(batch.num_atoms, len(graph.source)), forces, thrift)
        return self._evaluate(batch, graph, forces, frames, way)

    def invariants(self, batch: StructureBatch, graph: RadiusGraph, thrift: int = 0) -> Tensor:
        """Node features with l = 0 after the last layer, (N, C_all) float64 on the CPU; arguments of ``evaluate``."""
        way = self._affordable_way(Size(batch.num_atoms, len(graph.source)), None, thrift)
        with self._turn(), torch.inference_mode(), torch.autocast(self.device, enabled=False):
            numbers, source, target = (part.to(self.device) for part in (batch.numbers, graph.source, graph.target))
            inputs = (numbers, source, target, self._vectors(graph), None, way.recompute, way.edges_at_once)
            return self._fast(*inputs).invariants.cpu().double()

    def fits(self, size: Size, forces: str | None) -> bool:
        """Whether structures of this size together fit into the free memory in the fastest way."""
        needed = self._needed_bytes(size, forces, next(self._ways(size, forces)))
        return needed < NEGLIGIBLE or needed <= affordable_bytes(self.device)

    def check_fits(self, size: Size, forces: str | None, search_bytes: float = 0.0) -> None:
        """Make sure that a structure of this size fits into the free memory in the way that takes least.

        Parameters
        ----------
        size, forces : of one evaluation.
        search_bytes : what its graph takes while it is built, before the evaluation.

        Raises
        ------
        OutOfMemoryError
            It does not, by estimate.
        """
        needed = max(search_bytes, self._least_bytes(size, forces))
        if needed > NEGLIGIBLE and needed > (affordable := affordable_bytes(self.device)):
            raise OutOfMemoryError(
                f"{size.atoms} atoms with about {size.edges} edges take at least {needed / 1e9:.2g} GB, but only "
                f"{affordable / 1e9:.2g} GB, half of what is free, may be used on {self.device}; use a smaller "
                "structure or a smaller model"
            )

    def most_atoms(self, edges_per_atom: float, forces: str | None, search_bytes_per_atom: float = 0.0) -> int | None:
        """Atoms of the largest structure that passes :meth:`check_fits` now; None where the system tells no limit."""
        affordable = affordable_bytes(self.device)
        if math.isinf(affordable):
            return None

        def needed(atoms: int) -> float:
            size = Size(atoms, math.ceil(edges_per_atom * atoms))
            return max(search_bytes_per_atom * atoms, self._least_bytes(size, forces))

        return bisect_right(range(1, MOST_ATOMS), affordable, key=needed)

    def _least_bytes(self, size: Size, forces: str | None) -> float:
        """What the way that takes least needs."""
        *_, thriftiest = self._ways(size, forces)
        return self._needed_bytes(size, forces, thriftiest)

    def _turn(self) -> AbstractContextManager[object]:
        return TAKING_TURNS if self.device == "cuda" else nullcontext()

    def _ways(self, size: Size, forces: str | None) -> Iterator[Way]:
        found = ways(size.edges)
        if forces != "gradient" or self.checkpoint_layers is None:
            return found
        return (way for way in found if way.recompute is self.checkpoint_layers)

    def _affordable_way(self, size: Size, forces: str | None, thrift: int) -> Way:
        found = list(self._ways(size, forces))
        for way in found[thrift:]:
            needed = self._needed_bytes(size, forces, way)
            if needed < NEGLIGIBLE or needed <= affordable_bytes(self.device):
                return way
        self.check_fits(size, forces)
        return found[-1]

    def _needed_bytes(self, size: Size, forces: str | None, way: Way) -> float:
        return self._estimated_bytes(size, forces, way) * self._measure(forces)

    def _estimated_bytes(self, size: Size, forces: str | None, way: Way) -> int:
        fast = self._fast.takes(size.atoms, size.edges, self.device)
        footprint = self._on_nodes if fast else self._on_edges
        return footprint.peak(size, forces == "gradient", way, self.dtype.itemsize) * self.dtype.itemsize

    def _measure(self, forces: str | None) -> float:
        """Memory that a small evaluation takes, relative to its estimate.

        1 where no allocator counts, and where even the probe does not fit.
        """
        if self.device != "cuda":
            return 1.0
        gradient = forces == "gradient"
        if gradient not in self._measured:
            try:
                self._measured[gradient] = self._measure_probe(forces)
            except torch.OutOfMemoryError:
                return 1.0
        return self._measured[gradient]

    def _measure_probe(self, forces: str | None) -> float:
        batch = StructureBatch.from_atoms([PROBE])
        graph = radius_graph(batch, self.config.cutoff, self.config.max_neighbors)
        size = Size(batch.num_atoms, len(graph.source))
        self._evaluate(batch, graph, forces, None, Way())
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self._evaluate(batch, graph, forces, None, Way())
        taken = torch.cuda.max_memory_allocated() - before
        return taken / self._estimated_bytes(size, forces, Way())

    def _evaluate(
        self, batch: StructureBatch, graph: RadiusGraph, forces: str | None, frames: Tensor | None, way: Way
    ) -> Evaluation:
        with self._turn(), torch.inference_mode(forces != "gradient"), torch.autocast(self.device, enabled=False):
            if forces == "gradient":
                return self._with_gradient(batch, graph, frames, way)
            energies, direct = self._scaled(batch, graph, self._vectors(graph), frames, way)
            wanted = direct.cpu().double() if forces == "direct" and direct is not None else None
            return Evaluation(self._with_constants(batch, energies), wanted, None)

    def hessian(self, batch: StructureBatch, graph: RadiusGraph, indices: list[int]) -> Tensor:
        """Second derivatives of the energy of one structure for the n atoms ``indices``, (3n, 3n) float64 eV/Å².

        One backward pass keeps the graph of the gradient; each row is a second one through it. Everything is kept,
        because computing layers again would save nothing here.
        """
        displacements = torch.zeros(batch.num_atoms, 3, dtype=torch.float64, device=graph.vectors.device)
        displacements.requires_grad_()
        with self._turn(), torch.enable_grad(), torch.autocast(self.device, enabled=False):
            energy = self._energies_of_displaced(batch, graph, displacements).sum()
            (gradient,) = torch.autograd.grad(energy, displacements, create_graph=True, materialize_grads=True)
            moving = torch.tensor(indices, device=gradient.device)
            rows = [_row(component, displacements, moving) for component in gradient[moving].flatten()]
        return torch.stack(rows).detach().cpu()

    def _energies_of_displaced(self, batch: StructureBatch, graph: RadiusGraph, displacements: Tensor) -> Tensor:
        """Energies (N,) in eV, without constants, of atoms moved by ``displacements`` (N, 3) in Å; edges stay."""
        sources, targets = Incidence(graph.source, batch.num_atoms), Incidence(graph.target, batch.num_atoms)
        moved = graph.vectors + sources.take(displacements) - targets.take(displacements)
        energies, _ = self._scaled(batch, graph, moved.to(self.dtype).to(self.device), None, Way())
        return energies

    def _with_gradient(self, batch: StructureBatch, graph: RadiusGraph, frames: Tensor | None, way: Way) -> Evaluation:
        vectors = self._vectors(graph).detach().requires_grad_()
        with torch.enable_grad():
            energies, _ = self._scaled(batch, graph, vectors, frames, way)
        (slopes,) = torch.autograd.grad(energies.sum(), vectors, materialize_grads=True)
        sources, targets = (Incidence(end.cpu(), batch.num_atoms) for end in (graph.source, graph.target))
        forces, virials = sum_over_edges(slopes.cpu().double(), graph.vectors.cpu(), sources, targets)
        return Evaluation(self._with_constants(batch, energies.detach()), forces, virials)

    def _vectors(self, graph: RadiusGraph) -> Tensor:
        return graph.vectors.to(self.dtype).to(self.device)

    def _scaled(
        self, batch: StructureBatch, graph: RadiusGraph, vectors: Tensor, frames: Tensor | None, way: Way
    ) -> tuple[Tensor, Tensor | None]:
        """Energies (N,) in eV without constants, and direct forces (N, 3) in eV/Å."""
        numbers, source, target = (part.to(self.device) for part in (batch.numbers, graph.source, graph.target))
        output = self._fast(numbers, source, target, vectors, frames, way.recompute, way.edges_at_once)
        atoms_around = batch.natoms[batch.structure_of_atom].to(self.device)
        energies = self._units.energies(output, numbers, source, target, vectors, atoms_around)
        return energies, self._units.forces(output)

    def _with_constants(self, batch: StructureBatch, energies: Tensor) -> Tensor:
        """Add the mean, shared out evenly, and the references of the elements; float64 on the CPU."""
        return self._units.with_constants(energies.cpu().double(), batch.numbers, batch.natoms[batch.structure_of_atom])


def _row(component: Tensor, displacements: Tensor, moving: Tensor) -> Tensor:
    if not component.requires_grad:
        return component.new_zeros(3 * len(moving))
    (row,) = torch.autograd.grad(component, displacements, retain_graph=True, materialize_grads=True)
    return row[moving].flatten()
