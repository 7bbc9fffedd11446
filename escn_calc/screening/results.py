"""What the rows of a campaign mean: adsorption energies, the best placement of each system, and what went wrong.

Everything here follows from the rows; nothing is computed with a model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from ase import Atoms

from escn_calc.adsorption.anomalies import Anomaly, Thresholds
from escn_calc.adsorption.duplicates import groups_of_equals
from escn_calc.adsorption.slabs import ADSORBATE, Slab
from escn_calc.errors import InputError
from escn_calc.screening.bookkeeping import References, references_of
from escn_calc.screening.rows import labels_of
from escn_calc.screening.store import Store
from escn_calc.screening.tasks import KINDS


@dataclass(frozen=True, eq=False)
class Result:
    """A placement that was relaxed.

    Attributes
    ----------
    key : str
        Of its task.
    row : int
        Its number in the database.
    surface, bulk, adsorbate, site : str
        What was put where: ``"Cu(111)"``, ``"Cu"``, ``"OH"``, ``"fcc"``.
    miller : tuple of int or None
        Of the facet; None for a slab from a file.
    coverage : float or None
        Monolayers as asked for; None for one adsorbate in the cell.
    molecules : int
        Number of adsorbed molecules.
    state : str
        ``"converged"``, ``"step limit"``, ``"stopped"`` or ``"failed"``.
    failure : str
        What failed, or why it was stopped.
    steps : int or None
        Of the optimiser.
    fmax : float or None
        Largest force in eV/Å at the end.
    energy : float or None
        Adsorption energy in eV per adsorbed molecule, relative to the references of the campaign.
    why_no_energy : str
        If there is none.
    reaction : str
        Of which ``energy`` is the energy.
    raw_energy : float or None
        As the model returned it, in eV.
    anomalies : tuple of Anomaly
        What was found.
    doubts : tuple of str
        Reasons to doubt the relaxation.
    valid : bool
        Whether it competes: it has converged, has an energy, and no anomaly disqualifies it.
    best : bool
        Whether it has the lowest energy of those that compete for its surface, adsorbate and coverage.
    duplicate_of : str or None
        Key of a result of the same system that relaxed to the same structure, with a lower energy or the same.
    atoms : Atoms
        The last frame; as placed if it could not be evaluated even once.
    """

    key: str
    row: int
    surface: str
    bulk: str
    miller: tuple[int, int, int] | None
    adsorbate: str
    coverage: float | None
    molecules: int
    site: str
    state: str
    failure: str
    steps: int | None
    fmax: float | None
    energy: float | None
    why_no_energy: str
    reaction: str
    raw_energy: float | None
    anomalies: tuple[Anomaly, ...]
    doubts: tuple[str, ...]
    valid: bool
    best: bool
    duplicate_of: str | None
    atoms: Atoms
    final_site: str | None = None

    @property
    def system(self) -> tuple[str, str, float | None]:
        """What placements compete in."""
        return self.surface, self.adsorbate, self.coverage


@dataclass(frozen=True)
class Campaign:
    """What the results of a campaign have in common.

    Attributes
    ----------
    name : str
        Of the configuration.
    model, model_citation, model_not_for, energy_reference : str
        From the card of the model.
    model_sha256 : str or None
        Of its weights.
    model_elements : tuple of str or None
        That it knows.
    energy_kind : str
        ``"total"`` or ``"adsorption"``.
    scheme, scheme_words : str
        What adsorption energies are relative to.
    reference_energies : dict
        Energies in eV of relaxed gas molecules by formula.
    settings : dict
        Names and values.
    config : str
        The configuration file.
    versions : dict
        Of the software that was started last.
    first_written, last_written : str or None
        When runs were started for the first and the last time.
    planned, done : dict
        Number of relaxations by kind.
    planned_systems : tuple
        Surface, adsorbate, coverage and number of placements.
    failures : tuple of (str, str)
        Bulks, gas molecules and clean slabs without which there are no energies, and what is wrong with them.
    thresholds : dict
        Of anomalies.
    knows_what_is_familiar : bool
        Whether atoms that the model does not know the like of were looked for.
    """

    name: str
    model: str
    model_sha256: str | None
    model_citation: str
    model_elements: tuple[str, ...] | None
    model_not_for: str
    energy_kind: str
    energy_reference: str
    scheme: str
    scheme_words: str
    reference_energies: dict[str, float]
    settings: dict[str, Any]
    config: str
    versions: dict[str, str]
    first_written: str | None
    last_written: str | None
    planned: dict[str, int]
    done: dict[str, int]
    planned_systems: tuple[tuple[str, str, float | None, int], ...]
    failures: tuple[tuple[str, str], ...]
    thresholds: dict[str, float]
    knows_what_is_familiar: bool


def results(store: Store) -> list[Result]:
    """Return every placement that was relaxed, by surface, adsorbate, coverage and site.

    Parameters
    ----------
    store : Store
        From :func:`escn_calc.screening.open_store`.

    Raises
    ------
    InputError
        The database cannot be read.
    """
    rows = list(store.rows())
    references = references_of(store.metadata(), rows)
    systems: defaultdict[tuple[str, str, float | None], list[Any]] = defaultdict(list)
    for row in rows:
        if row.kind == "adslab":
            systems[labels_of(row).system].append(row)
    return [result for system in sorted(systems, key=_order) for result in _compared(systems[system], references)]


def campaign(store: Store) -> Campaign:
    """Return what the results of a campaign have in common.

    Raises
    ------
    InputError
        The database cannot be read.
    """
    metadata = store.metadata()
    rows = [row for row in store.rows() if row.kind != "adslab"]
    kinds = [finished.kind for finished in store.finished().values()]
    model, identity, runs = metadata["about"]["model"], metadata["identity"], metadata["runs"]
    references = references_of(metadata, rows)
    thresholds = {field.name for field in fields(Thresholds)}
    settings = {
        **identity["relaxation"],
        **identity["surfaces"],
        **identity["placements"],
        **{name: value for name, value in identity["model"].items() if name not in ("name", "sha256")},
    }
    return Campaign(
        name=metadata["about"]["name"],
        model=model["name"],
        model_sha256=model["sha256"],
        model_citation=model["citation"],
        model_elements=None if model["elements"] is None else tuple(model["elements"]),
        model_not_for=model["not_for"],
        energy_kind=model["energy_kind"],
        energy_reference=model["energy_reference"],
        scheme=references.scheme.name,
        scheme_words="; ".join(f"{name}: {entry}" for name, entry in references.scheme.entries.items()),
        reference_energies=dict(references.gases),
        settings=settings,
        config=metadata["about"]["config"],
        versions=runs[-1]["versions"],
        first_written=runs[0]["started"],
        last_written=runs[-1]["started"],
        planned=metadata["planned"],
        done={kind: kinds.count(kind) for kind in KINDS},
        planned_systems=tuple((surface, what, ml, number) for surface, what, ml, number in metadata["planned_systems"]),
        failures=tuple(references.problems.items()),
        thresholds={name: value for name, value in identity["anomalies"].items() if name in thresholds},
        knows_what_is_familiar=model["knows_what_is_familiar"],
    )


def _result(row: Any, references: References) -> Result:
    labels, data = labels_of(row), row.data
    raw = row.get("energy")
    energy, why = None, ""
    if raw is None:
        why = "it could not be evaluated"
    else:
        try:
            energy = references.energy(raw, labels)
        except InputError as error:
            why = str(error)
    anomalies = tuple(Anomaly(one["kind"], one["message"], tuple(one["atoms"])) for one in data["anomalies"])
    sound = row.state == "converged" and not any(anomaly.disqualifies for anomaly in anomalies)
    return Result(
        key=row.task,
        row=row.id,
        surface=labels.surface,
        bulk=labels.bulk,
        miller=labels.miller,
        adsorbate=labels.adsorbate,
        coverage=labels.coverage,
        molecules=len(labels.species),
        site=labels.site,
        state=row.state,
        failure=row.get("failure", ""),
        steps=row.get("steps"),
        fmax=None if raw is None else row.fmax,
        energy=None if energy is None else energy.per_adsorbate,
        why_no_energy=why,
        reaction="" if energy is None else energy.reaction,
        raw_energy=raw,
        anomalies=anomalies,
        doubts=tuple(data.get("notes", ())),
        valid=sound and energy is not None,
        best=False,
        duplicate_of=None,
        atoms=row.toatoms(),
    )


def _compared(rows: Sequence[Any], references: References) -> list[Result]:
    """Mark the best of the placements of a system, and those that relaxed to the same structure as another."""
    found = [_result(row, references) for row in rows]
    rivals = sorted((result for result in found if result.valid), key=lambda result: (result.energy, result.site))
    groups = groups_of_equals([result.atoms for result in rivals], _slab_as_built(rows[0])) if rivals else []
    duplicates = {rivals[other].key: rivals[group[0]].key for group in groups for other in group[1:]}
    best = rivals[0].key if rivals else None
    marked = [replace(result, best=result.key == best, duplicate_of=duplicates.get(result.key)) for result in found]
    return sorted(marked, key=lambda result: (result.site, result.key))


def _slab_as_built(row: Any) -> Slab:
    """The slab under the adsorbates of a row, before anything was relaxed."""
    atoms, labels = row.toatoms(), labels_of(row)
    if "start" in row.data:
        atoms.positions = row.data["start"]["positions"]
    return Slab(labels.surface, atoms[atoms.get_tags() != ADSORBATE], labels.miller, labels.termination)


def _order(system: tuple[str, str, float | None]) -> tuple[str, str, float]:
    surface, adsorbate, coverage = system
    return surface, adsorbate, -np.inf if coverage is None else coverage
