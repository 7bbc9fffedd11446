"""Label the structures of `structures.py` with the teacher: total energies (eV) and forces (eV/Å).

Run ``python label.py --teacher nequix-omat-1.nqx --out labels --hours 1 --seed 0``. Labels are written in chunks of a
few hundred frames. The command may be stopped at any time and started again with the same seed: it goes on behind the
last complete chunk.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import BFGS
from ase.units import fs
from building import METALS, draw_rattle, rattled
from starts import Kind, Start
from structures import KIND_SETS, draw_start

FRAMES_PER_CHUNK = 400
LOWEST_FORMATION = -1.5
RELAXED_FORCE = 0.02
LARGEST_STEP = 0.12
MD_STEP_FS = 3.0
MD_STEPS_PER_FRAME = 4
MD_FRICTION_PER_FS = 0.02
MD_MASS = 20.0
LATTICE_GUESS = {"Cu": 3.63, "Ag": 4.15, "Au": 4.16, "Pd": 3.94, "Pt": 3.97, "Rh": 3.83, "Ir": 3.88, "Ni": 3.52}


@dataclass(frozen=True)
class Frame:
    """One labelled structure.

    Attributes
    ----------
    atoms
        Structure.
    energy
        Total energy, eV.
    forces
        Forces, (N, 3), eV/Å.
    start
        Start of the chain the frame belongs to.
    index
        Number of that start.
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    start: Start
    index: int


def fcc_lattice_constants(teacher: Calculator, metals: Sequence[str]) -> dict[str, float]:
    """Cubic lattice constants (Å) at the minimum of the teacher's energy, from a cubic fit through nine points."""
    constants = {}
    for metal in metals:
        lengths = LATTICE_GUESS[metal] * np.linspace(0.97, 1.03, 9)
        energies = [teacher.get_potential_energy(bulk(metal, "fcc", a=length)) for length in lengths]
        fit = np.polynomial.Polynomial.fit(lengths, energies, 3)
        stationary = fit.deriv().roots()
        curvature = fit.deriv(2)(stationary).real
        constants[metal] = float(stationary[np.argmax(curvature)].real)
    return constants


def reference_energies(teacher: Calculator, lattice: dict[str, float]) -> dict[int, float]:
    """Energy per atom (eV) of the bulk metals, and of H, C, N, O from H2, CH4, N2 and H2O."""
    energies = {}
    for metal in lattice:
        crystal = bulk(metal, "fcc", a=lattice[metal])
        energies[int(crystal.numbers[0])] = teacher.get_potential_energy(crystal)
    gas = {}
    for name in ("H2", "CH4", "N2", "H2O"):
        atoms = molecule(name, cell=[15, 15, 15], pbc=True)
        gas[name] = teacher.get_potential_energy(atoms)
    hydrogen = gas["H2"] / 2
    return energies | {1: hydrogen, 6: gas["CH4"] - 4 * hydrogen, 7: gas["N2"] / 2, 8: gas["H2O"] - 2 * hydrogen}


def chain(teacher: Calculator, start: Start, seed: int, index: int) -> list[Frame]:
    """Label a start, its relaxation, rattled copies or hot frames of where it ended, and the series it came with."""
    atoms = start.atoms.copy()
    atoms.calc = teacher
    frames = []

    def label(structure: Atoms) -> None:
        energy = teacher.get_potential_energy(structure)
        bare = Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
        frames.append(Frame(bare, energy, teacher.get_forces(structure), start, index))

    if start.relax_steps == 0:
        label(atoms)
    else:
        optimizer = BFGS(atoms, logfile=None, maxstep=LARGEST_STEP)
        for _ in optimizer.irun(fmax=RELAXED_FORCE, steps=start.relax_steps):
            label(atoms)
    rng = np.random.default_rng([seed, index, 1])
    for _ in range(start.kind.rattles):
        label(rattled(atoms, draw_rattle(rng, 0.15), rng))
    if start.kind.md_frames:
        for structure in hot_frames(atoms, start, rng):
            label(structure)
    for structure in start.series:
        label(structure)
    return frames


def hot_frames(atoms: Atoms, start: Start, rng: np.random.Generator) -> Iterator[Atoms]:
    """Frames of Langevin dynamics, until one has a force no label may have.

    Every atom weighs the same: masses do not change which configurations are visited how often, and with equal ones
    the slow modes move on in fewer steps. The velocities start at 1.5 times the temperature, since the relaxed start
    has no potential energy to share yet.
    """
    hot = atoms.copy()
    hot.calc = atoms.calc
    hot.set_masses(np.full(len(hot), MD_MASS))
    thermalize_momenta(hot, temperature_K=1.5 * start.temperature, rng=rng)
    dynamics = Langevin(
        hot, MD_STEP_FS * fs, temperature_K=start.temperature, friction=MD_FRICTION_PER_FS / fs, rng=rng, fixcm=False
    )
    for _ in range(start.kind.md_frames):
        dynamics.run(MD_STEPS_PER_FRAME)
        if not np.linalg.norm(hot.get_forces(), axis=1).max() <= start.kind.largest_force:
            return
        yield hot


def is_sound(frame: Frame, references: dict[int, float]) -> bool:
    """Tell whether force and formation energy are such as a trustworthy label can have."""
    kind = frame.start.kind
    formation = frame.energy - sum(references[int(number)] for number in frame.atoms.numbers)
    largest = np.linalg.norm(frame.forces, axis=1).max()
    return bool(
        largest <= kind.largest_force and LOWEST_FORMATION <= formation / len(frame.atoms) <= kind.highest_formation
    )


def write_chunk(path: Path, frames: list[Frame], next_index: int, seed: int) -> None:
    """Write frames as one compressed archive, complete or not at all."""
    partial = path.with_name(f"partial-{path.name}")
    np.savez_compressed(
        partial,
        natoms=np.array([len(frame.atoms) for frame in frames], np.int32),
        numbers=np.concatenate([frame.atoms.numbers for frame in frames]).astype(np.int16),
        positions=np.concatenate([frame.atoms.positions for frame in frames]),
        cell=np.stack([frame.atoms.cell[:] for frame in frames]),
        pbc=np.stack([frame.atoms.pbc for frame in frames]),
        energy=np.array([frame.energy for frame in frames]),
        forces=np.concatenate([frame.forces for frame in frames]).astype(np.float32),
        group=np.array([frame.start.group for frame in frames]),
        split=np.array([frame.start.split for frame in frames]),
        kind=np.array([frame.start.kind.name for frame in frames]),
        start=np.array([frame.index for frame in frames], np.int32),
        next_start=next_index,
        seed=seed,
    )
    os.replace(partial, path)


def resume(folder: Path, seed: int) -> tuple[int, int]:
    """Find the numbers of the next chunk and the next start, behind the chunks already written."""
    chunks = sorted(folder.glob("chunk-[0-9]*[0-9].npz"))
    if not chunks:
        return 0, 0
    with np.load(chunks[-1]) as last:
        if int(last["seed"]) != seed:
            raise SystemExit(f"{chunks[-1]} was made with --seed {int(last['seed'])}, not {seed}: use another --out.")
        return len(chunks), int(last["next_start"])


def run(
    teacher: Calculator, folder: Path, hours: float, most: int, seed: int, kinds: Sequence[Kind], metals: Sequence[str]
) -> None:
    """Label chunk after chunk until the time is up or the labels are enough."""
    begin = time.monotonic()
    lattice = fcc_lattice_constants(teacher, metals)
    references = reference_energies(teacher, lattice)
    record = {"lattice_constants": lattice, "references": references}
    (folder / "teacher.json").write_text(json.dumps(record, indent=1))
    print(f"lattice constants {lattice}\nreferences {references}", flush=True)
    chunk, index = resume(folder, seed)
    total = 0
    while total < most and time.monotonic() - begin < 3600 * hours:
        frames: list[Frame] = []
        dropped = Counter()
        chunk_begin = time.monotonic()
        wanted = min(FRAMES_PER_CHUNK, most - total)
        while len(frames) < wanted and time.monotonic() - begin < 3600 * hours:
            start = draw_start(seed, index, lattice, kinds)
            labelled = chain(teacher, start, seed, index)
            kept = [frame for frame in labelled if is_sound(frame, references)]
            dropped[start.kind.name] += len(labelled) - len(kept)
            frames += kept
            index += 1
        if not frames:
            break
        write_chunk(folder / f"chunk-{chunk:05d}.npz", frames, index, seed)
        total += len(frames)
        elapsed = time.monotonic() - chunk_begin
        by_kind = dict(Counter(frame.start.kind.name for frame in frames))
        print(
            f"chunk {chunk}: {len(frames)} frames, {elapsed:.0f} s, {len(frames) / elapsed:.2f} frames/s; "
            f"kept {by_kind}, dropped {dict(+dropped)}; next start {index}, {total} frames in this run",
            flush=True,
        )
        chunk += 1


def main() -> None:
    """Read the command line and label."""
    from teacher import Teacher

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True, help="teacher weights, nequix-omat-1.nqx")
    parser.add_argument("--out", type=Path, required=True, help="folder for the chunks")
    parser.add_argument("--hours", type=float, required=True, help="wall time to spend")
    parser.add_argument("--seed", type=int, default=0, help="seed of the structures (default 0)")
    parser.add_argument("--most", type=int, default=10**9, help="stop after this many labels (default: no limit)")
    parser.add_argument("--kinds", choices=KIND_SETS, default="near", help="set of kinds to draw from (default near)")
    parser.add_argument("--metals", nargs="+", default=METALS, metavar="METAL", help=f"default {' '.join(METALS)}")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(arguments.teacher, arguments.out / "compiled")
    kinds = KIND_SETS[arguments.kinds]
    run(teacher, arguments.out, arguments.hours, arguments.most, arguments.seed, kinds, arguments.metals)


if __name__ == "__main__":
    main()
