"""The unit of work of a campaign: the relaxation of one structure, named by its content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.io.jsonio import encode

from escn_calc.adsorption.species import Species
from escn_calc.cell_relaxation import Cell

Kind = Literal["bulk", "gas", "slab", "adslab"]
KINDS: tuple[Kind, ...] = ("bulk", "gas", "slab", "adslab")

KIND_WORDS: dict[str, str] = {
    "bulk": "bulks",
    "gas": "gas molecules",
    "slab": "clean slabs",
    "adslab": "slabs with adsorbates",
}

DECIMALS = 6
"""Positions and cells are compared to so many decimals of an Å."""


@dataclass(frozen=True)
class Labels:
    """What a structure is, for tables; empty or None where it does not apply.

    Attributes
    ----------
    bulk, surface : str
        Names such as ``"Cu"`` and ``"Cu(111)"``.
    miller : tuple of int or None
        None for a slab from a file.
    termination : str
        Which of several.
    adsorbate : str
        ``"OH"``, or ``"CO+O"`` for several together.
    species : tuple of Species
        What is adsorbed, one entry for each molecule.
    coverage : float or None
        Monolayers as asked for.
    site : str
        Where the adsorbate was put.
    """

    bulk: str = ""
    surface: str = ""
    miller: tuple[int, int, int] | None = None
    termination: str = ""
    adsorbate: str = ""
    species: tuple[Species, ...] = ()
    coverage: float | None = None
    site: str = ""

    @property
    def system(self) -> tuple[str, str, float | None]:
        """What placements compete in: surface, adsorbate and coverage."""
        return self.surface, self.adsorbate, self.coverage


@dataclass(frozen=True)
class RelaxationSettings:
    """How structures are relaxed; named as the parameters of ``relax_batch``."""

    optimizer: str
    fmax: float
    steps: int
    smax: float
    cell: Cell = "fixed"


@dataclass(frozen=True, eq=False)
class Task:
    """One relaxation.

    Attributes
    ----------
    kind : str
        ``"bulk"``, ``"gas"``, ``"slab"`` or ``"adslab"``.
    name : str
        For people: ``"Cu(111) OH fcc"``.
    atoms : Atoms
        The structure as its relaxation starts, with its constraints.
    settings : RelaxationSettings
        How it is relaxed.
    model : dict
        What makes the numbers, as values that JSON can hold.
    labels : Labels
        What it is.
    """

    kind: Kind
    name: str
    atoms: Atoms
    settings: RelaxationSettings
    model: dict[str, Any]
    labels: Labels

    @cached_property
    def key(self) -> str:
        """The content as one word: tasks with the same key have the same result."""
        content = {
            "kind": self.kind,
            "system": [self.labels.bulk, *self.labels.system],
            "structure": structure_digest(self.atoms),
            "settings": asdict(self.settings),
            "model": self.model,
        }
        return f"{self.kind}-{_sha256(json.dumps(content, sort_keys=True))}"


def structure_digest(atoms: Atoms) -> str:
    """Return the sha256 of what a relaxation depends on, lengths to 1e-6 Å."""
    arrays = (
        atoms.numbers.astype(np.int64),
        _rounded(atoms.positions),
        _rounded(np.array(atoms.cell)),
        atoms.pbc,
    )
    digests = [hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() for values in arrays]
    return _sha256(json.dumps([*digests, encode(atoms.constraints)]))


def without_repeats(tasks: list[Task]) -> tuple[Task, ...]:
    """Return tasks of which no two are the same: the first of each."""
    return tuple({task.key: task for task in reversed(tasks)}.values())[::-1]


def _rounded(lengths: np.ndarray) -> np.ndarray:
    return np.round(lengths * 10**DECIMALS).astype(np.int64)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
