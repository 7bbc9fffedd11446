"""Comparisons to compute metrics of, with few numbers in them."""

from __future__ import annotations

import numpy as np
from ase.data import atomic_numbers
from ase.symbols import string2symbols

from escn_calc.evaluation import Comparison


def comparison(
    symbols: str = "CuO",
    *,
    group: str = "a",
    origin: str = "file@0",
    energy: float | None = 0.0,
    predicted_energy: float | None = 0.0,
    forces: list[list[float]] | None = None,
    predicted_forces: list[list[float]] | None = None,
    counted: list[bool] | None = None,
    stress: list[float] | None = None,
    predicted_stress: list[float] | None = None,
) -> Comparison:
    numbers = np.array([atomic_numbers[symbol] for symbol in string2symbols(symbols)])
    return Comparison(
        origin=origin,
        group=group,
        numbers=numbers,
        counted=np.ones(len(numbers), dtype=bool) if counted is None else np.array(counted),
        energy=energy,
        predicted_energy=predicted_energy,
        forces=None if forces is None else np.array(forces, dtype=float),
        predicted_forces=None if predicted_forces is None else np.array(predicted_forces, dtype=float),
        stress=None if stress is None else np.array(stress),
        predicted_stress=None if predicted_stress is None else np.array(predicted_stress),
    )


def error(value: float, symbols: str = "CuO", group: str = "a") -> Comparison:
    """A structure whose energy is wrong by ``value`` eV."""
    return comparison(symbols, group=group, energy=-7.0, predicted_energy=-7.0 + value)
