"""How often a surface cell is repeated."""

from __future__ import annotations

import itertools

import numpy as np

from escn_calc.errors import InputError

MOST_REPEATS = 20
"""Along one vector of the surface cell."""


def smallest_supercell(lattice: np.ndarray, minimum_width: float, minimum_area: float) -> tuple[int, int]:
    """Fewest repeats of a surface cell (2, 2) with images no nearer than a width (Å) and at least an area (Å²).

    Among equally many, those with the farthest images; then the most nearly square numbers.

    Raises
    ------
    InputError
        More than ``MOST_REPEATS`` would be needed.
    """
    area = abs(np.linalg.det(lattice))
    steps = np.array([step for step in itertools.product(range(-4, 5), repeat=2) if any(step)])
    candidates = []
    for first, second in itertools.product(range(1, MOST_REPEATS + 1), repeat=2):
        width = np.linalg.norm(steps @ (lattice * [[first], [second]]), axis=1).min()
        if width >= minimum_width - 1e-6 and first * second * area >= minimum_area - 1e-6:
            candidates.append((first * second, -round(width, 3), abs(first - second), first, second))
    if not candidates:
        raise InputError(
            f"more than {MOST_REPEATS} repeats of the surface cell would be needed for a width of {minimum_width:g} Å "
            f"and an area of {minimum_area:g} Å²; ask for less, or give the supercell"
        )
    return min(candidates)[3:]
