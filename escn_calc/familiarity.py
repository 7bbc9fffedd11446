"""Whether the surroundings of an atom are like those that a model was trained on.

The network describes an atom by its features with l = 0 after the last layer, C numbers that do not change when the
structure turns. Over the training data those of one element are a cloud with mean μ and covariance Σ, and

    d(x) = sqrt((x - μ)ᵀ Σ⁻¹ (x - μ) / C)

is the distance from it, about 1 inside (the distance of Mahalanobis, over the root of its dimension). Limits are set on
structures that were not used for μ and Σ. An atom beyond its limit is unlike what was seen; one within may still have
surroundings that nobody has seen, because the network maps different ones to similar features.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from pydantic import BaseModel, ConfigDict, field_validator

from escn_calc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.potential import Potential

RIDGE = 1e-5
"""Times the mean variance, added to each: directions in which the training data do not vary are no proof of novelty."""

ATOM_QUANTILE = 0.99
"""Of the distances of an element; limits are a multiple, the same for all elements, of these."""

FEWEST_PER_CHANNEL = 2
"""Atoms of an element for each channel, from which a covariance is taken seriously."""

FEWEST_FOR_LIMIT = 20
"""Atoms of an element from which a quantile is taken seriously."""


class Cloud(BaseModel):
    """What the atoms of one element look like to the network.

    Attributes
    ----------
    atoms : number of atoms that it was made from.
    limit : distance beyond which an atom is unfamiliar.
    shape : base64 of little-endian float32: the mean (C), then the rows of the lower triangle of the inverse of the
        Cholesky factor of the covariance, C (C + 1) / 2 numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    atoms: int
    limit: float
    shape: str

    @field_validator("shape")
    @classmethod
    def _has_a_shape(cls, shape: str) -> str:
        _unpacked(shape)
        return shape

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Distances (N,) of features (N, C)."""
        return _distances(self.shape, features)


class Familiarity(BaseModel):
    """Which surroundings of atoms a model knows.

    Attributes
    ----------
    structures : number of structures that the clouds were made from.
    limits_from : number of other structures that the limits were set on.
    share : of those, how many have an unfamiliar atom.
    elements : the cloud of each element, by its symbol; elements with too few atoms have none, and all their atoms are
        unfamiliar.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structures: int
    limits_from: int
    share: float
    elements: dict[str, Cloud]

    def unfamiliar(self, numbers: np.ndarray, features: np.ndarray) -> tuple[UnfamiliarAtom, ...]:
        """Atoms beyond their limits or without any, by atomic numbers (N,) and features (N, C)."""
        described = [atomic_numbers[symbol] for symbol in self.elements]
        found = [UnfamiliarAtom(int(index), None, None) for index in np.flatnonzero(~np.isin(numbers, described))]
        for symbol, cloud in self.elements.items():
            members = np.flatnonzero(numbers == atomic_numbers[symbol])
            distances = cloud.distances(features[members])
            far = distances > cloud.limit
            found += [
                UnfamiliarAtom(int(index), float(distance), cloud.limit)
                for index, distance in zip(members[far], distances[far], strict=True)
            ]
        return tuple(sorted(found, key=lambda atom: atom.index))


@dataclass(frozen=True)
class UnfamiliarAtom:
    """An atom whose surroundings the model does not know.

    Attributes
    ----------
    index : of the atom.
    distance : from the training data; None if these have too few atoms of its element to say.
    limit : of its element; None likewise.
    """

    index: int
    distance: float | None
    limit: float | None

    @property
    def times_the_limit(self) -> float:
        """How far beyond its limit it is; infinity without one."""
        return np.inf if self.distance is None or self.limit is None else self.distance / self.limit


def unfamiliar_atoms(potential: Potential, structures: list[Atoms]) -> list[tuple[UnfamiliarAtom, ...]] | None:
    """Find the atoms of structures whose surroundings are unlike all that the model was trained on.

    One evaluation of the energies, without forces: do it at the end of a relaxation, not at each step.

    Parameters
    ----------
    potential : Potential
        The model.
    structures : list of Atoms
        As for :meth:`escn_calc.potential.Potential.evaluate`.

    Returns
    -------
    list of tuple of UnfamiliarAtom, or None
        For each structure; None if that is not available, because the card of the model does not say what it knows.

    Raises
    ------
    InputError, CalculationError, BatchError
        As :meth:`escn_calc.potential.Potential.descriptors`.
    """
    known = potential.card.familiarity
    if known is None:
        return None
    features = potential.descriptors(structures)
    return [known.unfamiliar(atoms.numbers, own) for atoms, own in zip(structures, features, strict=True)]


def fit_familiarity(
    potential: Potential, training: list[Atoms], validation: list[Atoms], share: float = 0.01
) -> Familiarity:
    """Describe what a model knows, for its card.

    Parameters
    ----------
    potential : Potential
        The model as it will be used, on its final grids.
    training : list of Atoms
        Structures that it was trained on; some thousand, drawn at random, will do.
    validation : list of Atoms
        Other structures of the same kind to set the limits on, best such that it was not trained on. Give a thousand:
        of 250 the limits were seen to differ by a factor of two from one choice to the next.
    share : float
        Of the structures in ``validation``, how many may have an unfamiliar atom.

    Raises
    ------
    InputError
        An empty list, a share outside 0 to 1, or no element with enough atoms.
    CalculationError, BatchError
        As :meth:`escn_calc.potential.Potential.descriptors`.
    """
    if not 0 < share < 1:
        raise InputError(f"share is {share}; it must lie between 0 and 1")
    if not training or not validation:
        raise InputError(
            f"{len(training)} structures to describe and {len(validation)} to set limits on: both need some"
        )
    numbers, features = _described(potential, training)
    others, other_features = _described(potential, validation)
    shapes = {
        int(number): _packed(features[numbers == number])
        for number in np.unique(numbers)
        if (numbers == number).sum() >= FEWEST_PER_CHANNEL * features.shape[1]
        and (others == number).sum() >= FEWEST_FOR_LIMIT
    }
    if not shapes:
        raise InputError(
            f"no element has {FEWEST_PER_CHANNEL * features.shape[1]} atoms in the structures to describe and "
            f"{FEWEST_FOR_LIMIT} in those to set limits on; give more structures"
        )
    scaled = np.zeros(len(others))
    scales = {}
    for number, shape in shapes.items():
        distances = _distances(shape, other_features[others == number])
        scales[number] = float(np.quantile(distances, ATOM_QUANTILE))
        scaled[others == number] = distances / scales[number]
    farthest = _largest_of_each(scaled, [len(atoms) for atoms in validation])
    factor = float(np.quantile(farthest, 1 - share, method="higher"))
    return Familiarity(
        structures=len(training),
        limits_from=len(validation),
        share=float((farthest > factor).mean()),
        elements={
            chemical_symbols[number]: Cloud(
                atoms=int((numbers == number).sum()), limit=factor * scales[number], shape=shape
            )
            for number, shape in shapes.items()
        },
    )


def _described(potential: Potential, structures: list[Atoms]) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers (N,) and features (N, C) of all atoms."""
    features = np.concatenate(potential.descriptors(structures))
    return np.concatenate([atoms.numbers for atoms in structures]), features


def _packed(features: np.ndarray) -> str:
    """Mean and inverse Cholesky factor of the covariance of features (N, C), as :class:`Cloud` holds them."""
    covariance = np.cov(features.T)
    ridge = RIDGE * np.trace(covariance) / len(covariance)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance + ridge * np.eye(len(covariance))))
    packed = np.concatenate((features.mean(axis=0), whitening[np.tril_indices(len(whitening))]))
    return base64.b64encode(packed.astype("<f4").tobytes()).decode("ascii")


def _distances(shape: str, features: np.ndarray) -> np.ndarray:
    mean, whitening = _unpacked(shape)
    return np.linalg.norm((features - mean) @ whitening.T, axis=1) / np.sqrt(len(mean))


def _unpacked(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean (C,) and inverse Cholesky factor (C, C)."""
    packed = np.frombuffer(base64.b64decode(shape, validate=True), dtype="<f4").astype(float)
    channels = int(np.sqrt(2 * len(packed) + 2.25) - 1.5)
    if channels < 1 or len(packed) != channels * (channels + 3) // 2 or not np.isfinite(packed).all():
        raise ValueError(f"{len(packed)} numbers are no mean and triangle, or are not finite")
    whitening = np.zeros((channels, channels))
    whitening[np.tril_indices(channels)] = packed[channels:]
    return packed[:channels], whitening


def _largest_of_each(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Largest of the values of each structure, (S,)."""
    return np.maximum.reduceat(values, np.concatenate(([0], np.cumsum(sizes)[:-1])))
