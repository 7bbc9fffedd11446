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
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.optimize import BFGS
from matscipy.neighbours import neighbour_list
from nequix.data import atomic_numbers_to_indices
from nequix.model import load_model
from structures import METALS, Start, draw_rattle, draw_start, rattled

EDGE_CAPACITIES = (64, 256, 512, 640, 768, 896, 1024, 1152, 1280, 1536, 1792, 2048, 2560, 3200)
NODE_CAPACITY = 48
FRAMES_PER_CHUNK = 400
LARGEST_FORCE = 30.0
FORMATION_RANGE = (-1.5, 6.0)
RELAXED_FORCE = 0.02
LARGEST_STEP = 0.12
LATTICE_GUESS = {"Cu": 3.63, "Ag": 4.15, "Au": 4.16, "Pd": 3.94, "Pt": 3.97, "Rh": 3.83, "Ir": 3.88}


class Teacher(Calculator):
    """ASE calculator of the teacher that compiles once per edge capacity instead of once per structure.

    Parameters
    ----------
    path
        Weights in the format of the `nequix` package.
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.model, config = load_model(str(path), False)
        self.cutoff = config["cutoff"]
        self.species = atomic_numbers_to_indices(config["atomic_numbers"])
        self.evaluate = jax.jit(self.node_energies_and_forces)

    def node_energies_and_forces(
        self, positions: jax.Array, species: jax.Array, senders: jax.Array, receivers: jax.Array, offsets: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Energies of all nodes (N,), eV, and forces (N, 3), eV/Å."""

        def total(positions: jax.Array) -> tuple[jax.Array, jax.Array]:
            vectors = positions[senders] - positions[receivers] + offsets
            energies = self.model.node_energies(vectors, species, senders, receivers)[:, 0]
            return jnp.sum(energies), energies

        gradient, energies = jax.grad(total, has_aux=True)(positions)
        return energies, -gradient

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Evaluate one structure, padded with nodes out of reach of each other."""
        super().calculate(atoms, properties, system_changes)
        count = len(atoms)
        receivers, senders, shifts = neighbour_list(
            "ijS", positions=atoms.positions, cell=atoms.cell[:], pbc=atoms.pbc, cutoff=self.cutoff
        )
        capacity = next(size for size in EDGE_CAPACITIES if size >= len(senders))
        missing = capacity - len(senders)
        beyond = np.broadcast_to([2.0 * self.cutoff, 0.0, 0.0], (missing, 3))
        nodes = ((0, NODE_CAPACITY - count), (0, 0))
        energies, forces = self.evaluate(
            np.pad(atoms.positions, nodes).astype(np.float32),
            np.pad([self.species[number] for number in atoms.numbers], nodes[0]).astype(np.int32),
            np.pad(senders, (0, missing), constant_values=NODE_CAPACITY - 1).astype(np.int32),
            np.pad(receivers, (0, missing), constant_values=NODE_CAPACITY - 1).astype(np.int32),
            np.concatenate([shifts @ atoms.cell[:], beyond]).astype(np.float32),
        )
        self.results["energy"] = float(np.asarray(energies, np.float64)[:count].sum())
        self.results["forces"] = np.asarray(forces, np.float64)[:count]


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


def fcc_lattice_constants(teacher: Teacher) -> dict[str, float]:
    """Cubic lattice constants (Å) at the minimum of the teacher's energy, from a cubic fit through nine points."""
    constants = {}
    for metal in METALS:
        lengths = LATTICE_GUESS[metal] * np.linspace(0.97, 1.03, 9)
        energies = [teacher.get_potential_energy(bulk(metal, "fcc", a=length)) for length in lengths]
        fit = np.polynomial.Polynomial.fit(lengths, energies, 3)
        stationary = fit.deriv().roots()
        curvature = fit.deriv(2)(stationary).real
        constants[metal] = float(stationary[np.argmax(curvature)].real)
    return constants


def reference_energies(teacher: Teacher, lattice: dict[str, float]) -> dict[int, float]:
    """Energy per atom (eV) of the bulk metals, and of H, C, N, O from H2, CH4, N2 and H2O."""
    energies = {}
    for metal in METALS:
        crystal = bulk(metal, "fcc", a=lattice[metal])
        energies[int(crystal.numbers[0])] = teacher.get_potential_energy(crystal)
    gas = {}
    for name in ("H2", "CH4", "N2", "H2O"):
        atoms = molecule(name, cell=[15, 15, 15], pbc=True)
        gas[name] = teacher.get_potential_energy(atoms)
    hydrogen = gas["H2"] / 2
    return energies | {1: hydrogen, 6: gas["CH4"] - 4 * hydrogen, 7: gas["N2"] / 2, 8: gas["H2O"] - 2 * hydrogen}


def chain(teacher: Teacher, start: Start, seed: int, index: int) -> list[Frame]:
    """Label a start, the steps of a short relaxation, and rattled copies of where it ended."""
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
    return frames


def is_sound(frame: Frame, references: dict[int, float]) -> bool:
    """Tell whether force and formation energy are such as a trustworthy label can have."""
    formation = frame.energy - sum(references[int(number)] for number in frame.atoms.numbers)
    low, high = FORMATION_RANGE
    largest = np.linalg.norm(frame.forces, axis=1).max()
    return bool(largest <= LARGEST_FORCE and low <= formation / len(frame.atoms) <= high)


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


def run(teacher: Teacher, folder: Path, hours: float, seed: int) -> None:
    """Label chunk after chunk until the time is up."""
    begin = time.monotonic()
    lattice = fcc_lattice_constants(teacher)
    references = reference_energies(teacher, lattice)
    record = {"lattice_constants": lattice, "references": references, "teacher_cutoff": teacher.cutoff}
    (folder / "teacher.json").write_text(json.dumps(record, indent=1))
    print(f"lattice constants {lattice}\nreferences {references}", flush=True)
    chunk, index = resume(folder, seed)
    total = 0
    while time.monotonic() - begin < 3600 * hours:
        frames: list[Frame] = []
        dropped = Counter()
        chunk_begin = time.monotonic()
        while len(frames) < FRAMES_PER_CHUNK and time.monotonic() - begin < 3600 * hours:
            start = draw_start(seed, index, lattice)
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
        kinds = dict(Counter(frame.start.kind.name for frame in frames))
        print(
            f"chunk {chunk}: {len(frames)} frames, {elapsed:.0f} s, {len(frames) / elapsed:.2f} frames/s; "
            f"kept {kinds}, dropped {dict(+dropped)}; next start {index}, {total} frames in this run",
            flush=True,
        )
        chunk += 1


def main() -> None:
    """Read the command line and label."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True, help="teacher weights, nequix-omat-1.nqx")
    parser.add_argument("--out", type=Path, required=True, help="folder for the chunks")
    parser.add_argument("--hours", type=float, required=True, help="wall time to spend")
    parser.add_argument("--seed", type=int, default=0, help="seed of the structures (default 0)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str((arguments.out / "compiled").resolve()))
    run(Teacher(arguments.teacher), arguments.out, arguments.hours, arguments.seed)


if __name__ == "__main__":
    main()
