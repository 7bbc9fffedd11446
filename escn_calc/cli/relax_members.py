"""The structures that ``escn relax`` relaxes together, each read for itself: a broken one does not cost the others."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from escn_calc.errors import PARSE_ERRORS, InputError
from escn_calc.structure_input import check_is_file, check_usable, read_structure

if TYPE_CHECKING:
    from ase import Atoms

BEYOND_ANY_FRAME = 10**9


@dataclass(frozen=True)
class Member:
    """One of many structures.

    Attributes
    ----------
    name : str
        File and frame, ``slabs.xyz@17``, counted from 0: what ASE takes for the name of this frame.
    atoms : Atoms
        The structure as the relaxation starts from it, with all its constraints.
    digest : str
        sha256 of everything in ``atoms`` that a relaxation can depend on.
    """

    name: str
    atoms: Atoms
    digest: str


@dataclass(frozen=True)
class Members:
    """What was found in the files: structures to be relaxed, and names of those that cannot be, with the reason."""

    usable: tuple[Member, ...]
    unusable: dict[str, str]

    @property
    def digests(self) -> dict[str, str | None]:
        """Digest of every structure by its name; None for one that cannot be used."""
        return {**{member.name: member.digest for member in self.usable}, **dict.fromkeys(self.unusable)}


def matching_files(paths: Sequence[Path]) -> list[Path]:
    """Replace patterns such as ``slabs/*.xyz`` by the files that match, in alphabetical order.

    Raises
    ------
    InputError
        A pattern that no file matches, or a file that is named twice.
    """
    files: list[Path] = []
    for path in paths:
        if path.exists() or not has_magic(str(path)):
            files.append(path)
            continue
        matches = sorted(Path(match) for match in glob(str(path), recursive=True))
        if not matches:
            raise InputError(f"no file matches {str(path)!r}")
        files += matches
    seen: set[Path] = set()
    for file in files:
        if file in seen:
            raise InputError(f"the file {str(file)!r} is given twice")
        seen.add(file)
    return files


def index_text(index: int | slice) -> str:
    """Write an index as on the command line."""
    if isinstance(index, int):
        return str(index)
    parts = [index.start, index.stop] if index.step is None else [index.start, index.stop, index.step]
    return ":".join("" if part is None else str(part) for part in parts)


def frame_index(text: str) -> int | slice:
    """Read an index of frames, a number or a slice as in Python.

    Raises
    ------
    InputError
        It is neither.
    """
    try:
        numbers = [int(part) if part.strip() else None for part in text.split(":")]
    except ValueError:
        numbers = []
    match numbers:
        case [int(number)]:
            return number
        case [_, _] | [_, _, _] if numbers[2:] != [0]:
            return slice(*numbers)
    raise InputError(f"{text!r} is neither a number nor a slice such as ':' or '::10'")


def read_members(paths: Sequence[Path], index: int | slice, prepare: Callable[[Atoms], Atoms]) -> Members:
    """Read the chosen frames of all files.

    Parameters
    ----------
    paths : sequence of Path
        Files in any format that ASE or pymatgen can read.
    index : int or slice
        Frames to take from each file.
    prepare : callable
        Returns the structure to be relaxed for that in the file, or raises ``InputError``.

    Raises
    ------
    InputError
        A file does not exist, or no structure at all can be used.
    """
    for path in paths:
        check_is_file(path)
    usable: list[Member] = []
    unusable: dict[str, str] = {}
    for path in paths:
        for name, frame in _chosen_frames(path, index):
            try:
                usable.append(_member(name, frame, path, prepare))
            except InputError as error:
                unusable[name] = str(error)
    if not usable:
        first, *others = unusable.items()
        more = f" (and {len(others)} more)" if others else ""
        raise InputError(f"there is no structure to relax. {first[0]}: {first[1]}{more}")
    return Members(tuple(usable), unusable)


def structure_digest(atoms: Atoms) -> str:
    """Return the sha256 of the parts of a structure that its relaxation can depend on.

    Raises
    ------
    InputError
        A constraint cannot be written down, and so neither into a database.
    """
    from escn_calc.md.state import structure_identity

    try:
        identity = structure_identity(atoms)
    except (AttributeError, NotImplementedError, TypeError) as error:
        raise InputError(f"a constraint cannot be written to a file: {error}; ASE's own can") from error
    return sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _member(name: str, frame: Atoms | InputError, path: Path, prepare: Callable[[Atoms], Atoms]) -> Member:
    if isinstance(frame, InputError):
        raise frame
    check_usable(frame, path)
    atoms = prepare(frame)
    return Member(name, atoms, structure_digest(atoms))


def _chosen_frames(path: Path, index: int | slice) -> Iterator[tuple[str, Atoms | InputError]]:
    numbered = list(enumerate(_all_frames(path)))
    if isinstance(index, slice):
        chosen = numbered[index]
    else:
        chosen = [numbered[index]] if -len(numbered) <= index < len(numbered) else []
    if not chosen:
        yield str(path), InputError(f"it has {len(numbered)} structure(s), none of them at index {index_text(index)}")
    for number, frame in chosen:
        yield f"{path}@{number}", frame


def _all_frames(path: Path) -> list[Atoms | InputError]:
    """Read every frame; one that cannot be read is an error in its place."""
    from ase.io import iread
    from ase.io.formats import UnknownFileTypeError

    frames: list[Atoms | InputError] = []
    while True:
        try:
            for atoms in iread(path, index=slice(len(frames), None), do_not_split_by_at_sign=True):
                frames.append(atoms)
        except (UnknownFileTypeError, sqlite3.Error, *PARSE_ERRORS) as error:
            skippable = _frames_can_be_skipped(path)
            if not frames and not skippable:
                return [_read_whole(path)]
            after = "" if skippable else ", nor can any frame after it"
            frames.append(InputError(f"cannot be read ({type(error).__name__}: {error}){after}"))
            if skippable:
                continue
        return frames


def _frames_can_be_skipped(path: Path) -> bool:
    """Whether the format has an index of its frames, or ASE can make one although a frame is broken."""
    from ase.io import iread
    from ase.io.formats import UnknownFileTypeError

    try:
        return not list(iread(path, index=slice(BEYOND_ANY_FRAME, None), do_not_split_by_at_sign=True))
    except (UnknownFileTypeError, sqlite3.Error, *PARSE_ERRORS):
        return False


def _read_whole(path: Path) -> Atoms | InputError:
    try:
        return read_structure(path, 0)
    except InputError as error:
        return error
