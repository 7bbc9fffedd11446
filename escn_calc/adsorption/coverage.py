"""Several molecules on one slab: how many a coverage means, and where they go."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from escn_calc.adsorption.adsorbates import Adsorbate
from escn_calc.adsorption.geometry import Array, exposed_atoms, images, shortest
from escn_calc.adsorption.slabs import Slab
from escn_calc.errors import InputError

STEEPNESS = 6
"""Molecules repel one another with this power of the distance while they are spread."""
WHOLE = 1e-3
"""So far may a number of molecules be from a whole one: 0.333 monolayers of 9 atoms are 3."""


def copies(slab: Slab, coverage: float) -> int:
    """Number of molecules on a slab at a coverage in monolayers: molecules per exposed atom.

    Raises
    ------
    InputError
        The coverage is not positive, or is no whole number of molecules; the message says which are next to it.
    """
    atoms = len(exposed_atoms(slab.atoms))
    number = coverage * atoms
    if not np.isfinite(number) or number <= 0:
        raise InputError(f"coverage is {coverage}; it must be positive (monolayers)")
    if round(number) < 1 or abs(number - round(number)) > WHOLE * atoms:
        possible = [f"{count}/{atoms} = {count / atoms:.3f}" for count in (int(number), int(number) + 1) if count > 0]
        raise InputError(
            f"{slab.name}: a coverage of {coverage:g} monolayers is {number:.2f} molecules on {atoms} exposed atoms; "
            f"possible are {' and '.join(possible)}, or another supercell"
        )
    return round(number)


def arranged(
    molecules: Sequence[Adsorbate], places: Mapping[str, Array], lattice: Array
) -> Iterator[tuple[tuple[str, ...], list[Array]]]:
    """Go through the sites for each kind of molecule, and put them as far from one another as the cell allows.

    Parameters
    ----------
    molecules : sequence of Adsorbate
        Equal names are equal molecules: they go on equal sites.
    places : mapping
        Name of a unique site → all places (K, 2) in the cell that symmetry makes equal to it, Å.
    lattice : ndarray (2, 2)
        Of the cell, Å.

    Yields
    ------
    names : tuple of str
        The site of each kind of molecule.
    points : list of ndarray (2,)
        Where each molecule goes.
    """
    kinds = list(dict.fromkeys(molecule.name for molecule in molecules))
    for names in itertools.product(places, repeat=len(kinds)):
        candidates = [places[names[kinds.index(molecule.name)]] for molecule in molecules]
        yield names, spread(candidates, lattice)


def spread(candidates: Sequence[Array], lattice: Array) -> list[Array]:
    """Choose one of several places for each molecule so that Σ d⁻⁶ over all pairs and images is small.

    The first molecule takes its first place, every other one the best that is left; then each moves as long as that
    helps. The result is a minimum against moving any one molecule but the first.
    """
    chosen = [candidates[0][0]]
    for places in candidates[1:]:
        chosen.append(places[_best(places, chosen, lattice)])
    for _ in range(len(candidates)):
        before = np.array(chosen)
        for molecule in range(1, len(chosen)):
            others = chosen[:molecule] + chosen[molecule + 1 :]
            chosen[molecule] = candidates[molecule][_best(candidates[molecule], others, lattice)]
        if np.allclose(before, chosen):
            break
    return chosen


def _best(places: Array, others: Sequence[Array], lattice: Array) -> int:
    apart = shortest(np.array(others)[None] - places[:, None], lattice)[:, :, None] + images(lattice, 0.0)
    distances = np.maximum(np.linalg.norm(apart, axis=-1), 1e-3)
    repulsion = (distances**-STEEPNESS).sum(axis=(1, 2))
    return int(np.argmax(repulsion <= repulsion.min() * (1 + 1e-6)))
