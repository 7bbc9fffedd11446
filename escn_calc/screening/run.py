"""Running a campaign: plan, check, and stage by stage what is missing, each result kept as it comes."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escn_calc.errors import CalculationError
from escn_calc.records import versions
from escn_calc.screening.config_file import CampaignFile
from escn_calc.screening.findings import anomalies_of
from escn_calc.screening.model import ModelFacts, facts_of, model_of
from escn_calc.screening.plan import Plan, make_plan
from escn_calc.screening.relaxing import Ended, LostError, Work
from escn_calc.screening.store import Finished, Header, Store
from escn_calc.screening.tasks import Task

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.screening.local import Engine

DATABASE = "results.db"


@dataclass(frozen=True)
class Prepared:
    """A campaign of which everything has been checked that can be before anything is computed.

    Attributes
    ----------
    campaign : CampaignFile
    facts : ModelFacts
        What relaxes.
    store : Store
        Where the results go.
    plan : Plan
        With the lattices that the store knows.
    finished : dict
        What there are rows of, by the keys of the tasks.
    """

    campaign: CampaignFile
    facts: ModelFacts
    store: Store
    plan: Plan
    finished: dict[str, Finished]

    def missing(self, *, retry: bool = False) -> list[Task]:
        """Tasks without a row; with ``retry`` those that failed too."""
        return missing(self.plan.tasks, self.finished, retry=retry)

    @property
    def header(self) -> Header:
        """What all rows have in common."""
        return _header(self)

    def refreshed(self) -> Prepared:
        """Return the same after another process may have worked on it.

        Raises
        ------
        InputError
            As :func:`prepare`.
        """
        finished = self.store.finished()
        lattices = {task.key for task in self.plan.stages[0]}
        if lattices & (finished.keys() ^ self.finished.keys()):
            return prepare(self.campaign)
        self.store.check(self.header)
        return replace(self, finished=finished)


@dataclass(frozen=True)
class Outcome:
    """How a run of a campaign ended.

    Attributes
    ----------
    plan : Plan
        As it was carried out, with relaxed lattices.
    finished : dict
        What there are rows of, by the keys of the tasks.
    lost : tuple of str
        Names of tasks whose workers died again and again; they have no row.
    """

    plan: Plan
    finished: dict[str, Finished]
    lost: tuple[str, ...]


def prepare(campaign: CampaignFile) -> Prepared:
    """Plan a campaign and check everything that can be checked before anything is computed.

    Raises
    ------
    InputError
        Something cannot be built or evaluated, or the database belongs to something else.
    CheckpointError, DownloadError
        The model cannot be read.
    """
    with campaign.at(campaign.model_key):
        facts = facts_of(model_of(campaign))
    store = Store.at(place_of(campaign))
    store.check_is_campaign()
    plan = make_plan(campaign, facts, store.relaxed_bulks())
    prepared = Prepared(campaign, facts, store, plan, store.finished())
    store.check(prepared.header)
    return prepared


def work_of(campaign: CampaignFile, facts: ModelFacts, batch_size: int | None) -> Work:
    """Return what a process has to know to relax tasks of a campaign."""
    anomalies = campaign.config.anomalies
    return Work(model_of(campaign), facts.sha256, anomalies.thresholds if anomalies.stop else None, batch_size)


def run_campaign(
    prepared: Prepared,
    engine: Engine,
    *,
    retry: bool = False,
    started: Callable[[Prepared], object] = lambda prepared: None,
    kept: Callable[[Ended], object] = lambda ended: None,
) -> Outcome:
    """Relax what is missing in the database of a campaign.

    Parameters
    ----------
    prepared : Prepared
        The campaign.
    engine : Engine
        Where.
    retry : bool
        Whether to relax again what failed before.
    started : callable
        Called when the work begins, with what is finished now.
    kept : callable
        Called for each task that has ended, after its row has been written.

    Raises
    ------
    InputError
        As :func:`prepare`; another process writes the database; or a row cannot be written. What was written before
        stays.
    CalculationError
        A lattice did not converge, so that there are no slabs of it; or the engine has broken down.
    KeyboardInterrupt
        Ctrl-C; what was written stays.
    """
    with prepared.store.locked():
        now = prepared.refreshed()
        now.store.begin(now.header, _run_record(engine))
        started(now)
        run = _Run(now, engine, retry, kept)
        plan = now.plan
        relaxed_lattices = run.relax(plan.stages[0])
        run.check_lattices(plan.stages[0])
        if relaxed_lattices:
            plan = make_plan(now.campaign, now.facts, now.store.relaxed_bulks())
            now.store.describe(replace(now, plan=plan).header)
        for stage in plan.stages[1:]:
            run.relax(stage)
    return Outcome(plan, run.finished, tuple(run.lost))


def place_of(campaign: CampaignFile) -> str | Path:
    """Return where the database of a campaign is."""
    return campaign.config.database or campaign.config.out / DATABASE


def missing(tasks: Iterable[Task], finished: Mapping[str, Finished], *, retry: bool = False) -> list[Task]:
    """Return tasks without a row; with ``retry`` those that failed too."""
    return [task for task in tasks if task.key not in finished or (retry and finished[task.key].state == "failed")]


class _Run:
    """What changes while a campaign runs: what is finished, and what was lost."""

    def __init__(self, prepared: Prepared, engine: Engine, retry: bool, kept: Callable[[Ended], object]) -> None:
        self.finished = dict(prepared.finished)
        self.lost: list[str] = []
        self._config, self._store = prepared.campaign.config, prepared.store
        self._engine, self._retry, self._kept = engine, retry, kept

    def relax(self, tasks: Sequence[Task]) -> bool:
        """Relax what is missing of a stage and return whether there was anything."""
        waiting = missing(tasks, self.finished, retry=self._retry)
        slabs = self._store.relaxed_slabs() if waiting else {}
        for ended in self._engine.relax(waiting):
            if isinstance(ended.end, LostError):
                self.lost.append(ended.task.name)
            else:
                slab = slabs.get(ended.task.labels.surface) if ended.task.kind == "adslab" else None
                self._keep(ended, slab)
            self._kept(ended)
        return bool(waiting)

    def check_lattices(self, tasks: Iterable[Task]) -> None:
        """Make sure that there are lattices to cut slabs from."""
        for task in tasks:
            state = self.finished[task.key].state if task.key in self.finished else "lost"
            if state != "converged":
                raise CalculationError(
                    f"the lattice of {task.name} has not converged ({state}), so no slabs can be cut from it; see "
                    f"{self._store.place.name}, and give it a lattice of this model with lattice: fixed"
                )

    def _keep(self, ended: Ended, slab: Atoms | None) -> None:
        anomalies = anomalies_of(ended, slab, self._config.thresholds)
        key = ended.task.key
        self.finished[key] = self._store.add(ended, anomalies, self._config.scheme.name, self.finished.get(key))


def _header(prepared: Prepared) -> Header:
    config, facts, plan = prepared.campaign.config, prepared.facts, prepared.plan
    scheme = config.scheme
    identity = {
        "model": facts.identity,
        "relaxation": config.relaxation.model_dump(mode="json"),
        "surfaces": config.surface_settings,
        "placements": config.placements.model_dump(mode="json", include={"mode", "seed"}),
        "references": {"scheme": scheme.name, **{name: str(entry) for name, entry in scheme.entries.items()}},
        "anomalies": config.anomaly_settings,
    }
    about = {
        "name": prepared.campaign.file.path.stem,
        "config": prepared.campaign.text,
        "model": {**asdict(facts), "identity": None},
        "references": config.references if isinstance(config.references, dict) else scheme.name,
    }
    plain = json.loads(json.dumps({"identity": identity, "about": about}))
    return Header(
        identity=plain["identity"],
        bulks=plan.bulks,
        adsorbates=plan.adsorbates,
        about=plain["about"],
        planned=plan.counts,
        planned_systems=[[*system, number] for system, number in plan.systems.items()],
    )


def _run_record(engine: Engine) -> dict[str, Any]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"started": started, "where": engine.words, "machine": platform.node(), "versions": versions()}
