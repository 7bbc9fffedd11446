"""A row of the database of a campaign: what of a relaxation goes into its keys, and what into its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from escn_calc.adsorption.anomalies import Anomaly
from escn_calc.adsorption.species import Species
from escn_calc.errors import ESCNError
from escn_calc.relax_result import history_arrays
from escn_calc.screening.relaxing import Ended
from escn_calc.screening.tasks import Labels

KEY_DESCRIPTIONS = {
    "task": ("Task", "Kind and sha256 of structure, settings and model", ""),
    "kind": ("Kind", "bulk, gas, slab or adslab", ""),
    "name": ("Name", "What was relaxed", ""),
    "state": ("State", "How the relaxation ended", ""),
    "bulk": ("Bulk", "Crystal", ""),
    "surface": ("Surface", "Crystal, facet and termination", ""),
    "adsorbate": ("Adsorbate", "What is adsorbed", ""),
    "site": ("Site", "Where it was put", ""),
    "coverage": ("Coverage", "Adsorbates per surface atom as asked for", "ML"),
    "steps": ("Steps", "Number of optimiser steps", ""),
    "energy_change": ("Energy change", "Last energy minus first", "eV"),
    "max_displacement": ("Displacement", "Largest displacement of an atom", "Å"),
    "seconds": ("Time", "From the first evaluation to the last, shared with others", "s"),
    "anomalies": ("Anomalies", "Their kinds", ""),
    "failure": ("Failure", "What failed, or why it was stopped", ""),
    "model_name": ("Model", "What relaxed", ""),
    "model_sha256": ("Weights", "sha256 of the weights", ""),
    "references": ("References", "Name of the reference scheme", ""),
}


def keys_of(ended: Ended, anomalies: tuple[Anomaly, ...], references: str) -> dict[str, str | float]:
    """Return what a row can be found by; what does not apply is left out.

    Parameters
    ----------
    ended : Ended
        The task.
    anomalies : tuple of Anomaly
        What was found in its end.
    references : str
        Name of the reference scheme.
    """
    task = ended.task
    pairs = {
        "task": task.key,
        "kind": task.kind,
        "name": task.name,
        "state": ended.state,
        "failure": ended.message,
        "anomalies": ", ".join(anomaly.kind for anomaly in anomalies),
        "references": references,
        **_names(task.labels),
        **_model_names(task.model),
        **_numbers(ended),
    }
    return {name: value for name, value in pairs.items() if value is not None and value != ""}


def data_of(ended: Ended, anomalies: tuple[Anomaly, ...]) -> dict[str, Any]:
    """Return what else is kept of a relaxation: how it went, and what it was made with."""
    task, end = ended.task, ended.end
    common = {
        "labels": _plain(task.labels),
        "settings": asdict(task.settings),
        "model": task.model,
        "versions": ended.versions,
        "anomalies": [
            {"kind": one.kind, "message": one.message, "atoms": [int(index) for index in one.atoms]}
            for one in anomalies
        ],
    }
    if isinstance(end, ESCNError):
        return common
    start = {"positions": task.atoms.positions, "cell": np.array(task.atoms.cell)}
    return {**common, "start": start, "history": history_arrays(end.history), "notes": list(end.notes)}


def labels_of(row: Any) -> Labels:
    """Return what the structure of a row is."""
    stored = row.data["labels"]
    return Labels(
        bulk=stored["bulk"],
        surface=stored["surface"],
        miller=None if stored["miller"] is None else tuple(map(int, stored["miller"])),  # type: ignore[arg-type]
        termination=stored["termination"],
        adsorbate=stored["adsorbate"],
        species=tuple(
            Species(one["name"], tuple((str(symbol), int(count)) for symbol, count in one["composition"]))
            for one in stored["species"]
        ),
        coverage=stored["coverage"],
        site=stored["site"],
    )


def _names(labels: Labels) -> dict[str, str | float | None]:
    return {name: getattr(labels, name) for name in ("bulk", "surface", "adsorbate", "site", "coverage")}


def _model_names(model: Mapping[str, Any]) -> dict[str, str | None]:
    return {"model_name": model.get("name", model.get("calculator")), "model_sha256": model.get("sha256")}


def _numbers(ended: Ended) -> dict[str, float]:
    end = ended.end
    if isinstance(end, ESCNError):
        return {}
    return {
        "steps": end.steps,
        "energy_change": end.energy_change,
        "max_displacement": end.max_displacement,
        "seconds": end.wall_time_s,
    }


def _plain(labels: Labels) -> dict[str, Any]:
    """Labels as lists and names, the same in every kind of database."""
    plain = asdict(labels)
    plain["miller"] = None if labels.miller is None else list(labels.miller)
    plain["species"] = [
        {"name": one.name, "composition": [list(entry) for entry in one.composition]} for one in labels.species
    ]
    return plain
