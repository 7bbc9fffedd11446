"""Adsorbates on slabs: on every unique site, on sites in random orientations, or anywhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from scipy.spatial.transform import Rotation

from escn_calc.adsorption.adsorbates import Adsorbate
from escn_calc.adsorption.contact import CLOSEST, Surface, closest_image, closest_molecule, contact_height, surface_of
from escn_calc.adsorption.coverage import arranged, copies
from escn_calc.adsorption.duplicates import groups_of_equals
from escn_calc.adsorption.geometry import Array
from escn_calc.adsorption.sites import Site, equivalent_positions, unique_sites
from escn_calc.adsorption.slabs import ADSORBATE, Slab, vacuum_of
from escn_calc.errors import InputError

MODES = ("sites", "heuristic", "random")
DEFAULT_NUMBER = 100
"""Placements made with "heuristic" and "random" unless a number is given."""
CONE = math.pi / 9
"""Largest tilt of an adsorbate with "heuristic"."""
AZIMUTH = 15.0
"""Degrees by which an adsorbate on a site is turned from the first cell vector, so that no mirror plane holds it."""
SAME_START = 0.1
"""Å. Starts that differ by less are one."""
SMALLEST_GAP = 4.0
"""Å between the top of an adsorbate and the slab above it."""
TRIES = 200
"""Attempts to find room for one more molecule."""

Draw = Callable[[np.random.Generator, Adsorbate, int], tuple[Atoms, str]]
"""Puts an adsorbate somewhere, on the site whose turn it is if sites matter; with the name of the site."""


@dataclass(frozen=True, eq=False)
class Placement:
    """A slab with something on it.

    Attributes
    ----------
    atoms : Atoms
        The atoms of the slab in their order, with their tags and constraints, then those of the adsorbate with tag 2.
    slab : Slab
    adsorbate : Adsorbate
        What was put there. Several molecules are one adsorbate named ``"2O"`` or ``"CO+OH"``.
    site : str
        Where: name of a site (``"fcc"``), with ``"heuristic"`` that and a number (``"fcc/7"``), with ``"random"`` a
        number (``"random-7"``). Several kinds of molecules: ``"fcc+ontop"``.
    molecules : tuple of tuple of int
        Indices in ``atoms`` of every molecule.
    """

    atoms: Atoms
    slab: Slab
    adsorbate: Adsorbate
    site: str
    molecules: tuple[tuple[int, ...], ...]


def place(slab: Slab, adsorbate: Adsorbate, site: Site, *, azimuth: float = AZIMUTH) -> Placement:
    """Put an adsorbate on a site, upright as in the catalogue, down to where it touches.

    Parameters
    ----------
    slab : Slab
    adsorbate : Adsorbate
    site : Site
        One of :func:`escn_calc.adsorption.sites.unique_sites`.
    azimuth : float
        Degrees between the first cell vector and the x axis of the adsorbate.

    Raises
    ------
    InputError
        The adsorbate is larger than the cell (its images would be bonded to it), or the vacuum too small for it.
    """
    surface = surface_of(slab.atoms)
    turn = Rotation.from_euler("z", azimuth, degrees=True)
    put = [_put(surface, adsorbate, surface.frame.flat(site.position), turn)]
    if obstacle := _obstacle(slab, put):
        raise InputError(obstacle)
    return _placement(slab, put, [adsorbate], site.name)


def placements(
    slab: Slab,
    adsorbate: Adsorbate | Sequence[Adsorbate],
    *,
    mode: str = "sites",
    number: int | None = None,
    seed: int = 0,
    coverage: float | None = None,
) -> list[Placement]:
    """Put one or several adsorbates on a slab in all ways that are worth a relaxation.

    Parameters
    ----------
    slab : Slab
    adsorbate : Adsorbate or sequence of Adsorbate
        One, or several that go on the slab together.
    mode : str
        "sites": once on every unique site, as :func:`place` does. Several equal molecules are on equal sites, different
        ones in every combination, as far apart as the cell allows.
        "heuristic": the binding atoms above the unique sites in turn, turned about the normal by any angle and tilted
        by up to 20°, after AdsorbML (Lan et al., npj Comput. Mater. 2023, 9, 172, DOI 10.1038/s41524-023-01121-5).
        "random": the centre of mass above any point of the surface, in any orientation.
    number : int, optional
        How many to try with "heuristic" and "random", 100 unless given. Those that symmetry makes equal to an earlier
        one are left out, so for a single atom on sites few remain.
    seed : int
        Of the random numbers. The first placements of a larger number are those of a smaller one.
    coverage : float, optional
        Monolayers: molecules per exposed atom of the slab. With it ``adsorbate`` is one, and copies of it are placed.

    Returns
    -------
    list of Placement
        No two are equal under the symmetry of the cell.

    Raises
    ------
    InputError
        Unknown mode, a number with "sites", a number or seed that is not whole or too small, a coverage that the cell
        cannot have, an adsorbate larger than the cell, no room for all, or a vacuum too small for them.
    """
    molecules = _molecules(slab, adsorbate, coverage)
    if mode not in MODES:
        raise InputError(f"mode {mode!r} is unknown; give one of {', '.join(MODES)}")
    if mode == "sites":
        if number is not None:
            raise InputError('mode "sites" makes one placement for each unique site; leave number out')
        made = _on_sites(slab, molecules)
    else:
        wanted = DEFAULT_NUMBER if number is None else number
        _check_whole("number", wanted, 1)
        _check_whole("seed", seed, 0)
        made = _drawn(slab, molecules, mode, wanted, seed)
    groups = groups_of_equals([placement.atoms for placement in made], slab, tolerance=SAME_START)
    return [made[group[0]] for group in groups]


def _check_whole(name: str, value: int, least: int) -> None:
    if not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is {value}; it must be a whole number of at least {least}")


def _molecules(slab: Slab, adsorbate: Adsorbate | Sequence[Adsorbate], coverage: float | None) -> list[Adsorbate]:
    several = [adsorbate] if isinstance(adsorbate, Adsorbate) else list(adsorbate)
    if not several:
        raise InputError("no adsorbate was given")
    if coverage is None:
        return several
    if len(several) > 1:
        raise InputError(
            "a coverage is that of one adsorbate; for several, leave it out and list each as often as it is on the slab"
        )
    return several * copies(slab, coverage)


def _on_sites(slab: Slab, molecules: list[Adsorbate]) -> list[Placement]:
    surface = surface_of(slab.atoms)
    places = {site.name: surface.frame.flat(equivalent_positions(slab, site)) for site in unique_sites(slab)}
    turn = Rotation.from_euler("z", AZIMUTH, degrees=True)
    made, obstacle = [], None
    for names, points in arranged(molecules, places, surface.frame.lattice):
        put = [_put(surface, molecule, point, turn) for molecule, point in zip(molecules, points, strict=True)]
        obstacle = _obstacle(slab, put)
        if obstacle is None:
            made.append(_placement(slab, put, molecules, "+".join(names)))
    if not made:
        raise InputError(obstacle)
    return made


def _drawn(slab: Slab, molecules: list[Adsorbate], mode: str, number: int, seed: int) -> list[Placement]:
    """Placements from random numbers; each has its own stream, so that it does not depend on how many there are."""
    surface = surface_of(slab.atoms)
    draw = _anywhere(surface) if mode == "random" else _above_sites(slab, surface)
    made = []
    for index in range(number):
        generator = np.random.default_rng([seed, index])
        put: list[Atoms] = []
        names: list[str] = []
        for molecule in molecules:
            turn = index if not put else int(generator.integers(number))
            atoms, name = _with_room(slab, put, draw, generator, molecule, turn)
            put.append(atoms)
            names.append(name)
        site = f"random-{index}" if mode == "random" else f"{'+'.join(names)}/{index}"
        made.append(_placement(slab, put, molecules, site))
    return made


def _anywhere(surface: Surface) -> Draw:
    def draw(generator: np.random.Generator, molecule: Adsorbate, turn: int) -> tuple[Atoms, str]:
        point = generator.random(2) @ surface.frame.lattice
        turned = Rotation.random(rng=generator)
        return _put(surface, molecule, point, turned, molecule.atoms.get_center_of_mass()), ""

    return draw


def _above_sites(slab: Slab, surface: Surface) -> Draw:
    sites = unique_sites(slab)
    places = [surface.frame.flat(equivalent_positions(slab, site)) for site in sites]

    def draw(generator: np.random.Generator, molecule: Adsorbate, turn: int) -> tuple[Atoms, str]:
        chosen = turn % len(sites)
        point = places[chosen][generator.integers(len(places[chosen]))]
        return _put(surface, molecule, point, _upright(generator)), sites[chosen].name

    return draw


def _upright(generator: np.random.Generator) -> Rotation:
    """Any turn about z, then a tilt towards any direction, uniform within a cone."""
    azimuth, towards = generator.uniform(0.0, 2 * math.pi, 2)
    tilt = math.acos(generator.uniform(math.cos(CONE), 1.0))
    axis = np.array([-math.sin(towards), math.cos(towards), 0.0])
    return Rotation.from_rotvec(tilt * axis) * Rotation.from_euler("z", azimuth)


def _with_room(
    slab: Slab, put: list[Atoms], draw: Draw, generator: np.random.Generator, molecule: Adsorbate, turn: int
) -> tuple[Atoms, str]:
    for _ in range(TRIES):
        atoms, name = draw(generator, molecule, turn)
        obstacle = _obstacle(slab, [*put, atoms])
        if obstacle is None:
            return atoms, name
    raise InputError(f"{obstacle} ({TRIES} random attempts)")


def _put(surface: Surface, adsorbate: Adsorbate, point: Array, turn: Rotation, centre: Array | float = 0.0) -> Atoms:
    """Turn an adsorbate about a centre, put that above a point of the plane (2,), and lower it until it touches."""
    relative = turn.apply(adsorbate.atoms.positions - centre)
    flat, heights = point + relative[:, :2], relative[:, 2]
    heights = heights + contact_height(surface, adsorbate.atoms.numbers, flat, heights)
    return Atoms(adsorbate.atoms.numbers, surface.frame.in_space(flat, heights), tags=[ADSORBATE] * len(heights))


def _obstacle(slab: Slab, put: list[Atoms]) -> str | None:
    """Say what is wrong with the last of several molecules on a slab; None if nothing is."""
    last, vectors = put[-1], slab.atoms.cell.array[:2]
    distance, ratio = closest_image(last.numbers, last.positions, vectors)
    if ratio < CLOSEST:
        return (
            f"{slab.name}: {last.get_chemical_formula()} is too large for the cell: it comes within {distance:.2f} Å "
            "of its own image; take a larger supercell or minimum_width"
        )
    for other in put[:-1]:
        distance, ratio = closest_molecule(last, other, vectors)
        if ratio < CLOSEST:
            return (
                f"{slab.name}: no room for {len(put)} molecules: {last.get_chemical_formula()} comes within "
                f"{distance:.2f} Å of {other.get_chemical_formula()}; take a larger supercell, or fewer"
            )
    gap = vacuum_of(slab.atoms + last)
    if gap < SMALLEST_GAP:
        return (
            f"{slab.name}: only {gap:.1f} Å between the top of {last.get_chemical_formula()} and the slab above; "
            f"raise the vacuum by at least {SMALLEST_GAP - gap:.1f} Å"
        )
    return None


def _placement(slab: Slab, put: list[Atoms], molecules: list[Adsorbate], site: str) -> Placement:
    atoms = slab.atoms.copy()
    indices = []
    for molecule in put:
        indices.append(tuple(range(len(atoms), len(atoms) + len(molecule))))
        atoms += molecule
    return Placement(atoms, slab, _joint(molecules, put), site, tuple(indices))


def _joint(molecules: list[Adsorbate], put: list[Atoms]) -> Adsorbate:
    """Several molecules as one adsorbate, as they stand to one another; one molecule as it is."""
    if len(molecules) == 1:
        return molecules[0]
    together, binding = Atoms(), []
    for molecule, atoms in zip(molecules, put, strict=True):
        binding += [len(together) + index for index in molecule.binding]
        together += Atoms(atoms.numbers, atoms.positions)
    together.positions -= together.positions[binding].mean(axis=0)
    counts = Counter(molecule.name for molecule in molecules)
    name = "+".join(f"{count}{name}" if count > 1 else name for name, count in counts.items())
    return Adsorbate(name, together, tuple(binding))
