"""Many structures in batches: how large each is, which go together, and what happens when a batch fails.

Nothing here knows the network. Sizes are estimated from a few atoms before any graph is built, so that a structure
that no machine can hold is refused in microseconds. A batch that fails, for whatever reason, is halved until the
structure at fault is alone; one for which memory runs out alone is tried again in thriftier ways.
"""

import math
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from ase import Atoms

from escn_calc.errors import ESCNError, InputError, OutOfMemoryError
from escn_calc.memory import THRIFTIEST, Size
from escn_calc.structures import StructureBatch

#: Atoms per Å³ beyond which a structure is a mistake: eleven times the density of diamond.
DENSEST = 2.0
#: Pairs of atoms that no device minds: a structure alone that cannot have more is not counted.
FEW_PAIRS = 20_000
#: Atoms whose neighbours are counted.
CENTRES = 16
#: Distances computed at most; of larger structures a random sample of the neighbours is counted.
DISTANCES = 400_000

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, eq=False)
class Member:
    """One structure of many.

    Attributes
    ----------
    atoms : as given.
    batch : the same, checked, with its index in the list given.
    size : atoms, and edges as estimated.
    pairs : estimated pairs of atoms within the cutoff, of which the cap makes edges.
    """

    atoms: Atoms
    batch: StructureBatch
    size: Size
    pairs: int

    @classmethod
    def of(
        cls, atoms: Atoms, batch: StructureBatch, cutoff: float, max_neighbors: int, alone: bool = False
    ) -> "Member":
        """Estimate the size of a structure; where it is ``alone``, and small, an upper bound will do.

        Raises
        ------
        InputError
            More atoms within the cutoff of another than any material has.
        """
        if alone and (most := _most_pairs(batch, cutoff)) <= FEW_PAIRS:
            return cls(atoms, batch, Size(batch.num_atoms, most), most)
        counts = _counted_neighbours(batch, cutoff)
        edges = np.minimum(counts, max_neighbors) if max_neighbors > 0 else counts
        natoms = batch.num_atoms
        return cls(
            atoms, batch, Size(natoms, math.ceil(natoms * edges.mean())), pairs=math.ceil(natoms * counts.mean())
        )

    @property
    def index(self) -> int:
        """Where the structure stands in the list given."""
        return int(self.batch.indices[0])


Evaluate = Callable[[list[Member], int], list[Outcome]]
"""``evaluate(members, thrift)`` returns an outcome for each; the larger ``thrift``, the less memory it takes."""


def evaluate_members(
    members: Sequence[Member], fits: Callable[[Size], bool], evaluate: Evaluate[Outcome]
) -> Iterator[tuple[Member, Outcome | ESCNError]]:
    """Evaluate all members in batches; yields each with its outcome or its error as soon as its batch is done.

    Parameters
    ----------
    members : in the order in which batches are filled.
    fits : whether structures of this size together make a batch.
    evaluate : raises an ``ESCNError`` where a batch cannot be evaluated.
    """
    pending = deque(packed(members, fits))
    while pending:
        batch = pending.popleft()
        outcomes = _attempted(batch, evaluate)
        if not isinstance(outcomes, ESCNError):
            yield from zip(batch, outcomes, strict=True)
        elif len(batch) == 1:
            yield batch[0], outcomes
        else:
            middle = len(batch) // 2
            pending.extendleft((batch[middle:], batch[:middle]))


def packed(members: Sequence[Member], fits: Callable[[Size], bool]) -> list[list[Member]]:
    """Divide members, in their order, into batches that fit; one that does not fit is a batch by itself."""
    batches: list[list[Member]] = []
    total = Size()
    for member in members:
        if batches and fits(total + member.size):
            batches[-1].append(member)
            total = total + member.size
        else:
            batches.append([member])
            total = member.size
    return batches


def _attempted(batch: list[Member], evaluate: Evaluate[Outcome]) -> list[Outcome] | ESCNError:
    """Outcomes of a batch, or why there are none."""
    for thrift in range(1 + THRIFTIEST if len(batch) == 1 else 1):
        try:
            return evaluate(batch, thrift)
        except ESCNError as error:
            failure = error
            _release(error)
        if not isinstance(failure, OutOfMemoryError):
            break
    return failure


def _release(error: BaseException) -> None:
    """Let go of the tensors that the frames of an error and of its causes hold."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__


def _most_pairs(batch: StructureBatch, cutoff: float) -> int:
    """Bound of the pairs within the cutoff: all atoms with all images that can be so close. Free of numpy for speed."""
    a, b, c = batch.cells[0].tolist()
    faces = [_cross(b, c), _cross(c, a), _cross(a, b)]
    volume = abs(sum(x * y for x, y in zip(a, faces[0], strict=True)))
    images = math.prod(
        2 * cutoff * math.hypot(*face) / volume + 2
        for face, periodic in zip(faces, batch.pbc[0].tolist(), strict=True)
        if periodic
    )
    return math.ceil(batch.num_atoms**2 * images)


def _cross(u: list[float], v: list[float]) -> list[float]:
    return [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]


def _counted_neighbours(batch: StructureBatch, cutoff: float) -> np.ndarray:
    """Neighbours of some atoms of one structure, (K,) float: exact for small structures, else from a sample."""
    cell, pbc = batch.cells[0].numpy(), batch.pbc[0].numpy()
    inverse = np.linalg.inv(cell)
    if pbc.all():
        _refuse_crowd(batch, batch.num_atoms * abs(np.linalg.det(inverse)))
    reach = np.floor(cutoff * np.linalg.norm(inverse, axis=0) + 0.5).astype(int) * pbc
    images = np.indices(2 * reach + 1).reshape(3, -1).T - reach

    fractional = batch.positions.numpy() @ inverse
    sources = _some(fractional, DISTANCES // len(images))
    centres = _some(fractional, min(CENTRES, DISTANCES // (len(images) * len(sources))))
    between = sources[None] - centres[:, None]
    between -= np.where(pbc, np.round(between), 0.0)
    vectors = (between @ cell)[:, :, None] + images @ cell
    near = (np.einsum("csix,csix->csi", vectors, vectors) <= cutoff**2).sum((1, 2))
    itself = len(sources) == len(fractional)
    counts = (near - itself) * (len(fractional) / len(sources))
    _refuse_crowd(batch, counts.max() / (4 / 3 * math.pi * cutoff**3))
    return np.asarray(counts)


def _some(rows: np.ndarray, number: int) -> np.ndarray:
    """At least one and at most ``number`` rows, chosen at random, always the same."""
    number = max(1, number)
    return rows if len(rows) <= number else np.random.default_rng(0).choice(rows, number, replace=False)


def _refuse_crowd(batch: StructureBatch, density: float) -> None:
    if density > DENSEST:
        raise InputError(
            f"{batch.describe_structure(0)} has {density:.2g} atoms/Å³ around an atom, more than {DENSEST / 0.176:.0f} "
            "times as many as diamond: check the units of positions and cell"
        )
