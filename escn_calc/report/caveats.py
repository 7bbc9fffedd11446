"""Reasons not to trust a campaign as a whole, or parts of it: what the page says first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from escn_calc.report.systems import System
from escn_calc.report.wording import plural, species

if TYPE_CHECKING:
    from escn_calc.screening.results import Campaign

MOST_NAMED = 12
ANOMALOUS_SHARE_WORTH_A_WARNING = 0.2

TASKS = {"bulk": "bulk", "gas": "gas molecule", "slab": "clean slab", "adslab": "placement"}


@dataclass(frozen=True)
class Caveat:
    """A warning: what is wrong, and the cases."""

    title: str
    text: str
    cases: tuple[str, ...] = ()
    more: int = 0


def caveats(systems: Sequence[System], campaign: Campaign) -> list[Caveat]:
    """Collect the warnings of a campaign, the gravest first."""
    found = [
        _unfinished(campaign),
        _failures(campaign),
        _without_result(systems),
        _with_remarks(systems),
        _unknown_elements(systems, campaign),
        _many_anomalies(systems),
        _kind_of_energy(campaign),
        _limits_of_the_model(campaign),
    ]
    return [caveat for caveat in found if caveat is not None]


def _unfinished(campaign: Campaign) -> Caveat | None:
    missing = {kind: planned - campaign.done.get(kind, 0) for kind, planned in campaign.planned.items()}
    left = [
        f"{plural(count, TASKS.get(kind, kind))} of {campaign.planned[kind]}"
        for kind, count in missing.items()
        if count
    ]
    if not left:
        return None
    return Caveat(
        "The campaign is not finished",
        f"Not done yet: {', '.join(left)}. Best energies may still fall, and ranks may change. Running the same "
        "campaign again does what is missing.",
    )


def _failures(campaign: Campaign) -> Caveat | None:
    if not campaign.failures:
        return None
    return _named(
        "Calculations that energies depend on have failed",
        "Without these bulks, gas molecules and clean slabs there is no adsorption energy:",
        [f"{name}: {message}" for name, message in campaign.failures],
    )


def _without_result(systems: Sequence[System]) -> Caveat | None:
    without = [system for system in systems if system.best is None]
    if not without:
        return None
    return _named(
        f"{plural(len(without), 'system')} of {len(systems)} without a result",
        "They have no place in the rankings:",
        [f"{_name(system)}: {'; '.join(system.remarks)}" for system in without],
    )


def _with_remarks(systems: Sequence[System]) -> Caveat | None:
    doubtful = [system for system in systems if system.standing == "check"]
    if not doubtful:
        return None
    return _named(
        f"{plural(len(doubtful), 'energy', 'energies')} of {len(systems)} to be checked",
        "Look at these structures before using their energies:",
        [f"{_name(system)}: {'; '.join(system.remarks)}" for system in doubtful],
    )


def _unknown_elements(systems: Sequence[System], campaign: Campaign) -> Caveat | None:
    if campaign.model_elements is None:
        return None
    structures = [one.atoms for system in systems for one in system.placements]
    unknown = sorted({symbol for atoms in structures for symbol in atoms.symbols} - set(campaign.model_elements))
    if not unknown:
        return None
    return Caveat(
        "Elements that the model was not trained on",
        f"{', '.join(unknown)} occur in the structures, but not in the training data of {campaign.model}.",
    )


def _many_anomalies(systems: Sequence[System]) -> Caveat | None:
    done = [one for system in systems for one in system.placements]
    anomalous = sum(any(anomaly.disqualifies for anomaly in one.anomalies) for one in done)
    if not done or anomalous <= ANOMALOUS_SHARE_WORTH_A_WARNING * len(done):
        return None
    return Caveat(
        "Many relaxations went wrong",
        f"{anomalous} of {len(done)} placements have an anomaly for which they do not count. The model may not know "
        "this chemistry, or the placements start too close to the surface or too far from it.",
    )


def _kind_of_energy(campaign: Campaign) -> Caveat | None:
    if campaign.energy_kind != "unknown":
        return None
    return Caveat(
        "It is not known what the energies of the model are",
        "Its card does not say whether it returns total or adsorption energies.",
    )


def _limits_of_the_model(campaign: Campaign) -> Caveat | None:
    if not campaign.model_not_for:
        return None
    return Caveat("Limits of the model", f"The card of {campaign.model} says it is not for: {campaign.model_not_for}")


def _named(title: str, text: str, cases: Sequence[str]) -> Caveat:
    return Caveat(title, text, tuple(cases[:MOST_NAMED]), max(len(cases) - MOST_NAMED, 0))


def _name(system: System) -> str:
    return f"{species((system.adsorbate, system.coverage))} on {system.surface}"
