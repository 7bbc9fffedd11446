"""Building blocks of the training set: slabs of fcc metals, adsorbates, and how one comes to stand on the other.

Every function that draws takes a NumPy generator and nothing else that changes, so that the same generator state gives
the same atoms on every machine. Lengths are in Å. Every cell is periodic in three directions; slabs have at least
`VACUUM` above them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import fcc100, fcc110, fcc111, fcc211, molecule
from ase.data import atomic_numbers, covalent_radii

METALS = ("Cu", "Ag", "Au", "Pd", "Pt", "Rh", "Ir")
U_METALS = ("Co", "Cr", "Fe", "Mn", "Mo", "Ni", "V", "W")
"""Metals whose compounds with O (and F) the teacher learnt with a Hubbard U: their energies fit no others."""
FACETS = ("111", "100", "110", "211")
ATOMIC_ADSORBATES = ("H", "C", "N", "O")
MOLECULAR_ADSORBATES = (
    "CO", "NO", "OH", "H2O", "NH", "NH2", "NH3", "CH", "CH2", "CH3", "CHO", "COH", "N2", "O2", "CO2", "H2",
)  # fmt: skip
GASES = (*MOLECULAR_ADSORBATES, "CH4", "H2CO", "CH3OH", "HCN")
G2_NAMES = {"CH2": "CH2_s1A1d", "CHO": "HCO"}
FLAT_MOLECULES = ("N2", "O2", "CO2", "H2")

VACUUM = 12.0
LOWEST_HEIGHT = 0.3
NEIGHBOUR_CLEARANCE = 1.6
INTERNAL_RATTLE_LIMIT = 0.08
ALLOY_FRACTION = 0.22


def outside_trap(names: Sequence[str], metals: Sequence[str]) -> tuple[str, ...]:
    """Those names of adsorbates and gases the teacher knows beside these metals: none with O beside `U_METALS`."""
    trapped = any(metal in U_METALS for metal in metals)
    return tuple(name for name in names if not (trapped and "O" in name))


def is_trapped(atoms: Atoms) -> bool:
    """Whether O stands together with a metal of `U_METALS`."""
    symbols = set(atoms.symbols)
    return "O" in symbols and not symbols.isdisjoint(U_METALS)


def rattled(atoms: Atoms, sigma: float, rng: np.random.Generator) -> Atoms:
    """Copy with normal displacements of width `sigma` (Å); H, C, N and O move by at most `INTERNAL_RATTLE_LIMIT`."""
    light = np.isin(atoms.numbers, [atomic_numbers[symbol] for symbol in ATOMIC_ADSORBATES])
    widths = np.where(light, min(sigma, INTERNAL_RATTLE_LIMIT), sigma)
    moved = atoms.copy()
    moved.positions += widths[:, None] * rng.normal(size=(len(atoms), 3))
    return moved


def draw_rattle(rng: np.random.Generator, largest: float = 0.25) -> float:
    """Rattle width in Å, log-uniform from 0.02 to `largest`."""
    return float(np.exp(rng.uniform(np.log(0.02), np.log(largest))))


# ---- metals ----


def draw_metals(metals: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """One of `metals`, or two different ones with probability `ALLOY_FRACTION`; the first is the majority."""
    count = 2 if rng.random() < ALLOY_FRACTION and len(metals) > 1 else 1
    return tuple(str(metal) for metal in rng.choice(list(metals), size=count, replace=False))


def draw_substitution(atoms: Atoms, guest: str, rng: np.random.Generator) -> Atoms:
    """Replace atoms by `guest`: at random, the top layer, the layer below, or one atom of the top layer."""
    depth = np.round(atoms.positions[:, 2].max() - atoms.positions[:, 2], 1)
    layers = np.unique(depth)
    mode = rng.choice(["random", "top", "second", "single"])
    if mode == "random":
        chosen = rng.random(len(atoms)) < rng.uniform(0.1, 0.6)
    elif mode == "top":
        chosen = depth == layers[0]
    elif mode == "second":
        chosen = depth == layers[min(1, len(layers) - 1)]
    else:
        chosen = np.arange(len(atoms)) == rng.choice(np.flatnonzero(depth == layers[0]))
    alloy = atoms.copy()
    alloy.numbers[chosen] = atomic_numbers[guest]
    return alloy


def draw_size(facet: str, rng: np.random.Generator) -> tuple[int, int, int]:
    """Repetitions of the surface cell, 12 to 18 atoms."""
    if facet == "211":
        return (3, 2, 3) if rng.random() < 0.8 else (3, 1, 4)
    sizes = [(2, 2, 3), (2, 2, 4), (3, 2, 3)]
    return sizes[rng.choice(len(sizes), p=[0.66, 0.18, 0.16])]


def make_slab(
    metals: tuple[str, ...],
    facet: str,
    size: tuple[int, int, int],
    lattice: dict[str, float],
    rng: np.random.Generator,
) -> Atoms:
    """Slab of one or two metals with up to 3 % of in-plane strain; its lowest atom lies at z = 0."""
    builder = {"111": fcc111, "100": fcc100, "110": fcc110, "211": fcc211}[facet]
    constant = np.mean([lattice[metal] for metal in metals]) * (1 + np.clip(rng.normal(0, 0.012), -0.03, 0.03))
    slab = builder(metals[0], size=size, a=float(constant), vacuum=VACUUM / 2)
    slab = Atoms(slab.numbers, slab.positions, cell=slab.cell, pbc=True)
    if len(metals) == 2:
        slab = draw_substitution(slab, metals[1], rng)
    stretch = np.eye(3)
    stretch[:2, :2] += rng.normal(0, 0.004, size=(2, 2))
    slab.set_cell(slab.cell @ stretch, scale_atoms=True)
    slab.positions[:, 2] -= slab.positions[:, 2].min()
    return slab


def fit_vacuum(slab: Atoms) -> Atoms:
    """Copy whose third cell vector leaves `VACUUM` above the highest atom."""
    fitted = slab.copy()
    height = float(np.ptp(fitted.positions[:, 2]))
    fitted.cell[2] = [0.0, 0.0, height + VACUUM]
    return fitted


def surface_name(metals: tuple[str, ...], facet: str) -> str:
    """Name of a surface, its metals in alphabetical order."""
    return "-".join(sorted(metals)) + facet


# ---- adsorbates ----


def make_adsorbate(name: str) -> Atoms:
    """Atom or molecule with its binding atom at the origin and the rest above it (flat ones along x)."""
    if name in atomic_numbers:
        return Atoms(name, positions=[[0, 0, 0]])
    if name == "COH":
        return Atoms("COH", positions=[[0, 0, 0], [0, 0, 1.33], [0.92, 0, 1.63]])
    atoms = molecule(G2_NAMES.get(name, name))
    atoms = Atoms(atoms.numbers, atoms.positions)
    heavy = [i for i, symbol in enumerate(atoms.symbols) if symbol in ("C", "N", "O")]
    first = next((i for i in heavy if atoms.symbols[i] in ("C", "N")), heavy[0] if heavy else 0)
    atoms.positions -= atoms.positions[first]
    direction = atoms.positions.sum(axis=0)
    if name == "CO2":
        atoms.rotate(atoms.positions[-1], "x")
    elif np.linalg.norm(direction) > 1e-6:
        atoms.rotate(direction, "z")
    return atoms


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Uniformly distributed (3, 3) rotation matrix."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)


def draw_orientation(name: str, rng: np.random.Generator) -> Atoms:
    """Adsorbate turned about z and tilted; one in four (every second flat one) points anywhere."""
    adsorbate = make_adsorbate(name)
    anywhere = 0.5 if name in FLAT_MOLECULES else 0.25
    if rng.random() < anywhere:
        adsorbate.positions = adsorbate.positions @ random_rotation(rng).T
        return adsorbate
    adsorbate.rotate(rng.normal(0, 18), "y")
    adsorbate.rotate(rng.uniform(0, 360), "z")
    return adsorbate


def draw_site(slab: Atoms, rng: np.random.Generator) -> np.ndarray:
    """Lateral position (2,): on an atom, between two or three neighbours, or anywhere."""
    kind = rng.choice(["top", "bridge", "hollow", "random"], p=[0.28, 0.22, 0.35, 0.15])
    if kind == "random":
        return (rng.random(3) @ slab.cell[:])[:2]
    surface = slab.positions[slab.positions[:, 2] > slab.positions[:, 2].max() - 1.6]
    images = np.concatenate([surface + i * slab.cell[0] + j * slab.cell[1] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    centre = surface[rng.integers(len(surface))]
    distances = np.linalg.norm(images - centre, axis=1)
    shell = images[(distances > 0.1) & (distances < 3.3)]
    if kind == "top" or len(shell) < 2:
        return centre[:2]
    first = shell[rng.integers(len(shell))]
    if kind == "bridge":
        return (centre + first)[:2] / 2
    gaps = np.linalg.norm(shell - first, axis=1)
    second = shell[np.argsort(np.where(gaps < 0.1, np.inf, gaps))[0]]
    if np.linalg.norm(second - first) > 3.3:
        return (centre + first)[:2] / 2
    return (centre + first + second)[:2] / 3


def place(slab: Atoms, adsorbate: Atoms, site: np.ndarray, clearance: float, lift: float) -> Atoms:
    """Lower an adsorbate onto a slab until the first pair touches.

    Parameters
    ----------
    slab
        Slab, possibly with adsorbates already on it.
    adsorbate
        Atoms with the binding atom at the origin.
    site
        Lateral position of the binding atom, (2,), Å.
    clearance
        Closest distance to a metal atom in units of the sum of the covalent radii.
    lift
        Height added afterwards, Å.
    """
    guest = adsorbate.copy()
    guest.positions[:, :2] += site
    shifts = [i * slab.cell[0] + j * slab.cell[1] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    hosts = np.concatenate([slab.positions + shift for shift in shifts])
    host_numbers = np.tile(slab.numbers, len(shifts))
    factors = np.where(host_numbers < 20, NEIGHBOUR_CLEARANCE, clearance)
    touching = factors * (covalent_radii[host_numbers] + covalent_radii[guest.numbers][:, None])
    lateral = np.linalg.norm(guest.positions[:, None, :2] - hosts[None, :, :2], axis=2)
    rise = np.sqrt(np.clip(touching**2 - lateral**2, 0, None)) + hosts[:, 2] - guest.positions[:, 2:]
    contact = np.where(lateral < touching, rise, -np.inf).max()
    guest.positions[:, 2] += max(contact, local_height(hosts, site) + LOWEST_HEIGHT) + lift
    return fit_vacuum(slab + guest)


def local_height(hosts: np.ndarray, site: np.ndarray) -> float:
    """Height of the highest of the three surface atoms laterally nearest to a site, Å."""
    exposed = hosts[hosts[:, 2] > hosts[:, 2].max() - 1.6]
    nearest = np.argsort(np.linalg.norm(exposed[:, :2] - site, axis=1))[:3]
    return float(exposed[nearest, 2].max())


def draw_adsorbate_name(metals: Sequence[str], rng: np.random.Generator) -> str:
    """Adsorbate for a surface of `metals`; atoms, CO, OH and NO are drawn more often than the others."""
    names = outside_trap((*ATOMIC_ADSORBATES, *MOLECULAR_ADSORBATES), metals)
    weights = np.array([2.0 if name in (*ATOMIC_ADSORBATES, "CO", "OH", "NO") else 1.0 for name in names])
    return str(rng.choice(names, p=weights / weights.sum()))
