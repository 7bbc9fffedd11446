"""Reasons to stop a run: numbers that are not finite, an explosion, atoms that leave.

Every step is checked for what costs nothing, and every ``ISOLATION_CHECK_FS`` whether atoms have left. The limits lie
far outside of what sound runs reach: the temperature of a small system fluctuates by more than itself, so its limit
grows as its degrees of freedom become few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase import units

from escn_calc.errors import CalculationError, InputError

if TYPE_CHECKING:
    from ase import Atoms

    from escn_calc.md.frame import Frame
    from escn_calc.md.results import Reason
    from escn_calc.md.settings import MDSettings

FORCE_LIMIT = 1000.0
"""eV/Å. Throws a carbon atom 0.8 Å in 1 fs; atoms in hard collisions at 10 eV feel less than a tenth of it."""

TEMPERATURE_LIMIT = 10_000.0
"""K. Everything boils below it."""

TEMPERATURE_FACTOR = 10.0
"""Runs that are meant to be, or begin, hotter than ``TEMPERATURE_LIMIT`` may become hotter by this factor."""

TEMPERATURE_CHANCE = 1e-15
"""Chance a step at which a canonical kinetic energy may pass the limit: once in a second of 1 fs steps."""

KINETIC_LIMIT = 100.0
"""eV of one atom. Ten times any bond energy, so that no reaction gives it; at 10 000 K it has a chance of e⁻¹¹⁶."""

KINETIC_FACTOR = 50.0
"""The same in kT, for runs so hot that this is more: e⁻⁵⁰ is 1e-22."""

ENERGY_JUMP = 1.0
"""eV. Change of the total energy in one step at constant energy; a good timestep keeps it below a meV per atom."""

ENERGY_JUMP_PER_ATOM = 0.01
"""eV. The same for structures of more than a hundred atoms."""

ISOLATION = 6.0
"""Å. An atom without another within this distance has left: it is past twice any bond, and past most models' reach."""

ISOLATION_CHECK_FS = 100.0
"""fs. Atoms at 300 K go a few Å in this time; searching neighbours more often would be much of the cost of a run."""

_CARTESIAN = "xyz"


class BrokenRunError(Exception):
    """A run cannot go on; carries the reason and a sentence that says what was found and what to try."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class Guards:
    """The checks of one run.

    Parameters
    ----------
    atoms : Atoms
        The structure that the run starts from, momenta included; atoms isolated in it may stay so.
    settings : MDSettings
        The run.
    direct : bool
        Whether the forces are known not to be the gradient of the energy; the advice then says so.
    evaporation : bool
        Whether to look for atoms that have left.
    """

    def __init__(self, atoms: Atoms, settings: MDSettings, *, direct: bool, evaporation: bool) -> None:
        self._symbols = atoms.get_chemical_symbols()
        self._pbc = atoms.pbc.copy()
        self._constant_energy = settings.ensemble == "nve"
        hottest = max(settings.hottest_temperature_K, atoms.get_temperature())
        self._temperature_limit = max(TEMPERATURE_LIMIT, hottest * _hotter(atoms.get_number_of_degrees_of_freedom()))
        self._masses = atoms.get_masses()
        fastest = TEMPERATURE_FACTOR * self._kinetic_energies(atoms.get_momenta()).max()
        self._kinetic_limit = max(KINETIC_LIMIT, fastest, KINETIC_FACTOR * units.kB * hottest)
        self._energy_jump = max(ENERGY_JUMP, ENERGY_JUMP_PER_ATOM * len(atoms))
        self._every = settings.every
        self._timestep_fs = settings.timestep_fs
        self._evaporation = evaporation
        self._isolated = isolated_atoms(atoms.positions, np.array(atoms.cell), self._pbc)
        advice = f"try a timestep below {settings.timestep_fs:g} fs, or relax the structure first"
        gradient = "; direct forces are not the gradient of the energy, forces='gradient' are"
        self._advice = advice + gradient if direct else advice

    def check_start(self, frame: Frame) -> None:
        """Check the frame that a run starts from.

        Raises
        ------
        CalculationError
            Energy or forces are not finite.
        InputError
            The largest force is above ``FORCE_LIMIT``.
        """
        if unusable := self._not_finite(frame):
            raise CalculationError(f"the run cannot start: {unusable}")
        if strong := self._strong_force(frame):
            raise InputError(f"the run cannot start: {strong}; relax the structure first")

    def check(self, frame: Frame, previous: Frame) -> None:
        """Check a step against the limits.

        Raises
        ------
        BrokenRunError
            Something is not finite, too hot, too fast, too strong, or, at constant energy, the energy jumped.
        """
        found = self._not_finite(frame) or self._strong_force(frame) or self._too_hot(frame) or self._too_fast(frame)
        if not found and self._constant_energy:
            found = self._energy_jumped(frame, previous)
        if found:
            raise BrokenRunError("exploded", f"{found} at step {frame.step}; {self._advice}")

    def check_isolation(self, frame: Frame) -> None:
        """Check that no atom has left the others, at the first logged step of every ``ISOLATION_CHECK_FS``.

        Raises
        ------
        BrokenRunError
            An atom has no other within ``ISOLATION``, and had one at the start.
        """
        if not self._evaporation or not self._is_checked(frame.step):
            return
        left = np.flatnonzero(isolated_atoms(frame.positions, frame.cell, self._pbc) & ~self._isolated)
        if len(left):
            others = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise BrokenRunError(
                "evaporated",
                f"atom {left[0]} ({self._symbols[left[0]]}){others} has no other atom within {ISOLATION:g} Å "
                f"at step {frame.step}; if atoms are meant to leave, run on with stop_on_evaporation=False, otherwise "
                "choose a lower temperature or another model",
            )

    def _is_checked(self, step: int) -> bool:
        if step % self._every:
            return False
        period, before = (at * self._timestep_fs // ISOLATION_CHECK_FS for at in (step, step - self._every))
        return period > before

    def _not_finite(self, frame: Frame) -> str:
        if not np.isfinite(frame.energy):
            return f"the energy is {frame.energy} eV"
        vectors = {"force": frame.forces, "position": frame.positions, "momentum": frame.momenta}
        for name, values in vectors.items():
            if not np.isfinite(values).all():
                atom, axis = np.argwhere(~np.isfinite(values))[0]
                value = values[atom, axis]
                return f"the {name} of atom {atom} ({self._symbols[atom]}) along {_CARTESIAN[axis]} is {value}"
        if not np.isfinite(frame.cell).all() or (frame.stress is not None and not np.isfinite(frame.stress).all()):
            return "the cell or the stress is not finite"
        return ""

    def _strong_force(self, frame: Frame) -> str:
        sizes = np.linalg.norm(frame.forces, axis=1)
        atom = int(sizes.argmax())
        if sizes[atom] <= FORCE_LIMIT:
            return ""
        return f"the force on atom {atom} ({self._symbols[atom]}) is {sizes[atom]:.4g} eV/Å, above {FORCE_LIMIT:g} eV/Å"

    def _too_hot(self, frame: Frame) -> str:
        temperature = frame.thermodynamics.temperature_K
        if temperature <= self._temperature_limit:
            return ""
        return f"the temperature is {temperature:.4g} K, above {self._temperature_limit:g} K"

    def _too_fast(self, frame: Frame) -> str:
        energies = self._kinetic_energies(frame.momenta)
        atom = int(energies.argmax())
        if energies[atom] <= self._kinetic_limit:
            return ""
        return (
            f"the kinetic energy of atom {atom} ({self._symbols[atom]}) is {energies[atom]:.4g} eV, "
            f"above {self._kinetic_limit:g} eV"
        )

    def _kinetic_energies(self, momenta: np.ndarray) -> np.ndarray:
        energies: np.ndarray = np.einsum("ij,ij->i", momenta, momenta) / (2 * self._masses)
        return energies

    def _energy_jumped(self, frame: Frame, previous: Frame) -> str:
        jump = frame.thermodynamics.total - previous.thermodynamics.total
        if abs(jump) <= self._energy_jump:
            return ""
        return f"the total energy changed by {jump:.4g} eV in one step, more than {self._energy_jump:g} eV"


def _hotter(freedom: int) -> float:
    """Return the factor over its mean that a canonical kinetic energy passes with ``TEMPERATURE_CHANCE`` a step."""
    from scipy.stats import chi2  # takes a second

    return max(TEMPERATURE_FACTOR, float(chi2.isf(TEMPERATURE_CHANCE, freedom)) / freedom)


def isolated_atoms(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Find atoms without another atom, or an image of another, within ``ISOLATION``.

    Parameters
    ----------
    positions : ndarray, (N, 3)
        In Å.
    cell : ndarray, (3, 3)
        In Å.
    pbc : ndarray, (3,) bool
        Directions in which the structure repeats itself.

    Returns
    -------
    ndarray, (N,) bool
        True where an atom is alone. Its own images are no company.
    """
    import vesin  # imports torch where it is installed

    search = vesin.NeighborList(cutoff=ISOLATION, full_list=True, n_threads=1)
    (pairs,) = search.compute(points=positions, box=cell, periodic=pbc, quantities="P")
    alone = np.ones(len(positions), dtype=bool)
    alone[pairs[pairs[:, 0] != pairs[:, 1], 0]] = False
    return alone
