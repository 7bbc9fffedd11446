"""One finding about a relaxation, and the words for atoms in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ase import Atoms

Kind = Literal[
    "exploded",
    "not converged",
    "desorbed",
    "dissociated",
    "rearranged",
    "recombined",
    "intercalated",
    "reconstructed",
    "physisorbed",
    "migrated",
    "slab atoms moved",
    "unfamiliar atoms",
]
NOTES: frozenset[Kind] = frozenset({"physisorbed", "migrated", "slab atoms moved", "unfamiliar atoms"})
"""Kinds after which the energy still is that of this adsorbate on this surface."""

ATOMS_NAMED = 8
"""So many indices are in the words for a group of atoms."""


@dataclass(frozen=True)
class Anomaly:
    """One finding.

    Attributes
    ----------
    kind : str
        One of :data:`Kind`.
    message : str
        What was found, with atoms and distances.
    atoms : tuple of int
        Indices of the atoms concerned; empty if it is the structure as a whole.
    """

    kind: Kind
    message: str
    atoms: tuple[int, ...] = ()

    @property
    def disqualifies(self) -> bool:
        """Whether the energy is not that of a relaxed structure of this adsorbate on this surface."""
        return self.kind not in NOTES


def named(atoms: Atoms, indices: Iterable[int]) -> str:
    """Formula and indices of a group of atoms: ``CO (atoms 8, 9)``."""
    group = list(indices)
    shown = ", ".join(map(str, group[:ATOMS_NAMED])) + (", …" if len(group) > ATOMS_NAMED else "")
    return f"{atoms.symbols[group].get_chemical_formula()} (atom{'s' * (len(group) > 1)} {shown})"
