"""Energies and forces of the teacher for the structures of a file; runs in the teacher's environment.

Run ``python teacher_energies.py --teacher nequix-omat-1.nqx --cache compiled IN.extxyz OUT.extxyz``, with ``--relax``
to relax every structure first (BFGS; fixed atoms stay). Results appear in the order of the input, with the
``atoms.info`` it had.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.optimize import BFGS
from label import LARGEST_STEP
from teacher import Teacher

RELAXED_FORCE = 0.03
MOST_STEPS = 150


def evaluated(atoms: Atoms, teacher: Teacher, relax: bool) -> Atoms:
    """Copy with energy (eV) and forces (eV/Å, constraints not applied) of the teacher, relaxed if wanted."""
    moved = atoms.copy()
    moved.calc = teacher
    if relax:
        moved.info["teacher_converged"] = bool(
            BFGS(moved, logfile=None, maxstep=LARGEST_STEP).run(fmax=RELAXED_FORCE, steps=MOST_STEPS)
        )
    energy, forces = moved.get_potential_energy(), moved.get_forces(apply_constraint=False)
    moved.calc = SinglePointCalculator(moved, energy=energy, forces=forces)
    return moved


def main() -> None:
    """Read the command line and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="structures")
    parser.add_argument("output", type=Path, help="extxyz file to write; an older one is replaced")
    parser.add_argument("--teacher", type=Path, required=True, help="teacher weights, nequix-omat-1.nqx")
    parser.add_argument("--relax", action="store_true", help="relax first")
    parser.add_argument("--cache", type=Path, required=True, help="folder for compiled functions, to start faster")
    arguments = parser.parse_args()
    teacher = Teacher(arguments.teacher, arguments.cache)
    structures = read(arguments.input, ":")
    results = []
    for number, atoms in enumerate(structures, 1):
        results.append(evaluated(atoms, teacher, arguments.relax))
        if number % 20 == 0 or number == len(structures):
            print(f"teacher: {number} of {len(structures)}", flush=True)
    partial = arguments.output.with_name(f"partial-{arguments.output.name}")
    write(partial, results, format="extxyz")
    os.replace(partial, arguments.output)


if __name__ == "__main__":
    main()
