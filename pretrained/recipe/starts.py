"""What a training structure is: its kind, its surface and adsorbates, and the split these decide."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ase import Atoms

VALID_SHARE = 0.08
TEST_SHARE = 0.08
SPLIT_SALT = "escn-calc first model"
ALWAYS_TRAIN = ("Cu111|CO",)


@dataclass(frozen=True)
class Kind:
    """A kind of structure, its share of all labels, and how a chain of frames is grown from one start.

    Attributes
    ----------
    name
        Name stored with every frame.
    share
        Wanted share of the labels, relative to the other kinds of its set.
    relax_steps
        Smallest and largest number of relaxation steps with teacher forces.
    rattles
        Number of rattled copies labelled after the relaxation.
    series
        Number of further structures that come with a start, such as the other heights of an approach.
    md_frames
        Number of frames of molecular dynamics after the relaxation.
    largest_force
        Labels with a larger force on an atom are dropped, eV/Å.
    highest_formation
        Labels with a larger formation energy are dropped, eV/atom.
    """

    name: str
    share: float
    relax_steps: tuple[int, int] = (0, 0)
    rattles: int = 0
    series: int = 0
    md_frames: int = 0
    largest_force: float = 30.0
    highest_formation: float = 6.0

    @property
    def mean_labels(self) -> float:
        """Mean number of labels of one chain."""
        return 1 + sum(self.relax_steps) / 2 + self.rattles + self.series + self.md_frames


@dataclass(frozen=True)
class Start:
    """First structure of a chain of frames.

    Attributes
    ----------
    atoms
        The structure, periodic in three directions.
    surface
        Surface, bulk or ``"gas"``, for example ``"Cu111"`` or ``"Au-Pd211"``.
    adsorbates
        Sorted names of what stands on the surface; empty for clean surfaces and bulks.
    kind
        Kind the structure was drawn from.
    relax_steps
        Number of relaxation steps that follow.
    series
        Further structures of the same group, labelled as they are.
    temperature
        Temperature in kelvin of the molecular dynamics that follows, if the kind has any.
    """

    atoms: Atoms
    surface: str
    adsorbates: tuple[str, ...]
    kind: Kind
    relax_steps: int
    series: tuple[Atoms, ...] = ()
    temperature: float = 0.0

    @property
    def group(self) -> str:
        """Surface and set of adsorbates, for example ``"Cu111|CO"``."""
        return f"{self.surface}|{'+'.join(self.adsorbates)}" if self.adsorbates else self.surface

    @property
    def split(self) -> str:
        """``"train"``, ``"valid"`` or ``"test"``, the same for all frames of one surface and adsorbate.

        Co-adsorbed structures go where their most secluded pair goes, so that a held-out pair is in no training frame.
        """
        if self.surface == "gas" and len(self.adsorbates) < 2:
            return "train"
        if self.surface.endswith("-bulk") and not self.adsorbates:
            return "train"
        parts = [f"{self.surface}|{name}" for name in self.adsorbates] or [self.surface]
        if self.surface == "gas":
            parts = [self.group]
        splits = {hashed_split(part) for part in parts}
        return next(split for split in ("test", "valid", "train") if split in splits)


def hashed_split(group: str) -> str:
    """Assign a group to a split by the SHA-256 of its name."""
    if group in ALWAYS_TRAIN:
        return "train"
    digest = hashlib.sha256(f"{SPLIT_SALT}|{group}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < TEST_SHARE:
        return "test"
    return "valid" if position < TEST_SHARE + VALID_SHARE else "train"
