"""The adsorbates of one frame: which atoms are molecules, and what they touch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from escn_calc.adsorption.anomalies.neighbours import Pairs, pairs_within

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.adsorption.anomalies.thresholds import Thresholds

LONGEST_BOND = 4.0
"""Å. No two atoms that are bonded are farther apart."""

SAME_SHELL = 0.3
"""Å. Atoms of a molecule that are nearer to the surface than its nearest one plus this bind it together."""

Molecule = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Adlayer:
    """The adsorbates of one frame.

    Attributes
    ----------
    atoms : the whole frame.
    adsorbate, slab : (A,), (S,) indices of the atoms of either.
    bonds : pairs of bonded atoms of adsorbates, the smaller index first.
    molecules : the groups of bonded atoms, with indices in rising order.
    pairs : of an atom of an adsorbate and any other atom.
    """

    atoms: Atoms
    adsorbate: np.ndarray
    slab: np.ndarray
    bonds: frozenset[tuple[int, int]]
    molecules: tuple[Molecule, ...]
    pairs: Pairs
    _near_slab: dict[float, frozenset[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, atoms: Atoms, adsorbate: np.ndarray, thresholds: Thresholds, before: Adlayer | None = None) -> Adlayer:
        """Find the molecules of a frame.

        Parameters
        ----------
        atoms : the frame.
        adsorbate : (A,) indices.
        thresholds : what counts as a bond.
        before : the first frame, whose bonds hold until they are broken; None if this is the first, where a bond is
            what lies on the near side of the middle between formed and broken.
        """
        pairs = pairs_within(atoms, max(thresholds.desorption, LONGEST_BOND), adsorbate)
        among = pairs.where(np.isin(pairs.second, adsorbate) & (pairs.first < pairs.second))
        if before is None:
            bonds = _joined(among, (thresholds.bond_formed + thresholds.bond_broken) / 2)
        else:
            kept = before.bonds & _joined(among, thresholds.bond_broken)
            bonds = kept | _joined(among, thresholds.bond_formed)
        slab = np.setdiff1d(np.arange(len(atoms)), adsorbate)
        return cls(atoms, adsorbate, slab, bonds, groups(adsorbate.tolist(), bonds), pairs)

    @cached_property
    def contacts(self) -> Pairs:
        """Pairs of an atom of an adsorbate and one of the slab."""
        return self.pairs.where(np.isin(self.pairs.second, self.slab))

    def contacts_of(self, molecule: Iterable[int]) -> Pairs:
        """Contacts of some atoms with the slab."""
        return self.contacts.where(np.isin(self.contacts.first, list(molecule)))

    def nearest_contacts(self, molecule: Molecule) -> Pairs:
        """Contacts of the atoms nearest to the slab, those of hydrogen only if there is nothing else."""
        numbers = self.atoms.numbers
        contacts = self.contacts_of([index for index in molecule if numbers[index] > 1] or molecule)
        return contacts.where(contacts.excess <= contacts.excess.min(initial=np.inf) + SAME_SHELL)

    def binding_atoms(self, molecule: Molecule) -> np.ndarray:
        """Atoms of a molecule that bind it to the slab; all if none is near."""
        nearest = self.nearest_contacts(molecule)
        return np.unique(nearest.first) if len(nearest.first) else np.array(molecule)

    def anchors(self, molecule: Molecule) -> np.ndarray:
        """Slab atoms nearest to a molecule; all if none is near."""
        nearest = self.nearest_contacts(molecule)
        return np.unique(nearest.second) if len(nearest.first) else self.slab

    def coordination(self, molecule: Molecule, excess: float) -> int:
        """Number of bonds between the slab and the atoms that bind a molecule."""
        return int((self.contacts_of(self.binding_atoms(molecule)).excess <= excess).sum())

    def near_slab(self, distance: float) -> frozenset[int]:
        """Atoms of adsorbates that steps from molecule to molecule up to a distance link to the slab."""
        if distance not in self._near_slab:
            near = self.pairs.where(self.pairs.distances <= distance)
            partner = np.where(np.isin(near.second, self.slab), _SLAB, near.second)
            links = {*zip(near.first.tolist(), partner.tolist(), strict=True), *self.bonds}
            linked = groups([_SLAB, *self.adsorbate.tolist()], links)
            self._near_slab[distance] = frozenset(linked[0]) - {_SLAB}
        return self._near_slab[distance]

    def side(self, molecule: Molecule) -> int:
        """+1 above the slab (along a × b), -1 below it, 0 where that has no meaning or cannot be told."""
        nearest = self.nearest_contacts(molecule)
        if not (self.atoms.pbc[0] and self.atoms.pbc[1]) or not len(nearest.first):
            return 0
        upwards = (-(nearest.vectors / nearest.distances[:, None]) @ self.normal).mean()
        return int(np.sign(upwards)) if abs(upwards) > CLEARLY_ABOVE else 0

    def along_surface(self, vector: np.ndarray) -> np.ndarray:
        """Part of a vector (3,) along the surface; all of it where there is none."""
        return vector - (vector @ self.normal) * self.normal

    @cached_property
    def normal(self) -> np.ndarray:
        """Unit vector along a × b; zero where one of them is missing."""
        normal = np.cross(self.atoms.cell[0], self.atoms.cell[1])
        return normal / (np.linalg.norm(normal) or 1.0)


_SLAB = -1
"""Stands for the whole slab among the atoms of adsorbates."""

CLEARLY_ABOVE = 0.1
"""Mean cosine between the contacts and the normal from which an adsorbate counts as above the slab, not in it."""


def groups(members: Sequence[int], links: Iterable[tuple[int, int]]) -> tuple[Molecule, ...]:
    """Return the connected groups of members, each in rising order, by their smallest member."""
    group_of = {member: {member} for member in members}
    for one, other in links:
        if group_of[one] is not group_of[other]:
            merged = group_of[one] | group_of[other]
            for member in merged:
                group_of[member] = merged
    distinct = {min(group): tuple(sorted(group)) for group in group_of.values()}
    return tuple(distinct[first] for first in sorted(distinct))


def _joined(pairs: Pairs, excess: float) -> frozenset[tuple[int, int]]:
    near = pairs.excess <= excess
    return frozenset(zip(pairs.first[near].tolist(), pairs.second[near].tolist(), strict=True))
