"""What ``escn screen`` shows and leaves behind besides the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from escn_calc.cli.outputs import energy_words
from escn_calc.cli.relax_many_progress import Tally, progress_display
from escn_calc.records import remove_unfinished, versions, write_json
from escn_calc.screening.tasks import KIND_WORDS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from escn_calc.screening import Prepared
    from escn_calc.screening.cost import Cost
    from escn_calc.screening.relaxing import Ended
    from escn_calc.screening.results import Result
    from escn_calc.screening.store import Finished
    from escn_calc.screening.tasks import Task

MOST_SYSTEMS_SHOWN = 60
NAMED = 6


def plan_table(prepared: Prepared, waiting: Sequence[Task], cost: Cost | None) -> Table:
    """Lay out what is to be done and what it will take."""
    from rich.markup import escape
    from rich.table import Table

    facts, plan = prepared.facts, prepared.plan
    table = Table(title="Plan", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("model", escape(f"{facts.name}: {energy_words(facts.energy_kind)}, {facts.energy_reference}"))
    table.add_row("references", escape(prepared.campaign.config.scheme.name))
    for kind, number in plan.counts.items():
        if number:
            tasks = [task for task in plan.tasks if task.kind == kind]
            table.add_row(KIND_WORDS[kind], escape(f"{number}: {_sizes(tasks)}{_names(tasks)}"))
    table.add_row("placements", f"{plan.counts['adslab']}, the best of {len(plan.systems)} systems")
    table.add_row("finished", str(len(plan.tasks) - len(waiting)))
    table.add_row("to do", str(len(waiting)))
    if cost is not None:
        table.add_row("time", cost_in_words(cost))
    table.add_row("database", escape(prepared.store.place.name))
    return table


def cost_in_words(cost: Cost) -> str:
    """Say how long the work will take, and what that assumes."""
    assumed = ", ".join(f"{number:.0f} for {KIND_WORDS[kind]}" for kind, number in cost.evaluations.items())
    shared = f" on each of {cost.workers} workers" if cost.workers > 1 else ""
    measured = f"{1e3 * cost.speed.seconds_per_atom:.3g} ms per atom and evaluation on {cost.speed.device}"
    return (
        f"about {duration(cost.seconds)}{shared}, {duration(cost.seconds_at_most)} if all relaxations go to the step "
        f"limit ({measured}; evaluations assumed: {assumed})"
    )


def duration(seconds: float) -> str:
    """Write a time for people: ``12 s``, ``25 min``, ``3.5 h``, ``12 days``."""
    for length, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"


def results_table(found: Sequence[Result]) -> Table:
    """Lay out the best placement of each system for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    scheme = "adsorption energy / eV"
    table = Table(title="Best placements", title_justify="left")
    for name in ("surface", "adsorbate", "site", scheme, "valid", "anomalies"):
        table.add_column(name, justify="right" if name in (scheme, "valid") else "left")
    systems = list(dict.fromkeys(result.system for result in found))
    for system in systems[:MOST_SYSTEMS_SHOWN]:
        rivals = [result for result in found if result.system == system]
        best = next((result for result in rivals if result.best), None)
        surface, adsorbate, coverage = system
        what = adsorbate if coverage is None else f"{adsorbate} {coverage:g} ML"
        energy = "none" if best is None or best.energy is None else f"{best.energy:.3f}"
        valid = f"{sum(result.valid for result in rivals)}/{len(rivals)}"
        kinds = Counter(anomaly.kind for result in rivals for anomaly in result.anomalies)
        anomalies = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        table.add_row(
            escape(surface), escape(what), "" if best is None else escape(best.site), energy, valid, anomalies
        )
    if len(systems) > MOST_SYSTEMS_SHOWN:
        table.caption = f"and {len(systems) - MOST_SYSTEMS_SHOWN} more: escn export"
    return table


@dataclass(frozen=True)
class ScreenRecord:
    """The record of a run: written at its start, so that a killed run has one too, and at its end.

    Attributes
    ----------
    path : Path
        The JSON file.
    about : dict
        What is run, as values that JSON can hold.
    """

    path: Path
    about: dict[str, Any]

    @classmethod
    def of(cls, prepared: Prepared, cost: Cost | None, where: str) -> ScreenRecord:
        """Collect what is run."""
        campaign, facts = prepared.campaign, prepared.facts
        about = {
            "command": "escn screen",
            "config_file": str(campaign.file.path),
            "config": campaign.text,
            "database": prepared.store.place.name.strip("'"),
            "where": where,
            "started": _now(),
            "versions": versions(),
            "model": asdict(facts),
            "references": campaign.config.scheme.name,
            "planned": prepared.plan.counts,
            "cost": None if cost is None else asdict(cost),
            "notes": list(prepared.plan.notes),
        }
        return cls(campaign.config.out / "screen.json", about)

    def write(self, ending: str, tally: Tally, states: Mapping[str, int]) -> None:
        """Write how the run stands.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        result = {
            "reason": ending,
            "written": _now(),
            "finished": tally.finished,
            "of": tally.total,
            "states": dict(states),
            "wall_time_s": tally.seconds,
            "structures_per_s": tally.per_second,
        }
        write_json(self.path, {**self.about, "result": result})


class Display:
    """What is shown and recorded while a campaign runs; to be used as a context.

    Parameters
    ----------
    console : Console
        Where progress is shown.
    record : ScreenRecord
        Written when the work begins and when it ends.

    Attributes
    ----------
    tally : Tally or None
        How many relaxations ended in which way; None before the work begins.
    """

    def __init__(self, console: Console, record: ScreenRecord) -> None:
        self.tally: Tally | None = None
        self._console, self._record = console, record
        self._states: Counter[str] = Counter()
        self._stack = ExitStack()

    def started(self, prepared: Prepared) -> None:
        """Begin to count."""
        self._states = Counter(one.state for one in _of_plan(prepared))
        self.tally = Tally(len(prepared.plan.tasks), self._states.elements())
        remove_unfinished(self._record.path)
        self._record.write("running", self.tally, self._states)
        self._show = self._stack.enter_context(progress_display(self._console, self.tally))

    def kept(self, ended: Ended) -> None:
        """Count one more."""
        assert self.tally is not None  # the work has begun
        self._states[ended.state] += 1
        self.tally.add(ended.state)
        self._show()

    def close(self, ending: str) -> None:
        """Write the record of a run that has ended."""
        if self.tally is not None:
            self._record.write(ending, self.tally, self._states)

    def __enter__(self) -> Display:
        self._stack.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


def _of_plan(prepared: Prepared) -> list[Finished]:
    return [prepared.finished[task.key] for task in prepared.plan.tasks if task.key in prepared.finished]


def _sizes(tasks: Sequence[Task]) -> str:
    sizes = [len(task.atoms) for task in tasks]
    return f"{min(sizes)} atoms" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)} atoms"


def _names(tasks: Sequence[Task]) -> str:
    """The first names, unless they are those of placements."""
    if tasks[0].kind == "adslab":
        return ""
    more = f" and {len(tasks) - NAMED} more" if len(tasks) > NAMED else ""
    return f"; {', '.join(task.name for task in tasks[:NAMED])}{more}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
