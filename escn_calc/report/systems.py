"""What a campaign found, system by system: a surface with an adsorbate, and all its placements."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from escn_calc.report.wording import plural

if TYPE_CHECKING:
    from escn_calc.screening.results import Result

Standing = Literal["no warning", "check", "no result"]

USUAL_SITES = ("ontop", "bridge", "fcc", "hcp", "hollow")

MIGRATED = "migrated"
"""The kind of an anomaly that speaks against the name of the site, not against the energy."""


@dataclass(frozen=True, eq=False)
class System:
    """A surface with an adsorbate at one coverage.

    Attributes
    ----------
    surface, adsorbate : str
        Their names.
    coverage : float or None
        In monolayers, where the campaign has several.
    placements : tuple of Result
        All that were relaxed, or failed to.
    planned : int
        So many there will be when the campaign is finished.
    """

    surface: str
    adsorbate: str
    coverage: float | None
    placements: tuple[Result, ...]
    planned: int

    @cached_property
    def best(self) -> Result | None:
        """The placement with the lowest adsorption energy of those that count; None if none does."""
        return next((placement for placement in self.placements if placement.best), None)

    @cached_property
    def counted(self) -> tuple[Result, ...]:
        """The placements that count, lowest energy first."""
        return tuple(sorted((one for one in self.placements if one.valid), key=energy_of))

    @cached_property
    def next_site(self) -> Result | None:
        """The lowest placement that counts at another kind of site than the best one; None if there is none."""
        if self.best is None:
            return None
        kind = site_kind(self.best)
        return next((placement for placement in self.counted if site_kind(placement) != kind), None)

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """Reasons not to rely on the energy of this system, a phrase each."""
        if not self.placements:
            return (f"none of its {plural(self.planned, 'placement')} is done yet",)
        if self.best is None:
            return (f"no placement counts: {in_words(why_not_counted(one) for one in self.placements)}", *self._left)
        remarks = [one.message for one in self.best.anomalies if one.kind != MIGRATED]
        remarks += self.best.doubts
        if len(self.counted) == 1 < len(self.placements):
            others = in_words(why_not_counted(one) for one in self.placements if not one.valid)
            remarks.append(f"only 1 of {len(self.placements)} placements counts; others: {others}")
        return (*remarks, *self._left)

    @property
    def _left(self) -> tuple[str, ...]:
        left = self.planned - len(self.placements)
        return (f"{left} of {self.planned} placements not done yet",) if left > 0 else ()

    @property
    def standing(self) -> Standing:
        """Whether there is an energy, and whether anything speaks against it."""
        if self.best is None:
            return "no result"
        return "check" if self.remarks else "no warning"


def systems_of(results: Iterable[Result], planned: Iterable[tuple[str, str, float | None, int]]) -> list[System]:
    """Gather placements by surface, adsorbate and coverage.

    Parameters
    ----------
    results : iterable of Result
        All that there are.
    planned : iterable of tuples
        Surface, adsorbate, coverage and number of placements of every system, in the order wanted.
    """
    numbers = {(surface, adsorbate, coverage): number for surface, adsorbate, coverage, number in planned}
    gathered: dict[tuple[str, str, float | None], list[Result]] = {key: [] for key in numbers}
    for result in results:
        gathered.setdefault(result.system, []).append(result)
    return [System(*key, tuple(found), numbers.get(key, len(found))) for key, found in gathered.items()]


def ranked(systems: Sequence[System]) -> list[tuple[int | None, System]]:
    """Order systems by adsorbate (in the order given) and energy, each with its rank among those of its adsorbate.

    Systems without a result come last among those of their adsorbate and have no rank.
    """
    rows: list[tuple[int | None, System]] = []
    for _, of_adsorbate in by_adsorbate(systems):
        done = sorted((one for one in of_adsorbate if one.best is not None), key=best_energy)
        rows += [(rank, system) for rank, system in enumerate(done, start=1)]
        rows += [(None, system) for system in of_adsorbate if system.best is None]
    return rows


def by_adsorbate(systems: Sequence[System]) -> list[tuple[tuple[str, float | None], list[System]]]:
    """Gather systems by adsorbate and coverage, in the order given."""
    gathered: dict[tuple[str, float | None], list[System]] = {}
    for system in systems:
        gathered.setdefault((system.adsorbate, system.coverage), []).append(system)
    return list(gathered.items())


def energy_of(placement: Result) -> float:
    """Adsorption energy in eV of a placement that has one."""
    assert placement.energy is not None
    return placement.energy


def best_energy(system: System) -> float:
    """Adsorption energy in eV of the best placement of a system that has one."""
    assert system.best is not None
    return energy_of(system.best)


def site_kind(placement: Result) -> str:
    """Kind of site where a placement ended: "fcc" for "fcc", "fcc-2" and "fcc/3"; "moved" if it is not known which."""
    if placement.final_site is None and has_migrated(placement):
        return "moved"
    site = placement.final_site or placement.site
    return re.sub(r"[-/]\d+$", "", site) or site


def site_kinds(placements: Iterable[Result]) -> list[str]:
    """List the kinds of sites, the usual ones first."""
    found = dict.fromkeys(site_kind(placement) for placement in placements)
    return [kind for kind in USUAL_SITES if kind in found] + [kind for kind in found if kind not in USUAL_SITES]


def has_migrated(placement: Result) -> bool:
    """Whether the adsorbate binds elsewhere than where it was placed."""
    return any(anomaly.kind == MIGRATED for anomaly in placement.anomalies)


def why_not_counted(placement: Result) -> str:
    """Say in a word or two why a placement does not count."""
    grave = next((str(anomaly.kind) for anomaly in placement.anomalies if anomaly.disqualifies), None)
    if grave is not None:
        return grave
    if placement.state != "converged":
        return placement.state
    return "no energy" if placement.energy is None else "not counted"


def in_words(phrases: Iterable[str]) -> str:
    """Count equal phrases: "3 desorbed, 1 step limit"."""
    return ", ".join(f"{count} {phrase}" for phrase, count in Counter(phrases).most_common())
