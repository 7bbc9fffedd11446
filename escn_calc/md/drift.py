"""Statistics of a run in a memory that does not grow: the drift of an energy, and the mean of a temperature.

Both can be written down and taken up again exactly, so that a restart does not change them.

The drift is the slope b of the least-squares line E(t) = a + b t through the total energy per atom. The energy is first
averaged over consecutive blocks of equal length; when there are too many blocks, neighbours are merged in pairs. The
fluctuations of the energy are correlated over a vibration, so that single steps would make the error look far too
small; block means are nearly independent, and what correlation ρ they keep from one to the next widens the error by
sqrt((1 + ρ) / (1 − ρ)), the factor of a first-order autoregressive noise.

An energy that jumps at random, as at a neighbour cap, is no such noise but a random walk: it wanders off without any
drift. Where ρ is too close to one to exclude that (``WALK``), the error is at least that of a random walk. With
increments of variance σ² from one of n blocks to the next, Δt apart, the slope of a walk has the variance
(6/5) σ²/(n Δt²) for many blocks; averaging over blocks leaves 2/3 of σ² in the increments of their means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MOST_BLOCKS = 64
FEWEST_BLOCKS = 8
"""Fewer block means say nothing about the error of the slope."""

WALK = 25.0
"""n (1 − ρ) below which n blocks may be a random walk: one walk in a hundred exceeds it (Dickey and Fuller, J. Am.
Stat. Assoc. 74, 427, 1979, with a trend)."""


@dataclass
class DriftMeter:
    """Least-squares slope of an energy per atom against time, with its standard error.

    Attributes
    ----------
    first : float or None
        The first energy in eV per atom; energies are counted from it, so that no digits are lost.
    size : int
        Number of samples in a block, a power of two.
    blocks : list of (float, float)
        Mean time in ps and mean energy in meV per atom of every complete block.
    count, time, energy
        Number of samples and the two sums of the block that is being filled.
    """

    first: float | None = None
    size: int = 1
    blocks: list[tuple[float, float]] = field(default_factory=list)
    count: int = 0
    time: float = 0.0
    energy: float = 0.0

    def add(self, time_ps: float, energy: float) -> None:
        """Take in one sample: the time in ps and the energy in eV per atom."""
        if self.first is None:
            self.first = energy
        self.count += 1
        self.time += time_ps
        self.energy += 1000 * (energy - self.first)
        if self.count == self.size:
            self.blocks.append((self.time / self.size, self.energy / self.size))
            self.count, self.time, self.energy = 0, 0.0, 0.0
        if len(self.blocks) == MOST_BLOCKS:
            pairs = zip(self.blocks[::2], self.blocks[1::2], strict=True)
            self.blocks = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in pairs]
            self.size *= 2

    def drift(self) -> tuple[float, float] | None:
        """Return slope and standard error in meV/atom/ps, or None while there are too few samples to tell."""
        if len(self.blocks) < FEWEST_BLOCKS:
            return None
        times, energies = np.array(self.blocks).T
        times = times - times.mean()
        energies = energies - energies.mean()
        spread = float(times @ times)
        slope = float(times @ energies) / spread
        residuals = energies - slope * times
        squares = float(residuals @ residuals)
        if squares == 0:
            return slope, 0.0
        correlation = max(0.0, float(residuals[1:] @ residuals[:-1]) / squares)
        widening = math.sqrt((1 + correlation) / (1 - correlation))
        error = widening * math.sqrt(squares / (len(times) - 2) / spread)
        if len(times) * (1 - correlation) < WALK:
            error = max(error, _error_of_a_walk(times, residuals))
        return slope, error

    def state(self) -> dict[str, Any]:
        """Return everything as numbers and lists; ``DriftMeter.restored`` is the way back."""
        return {**vars(self), "blocks": list(self.blocks)}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> DriftMeter:
        """Make a meter from its ``state()``."""
        return cls(**{**state, "blocks": [(time, energy) for time, energy in state["blocks"]]})


def _error_of_a_walk(times: np.ndarray, residuals: np.ndarray) -> float:
    """Return the standard error of the slope of a random walk with the increments that the residuals have."""
    increments = np.diff(residuals)
    variance = 3 / 2 * float(increments @ increments) / len(increments)
    return math.sqrt(6 / 5 * variance / len(times)) / float(times[1] - times[0])


@dataclass
class RunningMean:
    """Mean and standard deviation of a series, updated sample by sample (Welford, Technometrics 4, 419, 1962)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Take in one sample."""
        self.count += 1
        change = value - self.mean
        self.mean += change / self.count
        self.squares += change * (value - self.mean)

    @property
    def deviation(self) -> float:
        """Standard deviation of the samples; 0 for a single one."""
        return math.sqrt(self.squares / max(self.count - 1, 1))

    def state(self) -> dict[str, Any]:
        """Return everything as numbers; ``RunningMean(**state)`` is the way back."""
        return dict(vars(self))
