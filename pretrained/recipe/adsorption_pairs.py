"""Unseen pairs of surface and adsorbate: which they are, their slabs, and the sites an adsorbate can start from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from ase import Atoms
from ase.build import add_vacuum, fcc100, fcc110, fcc111, fcc211
from ase.constraints import FixAtoms
from ase.data import atomic_numbers, covalent_radii
from building import FACETS, METALS, fit_vacuum, make_adsorbate, place, surface_name
from pymatgen.analysis.adsorption import AdsorbateSiteFinder
from pymatgen.io.ase import AseAtomsAdaptor
from starts import hashed_split

ADSORBATES = ("H", "C", "N", "O", "CO", "NO", "OH", "NH", "NH2", "CH", "CH2", "CH3")
SIZES = {"111": (2, 2, 4), "100": (2, 2, 4), "110": (2, 2, 4), "211": (3, 2, 3)}
FIXED_SHARE = 0.45
STARTING_CLEARANCE = 0.98
LONGEST_BOND = 1.35
FARTHEST_CONTACT = 1.45
SAME_SITE = 0.1
TILT = 4.0


@dataclass(frozen=True)
class Pair:
    """A surface and an adsorbate.

    Attributes
    ----------
    metals
        One metal, or the metal of the slab and the one its top layer is made of.
    facet
        Miller indices of the surface.
    adsorbate
        Name of the adsorbate.
    """

    metals: tuple[str, ...]
    facet: str
    adsorbate: str

    @property
    def surface(self) -> str:
        """Name of the surface as in the labels, for example ``"Au-Pd111"``."""
        return surface_name(self.metals, self.facet)

    @property
    def name(self) -> str:
        """Group of the labels, for example ``"Au-Pd111|CO"``."""
        return f"{self.surface}|{self.adsorbate}"


def unseen_pairs(adsorbates: tuple[str, ...] = ADSORBATES) -> list[Pair]:
    """All pairs of the test split, first one of each adsorbate, then the second of each, and so on."""
    surfaces = [(metal,) for metal in METALS] + list(combinations(sorted(METALS), 2))
    turns: dict[int, list[Pair]] = defaultdict(list)
    for adsorbate in adsorbates:
        pairs = [Pair(metals, facet, adsorbate) for metals in surfaces for facet in FACETS]
        for turn, pair in enumerate(pair for pair in pairs if hashed_split(pair.name) == "test"):
            turns[turn].append(pair)
    return [pair for turn in sorted(turns) for pair in turns[turn]]


def clean_slab(metals: tuple[str, ...], facet: str, lattice: dict[str, float]) -> Atoms:
    """Slab at the mean lattice constant of its metals, the second one as top layer; its lower half is fixed."""
    builder = {"111": fcc111, "100": fcc100, "110": fcc110, "211": fcc211}[facet]
    constant = float(np.mean([lattice[metal] for metal in metals]))
    slab = builder(metals[0], size=SIZES[facet], a=constant, vacuum=6.0)
    slab = Atoms(slab.numbers, slab.positions, cell=slab.cell, pbc=True)
    slab.positions[:, 2] -= slab.positions[:, 2].min()
    if len(metals) == 2:
        layer_atoms = len(slab) // SIZES[facet][2]
        slab.numbers[np.argsort(slab.positions[:, 2])[-layer_atoms:]] = atomic_numbers[metals[1]]
    heights = slab.positions[:, 2]
    slab.set_constraint(FixAtoms(np.flatnonzero(heights < FIXED_SHARE * heights.max())))
    return fit_vacuum(slab)


def starting_structures(slab: Atoms, adsorbate: str) -> dict[str, Atoms]:
    """The adsorbate on every top, bridge and hollow site that symmetry leaves different, by name of the site."""
    structures = {}
    for kind, sites in distinct_sites(slab).items():
        for number, site in enumerate(sites, 1):
            guest = make_adsorbate(adsorbate)
            guest.rotate(TILT, "y")
            covered = place(slab, guest, site, STARTING_CLEARANCE, 0.0)
            covered.set_constraint(slab.constraints)
            structures[f"{kind}-{number}"] = covered
    return structures


def distinct_sites(slab: Atoms) -> dict[str, list[np.ndarray]]:
    """Lateral positions, (2,) Å, of the sites of a slab, by kind."""
    bare = slab.copy()
    bare.set_constraint()
    add_vacuum(bare, 5.0)
    finder = AdsorbateSiteFinder(AseAtomsAdaptor.get_structure(bare), height=1.1)
    found = finder.find_adsorption_sites(distance=0.0, symm_reduce=SAME_SITE, near_reduce=SAME_SITE)
    return {kind: [np.asarray(site)[:2] for site in found[kind]] for kind in ("ontop", "bridge", "hollow")}


def state_of(covered: Atoms, adsorbate: str) -> str:
    """``"adsorbed"``, ``"broken"`` (a bond of the adsorbate is gone) or ``"desorbed"``, judged by covalent radii."""
    count = len(make_adsorbate(adsorbate))
    radii = covalent_radii[covered.numbers]
    ratios = covered.get_all_distances(mic=True) / (radii[:, None] + radii)
    guest, host = np.arange(len(covered) - count, len(covered)), np.arange(len(covered) - count)
    reached = {int(guest[0])}
    while True:
        near = {int(j) for i in reached for j in guest if ratios[i, j] < LONGEST_BOND}
        if near <= reached:
            break
        reached |= near
    if len(reached) < count:
        return "broken"
    return "adsorbed" if ratios[np.ix_(guest, host)].min() < FARTHEST_CONTACT else "desorbed"
