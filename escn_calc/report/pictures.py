"""Pictures of the surroundings of an adsorbate, from the side and from above, and what the 3D viewer shows."""

from __future__ import annotations

from html import escape
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase.data import covalent_radii
from ase.data.colors import jmol_colors

if TYPE_CHECKING:
    from ase import Atoms

WINDOW = 10.0
"""Å. Width and height of a picture: two to three neighbours of a metal around the adsorbate."""
PIXELS_PER_ANGSTROM = 16
DEEPEST_FROM_ABOVE = 8.0
"""Å below the highest atom: what lies deeper is hidden."""
HEADROOM = 1.5
"""Å above the highest atom, seen from the side."""
RADIUS = 0.88
"""Of the covalent radius: metal atoms nearly touch, and an adsorbate between them stays visible."""
FADED = 0.5
ADSORBATE_TAG = 2

View = Literal["side", "top"]


def picture(atoms: Atoms, view: View, words: str) -> str:
    """Draw a structure as an ``svg`` element, periodic copies included, the adsorbate in the middle.

    Parameters
    ----------
    atoms : Atoms
        A relaxed structure, the adsorbate with tag 2, the surface normal along z.
    view : {"side", "top"}
        Along y with z upwards, or along −z with y upwards.
    words : str
        What it shows, for those who cannot see it.
    """
    numbers, around, centre = surroundings(atoms)
    highest = around[:, 2].max(initial=0)
    if view == "top":
        visible = around[:, 2] > highest - DEEPEST_FROM_ABOVE
        numbers, around = numbers[visible], around[visible]
        across, up, nearness, top = around[:, 0], around[:, 1], around[:, 2], WINDOW / 2
    else:
        across, up, nearness, top = around[:, 0], around[:, 2], -around[:, 1], highest + HEADROOM
    scale = PIXELS_PER_ANGSTROM
    span = np.ptp(nearness) if len(nearness) else 0.0
    circles = [
        f'<circle cx="{(across[index] + WINDOW / 2) * scale:.0f}" cy="{(top - up[index]) * scale:.0f}" '
        f'r="{RADIUS * covalent_radii[numbers[index]] * scale:.0f}" '
        f'fill="{_colour(numbers[index], (nearness.max() - nearness[index]) / (span or 1))}"/>'
        for index in np.argsort(nearness, kind="stable")
    ]
    outline = _cell_outline(atoms, centre) if view == "top" else ""
    size = f"{WINDOW * scale:.0f}"
    return (
        f'<svg class="picture" width="{size}" height="{size}" viewBox="0 0 {size} {size}" role="img" '
        f'aria-label="{escape(words)}">'
        f'<g stroke="#2b2f33" stroke-width="0.8">{"".join(circles)}</g>{outline}</svg>'
    )


def surroundings(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the atoms of a column around the adsorbate.

    Returns
    -------
    numbers : (N,) atomic numbers.
    positions : (N, 3) in Å; x and y from the middle of the adsorbate, z as in the structure.
    centre : (2,) x and y of the middle of the adsorbate, or of all atoms where there is none, in Å.
    """
    is_adsorbate = atoms.get_tags() == ADSORBATE_TAG
    chosen = atoms.positions[is_adsorbate] if is_adsorbate.any() else atoms.positions
    centre = chosen[:, :2].mean(axis=0)
    images = [_images(atoms, axis) for axis in (0, 1)]
    shifts = np.array([first * atoms.cell[0] + second * atoms.cell[1] for first, second in product(*images)])
    positions = (atoms.positions[None, :, :] + shifts[:, None, :]).reshape(-1, 3)
    positions[:, :2] -= centre
    numbers = np.tile(atoms.numbers, len(shifts))
    near = np.abs(positions[:, :2]).max(axis=1, initial=0) < WINDOW / 2 + 1
    return numbers[near], positions[near], centre


def viewer_record(atoms: Atoms, title: str) -> dict[str, Any]:
    """Return what the 3D viewer needs of a structure, as values that JSON can hold; lengths in Å."""
    lattice = " ".join(f"{value:.3f}" for value in atoms.cell.array.ravel())
    rows = [
        f"{symbol} {x:.3f} {y:.3f} {z:.3f}" for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)
    ]
    comment = f'Lattice="{lattice}"' if atoms.cell.rank == 3 else ""
    return {
        "title": title,
        "xyz": "\n".join([str(len(atoms)), comment, *rows]),
        "repeats": [_repeats(length) for length in atoms.cell.lengths()[:2]],
    }


def _repeats(length: float) -> int:
    """Return how many copies of a cell of some length in Å show the surroundings."""
    return max(2, int(np.ceil(WINDOW / length))) if length > 1 else 1


def viewer_elements(structures: list[Atoms]) -> dict[str, dict[str, Any]]:
    """Return colour and radius (Å) of every element, so that viewer and pictures agree."""
    found = {
        symbol: number for atoms in structures for symbol, number in zip(atoms.symbols, atoms.numbers, strict=True)
    }
    return {
        symbol: {"colour": _colour(number, 0.0), "radius": round(RADIUS * float(covalent_radii[number]), 2)}
        for symbol, number in sorted(found.items())
    }


def _images(atoms: Atoms, axis: int) -> range:
    """Return which periodic copies along a cell vector can reach into the window."""
    area = np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1]))
    if not atoms.pbc[axis] or area < 1e-6:
        return range(1)
    spacing = area / np.linalg.norm(atoms.cell[1 - axis])
    reach = int(np.ceil((WINDOW / spacing) + 1))
    return range(-reach, reach + 1)


def _cell_outline(atoms: Atoms, centre: np.ndarray) -> str:
    """Draw the borders of all cells in the window, seen from above."""
    vectors = atoms.cell.array[:2, :2]
    if abs(np.linalg.det(vectors)) < 1e-6:
        return ""
    here = np.floor(np.linalg.solve(vectors.T, centre))
    borders = []
    for axis, step in product((0, 1), range(-2, 4)):
        start = (here + ((step, -2) if axis else (-2, step))) @ vectors
        borders.append((start, start + 5 * vectors[axis]))
    lines = [(np.array(border) - centre) * [1, -1] + WINDOW / 2 for border in borders]
    path = "".join("M{:.0f} {:.0f}L{:.0f} {:.0f}".format(*(line * PIXELS_PER_ANGSTROM).ravel()) for line in lines)
    return f'<path d="{path}" stroke="#10161c" stroke-width="1" stroke-dasharray="4 4"/>'


def _colour(atomic_number: int, depth: float) -> str:
    """Return the colour of an element, paler the deeper (0 to 1) an atom lies."""
    colour = jmol_colors[atomic_number]
    mixed = np.rint(255 * (colour + FADED * depth * (1 - colour))).astype(int)
    return f"#{mixed[0]:02x}{mixed[1]:02x}{mixed[2]:02x}"
