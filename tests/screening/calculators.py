"""Calculators for campaigns whose answers are known exactly, and that can be made to fail."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

ATOMS = {"Cu": -3.0, "Pt": -5.0, "Al": -2.0, "H": -1.0, "C": -7.0, "O": -4.0, "N": -6.0}
"""eV that each atom adds to a total energy, wherever it is."""

BINDING = {"H": -0.3, "O": -1.25, "C": -0.5, "N": -0.75}
"""eV that each atom of an adsorbate adds on a slab."""

PER_ANGSTROM = 0.1
"""eV that an adsorbate loses for each Å along x, and twice that along y, which tells its sites apart."""

METALS = ("Cu", "Pt", "Al")

GAS = {name: sum(ATOMS[symbol] for symbol in atoms) for name, atoms in (("H2", "HH"), ("H2O", "HHO"), ("CO", "CO"))}
"""Energies of gas molecules, which have no binding."""

OC20 = {"H": GAS["H2"] / 2, "O": GAS["H2O"] - GAS["H2"], "C": GAS["CO"] - GAS["H2O"] + GAS["H2"], "N": ATOMS["N"]}


class Known(Calculator):
    """Energies that can be added up by hand; there are no forces, so nothing moves.

    Parameters
    ----------
    kind : str
        "total", or "adsorption" for the adsorption energies that follow from the total ones in the scheme "oc20".
    seconds : float
        That an evaluation takes.
    fails_for : str
        Element with which structures cannot be evaluated.
    fails_unless : str
        Path of a file without which they cannot be.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, kind: str = "total", seconds: float = 0.0, fails_for: str = "", fails_unless: str = "") -> None:
        super().__init__()
        self._kind, self._seconds, self._fails_for, self._fails_unless = kind, seconds, fails_for, fails_unless

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        time.sleep(self._seconds)
        if self._fails_for in atoms.get_chemical_symbols() and not Path(self._fails_unless or "/nowhere").exists():
            raise RuntimeError(f"no convergence with {self._fails_for}")
        self.results = {
            "energy": adsorption_energy(atoms) if self._kind == "adsorption" else total_energy(atoms),
            "forces": np.zeros((len(atoms), 3)),
            "stress": np.zeros(6),
        }


def total_energy(atoms) -> float:
    return sum(ATOMS[symbol] for symbol in atoms.get_chemical_symbols()) + _binding(atoms)


def adsorption_energy(atoms) -> float:
    """What the total energies make in the scheme "oc20"."""
    symbols = [symbol for symbol in atoms.get_chemical_symbols() if symbol not in METALS]
    return sum(ATOMS[symbol] - OC20[symbol] for symbol in symbols) + _binding(atoms)


def _binding(atoms) -> float:
    adsorbed = [atom for atom in atoms if atom.symbol not in METALS]
    if not adsorbed or len(adsorbed) == len(atoms):
        return 0.0
    first = min(adsorbed, key=lambda atom: atom.z)
    return sum(BINDING[atom.symbol] for atom in adsorbed) + PER_ANGSTROM * (first.x + 2 * first.y)


class SlowEMT(EMT):
    """ASE's effective medium theory, with a pause in every evaluation."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self._seconds = seconds

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        time.sleep(self._seconds)
        super().calculate(atoms, properties, system_changes)


def not_a_calculator(value: int = 0) -> int:
    return value


def broken() -> None:
    raise RuntimeError("no licence")


class Deadly(Known):
    """Ends its process when it sees oxygen on copper."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        if {"Cu", "O"} <= {*atoms.get_chemical_symbols()}:
            os.kill(os.getpid(), signal.SIGKILL)
        super().calculate(atoms, properties, system_changes)
