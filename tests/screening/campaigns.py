"""Small campaigns to be run in tests."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from escn_calc.screening import (
    CampaignFile,
    LocalEngine,
    Prepared,
    Store,
    prepare,
    read_campaign,
    run_campaign,
    work_of,
)

KNOWN: dict[str, Any] = {
    "out": "out",
    "calculator": {"factory": "tests.screening.calculators:Known", "energy_kind": "total"},
    "bulks": ["Cu", "Pt"],
    "lattice": "fixed",
    "surfaces": {"facets": [111], "supercell": [1, 1], "layers": 3, "vacuum": 10},
    "adsorbates": ["H", "O"],
}
"""Two metals, two adsorbates on four sites, and energies that are known exactly."""


def settings(base: dict[str, Any] = KNOWN, **changes: Any) -> dict[str, Any]:
    """A campaign with some keys changed; those that become None are left out."""
    changed = {**copy.deepcopy(base), **changes}
    return {key: value for key, value in changed.items() if value is not None}


def write_campaign(folder: Path, base: dict[str, Any] = KNOWN, **changes: Any) -> Path:
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(settings(base, **changes), sort_keys=False), encoding="utf-8")
    return path


def campaign(folder: Path, base: dict[str, Any] = KNOWN, **changes: Any) -> CampaignFile:
    return read_campaign(write_campaign(folder, base, **changes))


def local_engine(prepared: Prepared, batch_size: int | None = None) -> LocalEngine:
    return LocalEngine(work_of(prepared.campaign, prepared.facts, batch_size))


def run(folder: Path, base: dict[str, Any] = KNOWN, *, retry: bool = False, **changes: Any) -> list[str]:
    """Run a campaign here and return the names of what was relaxed."""
    prepared = prepare(campaign(folder, base, **changes))
    done: list[str] = []
    run_campaign(prepared, local_engine(prepared), retry=retry, kept=lambda ended: done.append(ended.task.name))
    return done


def rows(store: Store) -> dict[str, Any]:
    """All rows by key, of which no two may be of the same task."""
    found = list(store.rows())
    by_key = {row.task: row for row in found}
    assert len(by_key) == len(found)
    return by_key
