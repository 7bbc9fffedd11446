"""Miller indices as people write them: ``"111"``, ``"1-10"``, ``"0001"``, ``(1, 0, 0)``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from escn_calc.errors import InputError

EXAMPLES = "'111', '1-10', '0001' or [1, 0, 0]"
HEXAGONAL_TOLERANCE = 1e-3
"""Relative difference of lengths, and difference of cosines, up to which a cell counts as hexagonal."""

Miller = tuple[int, int, int]


def miller_indices(facet: str | Sequence[int], crystal: Atoms) -> Miller:
    """Read the Miller indices of a facet.

    Parameters
    ----------
    facet : str or sequence of int
        Three indices, or for a hexagonal cell also the four (hkil) of Miller and Bravais. In a string a minus belongs
        to the digit behind it; indices above 9 need spaces between all of them: ``"1 0 -12"``.
    crystal : Atoms
        The cell that the indices refer to.

    Returns
    -------
    tuple of int
        Three indices without common divisor.

    Raises
    ------
    InputError
        Not a facet; the message suggests one if the digits of one are there.
    """
    indices = _numbers(facet)
    if len(indices) == 4:
        if not is_hexagonal(crystal):
            raise InputError(
                f"facet {_written(facet)}: four indices belong to a hexagonal cell, and this one is not; "
                f"give three, for example {EXAMPLES.replace(chr(39) + '0001' + chr(39) + ' ', '')}"
            )
        h, k, i, ell = indices
        if h + k + i != 0:
            raise InputError(
                f"facet {_written(facet)}: in (hkil) the third index is -(h + k); did you mean "
                f"'{_digits((h, k, -h - k, ell))}'?"
            )
        indices = (h, k, ell)
    if not any(indices):
        raise InputError(
            f"facet {_written(facet)}: indices that are all zero name no plane; give for example {EXAMPLES}"
        )
    divisor = math.gcd(*indices)
    return (indices[0] // divisor, indices[1] // divisor, indices[2] // divisor)


def facet_name(miller: Miller, crystal: Atoms) -> str:
    """Write a facet as in ``(111)``, with four indices for a hexagonal cell: ``(0001)``."""
    h, k, ell = miller
    return f"({_digits((h, k, -h - k, ell) if is_hexagonal(crystal) else miller)})"


def is_hexagonal(crystal: Atoms) -> bool:
    """Whether a and b of the cell are equally long at 120° and both perpendicular to c."""
    lengths = crystal.cell.lengths()
    cosines = np.cos(np.radians(crystal.cell.angles()))
    return bool(
        abs(lengths[0] - lengths[1]) < HEXAGONAL_TOLERANCE * lengths[0]
        and np.abs(cosines - [0.0, 0.0, -0.5]).max() < HEXAGONAL_TOLERANCE
    )


def _numbers(facet: str | Sequence[int]) -> tuple[int, ...]:
    if isinstance(facet, str):
        return _parsed(facet)
    try:
        indices = tuple(facet)
    except TypeError:
        raise InputError(f"facet {facet!r} is of type {type(facet).__name__}; give for example {EXAMPLES}") from None
    if len(indices) not in (3, 4) or not all(isinstance(index, int | np.integer) for index in indices):
        raise InputError(f"facet {facet!r}: give three whole numbers, or four for a hexagonal cell")
    return tuple(int(index) for index in indices)


def _parsed(facet: str) -> tuple[int, ...]:
    text = facet.strip().strip("()[]{}")
    parts = re.split(r"[\s,]+", text.strip())
    if len(parts) == 1:
        parts = re.findall(r"-?\d", text) if re.fullmatch(r"(-?\d)+", text) else []
    if len(parts) in (3, 4) and all(re.fullmatch(r"-?\d+", part) for part in parts):
        return tuple(int(part) for part in parts)
    digits = re.findall(r"-?\d", text)
    meant = f"did you mean '{''.join(digits)}'?" if len(digits) in (3, 4) else f"give for example {EXAMPLES}"
    raise InputError(f"facet {facet!r} is not a set of Miller indices; {meant}")


def _digits(indices: Sequence[int]) -> str:
    separator = " " if max(map(abs, indices)) > 9 else ""
    return separator.join(map(str, indices))


def _written(facet: str | Sequence[int]) -> str:
    return repr(facet) if isinstance(facet, str) else f"({_digits(list(facet))})"
