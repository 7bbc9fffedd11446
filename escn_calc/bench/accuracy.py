"""Whether what was timed is right: batches against single structures, and one precision against another."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from escn_calc.calculator import ESCNCalculator
from escn_calc.options import DTYPE_NAMES
from escn_calc.potential import Potential, Prediction

SAME_FUNCTION = ("model", "forces", "frames")
"""Settings of a calculator that decide what it computes; all others may change rounding only."""
ALONE = "one by one"


@dataclass(frozen=True)
class Difference:
    """How far the predictions of a calculator are from others of the same structures, at most.

    Attributes
    ----------
    against : what they are compared with, in words.
    energy_per_atom : eV.
    forces : eV/Å, of a component; None without forces.
    relative_forces : the same as a part of the largest component; None without forces, or if all are zero.
    """

    against: str
    energy_per_atom: float
    forces: float | None
    relative_forces: float | None

    @classmethod
    def between(cls, against: str, predictions: Sequence[Prediction], others: Sequence[Prediction]) -> "Difference":
        """Compare predictions with ``others`` of the same structures."""
        pairs = list(zip(predictions, others, strict=True))
        energy = max(abs(mine.energy - other.energy) / len(mine.energies) for mine, other in pairs)
        found = [(mine.forces, other.forces) for mine, other in pairs]
        forces = [(mine, other) for mine, other in found if mine is not None and other is not None]
        if not forces:
            return cls(against, energy, None, None)
        largest = max(np.abs(other).max() for _, other in forces)
        difference = float(max(np.abs(mine - other).max() for mine, other in forces))
        return cls(against, energy, difference, float(difference / largest) if largest else None)


def compare(calculator: ESCNCalculator, structures: list[Atoms]) -> tuple[Difference, ...]:
    """Compare batched predictions of a calculator with single ones, and with those of its :func:`references`."""
    predictions = calculator.potential.evaluate(structures)
    alone = [calculator.potential.evaluate([atoms])[0] for atoms in structures]
    found = [Difference.between(ALONE, predictions, alone)]
    for dtype, reference in references(calculator):
        found.append(Difference.between(dtype, predictions, _loaded(reference).evaluate(structures)))
    return tuple(found)


def _loaded(reference: ESCNCalculator) -> Potential:
    """Load a model without the warnings that it has given before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reference.potential


def references(calculator: ESCNCalculator) -> Iterator[tuple[str, ESCNCalculator]]:
    """Calculators of the same function in float32 and float64, where that differs from what the given one does.

    Settings that trade accuracy for speed have their defaults there, so that a calculator with one of them is compared
    with plain float32 too. On a device without float64 the references run on the CPU.
    """
    settings = {name: calculator.parameters[name] for name in SAME_FUNCTION}
    device = "cpu" if calculator.potential.device == "mps" else calculator.parameters["device"]
    for dtype in DTYPE_NAMES:
        reference = ESCNCalculator(**settings, device=device, dtype=dtype)
        if reference.parameters != calculator.parameters:
            yield dtype, reference
