"""What is put on a surface: an adsorbate by name, as ``Atoms`` or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.symbols import string2symbols

from escn_calc.adsorption.catalogue import ALIASES, CATALOGUE, catalogue_spelling
from escn_calc.adsorption.geometry import Array
from escn_calc.errors import PARSE_ERRORS, InputError
from escn_calc.structure_input import read_structure

LONGEST_BOND = 1.3
"""Atoms of an adsorbate hang together by distances up to this multiple of the sum of covalent radii."""
SHORTEST_BOND = 0.6
"""Atoms nearer than this multiple of the sum of covalent radii are on top of each other."""


@dataclass(frozen=True, eq=False)
class Adsorbate:
    """A molecule or atom, as it stands on a surface.

    Attributes
    ----------
    name : str
    atoms : Atoms
        Not periodic. The surface is below: z points away from it. The middle of the binding atoms is at the origin. Å.
    binding : tuple of int
        Indices of the atoms that bind to the surface. Their middle goes above the site.
    """

    name: str
    atoms: Atoms
    binding: tuple[int, ...]


def adsorbate(
    source: str | Path | Atoms, binding: Sequence[int] | None = None, *, name: str | None = None
) -> Adsorbate:
    """Take an adsorbate from the catalogue, from a file or from ``Atoms``.

    Parameters
    ----------
    source : str, Path or Atoms
        A name from :func:`catalogue_names`, with or without the star of a bound species: ``"OH"``, ``"*OH"``,
        ``"OH*"``. Or a file, or ``Atoms``, with z away from the surface. A ``str`` that names an existing file and
        nothing in the catalogue is that file.
    binding : sequence of int, optional
        Atoms that bind. Unless given: for a name those of the catalogue, else the lowest atom.
    name : str, optional
        What to call it. Unless given: that of the catalogue, the stem of the file, or the formula of the atoms, which
        does not tell isomers apart: of COH it is CHO, the formyl of the catalogue.

    Raises
    ------
    InputError
        Unknown name (with suggestions), indices that do not exist, atoms on top of each other or in several pieces.
    """
    if isinstance(source, str | Path) and (known := _catalogue_name(str(source))):
        indices, atoms = CATALOGUE[known][0], _from_catalogue(known)
        usual = known
    elif isinstance(source, str | Path):
        atoms, usual = _from_file(source), Path(source).stem
        indices = (int(atoms.positions[:, 2].argmin()),)
    elif isinstance(source, Atoms):
        atoms, usual = source.copy(), source.get_chemical_formula()
        _check_is_molecule(name or usual, atoms)
        indices = (int(atoms.positions[:, 2].argmin()),)
    else:
        raise InputError(f"an adsorbate is a name, a file or ase.Atoms; found {type(source).__name__}")
    chosen = indices if binding is None else tuple(binding)
    called = name or usual
    _check_binding(called, atoms, chosen)
    bare = Atoms(atoms.numbers, atoms.positions - atoms.positions[list(chosen)].mean(axis=0))
    return Adsorbate(called, bare, chosen)


def catalogue_names() -> tuple[str, ...]:
    """Names of all adsorbates that need no file."""
    return tuple(CATALOGUE)


def separation(first: Atoms, second: Array, numbers: Sequence[int]) -> Array:
    """Distances of atoms (N, M) as multiples of the sums of their covalent radii."""
    radii = covalent_radii[first.numbers][:, None] + covalent_radii[list(numbers)][None]
    distances = np.linalg.norm(first.positions[:, None] - second[None], axis=-1)
    return np.asarray(distances / radii)


def _catalogue_name(name: str) -> str | None:
    known = catalogue_spelling(name)
    return known if known in CATALOGUE else None


def _from_catalogue(name: str) -> Atoms:
    rows = [row.split() for row in CATALOGUE[name][1].split(";")]
    return Atoms([row[0] for row in rows], [[float(value) for value in row[1:]] for row in rows])


def _from_file(source: str | Path) -> Atoms:
    path = Path(source)
    if isinstance(source, str) and not path.is_file() and not path.suffix and path.name == source:
        raise InputError(f"adsorbate {source!r} is not in the catalogue{_suggestion(source)}")
    atoms = read_structure(path)
    _check_is_molecule(str(path), atoms)
    return atoms


def _suggestion(name: str) -> str:
    bare = catalogue_spelling(name)
    known = [*CATALOGUE, *ALIASES]
    same_letters = [other for other in known if other.lower() == bare.lower()]
    same_atoms = [other for other in CATALOGUE if sorted(string2symbols(other)) == _symbols(bare)]
    close = list(dict.fromkeys([*same_letters, *same_atoms, *get_close_matches(bare, known, n=3, cutoff=0.5)]))[:3]
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}? Others are given as a file or ase.Atoms"
    return f"; it has {', '.join(CATALOGUE)}. Others are given as a file or ase.Atoms"


def _symbols(name: str) -> list[str]:
    try:
        return sorted(string2symbols(name))
    except PARSE_ERRORS:
        return []


def _check_is_molecule(name: str, atoms: Atoms) -> None:
    if len(atoms) == 0:
        raise InputError(f"adsorbate {name}: the structure has no atoms")
    ratios = separation(atoms, atoms.positions, atoms.numbers)
    apart = ratios + np.diag(np.full(len(atoms), np.inf))
    if apart.min() < SHORTEST_BOND:
        first, second = np.unravel_index(apart.argmin(), apart.shape)
        raise InputError(
            f"adsorbate {name}: atoms {first} and {second} are {atoms.get_distance(first, second):.2f} Å apart"
        )
    reached = np.zeros(len(atoms), dtype=bool)
    reached[0] = True
    for _ in range(len(atoms)):
        reached |= (ratios[reached] < LONGEST_BOND).any(axis=0)
    if not reached.all():
        raise InputError(
            f"adsorbate {name}: atom {int((~reached).argmax())} is not bonded to atom 0; "
            "give one molecule (several are a list of adsorbates, or a coverage)"
        )


def _check_binding(name: str, atoms: Atoms, binding: tuple[int, ...]) -> None:
    if not binding or len(set(binding)) < len(binding) or not set(binding) <= set(range(len(atoms))):
        raise InputError(
            f"adsorbate {name}: binding atoms {list(binding)} must be some of 0 to {len(atoms) - 1}, each once"
        )
