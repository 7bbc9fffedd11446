"""All anomalies of a finished relaxation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from escn_calc.adsorption.anomalies.adlayer import Adlayer
from escn_calc.adsorption.anomalies.adsorbates import adsorbate_anomalies
from escn_calc.adsorption.anomalies.anomaly import Anomaly, named
from escn_calc.adsorption.anomalies.neighbours import pairs_within
from escn_calc.adsorption.anomalies.surface import surface_anomalies
from escn_calc.adsorption.anomalies.thresholds import Thresholds
from escn_calc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.familiarity import UnfamiliarAtom
    from escn_calc.relax_result import Reason

ADSORBATE_TAG = 2
"""Tag of the atoms of adsorbates; 0 and 1 are those of the slab, as in OC20."""


def find_anomalies(
    initial: Atoms,
    final: Atoms,
    *,
    slab: Atoms | None = None,
    adsorbate: Sequence[int] | np.ndarray | None = None,
    reason: Reason = "converged",
    fmax: float | None = None,
    unfamiliar: Sequence[UnfamiliarAtom] = (),
    thresholds: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> tuple[Anomaly, ...]:
    """Compare the last frame of a relaxation with the first.

    Works for an adsorbate, or several, on a slab, for a slab without any, and for a molecule alone.

    Parameters
    ----------
    initial, final : Atoms
        The same atoms in the same order and cell; wrapped or not.
    slab : Atoms or None
        The relaxed clean slab, its atoms in the order they have in ``initial``: what its own relaxation moves is then
        not laid to the adsorbate. None compares with ``initial``.
    adsorbate : sequence of int or None
        Indices of the atoms of adsorbates; None for those with tag 2. For a molecule alone: all.
    reason : str
        How the relaxation ended, as :class:`escn_calc.relax_result.RelaxResult` has it.
    fmax : float or None
        Largest force on an atom in the last frame, in eV/Å, if known.
    unfamiliar : sequence of UnfamiliarAtom
        What :func:`escn_calc.familiarity.unfamiliar_atoms` found in ``final``.
    thresholds : Thresholds
        What counts as what.

    Returns
    -------
    tuple of Anomaly
        Those that disqualify the result first.

    Raises
    ------
    InputError
        Structures of different atoms, tags other than 0, 1, 2 where they are needed, or an index that is no atom.
    """
    _check_same_atoms(initial, final, "the final structure")
    members = adsorbate_atoms(initial, adsorbate)
    explosion = list(beyond_reason(final, fmax, thresholds)) or list(collisions(final, thresholds))
    found = explosion or [
        *_of_adsorbates(initial, final, members, thresholds),
        *_of_slab(initial, final, members, slab, thresholds),
        *_of_familiarity(final, unfamiliar),
    ]
    if reason != "stopped" or not any(anomaly.disqualifies for anomaly in found):
        found += _unfinished(reason)
    return tuple(sorted(found, key=lambda anomaly: not anomaly.disqualifies))


def adsorbate_atoms(atoms: Atoms, given: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """Return the indices of the atoms of adsorbates, in rising order.

    Parameters
    ----------
    atoms : Atoms
        The first frame.
    given : sequence of int or None
        Indices; None for the atoms with tag 2.

    Raises
    ------
    InputError
        Tags other than 0, 1, 2, or an index that is no atom.
    """
    if given is None:
        strange = sorted(set(atoms.get_tags().tolist()) - {0, 1, ADSORBATE_TAG})
        if strange:
            raise InputError(
                f"{atoms.symbols} has atoms with tag {strange[0]}; slab atoms have tag 0 or 1 and adsorbates "
                f"{ADSORBATE_TAG}: set the tags, or give the indices of the adsorbates' atoms"
            )
        return np.flatnonzero(atoms.get_tags() == ADSORBATE_TAG)
    indices = np.unique(np.asarray(given, dtype=int))
    wrong = indices[(indices < 0) | (indices >= len(atoms))]
    if len(wrong):
        raise InputError(f"{atoms.symbols} has no atom {wrong[0]}: its {len(atoms)} atoms are counted from 0")
    return indices


def beyond_reason(atoms: Atoms, fmax: float | None, thresholds: Thresholds) -> Iterator[Anomaly]:
    """Yield that positions are not finite, or that the largest force is beyond all reason."""
    if not np.isfinite(atoms.positions).all():
        yield Anomaly("exploded", "exploded: positions are not finite")
    elif fmax is not None and not fmax <= thresholds.force:
        yield Anomaly("exploded", f"exploded: the largest force is {fmax:.4g} eV/Å, above {thresholds.force:g} eV/Å")


def collisions(atoms: Atoms, thresholds: Thresholds) -> Iterator[Anomaly]:
    """Yield two atoms that have run into each other."""
    pairs = pairs_within(atoms, LARGEST_DIAMETER * thresholds.collision, np.arange(len(atoms)))
    sums_of_radii = pairs.distances - pairs.excess
    short = pairs.where((pairs.distances < thresholds.collision * sums_of_radii) & (pairs.first <= pairs.second))
    if len(short.first):
        one, other = int(short.first[0]), int(short.second[0])
        words = f"{named(atoms, [one, other])} are {short.distances[0]:.2f} Å apart"
        yield Anomaly("exploded", f"exploded: {words}", (one, other))


LARGEST_DIAMETER = 5.2
"""Å. Twice the largest covalent radius."""


def _of_adsorbates(initial: Atoms, final: Atoms, members: np.ndarray, thresholds: Thresholds) -> Iterator[Anomaly]:
    if not len(members):
        return
    start = Adlayer.of(initial, members, thresholds)
    yield from adsorbate_anomalies(start, Adlayer.of(final, members, thresholds, start), thresholds)


def _of_slab(
    initial: Atoms, final: Atoms, members: np.ndarray, slab: Atoms | None, thresholds: Thresholds
) -> Iterator[Anomaly]:
    indices = np.setdiff1d(np.arange(len(initial)), members)
    if not len(indices):
        return
    reference = initial[indices]
    if slab is not None:
        _check_same_atoms(reference, slab, "the clean slab")
        reference = slab
    yield from surface_anomalies(reference, final, indices, thresholds)


def _of_familiarity(final: Atoms, unfamiliar: Sequence[UnfamiliarAtom]) -> Iterator[Anomaly]:
    if unfamiliar:
        worst = max(unfamiliar, key=lambda atom: atom.times_the_limit)
        symbol = final.symbols[worst.index]
        words = (
            f"the model's training data have too few atoms of {symbol} to know its surroundings"
            if worst.limit is None
            else f"{symbol} {worst.index} is {worst.times_the_limit:.1f} times farther from the model's training data "
            "than nearly all atoms like those in it"
        )
        members = tuple(atom.index for atom in unfamiliar)
        yield Anomaly("unfamiliar atoms", f"unfamiliar atoms: {named(final, members)}; {words}", members)


def _unfinished(reason: Reason) -> list[Anomaly]:
    if reason == "converged":
        return []
    return [Anomaly("not converged", f"not converged: the relaxation ended with {reason!r}")]


def _check_same_atoms(one: Atoms, other: Atoms, what: str) -> None:
    if not np.array_equal(one.numbers, other.numbers):
        raise InputError(f"{what} is {other.symbols}, not {one.symbols}: give the same atoms in the same order")
    if not np.allclose(one.cell.array, other.cell.array, atol=1e-3):
        raise InputError(f"{what} has another cell than the initial structure; anomalies are found at a fixed cell")
