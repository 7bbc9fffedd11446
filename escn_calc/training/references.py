"""Energies per element, and the scales of what they leave: constants between labels and network outputs.

Total energies are dominated by constants per atom. With the numbers of atoms n_fz of element z in frame f, the element
references r minimise Σ_f (E_f - Σ_z n_fz r_z)², and the network learns the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from escn_calc.checkpoints.card import Normalizers
from escn_calc.errors import InputError
from escn_calc.labels import LabelledFrame
from escn_calc.nn.escn import SUM_FACTOR

#: Smallest scales, so that data which references describe exactly do not make the outputs vanish.
SMALLEST_ENERGY_SCALE = 1.0e-3  # eV per atom
SMALLEST_FORCE_SCALE = 1.0e-3  # eV/Å
#: Å; the length that turns the scale of forces into one of energies where no frame has an energy.
LENGTH_SCALE = 1.0
#: Relative size of singular values that count as zero: combinations of elements which the data do not determine.
SINGULAR = 1.0e-8


@dataclass(frozen=True, eq=False)
class References:
    """Element references, and what is to be known about them.

    Attributes
    ----------
    values : (119,) float64 eV by atomic number, zero for elements without one.
    notes : sentences for the card of the model.
    """

    values: Tensor
    notes: tuple[str, ...] = ()


def fit_references(frames: Sequence[LabelledFrame], predicted: Tensor | None = None) -> References | None:
    """Fit the references of all elements by least squares.

    Where the compositions do not determine every element (C and O in CO alone), the solution of smallest norm is taken
    and a note says so.

    Parameters
    ----------
    frames : those without energy do not count.
    predicted : (F,) eV, what the model gives for each frame without references; None for zero.

    Returns
    -------
    References, or None if no frame has an energy.

    Raises
    ------
    InputError
        A prediction that is not finite, or not one per frame.
    """
    if all(frame.energy is None for frame in frames):
        return None
    present = sorted({number for frame in _with_energy(frames) for number in frame.atoms.numbers.tolist()})
    return _solved(frames, predicted, present, torch.zeros(len(chemical_symbols), dtype=torch.float64))


def extend_references(
    base: Tensor | None, new_elements: Sequence[str], frames: Sequence[LabelledFrame], predicted: Tensor
) -> References:
    """Fit references of new elements by least squares and keep all others.

    Parameters
    ----------
    base : (119,) eV; None for a model without references, whose known elements then keep zero.
    new_elements : symbols of the elements to fit.
    frames : those without energy do not count.
    predicted : (F,) eV, what the model gives for each frame, with its references and with zero for the new elements.

    Raises
    ------
    InputError
        An unknown symbol; a new element that no frame with an energy contains; a prediction that is not finite, or not
        one per frame.
    """
    unknown = sorted(set(new_elements) - set(atomic_numbers) | set(new_elements) & {"X"})
    if unknown:
        raise InputError(f"{unknown[0]!r} is not the symbol of an element: give symbols like Ni")
    numbers = sorted({atomic_numbers[symbol] for symbol in new_elements})
    seen = {number for frame in _with_energy(frames) for number in frame.atoms.numbers.tolist()}
    missing = [chemical_symbols[number] for number in numbers if number not in seen]
    if missing:
        raise InputError(
            f"no frame with an energy contains {' '.join(missing)}: add such frames, or do not add the element"
        )
    values = torch.zeros(len(chemical_symbols), dtype=torch.float64) if base is None else base.double().clone()
    values[numbers] = 0.0
    return _solved(frames, predicted, numbers, values)


def fit_normalizers(
    frames: Sequence[LabelledFrame], references: Tensor | None, energy_reduce: str = "sum"
) -> Normalizers:
    """Measure the scales of the labels for a network trained from scratch.

    A raw output of order one then stands for a typical energy per atom (``energy_reduce="sum"``, where the network
    multiplies its sum over atoms by 0.001) or per structure (``"mean"``), and for a typical force component. Without
    energies, the energy scale is that of the forces times 1 Å, for forces that are gradients.

    Parameters
    ----------
    frames : labels that are absent do not count.
    references : (119,) eV; None for zero.
    energy_reduce : of the network, see :class:`escn_calc.nn.config.ESCNConfig`.
    """
    force_std = _rms([frame.forces.ravel() for frame in frames if frame.forces is not None], SMALLEST_FORCE_SCALE)
    energies = _with_energy(frames)
    per_atom = energy_reduce == "sum"
    left = _residuals(energies, None, references) / np.array([len(f.atoms) if per_atom else 1 for f in energies])
    scale = _rms([left], SMALLEST_ENERGY_SCALE)
    if scale is None:
        scale = LENGTH_SCALE * (force_std or 1.0)
    return Normalizers(energy_std=scale / SUM_FACTOR if per_atom else scale, force_std=force_std or 1.0)


def _solved(frames: Sequence[LabelledFrame], predicted: Tensor | None, numbers: list[int], fixed: Tensor) -> References:
    """Put the references of ``numbers`` into a copy of ``fixed``, from what ``predicted`` leaves of the energies."""
    if predicted is not None and (predicted.shape != (len(frames),) or not predicted.isfinite().all()):
        raise InputError(
            f"predictions of the shape {tuple(predicted.shape)} for {len(frames)} frames: expected one finite energy "
            "per frame"
        )
    kept = [index for index, frame in enumerate(frames) if frame.energy is not None]
    chosen = [frames[index] for index in kept]
    counts = np.array([np.bincount(frame.atoms.numbers, minlength=len(fixed))[numbers] for frame in chosen], float)
    residuals = _residuals(chosen, None if predicted is None else predicted[kept], None)
    solution, _, rank, _ = np.linalg.lstsq(counts, residuals, rcond=SINGULAR)
    values = fixed.clone()
    values[numbers] = torch.from_numpy(solution)
    if rank == len(numbers):
        return References(values)
    symbols = " ".join(chemical_symbols[number] for number in numbers)
    note = (
        f"the compositions determine {rank} of {len(numbers)} element references ({symbols}): those of smallest norm "
        "were taken, and energies of other compositions may be off by a constant per atom"
    )
    return References(values, (note,))


def _with_energy(frames: Sequence[LabelledFrame]) -> list[LabelledFrame]:
    return [frame for frame in frames if frame.energy is not None]


def _residuals(frames: list[LabelledFrame], predicted: Tensor | None, references: Tensor | None) -> np.ndarray:
    """Energies less predictions and references, (F,) eV."""
    energies = np.array([frame.energy for frame in frames], dtype=np.float64)
    if predicted is not None:
        energies = energies - predicted.detach().double().cpu().numpy()
    if references is not None:
        table = references.double().cpu().numpy()
        energies = energies - np.array([table[frame.atoms.numbers].sum() for frame in frames])
    return energies


def _rms(parts: list[np.ndarray], smallest: float) -> float | None:
    """Root mean square of all values, at least ``smallest``; None without values."""
    values = np.concatenate([np.zeros(0), *parts])
    return max(smallest, float(np.sqrt(np.mean(values**2)))) if len(values) else None
