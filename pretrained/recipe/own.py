"""Label what a model runs into: adsorbates relaxed by the model, frames of their paths evaluated by the teacher.

A relaxation walks to where a potential is wrong downwards, which structures drawn beforehand do not show. Pairs of
surface and adsorbate are drawn at random among those that are not in the test split, built as for
``check_adsorption.py``; a start in ten is a clean slab. Run ``python own.py --model runs/anneal/best --out labels-own
--seed 8 --starts 600`` with the options of the checks. Labels are written in chunks; the command may be stopped at any
time and started again.
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations
from pathlib import Path

import numpy as np
from adsorption_pairs import ADSORBATES, Pair, clean_slab, starting_structures
from ase import Atoms
from ase.io import read
from building import FACETS, METALS
from checks import Setting, kept, read_setting
from label import Frame, is_sound, resume, write_chunk
from starts import Kind, Start

from escn_calc import load_potential, relax_batch
from escn_calc.errors import BatchError

KIND = Kind("own", 1.0)
STARTS_PER_CHUNK = 60
CLEAN_SHARE = 0.1
ALLOY_SHARE = 0.7
FMAX, MOST_STEPS = 0.05, 120
FRAMES_PER_PATH = 7


def draw_own_start(seed: int, index: int, lattice: dict[str, float]) -> Start:
    """Draw start number `index`: a surface of one or two metals with an adsorbate on one of its sites, or clean."""
    rng = np.random.default_rng([seed, index])
    while True:
        alloys = rng.random() < ALLOY_SHARE
        surfaces = list(combinations(sorted(METALS), 2)) if alloys else [(metal,) for metal in METALS]
        adsorbate = "" if rng.random() < CLEAN_SHARE else str(rng.choice(ADSORBATES))
        pair = Pair(surfaces[rng.integers(len(surfaces))], str(rng.choice(FACETS)), adsorbate)
        slab = clean_slab(pair.metals, pair.facet, lattice)
        start = Start(slab, pair.surface, (adsorbate,) if adsorbate else (), KIND, 0)
        if start.split == "test":
            continue
        if not adsorbate:
            return start
        sites = list(starting_structures(slab, adsorbate).values())
        return Start(sites[rng.integers(len(sites))], start.surface, start.adsorbates, KIND, 0)


def paths(setting: Setting, starts: list[Start], folder: Path) -> list[list[Atoms]]:
    """Frames of the relaxations by the model, `FRAMES_PER_PATH` spread over the steps; none where it failed at once."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{number}.traj" for number in range(len(starts))]
    potential = load_potential(setting.model)
    options = {"optimizer": "LBFGS", "fmax": FMAX, "steps": MOST_STEPS}
    try:
        relax_batch([start.atoms for start in starts], potential, trajectories=files, **options)
    except BatchError as error:
        print(error)
    found = []
    for file in files:
        frames = read(file, ":") if file.exists() else []
        picked = np.unique(np.linspace(0, len(frames) - 1, FRAMES_PER_PATH).round().astype(int)) if frames else []
        found.append([frames[place] for place in picked])
        file.unlink(missing_ok=True)
    return found


def labelled(setting: Setting, chunk: int, first: int, starts: list[Start]) -> list[Frame]:
    """Frames of a chunk with the teacher's energies and forces."""

    def make() -> list[Atoms]:
        asked = []
        for number, path in enumerate(paths(setting, starts, setting.out / f"paths-{chunk:05d}")):
            for place, atoms in enumerate(path):
                bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
                bare.info = {"key": f"{first + number}-{place}", "start": number}
                asked.append(bare)
        return asked

    asked = kept(setting.out / f"asked-{chunk:05d}.extxyz", make)
    answered = setting.teacher_results(f"chunk-{chunk:05d}", asked)
    return [
        Frame(
            atoms,
            atoms.get_potential_energy(),
            atoms.get_forces(),
            starts[atoms.info["start"]],
            first + atoms.info["start"],
        )
        for atoms in answered
    ]


def run(setting: Setting, references: dict[int, float], seed: int, count: int) -> None:
    """Relax and label chunk after chunk."""
    chunk, index = resume(setting.out, seed)
    while index < count:
        numbers = range(index, min(index + STARTS_PER_CHUNK, count))
        starts = [draw_own_start(seed, number, setting.lattice) for number in numbers]
        frames = labelled(setting, chunk, index, starts)
        sound = [frame for frame in frames if is_sound(frame, references)]
        index = numbers.stop
        write_chunk(setting.out / f"chunk-{chunk:05d}.npz", sound, index, seed)
        print(f"chunk {chunk}: {len(sound)} of {len(frames)} frames kept, {index} of {count} starts", flush=True)
        chunk += 1


def main() -> None:
    """Read the command line and label."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--seed", type=int, default=0, help="seed of the starts (default 0)")
    options.add_argument("--starts", type=int, required=True, help="relaxations in all")
    setting, arguments = read_setting(__doc__, options)
    references = json.loads(arguments.labels.read_text())["references"]
    run(setting, {int(number): energy for number, energy in references.items()}, arguments.seed, arguments.starts)


if __name__ == "__main__":
    main()
