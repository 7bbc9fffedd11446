"""Adsorption sites that the symmetry of a surface leaves different: ontop, bridge and hollow, fcc and hcp told apart.

The exposed atoms, seen along the normal, are the nodes of a Delaunay tessellation: nodes are ontop sites, edges are
bridges and faces are hollows. Triangles with a common circumcentre are one face, so that the square of fcc(100) is a
fourfold hollow and its diagonal no bridge.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.symbols import Symbols
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from escn_calc.adsorption.geometry import Array, Frame, all_around, exposed_atoms, images, in_cell, shortest
from escn_calc.adsorption.slabs import Slab
from escn_calc.adsorption.symmetry import Symmetry, surface_symmetry
from escn_calc.errors import InputError

KINDS = ("ontop", "bridge", "fcc", "hcp", "hollow")
SAME_SITE = 0.15
"""Å, seen along the normal."""
ONE_FACE = 0.3
"""Å. Triangles whose circumcentres are nearer are one face."""
WIDEST_ANGLE = 95.0
"""Degrees. A triangle with a wider angle is no hollow: its middle is next to the bridge over its longest edge."""
EQUILATERAL = 1.12
"""Ratio of the longest to the shortest edge up to which a threefold hollow is fcc or hcp."""
STEEPEST = 25.0
"""Degrees between surface and plane of a fcc or hcp hollow: 19.5° on the terraces of fcc(211)."""
BELOW = 0.2
"""Share of the edge: atoms deeper than this under a hollow are below its plane."""
RIGHT_BELOW = 0.3
"""Share of the edge, sideways."""


@dataclass(frozen=True, eq=False)
class Site:
    """A place on a slab where an adsorbate can bind.

    Attributes
    ----------
    name : str
        Unique on its slab: the kind, with the elements of its atoms where the surface has several (``"bridge-FePt"``),
        and a number where that does not suffice (``"bridge-1"``, the shortest first).
    kind : str
        One of ``KINDS``. Threefold hollows of close-packed faces are ``"hcp"`` with an atom of the next plane right
        below and ``"fcc"`` without; all other faces are ``"hollow"``.
    position : ndarray (3,)
        Middle of the atoms that make the site, Å. Where an adsorbate goes above it depends on the adsorbate.
    atoms : tuple of int
        Indices in the slab of the atoms that make the site; one that takes part through two images is named twice.
    """

    name: str
    kind: str
    position: Array
    atoms: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Face:
    """A site before its place in the cell is chosen: its corners (n, 2) in the plane, and the atoms they are."""

    kind: str
    corners: Array
    heights: Array
    atoms: tuple[int, ...]

    @property
    def middle(self) -> Array:
        return np.asarray(self.corners.mean(axis=0))

    @property
    def size(self) -> float:
        return float(np.linalg.norm(self.corners - self.middle, axis=1).mean())


def unique_sites(slab: Slab) -> list[Site]:
    """Find one site of each kind that the symmetry of the surface leaves different.

    Neither the vacuum nor the supercell changes how many there are, nor do tags and constraints. Of the equivalent
    places in the cell, the one nearest to its middle is taken.

    Returns
    -------
    list of Site
        Ontop, bridge, fcc, hcp, other hollows; within a kind the smallest first.

    Raises
    ------
    InputError
        No atom of the slab can be touched from above.
    """
    symmetry = surface_symmetry(slab.atoms)
    unique = _without_images(_faces(slab, symmetry), symmetry)
    unique.sort(key=lambda face: (KINDS.index(face.kind), round(face.size, 2), -round(float(face.heights.mean()), 2)))
    elements = [Symbols(slab.atoms.numbers[list(face.atoms)]).get_chemical_formula() for face in unique]
    names = _names(unique, elements)
    return [_in_the_middle(slab, symmetry, face, name) for face, name in zip(unique, names, strict=True)]


def equivalent_positions(slab: Slab, site: Site) -> Array:
    """All places (K, 3) in the cell of a slab that symmetry makes equal to a site, Å; the site itself first."""
    symmetry = surface_symmetry(slab.atoms)
    directions = symmetry.frame
    flat = _orbit(symmetry, directions.flat(site.position), directions.lattice)
    apart = np.linalg.norm(shortest(flat - directions.flat(site.position), directions.lattice), axis=1)
    flat = flat[np.argsort(apart > SAME_SITE, kind="stable")]
    return directions.in_space(flat, np.full(len(flat), float(directions.heights(site.position))))


def _faces(slab: Slab, symmetry: Symmetry) -> list[_Face]:
    """Nodes, edges and faces of the tessellation of one primitive surface cell; some more than once."""
    atoms, directions = slab.atoms, symmetry.frame
    exposed = exposed_atoms(atoms)
    if len(exposed) == 0:
        raise InputError(f"slab {slab.name}: no atom can be touched from above; is the third cell vector up?")
    nodes = in_cell(directions.flat(atoms.positions[exposed]), symmetry.lattice)
    first = _first_of_each(nodes, symmetry.lattice)
    nodes, exposed = nodes[first], exposed[first]
    reach = 2.0 * float(np.linalg.norm(symmetry.lattice, axis=1).sum())
    offsets = images(symmetry.lattice, reach)
    points = (nodes[:, None] + offsets).reshape(-1, 2)
    owners = np.repeat(exposed, len(offsets))
    rings = _rings(points, symmetry.lattice)

    def face(kind: str, members: list[int]) -> _Face:
        owned = tuple(int(owners[member]) for member in members)
        return _Face(kind, points[members], directions.heights(atoms.positions[list(owned)]), owned)

    ontop = [face("ontop", [int(np.flatnonzero(owners == atom)[0])]) for atom in exposed]
    edges = {tuple(sorted(pair)) for ring in rings for pair in zip(ring, [*ring[1:], ring[0]], strict=True)}
    bridges = [face("bridge", list(pair)) for pair in sorted(edges)]
    hollows = [face("hollow", ring) for ring in rings]
    named = [
        replace(hollow, kind=_kind_of_hollow(hollow, atoms, directions)) for hollow in hollows if not _is_obtuse(hollow)
    ]
    return ontop + bridges + named


def _rings(points: Array, lattice: Array) -> list[list[int]]:
    """Corners of the faces in and next to one cell, in order; triangles with a common circumcentre are one face."""
    triangles = Delaunay(points).simplices
    middles = _circumcentres(points[triangles])
    near = _within(middles, lattice, 0.5)
    triangles, middles = triangles[near], middles[near]
    rings, left = [], np.ones(len(triangles), dtype=bool)
    while left.any():
        middle = middles[left.argmax()]
        together = np.linalg.norm(middles - middle, axis=1) < ONE_FACE
        left &= ~together
        if not _within(middle, lattice, 0.05):
            continue
        corners = np.unique(triangles[together])
        angles = np.arctan2(*(points[corners] - points[corners].mean(axis=0)).T[::-1])
        rings.append(corners[np.argsort(angles)].tolist())
    return rings


def _within(flat: Array, lattice: Array, margin: float) -> NDArray[np.bool_]:
    """Whether points (…, 2) are in the cell or so far outside, in fractions of it."""
    fractions = flat @ np.linalg.inv(lattice)
    return np.asarray((np.abs(fractions - 0.5) < 0.5 + margin).all(axis=-1))


def _circumcentres(triangles: Array) -> Array:
    """Centres (M, 2) of the circles through triangles (M, 3, 2); far away for triangles without area."""
    origin = triangles[:, 0]
    b, c = triangles[:, 1] - origin, triangles[:, 2] - origin
    twice = 2.0 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    twice = np.where(np.abs(twice) < 1e-6, 1e-12, twice)
    squares_b, squares_c = (b**2).sum(axis=1), (c**2).sum(axis=1)
    x = (c[:, 1] * squares_b - b[:, 1] * squares_c) / twice
    y = (b[:, 0] * squares_c - c[:, 0] * squares_b) / twice
    return origin + np.column_stack([x, y])


def _is_obtuse(face: _Face) -> bool:
    if len(face.corners) != 3:
        return False
    edges = np.sort([np.linalg.norm(a - b) for a, b in itertools.combinations(face.corners, 2)])
    cosine = (edges[0] ** 2 + edges[1] ** 2 - edges[2] ** 2) / (2 * edges[0] * edges[1])
    return bool(cosine < np.cos(np.radians(WIDEST_ANGLE)))


def _kind_of_hollow(face: _Face, atoms: Atoms, directions: Frame) -> str:
    """Name a hollow by what lies below, along the normal of its own plane: terraces of steps are inclined."""
    corners = directions.in_space(face.corners, face.heights)
    edges = [np.linalg.norm(a - b) for a, b in itertools.combinations(corners, 2)]
    if len(corners) != 3 or max(edges) > EQUILATERAL * min(edges):
        return "hollow"
    edge = float(np.mean(edges))
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    normal *= np.sign(normal @ directions.axes[2]) / np.linalg.norm(normal)
    if normal @ directions.axes[2] < np.cos(np.radians(STEEPEST)):
        return "hollow"
    flat = shortest(directions.flat(atoms.positions) - face.middle, directions.lattice)
    flat = flat[:, None] + images(directions.lattice, 2 * edge)
    rises = np.broadcast_to(directions.heights(atoms.positions)[:, None] - face.heights.mean(), flat.shape[:2])
    relative = directions.in_space(flat, rises).reshape(-1, 3)
    depths = -relative @ normal
    sideways = np.linalg.norm(relative + depths[:, None] * normal, axis=1)
    below = (depths > BELOW * edge) & (sideways < EQUILATERAL * edge)
    if not below.any():
        return "hollow"
    next_plane = below & (depths < depths[below].min() + BELOW * edge)
    if (sideways[next_plane] < RIGHT_BELOW * edge).any():
        return "hcp"
    return "fcc" if all_around(directions.flat(relative[next_plane])) else "hollow"


def _without_images(faces: list[_Face], symmetry: Symmetry) -> list[_Face]:
    """The first of all faces of one kind that symmetry takes into one another."""
    middles = np.array([face.middle for face in faces])
    heights = np.array([face.heights.mean() for face in faces])
    kinds = np.array([face.kind for face in faces])
    left = np.ones(len(faces), dtype=bool)
    unique = []
    while left.any():
        first = int(left.argmax())
        unique.append(faces[first])
        apart = shortest(symmetry.images_of(middles[first])[:, None] - middles[None], symmetry.lattice)
        same = (np.linalg.norm(apart, axis=-1) < SAME_SITE).any(axis=0) & (np.abs(heights - heights[first]) < SAME_SITE)
        left &= ~(same & (kinds == kinds[first]))
    return unique


def _in_the_middle(slab: Slab, symmetry: Symmetry, face: _Face, name: str) -> Site:
    """Choose, among the equivalent places, the one nearest to the middle of the cell."""
    directions = symmetry.frame
    corners = symmetry.images_of(face.corners)
    middles = corners.mean(axis=1)
    cells = _cells(symmetry.lattice, directions.lattice)
    places = in_cell(middles[:, None] + cells, directions.lattice).reshape(-1, 2)
    away = np.round(np.linalg.norm(places - directions.lattice.sum(axis=0) / 2, axis=1), 2)
    best = np.lexsort([np.round(places[:, 1], 2), np.round(places[:, 0], 2), away])[0]
    operation = best // len(cells)
    moved = corners[operation] + (places[best] - middles[operation])
    position = directions.in_space(places[best], face.heights.mean())
    return Site(name, face.kind, position, _atoms_at(slab.atoms, directions, moved, face.heights))


def _atoms_at(atoms: Atoms, directions: Frame, corners: Array, heights: Array) -> tuple[int, ...]:
    flat = directions.flat(atoms.positions)
    sideways = np.linalg.norm(shortest(flat[None] - corners[:, None], directions.lattice), axis=-1)
    apart = np.hypot(sideways, directions.heights(atoms.positions)[None] - heights[:, None])
    return tuple(int(index) for index in apart.argmin(axis=1))


def _orbit(symmetry: Symmetry, flat: Array, lattice: Array) -> Array:
    """Points (K, 2) of a larger cell that symmetry makes equal to one, each once."""
    points = symmetry.images_of(flat)
    every = in_cell((points[:, None] + _cells(symmetry.lattice, lattice)).reshape(-1, 2), lattice)
    return every[_first_of_each(every, lattice)]


def _cells(primitive: Array, lattice: Array) -> Array:
    """Vectors (M, 2) to the primitive cells that make up a larger one."""
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ lattice @ np.linalg.inv(primitive)
    low, high = np.floor(corners.min(axis=0) + 1e-6).astype(int), np.ceil(corners.max(axis=0) - 1e-6).astype(int)
    steps = np.stack(np.meshgrid(*map(np.arange, low, high + 1), indexing="ij"), axis=-1).reshape(-1, 2)
    vectors = in_cell(steps @ primitive, lattice)
    return vectors[_first_of_each(vectors, lattice)]


def _first_of_each(points: Array, lattice: Array) -> NDArray[np.int64]:
    apart = np.linalg.norm(shortest(points[None] - points[:, None], lattice), axis=-1)
    return np.flatnonzero((apart < SAME_SITE).argmax(axis=1) == np.arange(len(points)))


def _names(faces: list[_Face], elements: list[str]) -> list[str]:
    several = len({element for face, element in zip(faces, elements, strict=True) if face.kind == "ontop"}) > 1
    names = [f"{face.kind}-{element}" if several else face.kind for face, element in zip(faces, elements, strict=True)]
    numbers: Counter[str] = Counter()
    result = []
    for name in names:
        numbers[name] += 1
        result.append(name if names.count(name) == 1 else f"{name}-{numbers[name]}")
    return result
