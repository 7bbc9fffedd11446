"""Starting structures of the training set: fcc surfaces, adsorbates, bulks and molecules, drawn by number.

``draw_start(seed, index, lattice)`` is a pure function: the same arguments give the same atoms on every machine, so a
labelling run that was stopped goes on where it left off. Kinds are drawn at random per index, which makes any prefix of
the sequence a fair sample of the whole.

Lengths are in Å. Every cell is periodic in three directions; slabs and molecules have at least 12 Å of vacuum.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc100, fcc110, fcc111, fcc211, molecule
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import get_distances

METALS = ("Cu", "Ag", "Au", "Pd", "Pt", "Rh", "Ir")
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
NEAR_CLEARANCE = (0.86, 1.12)
CONTACT_CLEARANCE = (0.6, 0.8)
NEIGHBOUR_CLEARANCE = 1.6
INTERNAL_RATTLE_LIMIT = 0.08
ALLOY_FRACTION = 0.22

VALID_SHARE = 0.08
TEST_SHARE = 0.08
SPLIT_SALT = "escn-calc first model"
ALWAYS_TRAIN = ("Cu111|CO",)


@dataclass(frozen=True)
class Kind:
    """A kind of structure, its share of all labels, and how a chain of frames is grown from one start.

    Attributes
    ----------
    name
        Name stored with every frame.
    share
        Wanted share of the labels; the shares of `KINDS` sum to one.
    relax_steps
        Smallest and largest number of relaxation steps with teacher forces.
    rattles
        Number of rattled copies labelled after the relaxation.
    """

    name: str
    share: float
    relax_steps: tuple[int, int]
    rattles: int

    @property
    def mean_labels(self) -> float:
        """Mean number of labels of one chain."""
        return 1 + sum(self.relax_steps) / 2 + self.rattles


KINDS = (
    Kind("co111", 0.11, (8, 20), 4),
    Kind("adsorbate-chain", 0.37, (5, 18), 3),
    Kind("adsorbate", 0.24, (0, 0), 0),
    Kind("surface", 0.07, (0, 6), 1),
    Kind("contact", 0.05, (0, 0), 0),
    Kind("gas", 0.08, (0, 10), 1),
    Kind("bulk", 0.08, (0, 0), 0),
)


@dataclass(frozen=True)
class Start:
    """First structure of a chain of frames.

    Attributes
    ----------
    atoms
        The structure, periodic in three directions.
    surface
        Surface, bulk or ``"gas"``, for example ``"Cu111"`` or ``"Au-Pd211"``.
    adsorbates
        Sorted names of what stands on the surface; empty for clean surfaces and bulks.
    kind
        Kind the structure was drawn from.
    relax_steps
        Number of relaxation steps that follow.
    """

    atoms: Atoms
    surface: str
    adsorbates: tuple[str, ...]
    kind: Kind
    relax_steps: int

    @property
    def group(self) -> str:
        """Surface and set of adsorbates, for example ``"Cu111|CO"``."""
        return f"{self.surface}|{'+'.join(self.adsorbates)}" if self.adsorbates else self.surface

    @property
    def split(self) -> str:
        """``"train"``, ``"valid"`` or ``"test"``, the same for all frames of one surface and adsorbate.

        Co-adsorbed structures go where their most secluded pair goes, so that a held-out pair is in no training frame.
        """
        if self.surface == "gas" and len(self.adsorbates) < 2:
            return "train"
        if self.surface.endswith("-bulk") and not self.adsorbates:
            return "train"
        parts = [f"{self.surface}|{name}" for name in self.adsorbates] or [self.surface]
        if self.surface == "gas":
            parts = [self.group]
        splits = {hashed_split(part) for part in parts}
        return next(split for split in ("test", "valid", "train") if split in splits)


def hashed_split(group: str) -> str:
    """Assign a group to a split by the SHA-256 of its name."""
    if group in ALWAYS_TRAIN:
        return "train"
    digest = hashlib.sha256(f"{SPLIT_SALT}|{group}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < TEST_SHARE:
        return "test"
    return "valid" if position < TEST_SHARE + VALID_SHARE else "train"


def draw_start(seed: int, index: int, lattice: dict[str, float]) -> Start:
    """Draw starting structure number `index`.

    Parameters
    ----------
    seed
        Seed of the whole data set.
    index
        Number of the start, from zero.
    lattice
        Cubic lattice constant of each fcc metal, Å.
    """
    rng = np.random.default_rng([seed, index])
    weights = np.array([kind.share / kind.mean_labels for kind in KINDS])
    kind = KINDS[rng.choice(len(KINDS), p=weights / weights.sum())]
    low, high = kind.relax_steps
    start = Start(Atoms(), "", (), kind, int(rng.integers(low, high + 1)))
    return BUILDERS[kind.name](start, lattice, rng)


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


def draw_metals(rng: np.random.Generator) -> tuple[str, ...]:
    """One metal, or two different ones with probability `ALLOY_FRACTION`; the first is the majority."""
    count = 2 if rng.random() < ALLOY_FRACTION else 1
    return tuple(str(metal) for metal in rng.choice(METALS, size=count, replace=False))


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
    if name in (*ATOMIC_ADSORBATES, *METALS):
        return Atoms(name, positions=[[0, 0, 0]])
    if name == "COH":
        return Atoms("COH", positions=[[0, 0, 0], [0, 0, 1.33], [0.92, 0, 1.63]])
    atoms = molecule(G2_NAMES.get(name, name))
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


def draw_adsorbate_name(rng: np.random.Generator) -> str:
    """Atomic adsorbates and CO are drawn more often than the others."""
    names = (*ATOMIC_ADSORBATES, *MOLECULAR_ADSORBATES)
    weights = np.array([2.0 if name in (*ATOMIC_ADSORBATES, "CO", "OH", "NO") else 1.0 for name in names])
    return str(rng.choice(names, p=weights / weights.sum()))


def draw_covered_slab(start: Start, lattice: dict[str, float], rng: np.random.Generator, clearance: float) -> Start:
    """Slab with one or two adsorbates; one in six hangs above the surface, up to 4 Å away."""
    metals, facet = draw_metals(rng), str(rng.choice(FACETS, p=[0.4, 0.25, 0.2, 0.15]))
    names = [draw_adsorbate_name(rng)]
    if rng.random() < 0.2:
        names.append(names[0] if rng.random() < 0.4 else draw_adsorbate_name(rng))
    size = draw_size(facet, rng)
    if facet != "211" and names[0] in (*ATOMIC_ADSORBATES, "CO") and len(names) == 1 and rng.random() < 0.12:
        size = (2, 1, 4)
    atoms = make_slab(metals, facet, size, lattice, rng)
    for name in names:
        lift = rng.uniform(0.3, 3.0) if rng.random() < 1 / 6 else 0.0
        atoms = place(atoms, draw_orientation(name, rng), draw_site(atoms, rng), clearance, lift)
    return replace(start, atoms=atoms, surface=surface_name(metals, facet), adsorbates=tuple(sorted(set(names))))


# ---- one builder per kind ----


def build_co111(start: Start, lattice: dict[str, float], rng: np.random.Generator) -> Start:
    """CO standing on a pure (111) surface, more than half of the time Cu(111), near its equilibrium."""
    metal = "Cu" if rng.random() < 0.5 else str(rng.choice(METALS))
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
    metals, facet = draw_metals(rng), str(rng.choice(FACETS))
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
    metals = draw_metals(rng)
    constant = float(np.mean([lattice[metal] for metal in metals])) * (1 + rng.uniform(-0.06, 0.06))
    atoms = bulk(metals[0], "fcc", a=constant, cubic=rng.random() < 0.6)
    if len(atoms) == 1:
        atoms = atoms.repeat((2, 2, 2) if rng.random() < 0.6 else (2, 1, 1))
    if len(metals) == 2:
        atoms.numbers[rng.random(len(atoms)) < rng.uniform(0.2, 0.8)] = atomic_numbers[metals[1]]
    atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(0, 0.02, size=(3, 3))), scale_atoms=True)
    surface, adsorbates = "-".join(sorted(metals)) + "-bulk", ()
    if len(atoms) >= 4 and rng.random() < 0.2:
        guest = str(rng.choice(ATOMIC_ADSORBATES))
        centre = atoms.positions[0] + (constant / 2, 0, 0)
        atoms = atoms + Atoms(guest, positions=[centre])
        adsorbates = (guest,)
    atoms.pbc = True
    return replace(start, atoms=rattled(atoms, draw_rattle(rng), rng), surface=surface, adsorbates=adsorbates)


BUILDERS = {
    "co111": build_co111,
    "adsorbate-chain": build_adsorbate,
    "adsorbate": build_adsorbate,
    "surface": build_surface,
    "contact": build_contact,
    "gas": build_gas,
    "bulk": build_bulk,
}
