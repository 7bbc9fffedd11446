"""The plots of the page, each with a sentence that says what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from escn_calc.report.svg import as_svg
from escn_calc.report.systems import System, best_energy, energy_of, site_kind, site_kinds, why_not_counted
from escn_calc.report.wording import number, plural, short, signed, species

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from escn_calc.report.scaling import Relation
    from escn_calc.report.volcano import Volcano
    from escn_calc.screening.results import Result

MOST_SURFACES = 40
"""So many surfaces have room side by side."""
MOST_LABELS = 24
"""With more points than this, names are in the tips only."""
LABEL_SIZE = 8.5
DISTANCE = 6.0
"""Points. From the middle of a symbol to its name."""
WAYS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1.3), (0, -1.3))
GRID_OF_A_NAME = np.array([(x, y) for x in np.linspace(0, 1, 7) for y in (0, 0.5, 1)])
INK, FAINT, ACCENT = "#1f2933", "#8a94a0", "#0b5394"
MARKERS = {
    "ontop": ("o", "#0072b2"),
    "bridge": ("s", "#e69f00"),
    "fcc": ("^", "#009e73"),
    "hcp": ("v", "#cc79a7"),
    "hollow": ("D", "#56b4e9"),
}
OTHER_MARKERS = (("P", "#d55e00"), ("p", "#5b5b5b"), ("h", "#7a5195"), ("*", "#8c6d1f"))
"""Colours that remain apart for most colour-blind people: M. Okabe and K. Ito, Color Universal Design (2008)."""

# ---------------------------------------------------------------------------------------------- all placements


def placements_figure(systems: Sequence[System], name: str) -> tuple[str, str]:
    """Draw the energies of all placements of one adsorbate, surface by surface.

    Parameters
    ----------
    systems : sequence of System
        Of one adsorbate; those with a result first.
    name : str
        Unique on the page.

    Returns
    -------
    svg, words : str
        The figure and what it shows.
    """
    shown = sorted((one for one in systems if one.best), key=best_energy)[:MOST_SURFACES]
    figure, axes = _axes(max(3.6, 1.4 + 0.55 * len(shown)), 3.1)
    low, high = _energy_range(shown)
    tips: dict[str, list[str]] = {}
    points = [
        (column, one) for column, system in enumerate(shown) for one in system.placements if one.energy is not None
    ]
    kinds = site_kinds(one for _, one in points if one.valid)
    for order, (kind, (marker, colour)) in enumerate(_markers(kinds).items()):
        chosen = [(column, one) for column, one in points if one.valid and site_kind(one) == kind]
        tips[f"counted-{order}"] = [_tip(one) for _, one in chosen]
        _scatter(axes, chosen, marker, colour, f"counted-{order}", 0.18 * (order - (len(kinds) - 1) / 2) / len(kinds))
    rejected = [(column, one) for column, one in points if not one.valid and low <= energy_of(one) <= high]
    if rejected:
        tips["rejected"] = [f"{_tip(one)}, not counted: {why_not_counted(one)}" for _, one in rejected]
        _scatter(axes, rejected, "x", FAINT, "rejected", 0.22)
    axes.set(xlim=(-0.6, len(shown) - 0.4), ylim=(low, high))
    axes.set_xticks(range(len(shown)))
    upright = len(shown) * max((len(short(one.surface)) for one in shown), default=0) > 70
    axes.set_xticklabels([short(one.surface) for one in shown], parse_math=False, rotation=90 if upright else 0)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    _label(axes.yaxis, "ΔE (eV)")
    _legend(figure, _markers(kinds), bool(rejected))
    outside = sum(not one.valid and not low <= energy_of(one) <= high for _, one in points)
    words = _words_of_placements(systems, shown, len(rejected), outside)
    return as_svg(figure, name, words, tips), words


def _words_of_placements(systems: Sequence[System], shown: Sequence[System], rejected: int, outside: int) -> str:
    what = species((systems[0].adsorbate, systems[0].coverage))
    words = [f"Adsorption energy of {what} in every relaxed placement, strongest binding on the left; a symbol each."]
    if rejected:
        words.append(
            f"Grey crosses: {plural(rejected, 'placement')} that {'do' if rejected > 1 else 'does'} not count."
        )
    if outside:
        words.append(f"{outside} more that do not count lie outside the range drawn.")
    with_result = sum(one.best is not None for one in systems)
    if with_result > len(shown):
        words.append(f"Only the {len(shown)} strongest of {with_result} surfaces are drawn.")
    if with_result < len(systems):
        words.append(f"{plural(len(systems) - with_result, 'surface')} without a result.")
    return " ".join(words)


def _energy_range(systems: Sequence[System]) -> tuple[float, float]:
    """Room for the energies that count; others far away must not squeeze them."""
    energies = [energy_of(one) for system in systems for one in system.counted] or [0.0]
    low, high = min(energies), max(energies)
    margin = max(0.12 * (high - low), 0.1)
    return low - margin, high + 2 * margin


def _scatter(
    axes: Axes, points: Sequence[tuple[int, Result]], marker: str, colour: str, gid: str, aside: float
) -> None:
    x = [column + aside for column, _ in points]
    y = [energy_of(one) for _, one in points]
    edge = colour if marker == "x" else "white"
    axes.plot(
        x, y, marker, color=colour, markersize=6, alpha=0.9, linestyle="none", markeredgecolor=edge,
        markeredgewidth=1 if marker == "x" else 0.5, gid=gid,
    )  # fmt: skip


def _markers(kinds: Sequence[str]) -> dict[str, tuple[str, str]]:
    others = iter(OTHER_MARKERS * (1 + len(kinds) // len(OTHER_MARKERS)))
    return {kind: MARKERS.get(kind) or next(others) for kind in kinds}


def _legend(figure: Figure, markers: dict[str, tuple[str, str]], rejected: bool) -> None:
    entries = [(short(kind), *style) for kind, style in list(markers.items())[:8]]
    entries += [("not counted", "x", FAINT)] if rejected else []
    handles = [Line2D([], [], marker=marker, color=colour, linestyle="none") for _, marker, colour in entries]
    legend = figure.legend(
        handles, [" "] * len(entries), loc="outside upper left", ncols=5, frameon=False, handletextpad=0.1,
        columnspacing=1.2,
    )  # fmt: skip
    for text, (label, _, _) in zip(legend.get_texts(), entries, strict=True):
        text.set(text=label, parse_math=False, color=INK)


def _tip(placement: Result) -> str:
    ended = f", ended {placement.final_site}" if placement.final_site not in (None, placement.site) else ""
    return f"{placement.surface}, {placement.site}{ended}: {number(placement.energy)} eV"


# ------------------------------------------------------------------------------------------ relations, volcanoes


def relation_figure(relation: Relation, name: str) -> tuple[str, str]:
    """Draw the energies of two adsorbates against each other, with the line through them."""
    x = np.array([best_energy(first) for first, _ in relation.pairs])
    y = np.array([best_energy(second) for _, second in relation.pairs])
    doubtful = np.array(
        [first.standing != "no warning" or second.standing != "no warning" for first, second in relation.pairs]
    )
    figure, axes = _axes(4.1, 3.4)
    if relation.line is not None:
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, relation.line.slope * ends + relation.line.intercept, color=FAINT, linewidth=1.4, zorder=1)
    surfaces = [first.surface for first, _ in relation.pairs]
    tips = _named_points(figure, axes, x, y, doubtful, surfaces)
    _label(axes.xaxis, f"ΔE of {species(relation.x)} (eV)")
    _label(axes.yaxis, f"ΔE of {species(relation.y)} (eV)")
    words = _words_of_relation(relation, int(doubtful.sum()))
    return as_svg(figure, name, words, tips), words


def _words_of_relation(relation: Relation, doubtful: int) -> str:
    x, y = species(relation.x), species(relation.y)
    words = [f"Lowest adsorption energy of {y} against that of {x} on {plural(len(relation.pairs), 'surface')}."]
    if relation.line is None:
        words.append("No line is fitted: it takes four surfaces with different energies.")
    else:
        line = relation.line
        words.append(
            f"Least-squares line: ΔE({y}) = {number(line.slope)} ΔE({x}) {signed(line.intercept)[0]} "
            f"{abs(line.intercept):.2f} eV, R² {number(line.r_squared)}, MAE {line.mae:.2f} eV over the fitted points."
        )
    if doubtful:
        words.append(f"Open circles: {plural(doubtful, 'surface')} with a warning, included in the fit.")
    return " ".join(words)


def volcano_figure(volcano: Volcano, name: str) -> tuple[str, str]:
    """Draw surfaces on the two legs of a volcano."""
    x, y = (np.array([getattr(point, axis) for point in volcano.points]) for axis in ("x", "y"))
    margin = max(0.15 * np.ptp(x), 0.3)
    left, right = min(x.min(), volcano.peak) - margin, max(x.max(), volcano.peak) + margin
    line = np.array([left, volcano.peak, right])
    figure, axes = _axes(5.2, 3.6)
    axes.plot(line, [volcano.height(value) for value in line], color=FAINT, linewidth=1.4, zorder=1)
    doubtful = np.array([point.doubtful for point in volcano.points])
    tips = _named_points(figure, axes, x, y, doubtful, [point.surface for point in volcano.points])
    _label(axes.xaxis, volcano.x_label)
    _label(axes.yaxis, volcano.y_label)
    words = volcano.words
    if doubtful.any():
        words += f" Open circles: {plural(int(doubtful.sum()), 'surface')} with a warning."
    return as_svg(figure, name, words, tips), words


def _named_points(
    figure: Figure, axes: Axes, x: np.ndarray, y: np.ndarray, doubtful: np.ndarray, surfaces: Sequence[str]
) -> dict[str, list[str]]:
    tips = {}
    for gid, chosen, face in (("sound", ~doubtful, ACCENT), ("doubtful", doubtful, "white")):
        if not chosen.any():
            continue
        axes.plot(
            x[chosen], y[chosen], "o", color=ACCENT, markerfacecolor=face, markersize=6.5, linestyle="none", gid=gid,
            zorder=2,
        )  # fmt: skip
        tips[gid] = [
            f"{surfaces[index]}: {number(x[index])}, {number(y[index])}" for index in np.flatnonzero(chosen).tolist()
        ]
    axes.margins(0.12)
    if len(surfaces) <= MOST_LABELS:
        _name_points(figure, axes, x, y, names_without_common_facet(surfaces))
    return tips


def names_without_common_facet(surfaces: Sequence[str]) -> list[str]:
    """Drop the Miller indices from names where all surfaces have the same: "Cu" for "Cu(111)"."""
    facets = {name[name.find("(") :] if "(" in name else "" for name in surfaces}
    bare = [name.split("(")[0] for name in surfaces]
    return bare if len(facets) == 1 and all(bare) and len(set(bare)) == len(bare) else list(surfaces)


def _name_points(figure: Figure, axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Write a name beside each point, where it covers least of points, lines and other names."""
    size = np.array([axes.bbox.width, axes.bbox.height]) * 72 / figure.dpi
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    scale = size / [right - left, high - low]
    points = np.column_stack([x - left, y - low]) * scale
    taken = np.concatenate(
        [points, *(_along(line, (left, low), scale) for line in axes.get_lines() if not line.get_gid())]
    )
    for name, point in zip(map(short, names), points, strict=True):
        extent = np.array([0.62 * LABEL_SIZE * len(name), LABEL_SIZE])
        corners = [point + DISTANCE * np.array(way) - extent * (1 - np.array(way)) / 2 for way in WAYS]
        covered = [((taken > corner - 1) & (taken < corner + extent + 1)).all(axis=1).sum() for corner in corners]
        best = int(np.argmin(covered))
        taken = np.concatenate([taken, corners[best] + extent * GRID_OF_A_NAME])
        axes.annotate(
            name, point / scale + [left, low], xytext=tuple(corners[best] - point), textcoords="offset points",
            ha="left", va="bottom", fontsize=LABEL_SIZE, color=INK, parse_math=False,
        )  # fmt: skip


def _along(line: Line2D, origin: tuple[float, float], scale: np.ndarray) -> np.ndarray:
    """Return places along a line, close together, in points from the corner of the axes."""
    corners = (line.get_xydata() - np.array(origin)) * scale
    steps = np.linspace(0, 1, 40)[:, None]
    return np.concatenate([start + steps * (end - start) for start, end in pairwise(corners)])


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _label(axis: object, label: str) -> None:
    axis.set_label_text(label, parse_math=False, color=INK, fontsize=9.5)  # type: ignore[attr-defined]
