"""Derivatives of energies by finite differences, and structures on which they mean something.

Richardson's extrapolation of central differences, (4 D(h/2) - D(h)) / 3 with D(h) = (E(h) - E(-h)) / 2h, has an error
of fourth order in h.
"""

from functools import cache

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule

from escn_calc.graph import radius_graph
from escn_calc.nn.rotations import SINGULAR_DIRECTION
from escn_calc.structures import StructureBatch

PARTS = (1.0, -1.0, 0.5, -0.5)
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
MARGIN = 3e-3
"""Å by which neighbours must stay clear of the cutoff and of a change of rank at the cap."""


def forces_error(potential, atoms, chosen, h):
    """Largest difference of the forces from finite differences on (atom, axis) pairs, relative to the largest force."""
    (prediction,) = potential.evaluate([atoms])
    errors = [
        abs(prediction.forces[atom, axis] + slope(potential, atoms, moved(atom, axis), h)) for atom, axis in chosen
    ]
    return max(errors) / np.abs(prediction.forces).max()


def stress_error(potential, atoms, h):
    """Largest difference of a component of the stress from finite differences, eV/Å³."""
    (prediction,) = potential.evaluate([atoms])
    numerical = [slope(potential, atoms, strained(*pair), h) / atoms.cell.volume for pair in VOIGT]
    return np.abs(prediction.stress - numerical).max()


def slope(potential, atoms, change, h):
    copies = []
    for part in PARTS:
        copy = atoms.copy()
        change(copy, part * h)
        copies.append(copy)
    e = [prediction.energy for prediction in potential.evaluate(copies)]
    wide, narrow = (e[0] - e[1]) / (2 * h), (e[2] - e[3]) / h
    return (4 * narrow - wide) / 3


def moved(atom, axis):
    def change(atoms, distance):
        atoms.positions[atom, axis] += distance

    return change


def strained(first, second):
    """A symmetric strain: the derivative of the energy by it is the volume times the stress component."""

    def change(atoms, size):
        strain = np.eye(3)
        strain[first, second] += size / 2
        strain[second, first] += size / 2
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=False)
        atoms.positions = atoms.positions @ strain

    return change


def every_component(atoms):
    return [(atom, axis) for atom in range(len(atoms)) for axis in range(3)]


@cache
def triclinic_slab(cutoff, max_neighbors):
    """Cu(111) with CO in a skewed cell, periodic in the plane; no neighbour is near the cutoff or the cap."""
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        atoms = fcc111("Cu", size=(2, 2, 2), vacuum=6.0, periodic=True)
        add_adsorbate(atoms, molecule("CO"), 1.9, "ontop", mol_index=1)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.12, 0.12, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.1, size=(len(atoms), 3))
        atoms.pbc = (True, True, False)
        if clearance(atoms, cutoff, max_neighbors) > MARGIN:
            return atoms
    raise AssertionError("no structure clear of the cap")


def bulk_crystal(cutoff, max_neighbors):
    """A distorted two-atom cell, in which most neighbours are images."""
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        atoms = bulk("CuPt", "cesiumchloride", a=3.0)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.15, 0.15, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.1, size=(len(atoms), 3))
        if clearance(atoms, cutoff, max_neighbors) > MARGIN:
            return atoms
    raise AssertionError("no structure clear of the cap")


def bent_molecule():
    """Methanol, distorted, without a cell."""
    atoms = molecule("CH3OH")
    atoms.positions += np.random.default_rng(3).normal(scale=0.05, size=(len(atoms), 3))
    return atoms


def cross():
    """Edges exactly along ±x, ±y, ±z, and along the direction without a smooth frame, both ways."""
    special = np.array(SINGULAR_DIRECTION) / np.linalg.norm(SINGULAR_DIRECTION)
    arms = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    positions = np.concatenate([[np.zeros(3)], 2.1 * arms, [2.6 * special, -2.8 * special]])
    return Atoms("CuOHCuNPtCCuAg", positions)


def clearance(atoms, cutoff, max_neighbors):
    """Smallest distance (Å) from any pair to the cutoff, and from the last neighbour kept to the first left out."""
    graph = radius_graph(StructureBatch.from_atoms([atoms]), cutoff + 1.0, 0)
    distances, target = graph.distances.numpy(), graph.target.numpy()
    gaps = [np.abs(distances - cutoff).min()]
    if max_neighbors > 0:
        for atom in range(len(atoms)):
            around = np.sort(distances[(target == atom) & (distances < cutoff)])
            gaps += list(around[max_neighbors : max_neighbors + 1] - around[max_neighbors - 1 : max_neighbors])
    return min(gaps)
