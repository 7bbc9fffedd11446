"""Slabs: cut from a crystal by Miller indices, or taken from the user as they are."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from escn_calc.adsorption.bulks import Bulk
from escn_calc.adsorption.cutting import Cut, Stacking, cuts
from escn_calc.adsorption.facets import Miller, facet_name, miller_indices
from escn_calc.adsorption.geometry import exposed_atoms, frame, planes
from escn_calc.adsorption.symmetry import has_equal_faces
from escn_calc.constraints import free_indices
from escn_calc.errors import InputError

MOST_REPEATS = 20
"""Along one vector of the surface cell."""
FIXED, SURFACE, ADSORBATE = 0, 1, 2
"""Tags as in OC20 (Chanussot et al., ACS Catal. 2021, 11, 6059, DOI 10.1021/acscatal.0c04525)."""


@dataclass(frozen=True, eq=False)
class Slab:
    """A slab on whose upper face adsorbates are placed.

    Attributes
    ----------
    name : str
        Crystal, facet and, where there are several, termination: ``"Cu(111)"``, ``"NaCl(111)-Na"``.
    atoms : Atoms
        Tags 0 for atoms held in place and 1 for those that move. Slabs cut here have the normal along z, a along x and
        period along all three directions; user slabs are as they were given.
    miller : tuple of int, optional
        Indices of the facet in the cell of the bulk; None for a user slab.
    termination : str
        Composition of the uppermost plane, with a number where that does not suffice; empty where there is only one.
    bulk : Bulk, optional
        The crystal; None for a user slab.
    """

    name: str
    atoms: Atoms
    miller: Miller | None = None
    termination: str = ""
    bulk: Bulk | None = None


def slabs(
    bulk: Bulk,
    miller: str | Sequence[int],
    *,
    layers: int = 4,
    minimum_thickness: float | None = None,
    vacuum: float = 15.0,
    symmetric: bool = False,
    minimum_width: float = 6.0,
    minimum_area: float | None = None,
    supercell: tuple[int, int] | None = None,
    free_layers: int = 2,
) -> list[Slab]:
    """Cut a crystal parallel to a plane, once for every termination.

    Parameters
    ----------
    bulk : Bulk
        The crystal; the Miller indices refer to its cell.
    miller : str or sequence of int
        The facet, see :func:`escn_calc.adsorption.facets.miller_indices`.
    layers : int
        Thickness in layers. A layer is what an adsorbate can touch: one plane of fcc(111), the three planes of a
        terrace of fcc(211). Elements get exactly as many; compounds keep their composition, so get whole periods of the
        crystal with at least as many.
    minimum_thickness : float, optional
        Å from the lowest to the highest atom; more layers are taken where ``layers`` are thinner.
    vacuum : float
        Å from the highest atom to the lowest one of the image above, exactly.
    symmetric : bool
        Take atoms away from the lower face until it equals the upper one (the composition may change), and hold the
        middle instead of the lower face.
    minimum_width : float
        Å; the surface cell is repeated until no image is nearer.
    minimum_area : float, optional
        Å²; the surface cell is repeated until it is at least as large.
    supercell : tuple of int, optional
        Repeats of the primitive surface cell, as in p(2×2); ``minimum_width`` and ``minimum_area`` then have no effect.
    free_layers : int
        Layers below the upper face (with ``symmetric`` at both faces) that may move, tag 1. The others are fixed, tag
        0.

    Returns
    -------
    list of Slab
        At least one; the termination that breaks the fewest bonds first.

    Raises
    ------
    InputError
        Unknown facet, a slab so thin that no layer is held, a thickness, vacuum or size that is not positive, or a
        termination that has no slab with two equal faces.
    """
    _check_sizes(layers, free_layers, vacuum, minimum_thickness, minimum_width, minimum_area, supercell, symmetric)
    indices = miller_indices(miller, bulk.atoms)
    facet = bulk.name + facet_name(indices, bulk.atoms)
    found = cuts(bulk, indices)
    terminations = _labels([count.top for _, count in found])
    result = []
    for (cut, count), termination in zip(found, terminations, strict=True):
        name = f"{facet}-{termination}" if termination else facet
        stack = _stack(bulk, cut, count, layers, minimum_thickness or 0.0)
        if symmetric:
            stack = _with_equal_faces(name, cut, count, len(planes(stack.positions[:, 2])))
        tagged = _held(stack, free_layers * count.planes_per_layer, symmetric)
        repeats = supercell or smallest_supercell(stack.cell.array[:2, :2], minimum_width, minimum_area or 0.0)
        atoms = _in_vacuum(tagged, vacuum).repeat((*repeats, 1))
        atoms.set_constraint(FixAtoms(np.flatnonzero(atoms.get_tags() == FIXED)))
        result.append(Slab(name, atoms, indices, termination, bulk))
    return result


def user_slab(atoms: Atoms, name: str) -> Slab:
    """Take a slab as it is: cell, positions, constraints and tags stay.

    Tags that are 0 and 1 are kept. Others (none, or the layer numbers that ASE's builders give) are worked out: 0 for
    atoms held by ``FixAtoms`` and 1 for the rest; without ``FixAtoms``, 1 for the atoms an adsorbate can touch. A slab
    that reaches through the boundary of its cell along the third vector is put together.

    Raises
    ------
    InputError
        No atoms, not periodic in its plane, no gap along the third cell vector.
    """
    if len(atoms) == 0:
        raise InputError(f"slab {name}: the structure has no atoms")
    if not atoms.pbc[:2].all() or np.linalg.norm(np.cross(*atoms.cell.array[:2])) < 1e-3:
        raise InputError(
            f"slab {name}: a slab is periodic along its first two cell vectors; found pbc "
            f"{''.join('FT'[int(flag)] for flag in atoms.pbc)} and cell vectors {atoms.cell.array[:2].tolist()} Å"
        )
    taken = _put_together(atoms.copy(), name)
    taken.calc = None
    if set(taken.get_tags()) != {FIXED, SURFACE}:
        taken.set_tags(_worked_out_tags(taken))
    return Slab(name, taken)


def check_vacuum(atoms: Atoms, cutoff: float, name: str) -> None:
    """Make sure that a slab, with what is on it, does not see its own image through the vacuum.

    Parameters
    ----------
    atoms : Atoms
        A slab or a placement.
    cutoff : float
        Å, how far a model sees.
    name : str
        How to call the structure in the message.

    Raises
    ------
    InputError
        The gap along the normal is smaller than the cutoff.
    """
    gap = vacuum_of(atoms)
    if gap < cutoff:
        raise InputError(
            f"{name}: {gap:.1f} Å of vacuum between the structure and its image, and the model sees {cutoff:g} Å far; "
            f"raise the vacuum by at least {cutoff - gap:.1f} Å"
        )


def vacuum_of(atoms: Atoms) -> float:
    """Gap in Å between the highest atom and the lowest one of the image above; infinite if there is no image."""
    if not atoms.pbc[2]:
        return math.inf
    directions = frame(atoms)
    return float(directions.heights(atoms.cell.array[2]) - np.ptp(directions.heights(atoms.positions)))


def smallest_supercell(lattice: np.ndarray, minimum_width: float, minimum_area: float) -> tuple[int, int]:
    """Fewest repeats of a surface cell (2, 2) with images no nearer than a width (Å) and at least an area (Å²).

    Among equally many, those with the farthest images; then the most nearly square numbers.
    """
    area = abs(np.linalg.det(lattice))
    steps = np.array([step for step in itertools.product(range(-4, 5), repeat=2) if any(step)])
    candidates = []
    for first, second in itertools.product(range(1, MOST_REPEATS + 1), repeat=2):
        width = np.linalg.norm(steps @ (lattice * [[first], [second]]), axis=1).min()
        if width >= minimum_width - 1e-6 and first * second * area >= minimum_area - 1e-6:
            candidates.append((first * second, -round(width, 3), abs(first - second), first, second))
    if not candidates:
        raise InputError(
            f"more than {MOST_REPEATS} repeats of the surface cell would be needed for a width of {minimum_width:g} Å "
            f"and an area of {minimum_area:g} Å²; ask for less, or give the supercell"
        )
    return min(candidates)[3:]


def _check_sizes(
    layers: int,
    free_layers: int,
    vacuum: float,
    minimum_thickness: float | None,
    minimum_width: float,
    minimum_area: float | None,
    supercell: tuple[int, int] | None,
    symmetric: bool,
) -> None:
    lengths = {
        "vacuum": vacuum,
        "minimum_thickness": minimum_thickness,
        "minimum_width": minimum_width,
        "minimum_area": minimum_area,
    }
    for name, value in lengths.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value}; it must be positive (Å, and Å² for an area)")
    if free_layers < 0:
        raise InputError(f"free_layers is {free_layers}; it must be 0 or more")
    free = free_layers * (2 if symmetric else 1)
    if layers <= free:
        raise InputError(
            f"slab too thin: {layers} layers, of which {free} are free to move"
            f"{' at the two faces' if symmetric else ''}, leave none to hold; take at least {free + 1} layers or fewer "
            "free_layers"
        )
    if supercell is not None and (len(supercell) != 2 or min(supercell) < 1):
        raise InputError(f"supercell is {supercell}; it must be two numbers of at least 1, as in (2, 2)")


def _labels(tops: list[str]) -> list[str]:
    if len(tops) == 1:
        return [""]
    numbers: Counter[str] = Counter()
    labels = []
    for top in tops:
        numbers[top] += 1
        labels.append(top if tops.count(top) == 1 else f"{top}-{numbers[top]}")
    return labels


def _stack(bulk: Bulk, cut: Cut, count: Stacking, layers: int, minimum_thickness: float) -> Atoms:
    """Thinnest stack with so many layers and so many Å; an element loses the planes that are too many."""
    wanted = layers * count.planes_per_layer
    repeats = math.ceil(wanted / count.planes_per_period)
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


def _with_equal_faces(name: str, cut: Cut, count: Stacking, at_least: int) -> Atoms:
    period = count.planes_per_period
    stack = cut.stack(math.ceil(at_least / period) + 1)
    for number in range(at_least, at_least + period + 1):
        cut_off = _upper_planes(stack, number)
        if has_equal_faces(cut_off):
            return cut_off
    raise InputError(
        f"{name}: no slab of this crystal has this surface on both faces; take symmetric: false, or another termination"
    )


def _held(stack: Atoms, free_planes: int, symmetric: bool) -> Atoms:
    """Tag the planes that may move 1, the others 0."""
    of_each = planes(stack.positions[:, 2])
    free = of_each[:free_planes] + (of_each[len(of_each) - free_planes :] if symmetric else [])
    tags = np.full(len(stack), FIXED)
    for plane in free:
        tags[plane] = SURFACE
    tagged = stack.copy()
    tagged.set_tags(tags)
    return tagged


def _in_vacuum(stack: Atoms, vacuum: float) -> Atoms:
    """Set the height of the cell and centre the stack in it."""
    placed = stack.copy()
    heights = placed.positions[:, 2]
    placed.cell[2, 2] = np.ptp(heights) + vacuum
    placed.positions[:, 2] += vacuum / 2 - heights.min()
    return placed


def _put_together(atoms: Atoms, name: str) -> Atoms:
    """Shift atoms by the third cell vector so that the widest gap lies above all of them."""
    if not atoms.pbc[2]:
        return atoms
    directions = frame(atoms)
    height = float(directions.heights(atoms.cell.array[2]))
    fractions = (directions.heights(atoms.positions) / height) % 1.0
    order = np.sort(fractions)
    gaps = np.diff(np.append(order, order[0] + 1.0))
    widest = int(gaps.argmax())
    if gaps[widest] * height < 4.0:
        raise InputError(
            f"slab {name}: the widest gap between planes along the third cell vector is {gaps[widest] * height:.1f} Å; "
            "a slab needs vacuum there, and a crystal is given as a bulk"
        )
    cells = np.floor(directions.heights(atoms.positions) / height)
    if widest < len(order) - 1:
        cells += fractions > order[widest] + 1e-9
    atoms.positions -= (cells - cells.min())[:, None] * atoms.cell.array[2]
    return atoms


def _worked_out_tags(atoms: Atoms) -> np.ndarray:
    tags = np.full(len(atoms), FIXED)
    free = free_indices(atoms)
    tags[free if len(free) < len(atoms) else exposed_atoms(atoms)] = SURFACE
    return tags
