"""The cell as something that relaxes: which part of it moves, the stress that has to vanish, and how far it may go.

The work is done by ASE's ``FrechetCellFilter``. Its variables are the positions in the undeformed cell and the
logarithm U of the deformation F = exp(U), which takes the cell vectors of the start to those of now and carries all
atoms along. An atom that constraints hold keeps its place relative to the cell, not in space.

With the stress σ and the pressure p, what has to vanish is the part of σ + p that the cell can answer to:

- ``full``: σ + p,
- ``isotropic``: its mean tension tr(σ + p) / 3, the same in all directions,
- ``in-plane``: P σ P, where P projects onto the plane of the first two cell vectors.

Its largest principal value (in magnitude, eV/Å³) is called *smax*. It does not depend on how the structure is turned.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.filters import FrechetCellFilter, OptimizableFilter

from escn_calc.errors import CalculationError, InputError

Cell = Literal["fixed", "full", "isotropic", "in-plane"]

CELLS: tuple[Cell, ...] = ("fixed", "full", "isotropic", "in-plane")
"""Ways to treat the cell: it stays; all of it moves; only its size; only the plane of its first two vectors."""

LARGEST_STRETCH = 1.5
"""A cell that has become longer or shorter by this factor in any direction has exploded or collapsed."""

SCALABLE_CONSTRAINTS = ("FixAtoms", "FixCartesian", "FixSymmetry")
"""Constraints of ASE that mean something while the cell changes; others hold lengths or angles against it."""

PERPENDICULAR = 1e-9
"""Sine of the angle to the normal below which the third cell vector counts as perpendicular."""


class RelaxedCell(FrechetCellFilter):
    """A structure and its cell, as ASE's optimisers take them.

    With ``in-plane`` the height of the cell stays; a third vector perpendicular to the plane stays to the last bit, and
    a tilted one follows the strain of the plane, so that layers stay stacked as they are.

    Parameters
    ----------
    atoms : Atoms
        The structure with its calculator, which must have a stress; it is changed.
    cell : str
        One of ``CELLS`` other than ``"fixed"``.
    pressure_GPa : float
        Pressure from outside, in GPa; positive compresses.
    smax : float
        Converged when the largest principal value of the stress that has to vanish is below this, in eV/Å³, and the
        largest force on an atom below the ``fmax`` of the optimiser.

    Raises
    ------
    CalculationError
        By an optimiser's step, before anything is evaluated: the cell was stretched by more than ``LARGEST_STRETCH``.
    """

    def __init__(self, atoms: Atoms, cell: Cell, pressure_GPa: float, smax: float) -> None:  # noqa: N803 (a unit)
        super().__init__(atoms, hydrostatic_strain=cell == "isotropic", scalar_pressure=pressure_GPa * units.GPa)
        self._cell = cell
        self._smax = smax
        self._projector = _plane(atoms.cell.array) if cell == "in-plane" else np.eye(3)
        across = atoms.cell.array[2] @ self._projector
        self._keeps_third_vector = (
            cell == "in-plane" and np.linalg.norm(across) < PERPENDICULAR * atoms.cell.lengths()[2]
        )

    def get_forces(self, **options: bool) -> np.ndarray:
        """Forces on the atoms (eV/Å) and on U (eV, over the number of atoms), (N + 3, 3)."""
        forces: np.ndarray = super().get_forces(**options)
        forces[-3:] = self._projector @ forces[-3:] @ self._projector
        return forces

    def set_positions(self, new: np.ndarray, **options: bool) -> None:  # type: ignore[override]  # ASE's own name
        """Move atoms and cell, (N + 3, 3) as ASE lays them out, unless the cell leaves all reason."""
        super().set_positions(new, **options)
        if self._keeps_third_vector:
            self.atoms.cell[2] = self.orig_cell[2]
        _check_stretch(self.orig_cell, self.atoms.cell.array)

    def stress_to_vanish(self) -> np.ndarray:
        """The stress that a converged relaxation has brought to zero, (3, 3) in eV/Å³."""
        stress: np.ndarray = self.atoms.get_stress(voigt=False) + self.scalar_pressure * np.eye(3)
        if self._cell == "isotropic":
            return np.eye(3) * np.trace(stress) / 3
        answered: np.ndarray = self._projector @ stress @ self._projector
        return answered

    def largest_stress(self) -> float:
        """Largest principal value, in magnitude, of :meth:`stress_to_vanish` in eV/Å³."""
        return float(np.linalg.norm(self.stress_to_vanish(), 2))

    def is_relaxed(self, fmax: float) -> bool:
        """Whether forces on atoms (eV/Å) and stress, each by its own measure, are small enough."""
        largest_force = np.linalg.norm(self.atoms.get_forces(), axis=1).max()
        return bool(largest_force < fmax and self.largest_stress() < self._smax)

    def __ase_optimizable__(self) -> OptimizableFilter:
        """What an optimiser works on: the filter, with the two criteria instead of one that mixes their units."""
        return _TwoCriteria(self)


class _TwoCriteria(OptimizableFilter):
    def converged(self, gradient: np.ndarray, fmax: float) -> bool:
        return bool(self.filterobj.is_relaxed(fmax))


def check_cell_options(cell: str, smax: float, pressure_GPa: float) -> None:  # noqa: N803 (a unit)
    """Make sure that the options of a relaxation of the cell have values, and a meaning together.

    Raises
    ------
    InputError
        Unknown ``cell``; ``smax`` not positive and finite; a pressure that is not finite, or that nothing answers to.
    """
    if cell not in CELLS:
        raise InputError(f"cell is {cell!r}; it must be one of {', '.join(CELLS)}")
    if not (np.isfinite(smax) and smax > 0):
        raise InputError(f"smax is {smax} eV/Å³; it must be a positive number")
    if not np.isfinite(pressure_GPa):
        raise InputError(f"the pressure is {pressure_GPa} GPa; it must be a finite number")
    if pressure_GPa and cell in ("fixed", "in-plane"):
        raise InputError(
            f"the pressure is {pressure_GPa} GPa, but a cell that is {cell!r} has no volume that answers to it; "
            "choose cell 'full' or 'isotropic'"
        )


def check_relaxable_cell(atoms: Atoms, cell: Cell) -> None:
    """Make sure that the cell of a structure can relax.

    Raises
    ------
    InputError
        The structure is not periodic where the cell is to relax, its cell has no volume, or it has constraints that
        mean nothing while the cell changes.
    """
    if cell == "fixed":
        return
    needed = 2 if cell == "in-plane" else 3
    if not atoms.pbc[:needed].all():
        which = "its first two cell vectors" if needed == 2 else "its three cell vectors"
        raise InputError(
            f"the cell cannot relax {_how(cell)}: {atoms.get_chemical_formula()} must be periodic along {which}, and "
            f"its pbc is {atoms.pbc.tolist()}; set pbc" + ("" if needed == 2 else ", or choose 'in-plane' for a slab")
        )
    if atoms.cell.rank < 3:
        raise InputError(
            f"the cell {atoms.cell.array.tolist()} Å has no volume, and so no stress; give it three vectors"
        )
    for constraint in atoms.constraints:
        name = type(constraint).__name__
        if name not in SCALABLE_CONSTRAINTS:
            raise InputError(
                f"the structure has the constraint {name}, which means nothing while the cell changes; remove it "
                f"(possible are {', '.join(SCALABLE_CONSTRAINTS)}), or keep the cell fixed"
            )


def _how(cell: Cell) -> str:
    return {"full": "in full", "isotropic": "isotropically", "in-plane": "in the plane"}[cell]


def _plane(cell: np.ndarray) -> np.ndarray:
    """Projector onto the plane of the first two cell vectors, (3, 3)."""
    normal = np.cross(cell[0], cell[1])
    normal /= np.linalg.norm(normal)
    return np.eye(3) - np.outer(normal, normal)


def _check_stretch(start: np.ndarray, now: np.ndarray) -> None:
    stretches = np.linalg.svd(np.linalg.solve(start, now), compute_uv=False)
    if not 1 / LARGEST_STRETCH <= stretches.min() <= stretches.max() <= LARGEST_STRETCH:
        raise CalculationError(
            f"the cell was stretched by factors from {stretches.min():.3g} to {stretches.max():.3g} of its first "
            f"lengths, beyond {1 / LARGEST_STRETCH:.2f} and {LARGEST_STRETCH:g}: it collapses or falls apart; start "
            "from a cell nearer to the minimum, and see whether the model knows such structures"
        )
