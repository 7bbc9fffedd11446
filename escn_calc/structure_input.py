"""Reading a structure from a file and choosing the atoms that stay where they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from escn_calc.errors import PARSE_ERRORS, InputError

if TYPE_CHECKING:
    from ase import Atoms


def read_structure(path: Path, index: int = -1) -> Atoms:
    """Read one structure with its constraints.

    ASE reads the file. Where ASE does not know the format or cannot parse the file, pymatgen is tried.

    Parameters
    ----------
    path : Path
        File in any format that ASE or pymatgen can read.
    index : int
        Frame of a file that holds several; negative numbers count from the end.

    Raises
    ------
    InputError
        No such file, no such frame, nothing that can read the file, or sites that are only partly occupied.
    """
    from ase.io import read
    from ase.io.formats import UnknownFileTypeError

    check_is_file(path)
    try:
        found = read(path, index=":", do_not_split_by_at_sign=True)
        frames = found if isinstance(found, list) else [found]
    except (UnknownFileTypeError, *PARSE_ERRORS) as error:
        frames = [_read_with_pymatgen(path, error)]
    if not -len(frames) <= index < len(frames):
        raise InputError(f"{str(path)!r} has {len(frames)} structure(s), so there is no index {index} (the first is 0)")
    atoms: Atoms = frames[index]
    check_usable(atoms, path)
    return atoms


def check_is_file(path: Path) -> None:
    """Make sure that there is a file to read.

    Raises
    ------
    InputError
        There is none, or it is a folder.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"structure file {str(path)!r} {problem}; give the path of a structure file")


def check_usable(atoms: Atoms, path: Path) -> None:
    """Make sure that what was read from a file is a structure with definite atoms.

    Raises
    ------
    InputError
        It has no atoms, or a site that is only partly occupied.
    """
    if len(atoms) == 0:
        raise InputError(f"{str(path)!r} holds a structure without atoms")
    _refuse_partial_occupancy(atoms, path)


def fix_atoms(atoms: Atoms, tags: Sequence[int] = (), below_height: float | None = None) -> Atoms:
    """Return a copy with more atoms fixed; constraints that are already there stay.

    Parameters
    ----------
    atoms : Atoms
        The structure.
    tags : sequence of int
        Fix the atoms with one of these tags.
    below_height : float, optional
        Fix the atoms less than this many Å above the lowest atom, see :func:`heights`.

    Raises
    ------
    InputError
        A tag that no atom has, a height that is not positive, or no atom left to move.
    """
    from ase.constraints import FixAtoms

    fixed = np.zeros(len(atoms), dtype=bool)
    if tags:
        fixed |= _with_tags(atoms, tags)
    if below_height is not None:
        if not below_height > 0:
            raise InputError(f"the height below which atoms are fixed is {below_height} Å; it must be positive")
        fixed |= heights(atoms) < below_height
    result = atoms.copy()
    if fixed.any():
        result.set_constraint([*atoms.constraints, FixAtoms(indices=np.flatnonzero(fixed))])
    if len(fixed_atoms(result)) == len(atoms):
        raise InputError(f"all {len(atoms)} atoms are fixed, nothing is left to move; fix fewer atoms")
    return result


def fixed_atoms(atoms: Atoms) -> np.ndarray:
    """Return the indices of the atoms that cannot move at all, in ascending order."""
    from escn_calc.constraints import free_indices

    return np.setdiff1d(np.arange(len(atoms)), free_indices(atoms))


def heights(atoms: Atoms) -> np.ndarray:
    """Heights of the atoms above the lowest one.

    They are measured along the surface normal: perpendicular to the first two cell vectors, on the side of the third
    (of z, if there is no third); along z if the first two cell vectors span no plane. Positions are taken as they stand
    in the file, they are not wrapped into the cell.

    Returns
    -------
    ndarray (N,)
        Heights in Å, the smallest is 0.
    """
    first, second, third = np.asarray(atoms.cell)
    normal = np.cross(first, second)
    if np.linalg.norm(normal) == 0:
        normal = np.array([0.0, 0.0, 1.0])
    up = third if third.any() else np.array([0.0, 0.0, 1.0])
    normal = normal * np.sign(normal @ up or 1.0) / np.linalg.norm(normal)
    along = atoms.positions @ normal
    return np.asarray(along - along.min())


def _read_with_pymatgen(path: Path, ase_error: Exception) -> Atoms:
    from pymatgen.core import Structure
    from pymatgen.io.ase import AseAtomsAdaptor

    try:
        atoms: Atoms = AseAtomsAdaptor.get_atoms(Structure.from_file(path), msonable=False)
    except PARSE_ERRORS as error:
        raise InputError(
            f"no reader understands {str(path)!r}. ASE: {_first_line(ase_error)}. pymatgen: {_first_line(error)}. "
            "Check the file, or convert it to extxyz, CIF or POSCAR"
        ) from error
    return atoms


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _refuse_partial_occupancy(atoms: Atoms, path: Path) -> None:
    occupancy = atoms.info.get("occupancy", {})
    partial = {site: species for site, species in occupancy.items() if len(species) > 1 or min(species.values()) < 1}
    if partial:
        site, species = next(iter(partial.items()))
        written = ", ".join(f"{symbol} {fraction:g}" for symbol, fraction in species.items())
        raise InputError(f"{str(path)!r}: site {site} is only partly occupied ({written}); give an ordered structure")


def _with_tags(atoms: Atoms, tags: Sequence[int]) -> np.ndarray:
    if not atoms.has("tags"):
        raise InputError("the structure has no tags, so no atoms can be fixed by tag; fix by height instead")
    present = atoms.get_tags()
    absent = sorted(set(tags) - set(present.tolist()))
    if absent:
        raise InputError(f"no atom has the tag {absent[0]}; the tags are {', '.join(map(str, np.unique(present)))}")
    return np.isin(present, tags)
