"""The figure of the docs page from the record of ``benchmarks/so2_convolution.py``."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

PANELS = (
    ("operations_per_edge", "multiply-adds per edge", "operations", 1.0),
    ("fastest_seconds", "time of all edges / ms", "seconds", 1e3),
    ("peak_bytes_with_derivatives", "peak memory of a training step / MB", "peak_bytes_with_derivatives", 1e-6),
)
STYLES = {"tensor product": ("o", "tab:orange"), "SO(2) form": ("s", "tab:blue")}


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw operations, times and memory of both forms over L, with the fitted exponents."""
    figure = Figure(figsize=(11.5, 3.8), layout="constrained")
    degrees = [row["L"] for row in record["rows"]]
    for axes, (key, label, fit, unit) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for name, (marker, colour) in STYLES.items():
            values = [unit * row["forms"][name][key] for row in record["rows"]]
            power = record["exponents"][name][fit]
            axes.loglog(degrees, values, marker=marker, color=colour, label=f"{name}, L$^{{{power:.1f}}}$")
        axes.set_xticks(degrees, labels=[str(degree) for degree in degrees])
        axes.minorticks_off()
        axes.set_xlabel("L = lmax = mmax")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(f"{record['channels']} channels, {record['edges']} edges, filters of all degrees up to L", size=10)
    figure.savefig(path, dpi=150)
