"""What has become of the adsorbates between the first frame of a relaxation and a later one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from ase.geometry import find_mic

from escn_calc.adsorption.anomalies.adlayer import Adlayer, Molecule
from escn_calc.adsorption.anomalies.anomaly import Anomaly, named

if TYPE_CHECKING:
    from escn_calc.adsorption.anomalies.neighbours import Pairs
    from escn_calc.adsorption.anomalies.thresholds import Thresholds

CAGE = 1.0
"""Å. Slab atoms with an excess below this make the walls around an atom that has gone below the surface."""


def adsorbate_anomalies(start: Adlayer, now: Adlayer, thresholds: Thresholds) -> Iterator[Anomaly]:
    """Yield what has become of the adsorbates: first what disqualifies, then what is worth a note."""
    grave = past_return(start, now, thresholds)
    yield from grave
    if not len(now.slab):
        return
    for molecule in now.molecules:
        kinds = {one.kind for one in grave if set(molecule) & set(one.atoms)}
        if kinds & {"desorbed", "intercalated"}:
            continue
        if not is_bound(now, molecule, thresholds):
            yield weakly_bound(now, molecule)
        elif not kinds:
            yield from migrations(start, now, molecule, thresholds)


def past_return(start: Adlayer, now: Adlayer, thresholds: Thresholds) -> list[Anomaly]:
    """What no longer lets the relaxation end as that of the adsorbate on the surface."""
    return [
        *departures(start, now, thresholds),
        *bond_changes(start, now),
        *intercalations(now, thresholds),
    ]


def departures(start: Adlayer, now: Adlayer, thresholds: Thresholds) -> Iterator[Anomaly]:
    """Yield the molecules that have left the slab, and those that have left it for its other side."""
    for molecule in now.molecules:
        who = f"desorbed: {named(now.atoms, molecule)}"
        if is_departed(now, molecule, thresholds):
            away = f"is more than {thresholds.desorption:g} Å from the slab and from all that stands on it"
            yield Anomaly("desorbed", f"{who} {away}", molecule)
        elif has_changed_sides(start, now, molecule, thresholds):
            yield Anomaly("desorbed", f"{who} has left its side of the slab and sits on the other one", molecule)


def has_changed_sides(start: Adlayer, now: Adlayer, molecule: Molecule, thresholds: Thresholds) -> bool:
    """Whether a molecule is on one side of the slab, and all of its atoms were on the other."""
    side = now.side(molecule)
    if side == 0 or any(is_enclosed(now, atom, thresholds) for atom in molecule):
        return False
    return {start.side((atom,)) for atom in molecule} - {0} == {-side}


def is_departed(layer: Adlayer, molecule: Molecule, thresholds: Thresholds) -> bool:
    """Whether a molecule is not among those that are held near the slab, directly or by others."""
    return len(layer.slab) > 0 and molecule[0] not in layer.near_slab(thresholds.desorption)


def is_bound(layer: Adlayer, molecule: Molecule, thresholds: Thresholds) -> bool:
    """Whether an atom of a molecule is bonded to the slab."""
    return bool((layer.contacts_of(molecule).excess <= thresholds.surface_bond).any())


def bond_changes(start: Adlayer, now: Adlayer) -> Iterator[Anomaly]:
    """Yield molecules that fell apart, that were formed from several, or whose atoms are bonded otherwise."""
    origin = {atom: molecule for molecule in start.molecules for atom in molecule}
    parts: dict[Molecule, list[Molecule]] = {molecule: [] for molecule in start.molecules}
    for molecule in now.molecules:
        sources = {origin[atom] for atom in molecule}
        for source in sources:
            parts[source].append(molecule)
        if len(sources) > 1:
            words = " and ".join(named(now.atoms, source) for source in sorted(sources))
            yield Anomaly("recombined", f"recombined: {named(now.atoms, molecule)} has atoms of {words}", molecule)
    for molecule, products in parts.items():
        if len(products) > 1:
            pieces = [[atom for atom in product if atom in molecule] for product in products]
            words = " and ".join(named(now.atoms, piece) for piece in pieces)
            yield Anomaly(
                "dissociated", f"dissociated: {named(now.atoms, molecule)} has come apart into {words}", molecule
            )
        elif products == [molecule] and _bonds_in(start, molecule) != _bonds_in(now, molecule):
            changed = sorted(_bonds_in(start, molecule) ^ _bonds_in(now, molecule))
            words = ", ".join(_described(now, bond) for bond in changed)
            yield Anomaly("rearranged", f"rearranged: {named(now.atoms, molecule)} {words}", molecule)


def _bonds_in(layer: Adlayer, molecule: Molecule) -> set[tuple[int, int]]:
    return {bond for bond in layer.bonds if bond[0] in molecule}


def _described(now: Adlayer, bond: tuple[int, int]) -> str:
    one, other = (f"{now.atoms.symbols[atom]} {atom}" for atom in bond)
    return f"has {'formed' if bond in now.bonds else 'lost'} the bond {one} - {other}"


def intercalations(now: Adlayer, thresholds: Thresholds) -> Iterator[Anomaly]:
    """Yield the atoms that are below the surface."""
    sunk = tuple(atom for atom in now.adsorbate.tolist() if is_enclosed(now, atom, thresholds))
    if sunk:
        words = f"no cone of {thresholds.enclosure:g}° above it is free of slab atoms"
        yield Anomaly("intercalated", f"intercalated: {named(now.atoms, sunk)} is below the surface: {words}", sunk)


def is_enclosed(layer: Adlayer, atom: int, thresholds: Thresholds) -> bool:
    """Whether slab atoms leave an atom no way out."""
    contacts = layer.contacts_of([atom])
    walls = contacts.where(contacts.excess <= CAGE)
    return widest_cone(walls) < thresholds.enclosure


def widest_cone(walls: Pairs) -> float:
    """Half-angle in degrees of the widest cone from the first atom that holds none of the second ones.

    180 without any. Up to 90 it is exact: the axis of the widest cone then is equally far from three atoms.
    """
    if len(walls.first) < 4:
        return 180.0
    directions = walls.vectors / walls.distances[:, None]
    one, two, three = (
        directions[list(corners)] for corners in zip(*combinations(range(len(directions)), 3), strict=True)
    )
    axes = np.cross(two - one, three - one)
    lengths = np.linalg.norm(axes, axis=1)
    axes = axes[lengths > 1e-6] / lengths[lengths > 1e-6, None]
    if not len(axes):
        return 180.0
    nearest = (np.concatenate((axes, -axes)) @ directions.T).max(axis=1).min()
    return float(np.degrees(np.arccos(np.clip(nearest, -1, 1))))


def weakly_bound(now: Adlayer, molecule: Molecule) -> Anomaly:
    """Say how near the slab a molecule is that has no bond to it."""
    contacts = now.contacts_of(molecule)
    words = "it stands on other adsorbates"
    if len(contacts.first):
        nearest = contacts.excess.argmin()
        ends = (contacts.first[nearest], contacts.second[nearest])
        one, other = (f"{now.atoms.symbols[atom]} {atom}" for atom in ends)
        words = f"the nearest contact is {one} - {other}, {contacts.distances[nearest]:.2f} Å"
    return Anomaly(
        "physisorbed", f"physisorbed: {named(now.atoms, molecule)} has no bond to the slab; {words}", molecule
    )


def migrations(start: Adlayer, now: Adlayer, molecule: Molecule, thresholds: Thresholds) -> Iterator[Anomaly]:
    """Yield that a molecule is bonded to the slab at another place than that where it started, if so.

    Both what binds it now and what was nearest to the slab at the start must have moved along the surface, relative to
    the slab atoms nearest to it at the start: a molecule may turn over on its site.
    """
    moves, _ = find_mic(now.atoms.positions - start.atoms.positions, now.atoms.cell, now.atoms.pbc)
    drift = np.median(moves[start.anchors(molecule)], axis=0)
    moved = min(
        np.linalg.norm(now.along_surface(moves[layer.binding_atoms(molecule)].mean(axis=0) - drift))
        for layer in (start, now)
    )
    if moved > thresholds.migration:
        before, after = (layer.coordination(molecule, thresholds.surface_bond) for layer in (start, now))
        words = f"moved {moved:.2f} Å along the surface; bonds to {after} slab atoms, at the start to {before}"
        yield Anomaly("migrated", f"migrated: {named(now.atoms, molecule)} {words}", molecule)
