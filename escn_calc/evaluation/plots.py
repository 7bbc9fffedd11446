"""Parity plots: what a model says against the labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from escn_calc.evaluation.metrics import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS_DRAWN_ONE_BY_ONE = 500
MARGIN = 0.05


def plot_parity(comparisons: Sequence[Comparison], energy_words: str, path: Path) -> None:
    """Draw predictions against labels into a PNG file, a panel each for energies, force components and stress.

    Up to 500 points are drawn one by one, more as their density on a logarithmic scale. What was not compared has no
    panel.

    Parameters
    ----------
    comparisons : sequence of Comparison
        At least one with something to compare.
    energy_words : str
        What the energies are, for the axes: "total energy".
    path : Path
        The file.
    """
    from matplotlib.figure import Figure

    panels = [panel for panel in _panels(comparisons, energy_words) if panel[0].size]
    figure = Figure(figsize=(4.6 * len(panels), 4.3), layout="constrained")
    for number, (labels, predictions, what, unit) in enumerate(panels, start=1):
        _draw(figure, figure.add_subplot(1, len(panels), number), labels, predictions, what, unit)
    figure.savefig(path, format="png", dpi=150)


def _panels(comparisons: Sequence[Comparison], energy_words: str) -> list[tuple[np.ndarray, np.ndarray, str, str]]:
    """Labels, predictions, name and unit of each panel."""
    energies = [
        (comparison.energy / len(comparison.numbers), comparison.predicted_energy / len(comparison.numbers))
        for comparison in comparisons
        if comparison.energy is not None and comparison.predicted_energy is not None
    ]
    stresses = [
        (comparison.stress, comparison.predicted_stress)
        for comparison in comparisons
        if comparison.stress is not None and comparison.predicted_stress is not None
    ]
    nothing = np.empty((0, 3))
    return [
        (*_columns(energies), energy_words, "eV/atom"),
        (
            np.concatenate([nothing, *(comparison.labelled_forces for comparison in comparisons)]).ravel(),
            np.concatenate([nothing, *(comparison.modelled_forces for comparison in comparisons)]).ravel(),
            "force component",
            "eV/Å",
        ),
        (*_columns(stresses), "stress component", "eV/Å³"),
    ]


def _columns(pairs: list[tuple[float, float]] | list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in pairs]).ravel(), np.array([prediction for _, prediction in pairs]).ravel()


def _draw(figure: "Figure", axes: "Axes", labels: np.ndarray, predictions: np.ndarray, what: str, unit: str) -> None:
    low, high = min(labels.min(), predictions.min()), max(labels.max(), predictions.max())
    margin = MARGIN * (high - low) or MARGIN
    low, high = low - margin, high + margin
    if len(labels) > POINTS_DRAWN_ONE_BY_ONE:
        extent = (low, high, low, high)
        density = axes.hexbin(labels, predictions, gridsize=70, bins="log", mincnt=1, extent=extent, linewidths=0.1)
        figure.colorbar(density, ax=axes, label="points", shrink=0.8)
    else:
        axes.plot(labels, predictions, "o", markersize=3.5, alpha=0.6, markeredgewidth=0, color="tab:blue")
    axes.plot([low, high], [low, high], linewidth=0.8, color="tab:red", zorder=3)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel=f"label: {what} ({unit})", ylabel=f"model: {what} ({unit})")
    error = np.abs(predictions - labels).mean()
    axes.set_title(f"MAE {error:.3g} {unit}, {len(labels)} points", fontsize="medium")
    axes.ticklabel_format(useOffset=False)
