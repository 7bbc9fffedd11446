"""Energies and forces of many structures from one model, in the model's own precision."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from escn_calc.checkpoints import load_checkpoint
from escn_calc.checkpoints.card import ModelCard
from escn_calc.checkpoints.checkpoint import Checkpoint
from escn_calc.checkpoints.network import build_network
from escn_calc.convergence import converged_longitudes
from escn_calc.errors import CalculationError, InputError
from escn_calc.graph import radius_graph
from escn_calc.nn import ESCNConfig, ESCNOutput
from escn_calc.options import DEVICES, DTYPE_NAMES, FRAMES, check_option
from escn_calc.structures import StructureBatch, check_elements

MEMORY_WORDS = ("allocate memory", "out of memory", "ALLOC_FAILED")
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}


class ReducedPrecisionWarning(UserWarning):
    """Torch is set to compute float32 matrix products with less than float32 accuracy."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one structure.

    Attributes
    ----------
    energy : eV; its meaning is ``energy_kind``.
    energies : (N,) eV per atom, references and mean included; their sum is ``energy``.
    forces : (N, 3) eV/Å, or None for a model without force head.
    energy_kind : "adsorption" (slab and gas references already subtracted), "total" or "unknown".
    forces_kind : "direct" (predicted by a head, not the gradient of the energy), or None.
    """

    energy: float
    energies: np.ndarray
    forces: np.ndarray | None
    energy_kind: str
    forces_kind: str | None


class Potential:
    """An eSCN model ready to evaluate structures. Made by :func:`load_potential`.

    Attributes
    ----------
    card : what the model is.
    device, dtype, frames : as chosen when it was loaded, as strings.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str, dtype: str, frames: str) -> None:
        self.card: ModelCard = checkpoint.card
        self.device, self.dtype, self.frames = device, dtype, frames
        longitudes = converged_longitudes(checkpoint).longitudes if frames == "converged" else None
        self._network = build_network(checkpoint, DTYPES[dtype], longitudes).to(device)
        self._normalizers = checkpoint.normalizers
        self._references = checkpoint.element_references

    @property
    def config(self) -> ESCNConfig:
        """Hyperparameters of the network as evaluated."""
        return self._network.config

    @property
    def has_forces(self) -> bool:
        """Whether the model predicts forces."""
        return self.config.regress_forces

    def evaluate(self, structures: list[Atoms]) -> list[Prediction]:
        """Evaluate structures in one batch.

        Parameters
        ----------
        structures : ASE Atoms of any size, cell and periodicity; they are not changed.

        Returns
        -------
        list of Prediction, in the order of ``structures``.

        Raises
        ------
        InputError
            A structure cannot be evaluated; the message names structure and atom.
        CalculationError
            Memory ran out, torch failed, or the result is not finite.
        """
        batch = StructureBatch.from_atoms(structures)
        if not batch.num_structures:
            return []
        known = frozenset(self.card.elements) if self.card.elements is not None else None
        check_elements(batch, self.config.max_num_elements, known, self.card.refuse_unseen_elements)
        _warn_of_reduced_precision(self.dtype)
        try:
            output = self._run(batch)
        except (RuntimeError, MemoryError) as error:
            raise CalculationError(_failure_message(error, batch, self.device)) from error
        return self._predictions(batch, output)

    def _run(self, batch: StructureBatch) -> ESCNOutput:
        """Graph and network; outputs on the host in float64."""
        search_device = self.device if self.device == "cuda" else "cpu"
        graph = radius_graph(batch.to(search_device), self.config.cutoff, self.config.max_neighbors)
        with torch.inference_mode(), torch.autocast(self.device, enabled=False):
            output = self._network(
                batch.numbers.to(self.device),
                graph.source.to(self.device),
                graph.target.to(self.device),
                graph.vectors.to(DTYPES[self.dtype]).to(self.device),
            )
        forces = None if output.forces is None else output.forces.cpu().double()
        return ESCNOutput(output.node_energy.cpu().double(), forces)

    def _predictions(self, batch: StructureBatch, output: ESCNOutput) -> list[Prediction]:
        sizes = batch.natoms.tolist()
        energies = self._atomic_energies(batch, output.node_energy).split(sizes)
        forces: tuple[Tensor | None, ...] = (None,) * len(sizes)
        if output.forces is not None:
            forces = (output.forces * self._normalizers.force_std + self._normalizers.force_mean).split(sizes)
        kind = "direct" if self.has_forces else None
        return [
            Prediction(
                energy=float(atomic.sum()),
                energies=_finite(atomic, f"energy of {batch.describe_structure(index)}"),
                forces=None if force is None else _finite(force, f"forces on {batch.describe_structure(index)}"),
                energy_kind=self.card.energy_kind,
                forces_kind=kind,
            )
            for index, (atomic, force) in enumerate(zip(energies, forces, strict=True))
        ]

    def _atomic_energies(self, batch: StructureBatch, raw: Tensor) -> Tensor:
        """De-normalised (N,) float64 eV: the mean is shared out evenly, references go to their atoms."""
        atoms_around = batch.natoms[batch.structure_of_atom].double()
        share = raw / atoms_around if self.config.energy_reduce == "mean" else raw
        energies = share * self._normalizers.energy_std + self._normalizers.energy_mean / atoms_around
        return energies if self._references is None else energies + self._references[batch.numbers]

    def __repr__(self) -> str:
        return f"Potential({self.card.name!r}, device={self.device!r}, dtype={self.dtype!r}, frames={self.frames!r})"


def load_potential(
    model: str | Path = "default", *, device: str = "auto", dtype: str = "float32", frames: str = "canonical"
) -> Potential:
    """Load a model.

    Parameters
    ----------
    model : "default" (shipped with the package), a published checkpoint by catalogue name (downloaded once), the path
        of a FAIR checkpoint file, or the path of a native model folder.
    device : "auto" (CUDA if there is one, else CPU), "cpu", "cuda" or "mps".
    dtype : "float32" or "float64".
    frames : "canonical" evaluates the checkpoint on its own edge grid with deterministic edge frames; "converged"
        raises the longitudes of that grid until the result no longer depends on the frames.

    Raises
    ------
    InputError
        An option or model name is not known.
    CheckpointError, DownloadError
        The file cannot be used or fetched.
    """
    check_option("dtype", dtype, DTYPE_NAMES)
    check_option("frames", frames, FRAMES)
    chosen = choose_device(device, dtype)
    return Potential(load_checkpoint(model), device=chosen, dtype=dtype, frames=frames)


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


def _finite(values: Tensor, what: str) -> np.ndarray:
    if not torch.isfinite(values).all():
        raise CalculationError(
            f"{what}: not finite, the network overflowed on this geometry; "
            "check the structure, or evaluate it with dtype='float64'"
        )
    return values.numpy().copy()


def _failure_message(error: Exception, batch: StructureBatch, device: str) -> str:
    reason = str(error).partition("\n")[0]
    size = f"{batch.num_structures} structures with {batch.num_atoms} atoms together"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in reason for words in MEMORY_WORDS):
        return f"out of memory on {device} for {size}; evaluate fewer or smaller structures at a time ({reason})"
    return f"the evaluation of {size} failed on {device}: {reason}"


def _warn_of_reduced_precision(dtype: str) -> None:
    """Torch's process-wide matmul precision turns float32 products into bfloat16 or TF32; it is not ours to change."""
    setting = torch.get_float32_matmul_precision()
    if dtype == "float32" and setting != "highest":
        warnings.warn(
            f"torch.set_float32_matmul_precision({setting!r}) is in force: float32 results have the accuracy of "
            "bfloat16 or TF32; set it to 'highest', or use dtype='float64'",
            ReducedPrecisionWarning,
            stacklevel=3,
        )
