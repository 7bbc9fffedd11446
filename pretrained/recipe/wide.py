"""The second kinds of structures: hot coverages, larger slabs, approach and dissociation, bond curves, strained bulks.

A start of the kinds `path`, `curve` and `eos` brings a series with it: the same system at other heights, bond lengths
or volumes, so that a model sees how the energy changes along the way.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii
from building import (
    ATOMIC_ADSORBATES,
    FACETS,
    VACUUM,
    draw_adsorbate_name,
    draw_metals,
    draw_orientation,
    draw_rattle,
    draw_site,
    draw_size,
    make_slab,
    outside_trap,
    place,
    random_rotation,
    rattled,
    surface_name,
)
from starts import Start

FACET_SHARES = (0.4, 0.25, 0.2, 0.15)
TEMPERATURES = (300.0, 1500.0)

LARGE_SIZES = ((3, 2, 4), (3, 3, 3), (3, 3, 4), (4, 2, 4), (3, 2, 5), (4, 3, 3))
LARGE_STEPPED_SIZES = ((3, 3, 4), (6, 2, 3))

PATH_FRAMES = 7
CLOSEST = 0.75
HIGHEST_LIFT = 4.0
STRETCHES = (0.85, 2.6)
PATH_RATTLE = 0.06

DIATOMICS = ("HH", "OO", "NN", "CO", "NO", "OH", "CH", "NH")
CURVE_FRAMES = 10
SHORTEST = 0.5
LONGEST = 7.0
SINGLE_ATOM_SHARE = 0.06

EOS_FRAMES = 6
LARGEST_STRAIN = 0.10


def build_hot(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """Slab under one to four adsorbates, of one or two sorts, for molecular dynamics after a relaxation."""
    metals, facet = draw_metals(tuple(lattice), rng), str(rng.choice(FACETS, p=FACET_SHARES))
    slab = make_slab(metals, facet, draw_size(facet, rng), lattice, rng)
    sorts = [draw_adsorbate_name(metals, rng) for _ in range(2 if rng.random() < 0.4 else 1)]
    count = int(rng.choice([1, 2, 3, 4], p=[0.35, 0.3, 0.2, 0.15]))
    names = [sorts[i % len(sorts)] for i in range(count)]
    atoms = slab
    for name in names:
        atoms = place(atoms, draw_orientation(name, rng), draw_site(slab, rng), rng.uniform(0.95, 1.05), 0.0)
    temperature = float(np.exp(rng.uniform(*np.log(TEMPERATURES))))
    return replace(
        start,
        atoms=rattled(atoms, 0.03, rng),
        surface=surface_name(metals, facet),
        adsorbates=tuple(sorted(set(names))),
        temperature=temperature,
    )


def build_large(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """Slab of 24 to 36 metal atoms, clean or with one adsorbate."""
    metals, facet = draw_metals(tuple(lattice), rng), str(rng.choice(FACETS, p=FACET_SHARES))
    sizes = LARGE_STEPPED_SIZES if facet == "211" else LARGE_SIZES
    atoms = make_slab(metals, facet, sizes[rng.integers(len(sizes))], lattice, rng)
    adsorbates = () if rng.random() < 0.2 else (draw_adsorbate_name(metals, rng),)
    for name in adsorbates:
        atoms = place(atoms, draw_orientation(name, rng), draw_site(atoms, rng), rng.uniform(0.9, 1.08), 0.0)
    atoms = rattled(atoms, draw_rattle(rng, 0.12), rng)
    return replace(start, atoms=atoms, surface=surface_name(metals, facet), adsorbates=adsorbates)


def build_path(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """Adsorbate at several heights above its site, or a diatomic at several bond lengths flat on the surface."""
    metals, facet = draw_metals(tuple(lattice), rng), str(rng.choice(FACETS, p=FACET_SHARES))
    slab = make_slab(metals, facet, draw_size(facet, rng), lattice, rng)
    site = draw_site(slab, rng)
    if rng.random() < 0.35:
        name = str(rng.choice(outside_trap(DIATOMICS, metals)))
        stages = broken_bonds(slab, name, site, rng)
        adsorbate = {"HH": "H2", "OO": "O2", "NN": "N2"}.get(name, name)
    else:
        adsorbate = draw_adsorbate_name(metals, rng)
        stages = heights(slab, draw_orientation(adsorbate, rng), site, rng)
    stages = [rattled(stage, PATH_RATTLE * rng.random(), rng) for stage in stages]
    return replace(
        start,
        atoms=stages[0],
        series=tuple(stages[1:]),
        surface=surface_name(metals, facet),
        adsorbates=(adsorbate,),
    )


def heights(slab: Atoms, adsorbate: Atoms, site: np.ndarray, rng: np.random.Generator) -> list[Atoms]:
    """An adsorbate from too close to out of reach, closer together where it binds."""
    shares = (np.arange(PATH_FRAMES) + rng.random(PATH_FRAMES)) / PATH_FRAMES
    return [place(slab, adsorbate, site, CLOSEST, float(lift)) for lift in HIGHEST_LIFT * shares**1.5]


def broken_bonds(slab: Atoms, name: str, site: np.ndarray, rng: np.random.Generator) -> list[Atoms]:
    """A diatomic parallel to the surface at bond lengths from squeezed to broken, centred on a site."""
    symbols = split_diatomic(name)
    angle, tilt = rng.uniform(0, 360), rng.normal(0, 8)
    clearance = rng.uniform(0.9, 1.05)
    stages = []
    for stretch in np.linspace(*STRETCHES, PATH_FRAMES) + rng.uniform(-0.08, 0.08, PATH_FRAMES):
        pair = Atoms(symbols, positions=np.outer([-0.5, 0.5], [stretch * bond_length(symbols), 0, 0]))
        pair.rotate(tilt, "y")
        pair.rotate(angle, "z")
        stages.append(place(slab, pair, site, clearance, 0.0))
    return stages


def split_diatomic(name: str) -> tuple[str, str]:
    """The two symbols of a name such as ``"CO"``."""
    first, second = name
    return first, second


def bond_length(symbols: tuple[str, str]) -> float:
    """Sum of the covalent radii, Å."""
    return float(covalent_radii[[atomic_numbers[symbol] for symbol in symbols]].sum())


def build_curve(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """Two atoms in vacuum from half the covalent radii to beyond the range of the model; some single atoms.

    Half of the pairs are molecules of H, C, N, O, the others contain a metal. All are for training.
    """
    metals = tuple(lattice)
    if rng.random() < SINGLE_ATOM_SHARE:
        symbol = str(rng.choice([*outside_trap(ATOMIC_ADSORBATES, metals), *metals]))
        return replace(start, atoms=in_vacuum(Atoms(symbol), rng), surface="gas", adsorbates=(symbol,))
    if rng.random() < 0.5:
        symbols = split_diatomic(str(rng.choice(outside_trap(DIATOMICS, metals))))
    else:
        others = outside_trap(ATOMIC_ADSORBATES, metals)
        pairs = [*combinations_with_replacement(metals, 2), *((metal, other) for metal in metals for other in others)]
        symbols = pairs[rng.integers(len(pairs))]
    shortest = SHORTEST * bond_length(symbols)
    shares = (np.arange(CURVE_FRAMES) + rng.random(CURVE_FRAMES)) / CURVE_FRAMES
    stages = [
        in_vacuum(Atoms(symbols, positions=[[0, 0, 0], [length, 0, 0]]), rng)
        for length in shortest * (LONGEST / shortest) ** shares
    ]
    return replace(
        start, atoms=stages[0], series=tuple(stages[1:]), surface="gas", adsorbates=("".join(sorted(symbols)),)
    )


def in_vacuum(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Turn at random and put into a box that leaves `VACUUM` on every side."""
    free = atoms.copy()
    free.positions = free.positions @ random_rotation(rng).T
    free.set_cell(np.diag(np.ptp(free.positions, axis=0) + VACUUM))
    free.pbc = True
    free.center()
    return free


def build_eos(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """Crystal at several volumes: fcc of one or two metals, sometimes bcc or hcp; lengths differ by up to 10 %."""
    metals = draw_metals(tuple(lattice), rng)
    crystal = draw_crystal(metals, lattice, rng)
    shear = np.eye(3) + rng.normal(0, 0.02, size=(3, 3)) * (rng.random() < 0.6)
    strains = (np.arange(EOS_FRAMES) + rng.random(EOS_FRAMES)) / EOS_FRAMES * 2 * LARGEST_STRAIN - LARGEST_STRAIN
    width = draw_rattle(rng, 0.1) * (rng.random() < 0.5)
    stages = []
    for strain in strains:
        stage = crystal.copy()
        stage.set_cell(crystal.cell @ shear * (1 + strain), scale_atoms=True)
        stages.append(rattled(stage, width, rng))
    return replace(start, atoms=stages[0], series=tuple(stages[1:]), surface="-".join(sorted(metals)) + "-bulk")


def draw_crystal(metals: tuple[str, ...], lattice: dict[str, float], rng: np.random.Generator) -> Atoms:
    """Primitive, cubic or doubled fcc cell, one in five bcc or hcp at the same volume per atom; the guest at random."""
    constant = float(np.mean([lattice[metal] for metal in metals]))
    structure = str(rng.choice(["fcc", "cubic", "bcc", "hcp"], p=[0.35, 0.45, 0.1, 0.1]))
    if structure == "bcc":
        crystal = bulk(metals[0], "bcc", a=constant / 2 ** (1 / 3), cubic=True)
    elif structure == "hcp":
        crystal = bulk(metals[0], "hcp", a=constant / 2**0.5, c=constant / 2**0.5 * (8 / 3) ** 0.5)
    else:
        crystal = bulk(metals[0], "fcc", a=constant, cubic=structure == "cubic")
    if rng.random() < 0.4 or len(metals) == 2:
        crystal = crystal.repeat((2, 1, 1) if len(crystal) > 2 else (2, 2, 1))
    if len(metals) == 2:
        crystal.numbers[rng.random(len(crystal)) < rng.uniform(0.2, 0.8)] = atomic_numbers[metals[1]]
    return crystal
