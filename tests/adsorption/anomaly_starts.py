"""Relaxations whose ends are among the labelled cases of anomalies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc100, fcc110, fcc111, fcc211
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from escn_calc import ESCNCalculator
from escn_calc.relax import relax
from tests.adsorption.anomaly_cases import Case

FACETS = {"111": fcc111, "100": fcc100, "110": fcc110, "211": fcc211}


def slab(metal: str, facet: str = "111", size: tuple[int, int, int] = (2, 2, 3), a: float | None = None) -> Atoms:
    """Periodic slab with tags 0 and 1, all layers but the upper ones fixed."""
    atoms = FACETS[facet](metal, size, a=a, vacuum=7.5)
    atoms.pbc = True
    heights = atoms.positions[:, 2]
    upper = heights > heights.max() - {"111": 1.0, "100": 1.0, "110": 1.6, "211": 2.4}[facet]
    atoms.set_tags(np.where(upper, 1, 0))
    atoms.set_constraint(FixAtoms(mask=~upper))
    return atoms


def adsorbate(name: str) -> Atoms:
    """Molecule with its binding atom first in height at the origin, in an upright pose."""
    if name in POSES:
        symbols, positions = POSES[name]
        return Atoms(symbols, positions=positions)
    return Atoms(name, positions=[[0, 0, 0]])


POSES = {
    "CO": ("CO", [[0, 0, 0], [0, 0, 1.15]]),
    "CO flat": ("CO", [[0, 0, 0], [1.15, 0, 0]]),
    "NO": ("NO", [[0, 0, 0], [0, 0, 1.17]]),
    "OH": ("OH", [[0, 0, 0], [0.9, 0.2, 0.3]]),
    "O2": ("O2", [[0, 0, 0], [1.3, 0, 0]]),
    "O2 long": ("O2", [[0, 0, 0], [1.55, 0, 0]]),
    "N2": ("N2", [[0, 0, 0], [0, 0, 1.11]]),
    "N2 flat": ("N2", [[0, 0, 0], [1.11, 0, 0]]),
    "H2": ("H2", [[0, 0, 0], [0.75, 0, 0]]),
    "H2O": ("OH2", [[0, 0, 0], [0.76, 0, 0.59], [-0.76, 0, 0.59]]),
    "H2O flat": ("OH2", [[0, 0, 0], [0.77, 0.55, 0.1], [-0.77, 0.55, 0.1]]),
    "H2O down": ("OH2", [[0, 0, 0], [0.76, 0, -0.59], [-0.76, 0, -0.59]]),
    "NH3": ("NH3", [[0, 0, 0], [0.94, 0, 0.38], [-0.47, 0.81, 0.38], [-0.47, -0.81, 0.38]]),
    "NH2": ("NH2", [[0, 0, 0], [0.8, 0, 0.6], [-0.8, 0, 0.6]]),
    "CH": ("CH", [[0, 0, 0], [0, 0, 1.1]]),
    "CH2": ("CH2", [[0, 0, 0], [0.9, 0, 0.6], [-0.9, 0, 0.6]]),
    "CH3": ("CH3", [[0, 0, 0], [1.03, 0, 0.36], [-0.52, 0.89, 0.36], [-0.52, -0.89, 0.36]]),
    "CH4": ("CH4", [[0, 0, 0], [0, 0, 1.09], [1.03, 0, -0.36], [-0.52, 0.89, -0.36], [-0.52, -0.89, -0.36]]),
    "CO2": ("CO2", [[0, 0, 0], [1.17, 0, 0], [-1.17, 0, 0]]),
    "CHO": ("CHO", [[0, 0, 0], [-0.95, 0, 0.55], [1.0, 0, 0.65]]),
    "COH": ("COH", [[0, 0, 0], [0, 0, 1.33], [0.92, 0, 1.63]]),
    "HCOO": ("OCOH", [[0, 0, 0], [1.12, 0, 0.6], [2.24, 0, 0], [1.12, 0, 1.7]]),
    "COOH": ("COOH", [[0, 0, 0], [-1.05, 0, 0.65], [1.15, 0, 0.7], [1.0, 0, 1.66]]),
    "CH3O": ("OCH3", [[0, 0, 0], [0, 0, 1.42], [1.03, 0, 1.78], [-0.52, 0.89, 1.78], [-0.52, -0.89, 1.78]]),
    "CH3OH": ("OCH4", [[0, 0, 0], [1.2, 0, 0.75], [2.1, 0, 0.1], [1.2, 0.9, 1.4], [1.2, -0.9, 1.4], [-0.8, 0, 0.5]]),
}


def placed(surface: Atoms, name: str, site: str | tuple[float, float], height: float) -> Atoms:
    """The surface with an adsorbate, tagged 2, its binding atom so many Å above the highest atom."""
    atoms, tags = surface.copy(), surface.get_tags()
    group = adsorbate(name)
    add_adsorbate(atoms, group, height, site, mol_index=0)
    atoms.set_tags([*tags, *[2] * len(group)])
    return atoms


@dataclass(frozen=True)
class Start:
    """A relaxation to be run."""

    by: str
    metal: str
    facet: str
    adsorbate: str
    site: str | tuple[float, float]
    height: float
    size: tuple[int, int, int] = (2, 2, 3)
    steps: int = 150

    @property
    def name(self) -> str:
        """Unique name."""
        site = self.site if isinstance(self.site, str) else "at {:.1f} {:.1f}".format(*self.site)
        steps = "" if self.steps == 150 else f", {self.steps} steps"
        return f"{self.by}: {self.adsorbate} on {self.metal}({self.facet}) {site}, {self.height:g}{steps}"


EMT_STARTS = [
    Start("EMT", "Cu", "111", "O", "fcc", 1.3),
    Start("EMT", "Cu", "111", "N", "bridge", 1.3),
    Start("EMT", "Cu", "111", "C", "ontop", 1.8),
    Start("EMT", "Ag", "111", "O", "hcp", 1.4),
    Start("EMT", "Ag", "111", "H", "ontop", 1.6),
    Start("EMT", "Au", "111", "C", "bridge", 1.4),
    Start("EMT", "Au", "111", "N", "fcc", 1.3),
    Start("EMT", "Pd", "100", "O", "hollow", 1.0),
    Start("EMT", "Pd", "100", "O", "bridge", 1.4),
    Start("EMT", "Pt", "111", "O", "bridge", 1.4),
    Start("EMT", "Ni", "100", "C", "hollow", 0.7),
    Start("EMT", "Ni", "111", "N", "hcp", 1.1),
    Start("EMT", "Al", "111", "O", "fcc", 1.2),
    Start("EMT", "Al", "100", "H", "ontop", 1.6),
    Start("EMT", "Cu", "110", "O", "shortbridge", 1.2),
    Start("EMT", "Cu", "211", "N", (1.0, 1.3), 1.2, (3, 2, 3)),
    Start("EMT", "Cu", "211", "O", (4.0, 0.0), 0.6, (3, 2, 3)),
    Start("EMT", "Cu", "111", "N2", "ontop", 1.9),
    Start("EMT", "Pt", "111", "N2 flat", "bridge", 1.5),
    Start("EMT", "Cu", "111", "CO", "ontop", 1.85),
    Start("EMT", "Pd", "111", "CO", "fcc", 1.4),
    Start("EMT", "Ni", "111", "CO flat", "bridge", 1.4),
    Start("EMT", "Pt", "111", "O2", "bridge", 1.8),
    Start("EMT", "Cu", "100", "O2", "hollow", 1.2),
    Start("EMT", "Pd", "111", "H2", "ontop", 1.5),
    Start("EMT", "Cu", "111", "OH", "bridge", 1.6),
    Start("EMT", "Ni", "100", "NH2", "bridge", 1.5),
    Start("EMT", "Cu", "111", "CH3", "fcc", 1.7),
    Start("EMT", "Pd", "111", "H", "fcc", -1.1),
    Start("EMT", "Cu", "100", "O", "hollow", -0.9),
    Start("EMT", "Au", "100", "O", "ontop", 1.9, (2, 2, 3), 3),
    Start("EMT", "Cu", "111", "O", (1.4, 0.3), 1.3),
    Start("EMT", "Pt", "100", "N", (0.3, 0.4), 1.6),
    Start("EMT", "Ag", "111", "C", (0.3, 0.5), 1.7),
    Start("EMT", "Pd", "110", "O", (0.8, 0.9), 1.2),
    Start("EMT", "Au", "111", "O", (1.2, 0.9), 1.5),
    Start("EMT", "Ni", "111", "C", (0.6, 0.2), 1.6),
    Start("EMT", "Cu", "100", "N", (1.0, 0.2), 1.4),
    Start("EMT", "Cu", "211", "C", (2.0, 0.5), 1.2, (3, 2, 3)),
]
MODEL_STARTS = [
    Start("model", "Cu", "111", "CO", "ontop", 1.85),
    Start("model", "Pt", "111", "CO", "bridge", 1.5),
    Start("model", "Pd", "100", "CO", "bridge", 1.4),
    Start("model", "Ag", "111", "CO", "fcc", 1.8),
    Start("model", "Cu", "111", "OH", "fcc", 1.4),
    Start("model", "Pt", "111", "OH", "ontop", 2.0),
    Start("model", "Cu", "100", "NO", "hollow", 1.2),
    Start("model", "Rh", "111", "NO", "ontop", 1.8),
    Start("model", "Pt", "111", "H2O flat", "ontop", 2.4),
    Start("model", "Cu", "111", "H2O", "ontop", 3.3),
    Start("model", "Au", "111", "H2O down", "ontop", 3.4),
    Start("model", "Cu", "111", "NH3", "ontop", 2.1),
    Start("model", "Pd", "111", "CH3", "ontop", 2.1),
    Start("model", "Cu", "111", "CH3", "fcc", 1.7),
    Start("model", "Ag", "111", "CH4", "ontop", 3.5),
    Start("model", "Pt", "111", "CH4", "ontop", 3.2),
    Start("model", "Cu", "111", "CO2", "ontop", 3.2),
    Start("model", "Au", "111", "CO2", "bridge", 2.0, steps=60),
    Start("model", "Pt", "111", "O2", "bridge", 1.9, steps=60),
    Start("model", "Ir", "111", "O2", "bridge", 1.4, steps=60),
    Start("model", "Cu", "100", "O2", "hollow", 1.0, steps=60),
    Start("model", "Pd", "111", "H2", "ontop", 1.4, steps=60),
    Start("model", "Au", "111", "H2", "ontop", 1.8, steps=60),
    Start("model", "Cu", "111", "CHO", "bridge", 1.7, steps=60),
    Start("model", "Cu", "111", "HCOO", "ontop", 2.0, (3, 2, 3), steps=60),
    Start("model", "Pd", "211", "CO", (0.6, 1.4), 1.5, (3, 2, 3), steps=60),
    Start("model", "Ir", "111", "CH", "hcp", 1.1, steps=60),
    Start("model", "Cu", "111", "N2", "ontop", 2.6, steps=60),
    Start("model", "Cu", "111", "CO", "ontop", 1.3, (2, 2, 3), 2),
    Start("model", "Ag", "111", "N", "fcc", -1.2, steps=60),
    Start("model", "Pd", "111", "H", "fcc", 0.9, steps=60),
]


def run(start: Start) -> Case:
    """Relax a start."""
    initial = placed(slab(start.metal, start.facet, start.size), start.adsorbate, start.site, start.height)
    calculator = EMT() if start.by == "EMT" else ESCNCalculator(device="cpu")
    result = relax(initial, calculator, fmax=0.05, steps=start.steps)
    return Case(start.name, initial, result.atoms, result.reason, result.fmax)
