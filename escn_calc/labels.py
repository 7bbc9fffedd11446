"""Labelled structures from files: whatever ASE reads, with every label checked before it is used.

Labels are taken as the file gives them. ASE's own file writers store forces without the effect of constraints, and
nothing here applies them: a fixed atom keeps the force that the electrons exert on it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path

import ase.db
import numpy as np
from ase import Atoms
from ase.db.core import Database
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype, get_compression, open_with_compression, string2index
from ase.stress import full_3x3_to_voigt_6_stress

from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.errors import PARSE_ERRORS, InputError
from escn_calc.structures import StructureBatch

#: Called with the number of frames done so far.
Progress = Callable[[int], None]

#: Values of ``group_by`` that are not the name of an entry of ``atoms.info``.
COMPOSITION, FILE, FRAME = "composition", "file", "frame"
#: Suffixes of ASE databases, whose rows carry key-value pairs that ``ase.io.read`` leaves behind.
DATABASES = (".db", ".json", ".aselmdb")


@dataclass(frozen=True)
class DataSource:
    """One file of labelled structures.

    Attributes
    ----------
    path : file in any format that ASE reads; ``.aselmdb`` needs the package ase-db-backends.
    index : frames to use, a number or a slice as ASE writes them: ``":"``, ``"-1"``, ``"::10"``.
    repeat : how often an epoch goes through these frames, at least 1.
    """

    path: Path
    index: str = ":"
    repeat: int = 1

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise InputError(f"{self.path}: repeat is {self.repeat}, but frames must occur at least once per epoch")
        _selected(self)


@dataclass(frozen=True)
class LabelKeys:
    """Where the labels are: names of entries of ``atoms.info``, ``atoms.arrays`` or the calculator's results.

    None stands for ASE's ``energy``, ``forces`` and ``stress``, which a frame may lack. An entry that is named must be
    there in every frame.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """A structure and what is known about it; at least an energy or forces.

    Attributes
    ----------
    atoms : without calculator, constraints kept.
    energy : eV, as in the file; or None.
    forces : (N, 3) float64 eV/Å, constraints not applied; or None.
    stress : (6,) float64 eV/Å³, Voigt order xx, yy, zz, yz, xz, xy with ASE's sign; or None, as always for a structure
        that is not periodic in three directions.
    group : frames of one group are never parted between training and validation.
    origin : where the frame is from, ``path@12``, counted from 0.
    repeat : how often an epoch goes through it.
    """

    atoms: Atoms
    energy: float | None
    forces: np.ndarray | None
    stress: np.ndarray | None
    group: str
    origin: str
    repeat: int = 1


def read_frames(
    sources: Sequence[DataSource], keys: LabelKeys, group_by: str, progress: Progress | None = None
) -> list[LabelledFrame]:
    """Read and check all frames.

    Parameters
    ----------
    sources : files, read in this order.
    keys : names of the labels.
    group_by : name of an entry of ``atoms.info`` (or key of a database row) such as ``"sid"``; ``"composition"``, the
        chemical formula; ``"file"``; or ``"frame"``, every frame for itself, with which frames of one relaxation or
        trajectory end up on both sides of a split.
    progress : called with the number of frames read so far.

    Raises
    ------
    InputError
        A file that is missing, empty or cannot be read; a structure that cannot be used; a label that is not finite or
        of the wrong shape; a named key or group that a frame lacks; a frame with neither energy nor forces. The message
        names file and frame.
    """
    frames: list[LabelledFrame] = []
    for source in sources:
        before = len(frames)
        for number, atoms in _numbered_atoms(source):
            frames.append(_labelled(atoms, source, f"{source.path}@{number}", keys, group_by))
            if progress is not None:
                progress(len(frames))
        if len(frames) == before:
            raise InputError(f"{source.path} has no frames (index {source.index!r}): remove it or correct the index")
    return frames


def file_hashes(sources: Iterable[DataSource]) -> dict[str, str]:
    """Return the sha256 of every file by its path as given."""
    return {str(source.path): file_sha256(source.path) for source in sources}


def _numbered_atoms(source: DataSource) -> Iterator[tuple[int, Atoms]]:
    """The frames that the index of the source selects, with their places in the file."""
    path, index = source.path, _selected(source)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"data file {path} {problem}: give the path of a file with labelled structures")
    numbered = enumerate(_all_atoms(path))
    if min(index.start or 0, index.stop or 0, index.step or 1) < 0:
        yield from list(numbered)[index]
    else:
        yield from islice(numbered, index.start, index.stop, index.step)


def _selected(source: DataSource) -> slice:
    """The index of a source as a slice."""
    try:
        index = string2index(source.index)
    except ValueError:
        index = source.index
    if isinstance(index, str):
        raise InputError(f"{source.path}: index {index!r} is neither a number nor a slice like ':' or '::10'")
    return index if isinstance(index, slice) else slice(index, index + 1 or None)


def _all_atoms(path: Path) -> Iterator[Atoms]:
    read = _database_rows if path.suffix in DATABASES else _file_frames
    done = 0
    try:
        for atoms in read(path):
            yield atoms
            done += 1
    except InputError:
        raise
    except (UnknownFileTypeError, sqlite3.Error, *PARSE_ERRORS) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        if isinstance(error, UnknownFileTypeError):
            reason = ["it knows no such file format"]
        raise InputError(
            f"{path}: ASE cannot read frame {done} ({reason[0].rstrip('.')}): check the file, or convert it to extxyz"
        ) from error


def _file_frames(path: Path) -> Iterator[Atoms]:
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: give a file with labelled structures")
    if get_compression(path.name)[1] is None:
        yield from iread(path, index=":", do_not_split_by_at_sign=True)
    else:
        yield from iread(_decompressed(path), index=":", format=filetype(str(path)))


def _decompressed(path: Path) -> StringIO:
    """The text of a compressed file: ASE jumps within the file, each time decompressing it from the start."""
    with open_with_compression(str(path), "rt") as stream:
        return StringIO(stream.read())


def _database_rows(path: Path) -> Iterator[Atoms]:
    """Rows of an ASE database, their data and key-value pairs in ``atoms.info``."""
    try:
        database = _opened(path)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: ASE reads {path.suffix} files with the package ase-db-backends, which is not installed: "
            "pip install ase-db-backends"
        ) from error
    for row in database.select():
        atoms = row.toatoms()
        atoms.info.update(row.data)
        atoms.info.update(row.key_value_pairs)
        yield atoms


def _opened(path: Path) -> Database:
    if path.suffix == ".aselmdb":
        return ase.db.connect(path, use_lock_file=False, serial=True, readonly=True)
    return ase.db.connect(path, use_lock_file=False, serial=True)


def _labelled(atoms: Atoms, source: DataSource, origin: str, keys: LabelKeys, group_by: str) -> LabelledFrame:
    try:
        StructureBatch.from_atoms([atoms])
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error
    energy = _label(atoms, origin, "energy", keys.energy, [()])
    forces = _label(atoms, origin, "forces", keys.forces, [(len(atoms), 3)])
    stress = _label(atoms, origin, "stress", keys.stress, [(6,), (3, 3), (9,)])
    if energy is None and forces is None:
        raise InputError(
            f"{origin}: the frame has neither energy nor forces; it has {_present(atoms)}. Name the labels (energy, "
            "forces) or remove the frame"
        )
    return LabelledFrame(
        atoms=atoms.copy(),
        energy=None if energy is None else float(energy),
        forces=forces,
        stress=_voigt(stress) if stress is not None and atoms.pbc.all() else None,
        group=_group(atoms, source, origin, group_by),
        origin=origin,
        repeat=source.repeat,
    )


def _label(
    atoms: Atoms, origin: str, quantity: str, key: str | None, shapes: list[tuple[int, ...]]
) -> np.ndarray | None:
    found = _lookup(atoms, quantity if key is None else key, include_entries=key is not None)
    if found is None:
        if key is None:
            return None
        raise InputError(f"{origin}: no entry {key!r} for the {quantity}; the frame has {_present(atoms)}")
    try:
        values = np.array(found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{origin}: {quantity} = {found!r} is not a number: correct or remove it") from error
    if quantity == "energy":
        values = values.reshape(()) if values.size == 1 else values
    if values.shape not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise InputError(f"{origin}: {quantity} of shape {values.shape}, expected {wanted}: correct the file")
    if not np.isfinite(values).all():
        where = "" if values.ndim < 2 else f" of atom {int((~np.isfinite(values)).any(axis=1).argmax())}"
        raise InputError(f"{origin}: {quantity}{where} not finite: remove the frame or correct the label")
    return values


def _lookup(atoms: Atoms, key: str, include_entries: bool) -> object:
    """The value of a label; results of the calculator are read as they are, whatever the constraints say."""
    places = [atoms.info, atoms.arrays] if include_entries else []
    if atoms.calc is not None:
        places.append(atoms.calc.results)
    return next((place[key] for place in places if place.get(key) is not None), None)


def _present(atoms: Atoms) -> str:
    results = {} if atoms.calc is None else atoms.calc.results
    parts = {"results": results, "info": atoms.info, "arrays": atoms.arrays}
    return ", ".join(f"{name}: {' '.join(map(str, place)) or 'nothing'}" for name, place in parts.items())


def _voigt(stress: np.ndarray) -> np.ndarray:
    if stress.shape == (6,):
        return stress
    voigt: np.ndarray = full_3x3_to_voigt_6_stress(stress.reshape(3, 3))
    return voigt


def _group(atoms: Atoms, source: DataSource, origin: str, group_by: str) -> str:
    if group_by == COMPOSITION:
        formula: str = atoms.get_chemical_formula()
        return formula
    if group_by == FILE:
        return str(source.path)
    if group_by == FRAME:
        return origin
    if group_by not in atoms.info:
        keys = " ".join(map(str, atoms.info)) or "nothing"
        raise InputError(
            f"{origin}: no entry {group_by!r} in its info to group by; there is {keys}. Group by an entry that every "
            f"frame has, or by {COMPOSITION!r}, {FILE!r} or {FRAME!r}"
        )
    return str(atoms.info[group_by])
