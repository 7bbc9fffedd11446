"""The rows of the tables on the page, every cell as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from escn_calc.report.systems import (
    Standing,
    System,
    best_energy,
    by_adsorbate,
    energy_of,
    has_migrated,
    in_words,
    ranked,
    site_kind,
    site_kinds,
    why_not_counted,
)
from escn_calc.report.wording import number, signed, species, typeset

if TYPE_CHECKING:
    from escn_calc.report.scaling import Relation
    from escn_calc.screening.results import Result

Headings = list[tuple[str, str]]

SHADES = 6
"""Steps from the weakest to the strongest binding of a column."""


@dataclass(frozen=True)
class RankingRow:
    """A system in the ranking; ``anchor`` is that of its picture, empty without one."""

    rank: str
    surface: str
    adsorbate: str
    energy: str
    site: str
    next_site: str
    counted: str
    standing: Standing
    remarks: tuple[str, ...]
    anchor: str


def ranking_rows(systems: Sequence[System], anchors: Mapping[System, str]) -> list[RankingRow]:
    """List the systems by adsorbate and energy."""
    return [
        RankingRow(
            rank="" if rank is None else str(rank),
            surface=system.surface,
            adsorbate=species((system.adsorbate, system.coverage)),
            energy="" if system.best is None else number(energy_of(system.best)),
            site="" if system.best is None else site_words(system.best),
            next_site=_next_site(system),
            counted=f"{len(system.counted)} of {len(system.placements)}",
            standing=system.standing,
            remarks=system.remarks,
            anchor=anchors.get(system, ""),
        )
        for rank, system in ranked(systems)
    ]


def site_words(placement: Result) -> str:
    """Name the site of a placement, and where it went if it did: "bridge → fcc", "bridge, moved"."""
    if placement.final_site is None:
        return f"{placement.site}, moved" if has_migrated(placement) else placement.site
    if placement.final_site == placement.site:
        return placement.site
    return f"{placement.site} → {placement.final_site}"


def _next_site(system: System) -> str:
    if system.best is None or system.next_site is None:
        return ""
    return f"{signed(energy_of(system.next_site) - best_energy(system))} {site_kind(system.next_site)}"


@dataclass(frozen=True)
class OverviewCell:
    """Energy of a system with its shade, 0 (weakest) to ``SHADES`` - 1 in its column; "" and None without one."""

    energy: str
    shade: int | None
    standing: Standing | None
    remarks: str


@dataclass(frozen=True)
class Overview:
    """Surfaces (rows) by adsorbates (columns)."""

    adsorbates: tuple[str, ...]
    rows: tuple[tuple[str, tuple[OverviewCell, ...]], ...]


def overview(systems: Sequence[System]) -> Overview:
    """Lay out the best energies of all systems, surfaces in the order given."""
    columns = by_adsorbate(systems)
    shaded = [_column(members) for _, members in columns]
    nothing = OverviewCell("", None, None, "not planned")
    surfaces = dict.fromkeys(system.surface for system in systems)
    rows = tuple((surface, tuple(column.get(surface, nothing) for column in shaded)) for surface in surfaces)
    return Overview(tuple(species(key) for key, _ in columns), rows)


def _column(members: Sequence[System]) -> dict[str, OverviewCell]:
    energies = [best_energy(system) for system in members if system.best is not None]
    weakest, range_ = max(energies, default=0.0), max(energies, default=0.0) - min(energies, default=0.0)
    return {
        system.surface: OverviewCell(
            energy="" if system.best is None else number(energy_of(system.best)),
            shade=None if system.best is None else _shade(weakest - best_energy(system), range_),
            standing=system.standing,
            remarks="; ".join(system.remarks),
        )
        for system in members
    }


def _shade(below_weakest: float, range_: float) -> int:
    return 0 if range_ == 0 else min(int(SHADES * below_weakest / range_), SHADES - 1)


@dataclass(frozen=True)
class SiteTable:
    """Lowest energies by kind of site for one adsorbate, relative to the best: a row per surface."""

    kinds: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]

    @property
    def headings(self) -> Headings:
        """Texts of the heading, each with what its column sorts by."""
        return [("surface", "text"), ("best (eV)", "number"), *((kind, "number") for kind in self.kinds)]


def site_table(members: Sequence[System]) -> SiteTable:
    """Compare the sites of one adsorbate; a kind without an energy that counts says why."""
    kinds = tuple(site_kinds(one for system in members for one in system.placements))
    rows = tuple(
        (
            system.surface,
            "" if system.best is None else number(best_energy(system)),
            tuple(_site_cell(system, kind) for kind in kinds),
        )
        for _, system in ranked(members)
    )
    return SiteTable(kinds, rows)


def _site_cell(system: System, kind: str) -> str:
    here = [one for one in system.counted if site_kind(one) == kind]
    if here and system.best is not None:
        return signed(energy_of(here[0]) - best_energy(system))
    rejected = [one for one in system.placements if not one.valid and site_kind(one) == kind]
    return in_words(why_not_counted(one) for one in rejected).removeprefix("1 ") or "–"


@dataclass(frozen=True)
class PlacementRow:
    """A placement: what became of it."""

    surface: str
    adsorbate: str
    site: str
    energy: str
    above_best: str
    state: str
    steps: str
    fmax: str
    counts: bool
    remarks: tuple[str, ...]


def placement_rows(systems: Sequence[System]) -> list[PlacementRow]:
    """List all placements, system by system, lowest energy first."""
    return [
        PlacementRow(
            surface=placement.surface,
            adsorbate=species((system.adsorbate, system.coverage)),
            site=site_words(placement),
            energy="" if placement.energy is None else number(placement.energy, 3),
            above_best=_above_best(placement, system),
            state=placement.state,
            steps="" if placement.steps is None else str(placement.steps),
            fmax="" if placement.fmax is None else number(placement.fmax, 3),
            counts=placement.valid,
            remarks=_remarks(placement),
        )
        for system in systems
        for placement in sorted(
            system.placements, key=lambda one: (not one.valid, one.energy is None, one.energy or 0.0)
        )
    ]


def _above_best(placement: Result, system: System) -> str:
    if placement.energy is None or system.best is None:
        return ""
    return signed(placement.energy - best_energy(system), 3)


def _remarks(placement: Result) -> tuple[str, ...]:
    said = [anomaly.message for anomaly in placement.anomalies]
    said += placement.doubts
    said += [text for text in (placement.failure, placement.why_no_energy) if text]
    return tuple(said) + (("the same as another placement",) if placement.duplicate_of else ())


@dataclass(frozen=True)
class AnomalyTable:
    """How many placements have each kind of anomaly, by adsorbate; a placement may have several."""

    adsorbates: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...], int], ...]

    @property
    def headings(self) -> Headings:
        """Texts of the heading, each with what its column sorts by."""
        return [("anomaly", "text"), *((name, "number") for name in self.adsorbates), ("all", "number")]


def anomaly_table(systems: Sequence[System]) -> AnomalyTable:
    """Count anomalies, most frequent first."""
    columns = [
        Counter(kind for system in members for one in system.placements for kind in {a.kind for a in one.anomalies})
        for _, members in by_adsorbate(systems)
    ]
    totals = sum(columns, Counter())
    rows = tuple((kind, tuple(column[kind] for column in columns), total) for kind, total in totals.most_common())
    return AnomalyTable(tuple(species(key) for key, _ in by_adsorbate(systems)), rows)


def relation_rows(found: Sequence[Relation]) -> list[tuple[str, str, str, str, str, str, str]]:
    """List y, x, number of surfaces, slope, intercept, R² and MAE of each relation."""
    return [
        (
            species(relation.y),
            species(relation.x),
            str(len(relation.pairs)),
            *(
                ("–",) * 4
                if relation.line is None
                else (
                    number(relation.line.slope),
                    number(relation.line.intercept),
                    number(relation.line.r_squared),
                    number(relation.line.mae),
                )
            ),
        )
        for relation in found
    ]


def reaction_rows(systems: Sequence[System]) -> list[tuple[str, str]]:
    """List which reaction the energy of each adsorbate stands for."""
    rows = []
    for key, members in by_adsorbate(systems):
        reactions = dict.fromkeys(one.reaction for system in members for one in system.placements if one.reaction)
        rows += [(species(key), typeset(reaction)) for reaction in reactions]
    return rows
