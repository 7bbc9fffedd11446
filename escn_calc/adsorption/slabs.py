"""Slabs: cut from a crystal by Miller indices, or taken from the user as they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from escn_calc.adsorption.bulks import Bulk
from escn_calc.adsorption.cutting import cuts
from escn_calc.adsorption.facets import Miller, facet_name, miller_indices
from escn_calc.adsorption.geometry import exposed_atoms, frame, planes
from escn_calc.adsorption.soundness import check_positions
from escn_calc.adsorption.stacks import stack_with_equal_faces, thinnest_stack
from escn_calc.adsorption.supercells import smallest_supercell
from escn_calc.constraints import free_indices
from escn_calc.errors import InputError

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
        stack = thinnest_stack(bulk, cut, count, layers, minimum_thickness or 0.0)
        if symmetric:
            stack = stack_with_equal_faces(name, cut, count, len(planes(stack.positions[:, 2])))
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
        No atoms, atoms on top of each other or nowhere, not periodic in its plane, no gap along the third cell vector,
        or tags that say that something is adsorbed already.
    """
    check_positions(atoms, f"slab {name}")
    if not atoms.pbc[:2].all() or np.linalg.norm(np.cross(*atoms.cell.array[:2])) < 1e-3:
        raise InputError(
            f"slab {name}: a slab is periodic along its first two cell vectors; found pbc "
            f"{''.join('FT'[int(flag)] for flag in atoms.pbc)} and cell vectors {atoms.cell.array[:2].tolist()} Å"
        )
    _check_is_clean(atoms, name)
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
    if not _are_whole([layers, free_layers]):
        raise InputError(f"layers is {layers} and free_layers {free_layers}; both must be whole numbers")
    if free_layers < 0:
        raise InputError(f"free_layers is {free_layers}; it must be 0 or more")
    free = free_layers * (2 if symmetric else 1)
    if layers <= free:
        raise InputError(
            f"slab too thin: {layers} layers, of which {free} are free to move"
            f"{' at the two faces' if symmetric else ''}, leave none to hold; take at least {free + 1} layers or fewer "
            "free_layers"
        )
    if supercell is not None and (len(supercell) != 2 or not _are_whole(supercell) or min(supercell) < 1):
        raise InputError(f"supercell is {supercell}; it must be two whole numbers of at least 1, as in (2, 2)")


def _are_whole(numbers: Sequence[int]) -> bool:
    return all(isinstance(number, int | np.integer) for number in numbers)


def _labels(tops: list[str]) -> list[str]:
    if len(tops) == 1:
        return [""]
    numbers: Counter[str] = Counter()
    labels = []
    for top in tops:
        numbers[top] += 1
        labels.append(top if tops.count(top) == 1 else f"{top}-{numbers[top]}")
    return labels


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


def _check_is_clean(atoms: Atoms, name: str) -> None:
    """OC20 tags adsorbates 2, slabs 0 and 1; ASE's builders tag adsorbates 0, layers of slabs from 1."""
    tags = set(atoms.get_tags().tolist())
    if FIXED in tags and max(tags) >= ADSORBATE:
        raise InputError(
            f"slab {name}: it has tags {', '.join(map(str, sorted(tags)))}, as if something were adsorbed already (tag "
            f"{ADSORBATE} in OC20, {FIXED} beside layers from 1 in ASE); give the clean slab, or set the tags "
            f"{FIXED} (held) and {SURFACE} (free) if all of it is the slab"
        )


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
