"""Scaling relations: how the adsorption energy of one species follows that of another from surface to surface.

The energies of AHx on transition metals are nearly linear in that of the atom A they bind through, with a slope of
about (valency of A − x)/(valency of A): F. Abild-Pedersen, J. Greeley, F. Studt, J. Rossmeisl, T. R. Munter,
P. G. Moses, E. Skúlason, T. Bligaard and J. K. Nørskov, Phys. Rev. Lett. 99, 016105 (2007),
doi:10.1103/PhysRevLett.99.016105.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from escn_calc.adsorption.adsorbates import adsorbate
from escn_calc.adsorption.catalogue import CATALOGUE, catalogue_spelling
from escn_calc.report.systems import System, best_energy, by_adsorbate

FEWEST_TO_PLOT = 3
FEWEST_TO_FIT = 4
"""A line through three points leaves one degree of freedom: its R² says nothing."""


@dataclass(frozen=True)
class Line:
    """A least-squares line y = slope·x + intercept.

    Attributes
    ----------
    slope, intercept : float
        Dimensionless, and in eV.
    r_squared : float
        Share of the variance of y that the line explains.
    mae : float
        Mean distance of the points from the line along y, in eV, over the very points it was fitted to.
    """

    slope: float
    intercept: float
    r_squared: float
    mae: float


@dataclass(frozen=True, eq=False)
class Relation:
    """The best energies of two adsorbates on the surfaces that have both.

    Attributes
    ----------
    x, y : tuple of str and float or None
        Adsorbate and coverage on each axis.
    pairs : tuple of pairs of System
        For each surface the system of ``x`` and that of ``y``.
    line : Line or None
        None with fewer than ``FEWEST_TO_FIT`` surfaces, or where all x or all y are equal.
    same_atom : bool
        Whether ``y`` binds through the atom ``x``, so that a relation is expected.
    """

    x: tuple[str, float | None]
    y: tuple[str, float | None]
    pairs: tuple[tuple[System, System], ...]
    line: Line | None
    same_atom: bool


def relations(systems: Sequence[System]) -> list[Relation]:
    """Relate all pairs of adsorbates that have enough surfaces in common, the expected relations first.

    Where one of the two is an atom that the other binds through, the atom is x; otherwise the order is that of the
    plan.
    """
    species = [
        (key, {one.surface: one for one in members if one.best is not None}) for key, members in by_adsorbate(systems)
    ]
    found = []
    for (first, of_first), (second, of_second) in combinations(species, 2):
        if _binds_through(first[0], second[0]):
            first, second, of_first, of_second = second, first, of_second, of_first
        common = [surface for surface in of_first if surface in of_second]
        if len(common) < FEWEST_TO_PLOT:
            continue
        pairs = tuple((of_first[surface], of_second[surface]) for surface in common)
        x, y = (np.array([best_energy(pair[axis]) for pair in pairs]) for axis in (0, 1))
        found.append(Relation(first, second, pairs, fitted_line(x, y), _binds_through(second[0], first[0])))
    return sorted(found, key=lambda relation: not relation.same_atom)


def fitted_line(x: np.ndarray, y: np.ndarray) -> Line | None:
    """Fit a line to energies in eV, (N,) each; None where that has no meaning."""
    if len(x) < FEWEST_TO_FIT or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    slope, intercept = np.polyfit(x, y, 1)
    residuals = y - slope * x - intercept
    r_squared = 1 - (residuals**2).sum() / ((y - y.mean()) ** 2).sum()
    return Line(float(slope), float(intercept), float(r_squared), float(np.abs(residuals).mean()))


def _binds_through(name: str, atom: str) -> bool:
    """Whether an adsorbate of the catalogue, other than the atom itself, binds through this atom: OH, HCOO through O.

    Hydrogen does not count: no molecule binds as it does.
    """
    spelled = catalogue_spelling(name)
    if spelled not in CATALOGUE or spelled == atom or atom == "H":
        return False
    known = adsorbate(spelled)
    return set(known.atoms.symbols[list(known.binding)]) == {atom}
