"""Energies and forces of many structures from one model, in the model's own precision."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from escn_calc.batching import Evaluate, Member, Outcome, evaluate_members
from escn_calc.checkpoints import load_checkpoint
from escn_calc.checkpoints.card import ModelCard
from escn_calc.checkpoints.checkpoint import Checkpoint
from escn_calc.consistency import ForceConsistency, force_consistency
from escn_calc.convergence import grid_in_use
from escn_calc.energy_model import EnergyModel, Evaluation
from escn_calc.errors import BatchError, CalculationError, ESCNError, InputError, without_errors
from escn_calc.failures import failures_described, finite
from escn_calc.graph import RadiusGraph, radius_graph, search_pairs
from escn_calc.graph.pairs import PairSearch
from escn_calc.hessian import moving_atoms
from escn_calc.matmul import check_matmul
from escn_calc.memory import EDGES_TOGETHER, SEARCH_BYTES, Size
from escn_calc.nn import ESCNConfig
from escn_calc.nn.sphere_grid import edge_grid_shape
from escn_calc.options import DEVICES, DTYPE_NAMES, FORCES, FRAMES, MATMULS, check_flag, check_option
from escn_calc.structures import StructureBatch, caller_level, check_elements, check_is_list

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}


class TurningFramesWarning(UserWarning):
    """Gradient forces contain the turning of the edge frames, because the energy depends on it."""


class ReducedPrecisionWarning(UserWarning):
    """Torch is set to compute float32 matrix products with less than float32 accuracy."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one structure.

    Attributes
    ----------
    energy : eV; its meaning is ``energy_kind``.
    energies : (N,) eV per atom, references and mean included; their sum is ``energy``.
    forces : (N, 3) eV/Å, or None where no forces were asked for and the model was trained without.
    energy_kind : "adsorption" (slab and gas references already subtracted), "total" or "unknown".
    forces_kind : "direct" (predicted by a head, not the gradient of the energy), "gradient" (-dE/dx), or None.
    stress : (6,) eV/Å³ in Voigt order xx, yy, zz, yz, xz, xy, positive under tension: dE/dε / V for a strain ε of cell
        and positions. None unless the forces are gradients and the cell has a volume (three cell vectors, periodic or
        not).
    stresses : (N, 6) eV/Å³, ``stress`` shared out among the atoms; their sum is ``stress``.
    """

    energy: float
    energies: np.ndarray
    forces: np.ndarray | None
    energy_kind: str
    forces_kind: str | None
    stress: np.ndarray | None = None
    stresses: np.ndarray | None = None


class Potential:
    """An eSCN model ready to evaluate structures. Made by :func:`load_potential`.

    Attributes
    ----------
    card : what the model is.
    device, dtype, matmul, frames : as chosen when it was loaded, as strings.
    forces : the kind of forces it returns, "direct", "gradient" or None.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str,
        dtype: str,
        frames: str,
        matmul: str = "full",
        forces: str | None = None,
        checkpoint_layers: bool | None = None,
    ) -> None:
        self.card: ModelCard = checkpoint.card
        self.device, self.dtype, self.matmul, self.frames = device, dtype, matmul, frames
        self.forces = _kind_of_forces(checkpoint, forces)
        with torch.inference_mode(False):
            edge_grid = grid_in_use(checkpoint, frames)
            self._model = EnergyModel(checkpoint, device, DTYPES[dtype], edge_grid, checkpoint_layers, matmul)
        if self.forces == "gradient" and self._model.network.roll_in_derivative:
            _warn_of_turning_frames(self.card.name, self.config, frames)

    @property
    def config(self) -> ESCNConfig:
        """Hyperparameters of the network as evaluated."""
        return self._model.config

    def evaluate(self, structures: list[Atoms], search: PairSearch = search_pairs) -> list[Prediction]:
        """Evaluate structures in batches that suit the device.

        Results do not depend on the batches beyond rounding. Where memory runs out, batches are halved, and a single
        structure is computed piece by piece.

        Parameters
        ----------
        structures : ASE Atoms of any size, cell and periodicity; they are not changed.
        search : how neighbours are found; a :class:`escn_calc.graph.skin.SkinSearch` reuses those of the last batch
            where that gives the same edges.

        Returns
        -------
        list of Prediction, in the order of ``structures``.

        Raises
        ------
        InputError
            ``structures`` is no list, or its only structure cannot be evaluated; the message names structure and atom.
        CalculationError
            For the only structure, memory ran out, torch failed, or the result is not finite.
        BatchError
            One of the above for some of several structures, after all others were evaluated; it has their results.
        """
        outcomes = self.evaluate_each(structures, search)
        predictions = [outcome if isinstance(outcome, Prediction) else None for outcome in outcomes]
        errors = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, ESCNError)}
        if errors and len(structures) == 1:
            raise errors[0]
        if errors:
            raise BatchError(predictions, errors)
        return [prediction for prediction in predictions if prediction is not None]

    def evaluate_each(self, structures: list[Atoms], search: PairSearch = search_pairs) -> list[Prediction | ESCNError]:
        """Do as :meth:`evaluate`, with the error of each structure that has one in place of its prediction.

        Raises
        ------
        InputError
            ``structures`` is no list.
        """
        outcomes = dict(self.iter_evaluate(structures, search))
        return [outcomes[index] for index in range(len(structures))]

    def iter_evaluate(
        self, structures: list[Atoms], search: PairSearch = search_pairs
    ) -> Iterator[tuple[int, Prediction | ESCNError]]:
        """Do as :meth:`evaluate_each`, and yield each index with its outcome when its batch is done.

        Structures that can be refused without their neighbours come first, the others in the order given, as long as
        no batch fails.
        """
        return self._outcomes(structures, partial(self._evaluate, search))

    def descriptors(self, structures: list[Atoms]) -> list[np.ndarray]:
        """What the network makes of the surroundings of each atom: its features after the last layer with l = 0.

        They do not change when a structure turns, up to the error of the sphere grids, or when its atoms are counted
        in another order. Nothing is differentiated, so that they cost less than an evaluation with forces.

        Parameters
        ----------
        structures : as for :meth:`evaluate`.

        Returns
        -------
        list of (N, C) float64 arrays, in the order of ``structures``; C is the number of channels.

        Raises
        ------
        InputError, CalculationError, BatchError
            As :meth:`evaluate`.
        """
        outcomes = dict(self._outcomes(structures, self._described))
        return without_errors([outcomes[index] for index in range(len(structures))])

    def _outcomes(
        self, structures: list[Atoms], evaluate: Evaluate[Outcome | ESCNError]
    ) -> Iterator[tuple[int, Outcome | ESCNError]]:
        check_is_list(structures)
        members: list[Member] = []
        for index, atoms in enumerate(structures):
            try:
                members.append(self._member(atoms, index, alone=len(structures) == 1))
            except ESCNError as error:
                yield index, error

        for member, outcome in evaluate_members(members, self._fits, evaluate):
            yield member.index, outcome

    def hessian(self, atoms: Atoms, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Second derivatives of the energy, exact up to rounding, by two backward passes.

        They belong to the energy, whatever kind of forces the potential returns.

        Parameters
        ----------
        atoms : one structure; constraints are ignored.
        indices : the n atoms that move; None for all.

        Returns
        -------
        (3n, 3n) float64 eV/Å², rows and columns atom by atom, x, y, z; symmetric up to rounding.

        Raises
        ------
        InputError
            The structure cannot be evaluated, or an index is not an atom of it.
        CalculationError
            Memory ran out, torch failed, or the result is not finite.
        """
        with torch.inference_mode(False), torch.no_grad():
            batch = self._checked_batch(atoms)
            moving = moving_atoms(atoms, np.arange(len(atoms)) if indices is None else indices)
            with failures_described(batch, self.device):
                matrix = self._model.hessian(batch, self._graph(batch, search_pairs), moving.tolist())
        return finite(matrix, "Hessian of", partial(batch.describe_structure, 0))

    def force_consistency(self, atoms: Atoms) -> ForceConsistency:
        """Measure how far the model's forces are from a conservative, rotating, net-force-free field.

        Parameters
        ----------
        atoms : one structure.

        Raises
        ------
        InputError, CalculationError
            As :meth:`evaluate`.
        """
        with torch.inference_mode(False), torch.no_grad():
            batch = self._checked_batch(atoms)
            with failures_described(batch, self.device):
                found = force_consistency(self._model, batch, self.forces)
        if not all(math.isfinite(value) for value in vars(found).values() if isinstance(value, float)):
            raise CalculationError(
                f"{batch.describe_structure(0)}: energies or forces are not finite; check the structure"
            )
        return found

    def most_atoms_like(self, atoms: Atoms) -> int | None:
        """Estimate how many atoms of a structure as dense as this one fit into the memory that is free now.

        The largest structures are computed piece by piece, which takes more time for each atom.

        Parameters
        ----------
        atoms : one structure, of any size.

        Returns
        -------
        Atoms of the largest structure that :meth:`evaluate` would not refuse; None where the system tells no limit.

        Raises
        ------
        InputError
            The structure cannot be evaluated, whatever its size.
        """
        with torch.inference_mode(False), torch.no_grad():
            batch = self._checked_batch(atoms)
            member = Member.of(atoms, batch, self.config.cutoff, self.config.max_neighbors)
            edges, pairs = (count / len(atoms) for count in (member.size.edges, member.pairs))
            with failures_described(batch, self.device):
                return self._model.most_atoms(edges, self.forces, SEARCH_BYTES * pairs)

    def _checked_batch(self, atoms: Atoms, index: int = 0) -> StructureBatch:
        batch = StructureBatch.from_atoms([atoms], index)
        known = frozenset(self.card.elements) if self.card.elements is not None else None
        check_elements(batch, self.config.max_num_elements, known, self.card.refuse_unseen_elements)
        _warn_of_reduced_precision(self.dtype)
        return batch

    def _member(self, atoms: Atoms, index: int, alone: bool) -> Member:
        with torch.inference_mode(False), torch.no_grad():
            batch = self._checked_batch(atoms, index)
            with failures_described(batch, self.device):
                member = Member.of(atoms, batch, self.config.cutoff, self.config.max_neighbors, alone)
                self._model.check_fits(member.size, self.forces, search_bytes=SEARCH_BYTES * member.pairs)
        return member

    def _fits(self, size: Size) -> bool:
        if self.device == "cpu" and size.edges > EDGES_TOGETHER * torch.get_num_threads():
            return False
        with torch.inference_mode(False), torch.no_grad():
            return self._model.fits(size, self.forces)

    def _evaluate(self, search: PairSearch, members: list[Member], thrift: int) -> list[Prediction | ESCNError]:
        with torch.inference_mode(False), torch.no_grad():
            batch = StructureBatch.joined([member.batch for member in members])
            with failures_described(batch, self.device):
                evaluation = self._model.evaluate(batch, self._graph(batch, search), self.forces, thrift=thrift)
        return self._predictions([member.atoms for member in members], batch, evaluation)

    def _described(self, members: list[Member], thrift: int) -> list[np.ndarray | ESCNError]:
        with torch.inference_mode(False), torch.no_grad():
            batch = StructureBatch.joined([member.batch for member in members])
            with failures_described(batch, self.device):
                features = self._model.invariants(batch, self._graph(batch, search_pairs), thrift)
        outcomes: list[np.ndarray | ESCNError] = []
        for index, of_structure in enumerate(features.split(batch.natoms.tolist())):
            try:
                outcomes.append(finite(of_structure, "descriptors of", partial(batch.describe_structure, index)))
            except CalculationError as error:
                outcomes.append(error)
        return outcomes

    def _graph(self, batch: StructureBatch, search: PairSearch) -> RadiusGraph:
        search_device = self.device if self.device == "cuda" else "cpu"
        return radius_graph(batch.to(search_device), self.config.cutoff, self.config.max_neighbors, search)

    def _predictions(
        self, structures: list[Atoms], batch: StructureBatch, evaluation: Evaluation
    ) -> list[Prediction | ESCNError]:
        sizes = batch.natoms.tolist()
        nothing: tuple[Tensor | None, ...] = (None,) * len(sizes)
        forces = nothing if evaluation.forces is None else evaluation.forces.split(sizes)
        virials = nothing if evaluation.virials is None else evaluation.virials.split(sizes)
        outcomes: list[Prediction | ESCNError] = []
        parts = zip(structures, evaluation.energies.split(sizes), forces, virials, strict=True)
        for index, (atoms, *tensors) in enumerate(parts):
            try:
                outcomes.append(self._prediction(atoms, partial(batch.describe_structure, index), *tensors))
            except CalculationError as error:
                outcomes.append(error)
        return outcomes

    def _prediction(
        self,
        atoms: Atoms,
        name: Callable[[], str],
        energies: Tensor,
        forces: Tensor | None,
        virials: Tensor | None,
    ) -> Prediction:
        stresses = None
        if virials is not None and atoms.cell.rank == 3:
            stresses = full_3x3_to_voigt_6_stress(finite(virials, "stress of", name) / atoms.cell.volume)
        return Prediction(
            energy=float(energies.sum()),
            energies=finite(energies, "energy of", name),
            forces=None if forces is None else finite(forces, "forces on", name),
            energy_kind=self.card.energy_kind,
            forces_kind=self.forces,
            stress=None if stresses is None else stresses.sum(axis=0),
            stresses=stresses,
        )

    def __repr__(self) -> str:
        names = ("device", "dtype", "matmul", "forces", "frames")
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"Potential({self.card.name!r}, {options})"


def load_potential(
    model: str | Path = "default",
    *,
    device: str = "auto",
    dtype: str = "float32",
    matmul: str = "full",
    forces: str | None = None,
    frames: str = "canonical",
    checkpoint_layers: bool | None = None,
) -> Potential:
    """Load a model.

    Parameters
    ----------
    model : "default" (shipped with the package), a published checkpoint by catalogue name (downloaded once), the path
        of a FAIR checkpoint file, or the path of a native model folder.
    device : "auto" (CUDA if there is one, else CPU), "cpu", "cuda" or "mps".
    dtype : "float32" or "float64".
    matmul : "full" for products of matrices in ``dtype``; "bfloat16", on a CPU with AVX512-BF16 or AMX and on CUDA, or
        "tf32", on CUDA, for faster ones in the channel maps of the layers. bfloat16 leaves forces an error of the order
        of a percent of the largest one, TF32 keeps three more bits. Sums of products, edge frames, rotations, radial
        basis, output heads and energies stay in float32, the only ``dtype`` that goes with it.
    forces : "direct" for those of the force head, "gradient" for -dE/dx, which conserve energy in molecular dynamics
        and bring the stress; None for what the model was trained with.
    frames : "canonical" evaluates the checkpoint on its own edge grid with deterministic edge frames; "converged"
        raises the longitudes of that grid until the result no longer depends on the frames. On resolved grids both are
        the same.
    checkpoint_layers : True has the backward pass for gradient forces keep only the input of each layer and compute the
        rest again, which takes less memory and more time; False keeps everything; None decides by the free memory.
        Results are the same.

    Raises
    ------
    InputError
        An option or model name is not known, or the device cannot do what an option asks for.
    CheckpointError, DownloadError
        The file cannot be used or fetched.
    """
    check_option("dtype", dtype, DTYPE_NAMES)
    check_option("matmul", matmul, MATMULS)
    check_option("frames", frames, FRAMES)
    if forces is not None:
        check_option("forces", forces, FORCES)
    check_flag("checkpoint_layers", checkpoint_layers)
    chosen = choose_device(device, dtype)
    check_matmul(matmul, chosen, dtype)
    return Potential(
        load_checkpoint(model),
        device=chosen,
        dtype=dtype,
        matmul=matmul,
        forces=forces,
        frames=frames,
        checkpoint_layers=checkpoint_layers,
    )


def _kind_of_forces(checkpoint: Checkpoint, asked: str | None) -> str | None:
    if asked == "direct" and not checkpoint.config.regress_forces:
        raise InputError(
            f"model {checkpoint.card.name} has no force head, so there are no direct forces; use forces='gradient'"
        )
    return asked or checkpoint.card.forces


def choose_device(device: str, dtype: str) -> str:
    """Return the device to use, refusing one that is not there."""
    check_option("device", device, DEVICES)
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device 'cuda' was asked for, but torch {torch.__version__} finds no CUDA device; "
            "use device='cpu' or install a CUDA build of torch and its driver"
        )
    if device == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("device 'mps' was asked for, but torch finds no Apple GPU; use device='cpu'")
        if dtype == "float64":
            raise InputError("device 'mps' has no float64; use dtype='float32' or device='cpu'")
    return device


def _warn_of_turning_frames(model: str, config: ESCNConfig, frames: str) -> None:
    remedy = "no edge grid of reasonable size frees this model of it"
    if config.resolved:
        remedy = f"a model needs more edge_longitudes than {edge_grid_shape(config, 0)[1]} for that"
    elif frames == "canonical":
        remedy = "use frames='converged'"
    warnings.warn(
        f"model {model}: on this edge grid the energy depends on the roll of the edge frames, so its gradient contains "
        f"their turning, which grows without bound for edges close to one direction; {remedy} (docs/forces.md)",
        TurningFramesWarning,
        stacklevel=caller_level(),
    )


def _warn_of_reduced_precision(dtype: str) -> None:
    """Torch's process-wide matmul precision turns float32 products into bfloat16 or TF32; it is not ours to change."""
    setting = torch.get_float32_matmul_precision()
    if dtype == "float32" and setting != "highest":
        warnings.warn(
            f"torch.set_float32_matmul_precision({setting!r}) is in force: float32 results have the accuracy of "
            "bfloat16 or TF32; set it to 'highest', or use dtype='float64'",
            ReducedPrecisionWarning,
            stacklevel=caller_level(),
        )
