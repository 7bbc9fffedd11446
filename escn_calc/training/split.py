"""Training and validation without leaks: frames of one group stay on one side, and no structure is on both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from escn_calc.errors import InputError
from escn_calc.labels import LabelledFrame

#: Å; structures whose coordinates agree after rounding to multiples of this count as the same.
SAME_POSITION = 1.0e-3
#: Examples that a message names.
NAMED = 3


@dataclass(frozen=True, eq=False)
class Split:
    """Frames to learn from and frames to judge by; neither is empty."""

    train: list[LabelledFrame]
    validation: list[LabelledFrame]


def split_by_fraction(frames: Sequence[LabelledFrame], fraction: float, seed: int) -> Split:
    """Set aside a fraction of the groups for validation.

    The side of a group is decided by a hash of its name and the seed, so groups keep their side when data are added;
    the fraction holds on average. Where all groups would fall on one side, the one nearest to the border changes over.

    Parameters
    ----------
    frames : to be split; the order within both parts is kept.
    fraction : of the groups (not of the frames) that go to validation, between 0 and 1.
    seed : another seed, another split.

    Raises
    ------
    InputError
        A fraction outside (0, 1); fewer than two groups; the same structure in groups on both sides.
    """
    if not 0.0 < fraction < 1.0:
        raise InputError(f"the fraction of groups for validation is {fraction}: it must be between 0 and 1")
    places = {group: _place(group, seed) for group in sorted({frame.group for frame in frames})}
    if len(places) < 2:
        found = f"one group ({next(iter(places))})" if places else "no group"
        raise InputError(
            f"the frames are of {found}: a split into training and validation needs at least two. Group by something "
            "finer, or give validation files"
        )
    ranked = sorted(places, key=lambda group: places[group])
    below = sum(place < fraction for place in places.values())
    chosen = set(ranked[: min(max(below, 1), len(ranked) - 1)])
    split = Split(
        [frame for frame in frames if frame.group not in chosen], [frame for frame in frames if frame.group in chosen]
    )
    refuse_leaks(split.train, split.validation)
    return split


def refuse_leaks(train: Sequence[LabelledFrame], validation: Sequence[LabelledFrame]) -> None:
    """Refuse groups and structures that occur both in training and in validation.

    Structures count as the same if atomic numbers, positions and cell, in the order and place given, agree to 0.001 Å;
    copies that are shifted, rotated or reordered are not found.

    Raises
    ------
    InputError
        Names some of the groups, or of the structures, and how many frames are concerned.
    """
    shared = {frame.group for frame in train} & {frame.group for frame in validation}
    if shared:
        count = sum(frame.group in shared for frame in validation)
        raise InputError(
            f"{len(shared)} group(s) are both in training and in validation: {_some(sorted(shared))}; {count} "
            "validation frame(s) are concerned. Frames of one group belong on one side: move or remove them"
        )
    origins = {_fingerprint(frame): frame.origin for frame in train}
    copies = [(origins[mark], frame.origin) for frame in validation if (mark := _fingerprint(frame)) in origins]
    if copies:
        raise InputError(
            f"{len(copies)} validation frame(s) have the very structure of a training frame, under another group: "
            f"{_some([f'{copy} is {original}' for original, copy in copies])}. Remove them from one side, or group "
            "such frames together"
        )


def _place(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on group and seed only."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _fingerprint(frame: LabelledFrame) -> bytes:
    lengths = np.concatenate((frame.atoms.positions, frame.atoms.cell.array))
    digest = hashlib.sha256(frame.atoms.numbers.astype(np.int64).tobytes())
    digest.update(np.rint(lengths / SAME_POSITION).astype(np.int64).tobytes())
    return digest.digest()


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")
