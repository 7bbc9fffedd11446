"""The first kinds of structures: near and around equilibrium, on small cells, plus contacts, molecules and crystals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import get_distances
from building import (
    ATOMIC_ADSORBATES,
    FACETS,
    GASES,
    VACUUM,
    draw_adsorbate_name,
    draw_metals,
    draw_orientation,
    draw_rattle,
    draw_site,
    draw_size,
    fit_vacuum,
    make_adsorbate,
    make_slab,
    outside_trap,
    place,
    random_rotation,
    rattled,
    surface_name,
)
from starts import Start

NEAR_CLEARANCE = (0.86, 1.12)
CONTACT_CLEARANCE = (0.6, 0.8)


def draw_covered_slab(start: Start, lattice: dict[str, float], rng: np.random.Generator, clearance: float) -> Start:
    """Slab with one or two adsorbates; one in six hangs above the surface, up to 4 Å away."""
    metals, facet = draw_metals(tuple(lattice), rng), str(rng.choice(FACETS, p=[0.4, 0.25, 0.2, 0.15]))
    names = [draw_adsorbate_name(metals, rng)]
    if rng.random() < 0.2:
        names.append(names[0] if rng.random() < 0.4 else draw_adsorbate_name(metals, rng))
    size = draw_size(facet, rng)
    if facet != "211" and names[0] in (*ATOMIC_ADSORBATES, "CO") and len(names) == 1 and rng.random() < 0.12:
        size = (2, 1, 4)
    atoms = make_slab(metals, facet, size, lattice, rng)
    for name in names:
        lift = rng.uniform(0.3, 3.0) if rng.random() < 1 / 6 else 0.0
        atoms = place(atoms, draw_orientation(name, rng), draw_site(atoms, rng), clearance, lift)
    return replace(start, atoms=atoms, surface=surface_name(metals, facet), adsorbates=tuple(sorted(set(names))))


def build_co111(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """CO standing on a pure (111) surface, more than half of the time Cu(111), near its equilibrium."""
    metal = "Cu" if rng.random() < 0.5 else str(rng.choice(list(lattice)))
    sizes = [(2, 2, 3), (2, 2, 4), (3, 2, 3), (3, 3, 4)]
    slab = make_slab((metal,), "111", sizes[rng.choice(4, p=[0.5, 0.3, 0.14, 0.06])], lattice, rng)
    carbon_oxygen = Atoms("CO", positions=[[0, 0, 0], [0, 0, rng.normal(1.16, 0.03)]])
    carbon_oxygen.rotate(rng.normal(0, 12), "y")
    carbon_oxygen.rotate(rng.uniform(0, 360), "z")
    lift = rng.uniform(0.2, 2.5) if rng.random() < 0.12 else 0.0
    atoms = place(slab, carbon_oxygen, draw_site(slab, rng), rng.uniform(0.84, 1.05), lift)
    atoms = rattled(atoms, draw_rattle(rng, 0.1), rng)
    return replace(start, atoms=atoms, surface=surface_name((metal,), "111"), adsorbates=("CO",))


def build_adsorbate(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """Slab with adsorbates at bonding distance, rattled."""
    drawn = draw_covered_slab(start, lattice, rng, rng.uniform(*NEAR_CLEARANCE))
    return replace(drawn, atoms=rattled(drawn.atoms, draw_rattle(rng), rng))


def build_surface(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """Clean slab, perfect, with a vacancy in the surface, or with an extra metal atom on it."""
    metals, facet = draw_metals(tuple(lattice), rng), str(rng.choice(FACETS))
    slab = make_slab(metals, facet, draw_size(facet, rng), lattice, rng)
    defect = rng.choice(["none", "vacancy", "adatom"], p=[0.6, 0.2, 0.2])
    if defect == "vacancy":
        del slab[int(np.argmax(slab.positions[:, 2]))]
    if defect == "adatom":
        slab = place(slab, make_adsorbate(str(rng.choice(metals))), draw_site(slab, rng), 0.97, 0.0)
    atoms = rattled(fit_vacuum(slab), draw_rattle(rng), rng)
    return replace(start, atoms=atoms, surface=surface_name(metals, facet))


def build_contact(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """Slab with an adsorbate too close to it, or with one pair of neighbours pushed together."""
    if rng.random() < 0.5:
        return draw_covered_slab(start, lattice, rng, rng.uniform(*CONTACT_CLEARANCE))
    drawn = draw_covered_slab(start, lattice, rng, 1.0)
    atoms = drawn.atoms.copy()
    moving = int(rng.integers(len(atoms)))
    vectors, distances = get_distances(atoms.positions[moving], atoms.positions, cell=atoms.cell, pbc=True)
    distances[0, moving] = np.inf
    other = int(np.argmin(distances[0]))
    radii = covalent_radii[atoms.numbers[moving]] + covalent_radii[atoms.numbers[other]]
    wanted = rng.uniform(*CONTACT_CLEARANCE) * radii
    atoms.positions[moving] += vectors[0, other] * (1 - wanted / distances[0, other])
    return replace(drawn, atoms=atoms)


def build_gas(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """One molecule, some of them stretched or squeezed, or two molecules near each other."""
    name = str(rng.choice(GASES))
    atoms = make_adsorbate(name)
    atoms.positions = atoms.positions @ random_rotation(rng).T
    names = [name]
    if rng.random() < 0.3:
        atoms.positions *= rng.uniform(0.88, 1.3)
    if rng.random() < 0.35:
        names.append(str(rng.choice(GASES)))
        atoms = beside(atoms, make_adsorbate(names[1]), rng)
    atoms.set_cell(np.diag(np.ptp(atoms.positions, axis=0) + VACUUM))
    atoms.pbc = True
    atoms.center()
    return replace(
        start, atoms=rattled(atoms, draw_rattle(rng, 0.08), rng), surface="gas", adsorbates=tuple(sorted(names))
    )


def beside(host: Atoms, guest: Atoms, rng: np.random.Generator) -> Atoms:
    """Two molecules, the second moved outwards until its closest pair is 0.8 to 3 times the covalent radii apart."""
    moved = guest.copy()
    moved.positions = moved.positions @ random_rotation(rng).T
    direction = random_rotation(rng)[0]
    wanted = rng.uniform(0.8, 3.0) * (covalent_radii[host.numbers][:, None] + covalent_radii[moved.numbers])
    while (np.linalg.norm(host.positions[:, None] - moved.positions, axis=2) < wanted).any():
        moved.positions += 0.1 * direction
    return host + moved


def build_bulk(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """Primitive, cubic or doubled cell, strained by up to 6 % and sheared; some alloyed, some with an interstitial."""
    metals = draw_metals(tuple(lattice), rng)
    constant = float(np.mean([lattice[metal] for metal in metals])) * (1 + rng.uniform(-0.06, 0.06))
    atoms = bulk(metals[0], "fcc", a=constant, cubic=rng.random() < 0.6)
    if len(atoms) == 1:
        atoms = atoms.repeat((2, 2, 2) if rng.random() < 0.6 else (2, 1, 1))
    if len(metals) == 2:
        atoms.numbers[rng.random(len(atoms)) < rng.uniform(0.2, 0.8)] = atomic_numbers[metals[1]]
    atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(0, 0.02, size=(3, 3))), scale_atoms=True)
    surface, adsorbates = "-".join(sorted(metals)) + "-bulk", ()
    if len(atoms) >= 4 and rng.random() < 0.2:
        guest = str(rng.choice(outside_trap(ATOMIC_ADSORBATES, metals)))
        centre = atoms.positions[0] + (constant / 2, 0, 0)
        atoms = atoms + Atoms(guest, positions=[centre])
        adsorbates = (guest,)
    atoms.pbc = True
    return replace(start, atoms=rattled(atoms, draw_rattle(rng), rng), surface=surface, adsorbates=adsorbates)
