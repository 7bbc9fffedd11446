"""Slabs of any size to measure on, the same in every run: CO on the (111) face of a metal, rattled."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule

from escn_calc.errors import InputError

METALS = ("Cu", "Pt", "Pd", "Ni", "Ag", "Au", "Rh", "Ir", "Al")
"""Face-centred cubic ones, the first that a model knows is taken."""
LAYERS = 4
RATTLED = 0.05
"""Å, standard deviation of every coordinate."""


@dataclass(frozen=True, eq=False)
class System:
    """A structure and what to call it."""

    name: str
    atoms: Atoms


def standard_slab(size: int, metal: str = "Cu", *, adsorbate: bool = True) -> Atoms:
    """Make a slab of four layers, periodic in all directions, rattled.

    Parameters
    ----------
    size : about how many atoms it has; 38, 102 and 198 are met exactly with the adsorbate.
    metal : symbol of a face-centred cubic element.
    adsorbate : whether CO stands on one of its atoms.
    """
    carbon_monoxide = molecule("CO") if adsorbate else Atoms()
    columns = max(1, round((size - len(carbon_monoxide)) / LAYERS))
    width = round(math.sqrt(columns))
    slab = fcc111(metal, size=(width, round(columns / width), LAYERS), vacuum=10.0, periodic=True)
    if adsorbate:
        add_adsorbate(slab, carbon_monoxide, 1.9, "ontop", mol_index=1)
    slab.rattle(RATTLED, seed=1)
    slab.wrap(eps=0)
    return slab


def known_slab(size: int, elements: Collection[str] | None) -> System:
    """Make a standard slab of elements that a model has been trained on; with CO where it knows C and O.

    Parameters
    ----------
    size : about how many atoms.
    elements : symbols; None where they are not known.

    Raises
    ------
    InputError
        None of ``METALS`` is among them.
    """
    known = {*METALS, "C", "O"} if elements is None else set(elements)
    metal = next((symbol for symbol in METALS if symbol in known), None)
    if metal is None:
        raise InputError(
            f"the model knows none of {' '.join(METALS)}, of which the standard slabs are made; it knows "
            f"{' '.join(sorted(known))}. Give a structure file"
        )
    adsorbate = known >= {"C", "O"}
    name = f"{'CO on ' if adsorbate else ''}{metal}(111)"
    return System(name, standard_slab(size, metal, adsorbate=adsorbate))


def displaced(atoms: Atoms, turn: int) -> Atoms:
    """Return a copy whose atoms have moved by about 0.01 Å, as in a few steps of dynamics; another one each turn."""
    moved = atoms.copy()
    moved.positions += np.random.default_rng(turn).normal(0.0, 0.01, moved.positions.shape)
    return moved
