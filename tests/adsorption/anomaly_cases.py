"""The labelled cases of anomalies: structures in ``cases.npz``, what is true of them in ``truth.csv``.

``python -m tests.adsorption.write_anomaly_cases`` makes the structures anew. The truth was decided by looking at them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

DATA = Path(__file__).parents[1] / "data" / "anomalies"


@dataclass(frozen=True, eq=False)
class Case:
    """First and last frame of a relaxation, or of one made up by hand."""

    name: str
    initial: Atoms
    final: Atoms
    reason: str = "converged"
    fmax: float = 0.0


def write_cases(cases: Sequence[Case], path: Path = DATA / "cases.npz") -> None:
    """Write structures, positions to 1e-4 Å."""
    np.savez_compressed(
        path,
        name=np.array([case.name for case in cases]),
        reason=np.array([case.reason for case in cases]),
        fmax=np.array([case.fmax for case in cases]),
        natoms=np.array([len(case.initial) for case in cases]),
        cell=np.array([case.initial.cell.array for case in cases]),
        pbc=np.array([case.initial.pbc for case in cases]),
        numbers=np.concatenate([case.initial.numbers for case in cases]),
        tags=np.concatenate([case.initial.get_tags() for case in cases]),
        initial=np.concatenate([case.initial.positions for case in cases]).round(4).astype(np.float32),
        final=np.concatenate([case.final.positions for case in cases]).round(4).astype(np.float32),
    )


def read_cases(path: Path = DATA / "cases.npz") -> list[Case]:
    """Read what ``write_cases`` has written."""
    with np.load(path, allow_pickle=False) as stored:
        data = {name: stored[name] for name in stored.files}
    ends = data["natoms"].cumsum()
    return [
        _case(data, index, slice(end - count, end))
        for index, (end, count) in enumerate(zip(ends, data["natoms"], strict=True))
    ]


def _case(data: dict[str, np.ndarray], index: int, span: slice) -> Case:
    frames = [
        Atoms(
            data["numbers"][span],
            data[which][span].astype(float),
            cell=data["cell"][index],
            pbc=data["pbc"][index],
            tags=data["tags"][span],
        )
        for which in ("initial", "final")
    ]
    return Case(str(data["name"][index]), *frames, str(data["reason"][index]), float(data["fmax"][index]))


def read_truth(path: Path = DATA / "truth.csv") -> dict[str, frozenset[str]]:
    """Kinds of anomalies that are true of each case, by its name."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["case"]: frozenset(filter(None, row["truth"].split("; "))) for row in csv.DictReader(file)}
