"""The crystal that slabs are cut from."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.build import bulk as ase_bulk
from ase.data import atomic_numbers, chemical_symbols, reference_states
from ase.symbols import string2symbols

from escn_calc.adsorption.soundness import check_is_solid
from escn_calc.errors import PARSE_ERRORS, InputError
from escn_calc.structure_input import read_structure

if TYPE_CHECKING:
    from pymatgen.core import Structure

CRYSTALS = ("sc", "fcc", "bcc", "hcp", "diamond", "zincblende", "rocksalt", "cesiumchloride", "fluorite", "wurtzite")
"""Crystal structures that a name can be combined with."""
SYMMETRY_TOLERANCE = 0.01
"""Å. So far may atoms of a crystal be from where its symmetry has them."""


@dataclass(frozen=True, eq=False)
class Bulk:
    """A crystal, in the cell that Miller indices refer to.

    Attributes
    ----------
    name : str
        How slabs of it are called: ``"Cu"`` in ``"Cu(111)"``.
    atoms : Atoms
        Periodic in all directions. Lengths in Å.
    """

    name: str
    atoms: Atoms

    @property
    def is_element(self) -> bool:
        """Whether all atoms are of one element."""
        return len(set(self.atoms.numbers)) == 1


def bulk(
    source: str | Path | Atoms | Structure,
    *,
    crystal: str | None = None,
    lattice: float | None = None,
    name: str | None = None,
) -> Bulk:
    """Take a crystal from where it is and bring it into the cell that Miller indices refer to.

    A primitive cell of a centred lattice (one atom of an fcc metal, two of rocksalt) is replaced by the conventional
    cell of the lattice; any other cell is kept as it stands, so that its own axes define the indices. (Which of two
    opposite facets of a polar crystal is (111) only a conventional cell says: a primitive one leaves it open.)

    Parameters
    ----------
    source : str, Path, Atoms or Structure
        Name of an element (``"Cu"``, in its structure at room temperature as ASE has it) or, with ``crystal`` and
        ``lattice``, of a binary compound (``"NaCl"``); a file that ASE or pymatgen can read, such as a CIF from the
        Materials Project; an ASE or pymatgen structure. A ``str`` that names an existing file is that file.
    crystal : str, optional
        For a name: one of ``CRYSTALS``.
    lattice : float, optional
        For a name: lattice constant a in Å. Hexagonal crystals keep the c/a that ASE knows, or the ideal one.
    name : str, optional
        What to call it; the name or the reduced formula unless given.

    Raises
    ------
    InputError
        Unknown name (with a suggestion), unreadable file, partly occupied sites, a structure that is not periodic in
        three directions or has vacuum in it, atoms on top of each other or all out of reach (a length in nm), or
        ``crystal`` and ``lattice`` for a structure that has its own.
    """
    if isinstance(source, str) and not Path(source).is_file():
        atoms = _from_name(source, crystal, lattice)
        check_is_solid(atoms, f"bulk {source!r}")
        return Bulk(name or source, _with_conventional_axes(atoms))
    if crystal is not None or lattice is not None:
        raise InputError("crystal and lattice belong to a bulk given by name; a structure has its own: leave them out")
    atoms = _from_structure(source)
    described = f"bulk {source if isinstance(source, str | Path) else atoms.get_chemical_formula()}"
    _check_is_periodic(atoms, described)
    check_is_solid(atoms, described)
    return Bulk(name or atoms.symbols.formula.reduce()[0].format("metal"), _with_conventional_axes(atoms))


def _from_name(name: str, crystal: str | None, lattice: float | None) -> Atoms:
    if crystal is not None and crystal not in CRYSTALS:
        raise InputError(
            f"crystal structure {crystal!r} is unknown{_suggestion(crystal, CRYSTALS)}; known: {', '.join(CRYSTALS)}"
        )
    if lattice is not None and not (np.isfinite(lattice) and lattice > 0):
        raise InputError(f"bulk {name!r}: the lattice constant is {lattice} Å; it must be positive")
    _check_is_formula(name)
    cubic = (crystal or _usual_structure(name)) in set(CRYSTALS) - {"hcp", "wurtzite"}
    try:
        return ase_bulk(name, crystal, a=lattice, cubic=cubic)
    except PARSE_ERRORS as error:
        raise InputError(
            f"bulk {name!r}: {error}. Give its crystal structure ({', '.join(CRYSTALS)}) and lattice constant, "
            "or a file"
        ) from error


def _usual_structure(name: str) -> str | None:
    known = reference_states[atomic_numbers[name]] if name in atomic_numbers else None
    return str(known["symmetry"]) if known else None


def _check_is_formula(name: str) -> None:
    try:
        symbols = string2symbols(name)
    except PARSE_ERRORS:
        symbols = []
    if not symbols or not set(symbols) <= set(chemical_symbols[1:]):
        raise InputError(
            f"bulk {name!r} is neither a file nor the name of an element or compound"
            f"{_suggestion(name, chemical_symbols[1:])}"
        )


def _from_structure(source: str | Path | Atoms | Structure) -> Atoms:
    if isinstance(source, Atoms):
        return source.copy()
    if isinstance(source, str | Path):
        return read_structure(Path(source))
    from pymatgen.core import Structure
    from pymatgen.io.ase import AseAtomsAdaptor

    if not isinstance(source, Structure):
        raise InputError(f"a bulk is a name, a file, ase.Atoms or a pymatgen Structure; found {type(source).__name__}")
    if not source.is_ordered:
        raise InputError(f"the structure {source.formula} has partly occupied sites; give an ordered structure")
    return AseAtomsAdaptor.get_atoms(source, msonable=False)


def _check_is_periodic(atoms: Atoms, name: str) -> None:
    if not (atoms.pbc.all() and abs(atoms.cell.volume) > 1e-3):
        raise InputError(
            f"{name}: a crystal is periodic in three directions; found pbc "
            f"{''.join('FT'[int(flag)] for flag in atoms.pbc)} and a cell of {abs(atoms.cell.volume):.3g} Å³. "
            "A slab is given as a slab, not as a bulk"
        )


def _with_conventional_axes(atoms: Atoms) -> Atoms:
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    structure: Structure = AseAtomsAdaptor.get_structure(bare)
    conventional = SpacegroupAnalyzer(structure, SYMMETRY_TOLERANCE).get_conventional_standard_structure()
    if len(conventional) > len(bare):
        return AseAtomsAdaptor.get_atoms(conventional, msonable=False)
    return bare


def _suggestion(found: str, known: tuple[str, ...] | list[str]) -> str:
    same_letters = [other for other in known if other.lower() == found.lower()]
    close = same_letters or get_close_matches(found, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
