"""Stacks of planes below a cut, as thick as a slab is to be."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms

from escn_calc.adsorption.bulks import Bulk
from escn_calc.adsorption.cutting import Cut, Stacking
from escn_calc.adsorption.geometry import planes
from escn_calc.adsorption.symmetry import has_equal_faces
from escn_calc.errors import InputError


def thinnest_stack(bulk: Bulk, cut: Cut, count: Stacking, layers: int, minimum_thickness: float) -> Atoms:
    """Thinnest stack with so many layers and so many Å; an element loses the planes that are too many."""
    wanted = layers * count.planes_per_layer
    repeats = max(math.ceil(wanted / count.planes_per_period), math.ceil(minimum_thickness / cut.period))
    while np.ptp((stack := cut.stack(repeats)).positions[:, 2]) < minimum_thickness:
        repeats += 1
    if not bulk.is_element:
        return stack
    of_each = planes(stack.positions[:, 2])
    tops = [stack.positions[plane, 2].mean() for plane in of_each]
    while wanted < len(of_each) and tops[0] - tops[wanted - 1] < minimum_thickness:
        wanted += count.planes_per_layer
    return _upper_planes(stack, wanted)


def _upper_planes(stack: Atoms, number: int) -> Atoms:
    return stack[np.sort(np.concatenate(planes(stack.positions[:, 2])[:number]))]


def stack_with_equal_faces(name: str, cut: Cut, count: Stacking, at_least: int) -> Atoms:
    """Thinnest stack of at least so many planes whose lower face equals its upper one.

    Raises
    ------
    InputError
        There is none.
    """
    period = count.planes_per_period
    stack = cut.stack(math.ceil(at_least / period) + 1)
    for number in range(at_least, at_least + period + 1):
        cut_off = _upper_planes(stack, number)
        if has_equal_faces(cut_off):
            return cut_off
    raise InputError(
        f"{name}: no slab of this crystal has this surface on both faces; take symmetric: false, or another termination"
    )
