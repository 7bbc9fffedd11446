"""Turn the chunks of `label.py` into the files that ``escn train`` and ``escn evaluate`` read.

Run ``python labels_to_extxyz.py labels more-labels --out data``. It writes ``train.extxyz``, ``train-gas.extxyz``
(atoms and molecules without a surface, small and few, which a training shows more often), ``valid.extxyz`` and
``test.extxyz``.
Every frame carries its energy (eV) and forces (eV/Å), and ``group``, ``kind`` and ``chain`` in ``atoms.info``.

Two sorts of frames stay behind. Frames with a force beyond 40 eV/Å are pairs of atoms squeezed far into each other,
where the repulsion built into the network takes over. Single atoms, and pairs with a metal in vacuum, are where the
teacher itself is not to be trusted, and lie up to 8 eV per atom from everything else.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

LARGEST_FORCE = 40.0
HEAVIEST_ADSORBATE = 8
FILES = ("train", "train-gas", "valid", "test")


def read_chunk(path: Path) -> Iterator[tuple[str, Atoms]]:
    """Yield the split of every frame of a chunk, and the frame with its labels."""
    with np.load(path, allow_pickle=False) as stored:
        chunk = {name: stored[name] for name in stored.files}
    ends = chunk["natoms"].cumsum()
    for index, (end, count) in enumerate(zip(ends, chunk["natoms"], strict=True)):
        span = slice(end - count, end)
        atoms = Atoms(
            chunk["numbers"][span], chunk["positions"][span], cell=chunk["cell"][index], pbc=chunk["pbc"][index]
        )
        atoms.info = {
            "group": str(chunk["group"][index]),
            "kind": str(chunk["kind"][index]),
            "chain": f"{int(chunk['seed'])}-{int(chunk['start'][index])}",
        }
        forces = chunk["forces"][span].astype(float)
        atoms.calc = SinglePointCalculator(atoms, energy=float(chunk["energy"][index]), forces=forces)
        yield str(chunk["split"][index]), atoms


def stays_behind(atoms: Atoms) -> bool:
    """Whether a frame is not to be trained on or tested with."""
    squeezed = np.linalg.norm(atoms.get_forces(), axis=1).max() > LARGEST_FORCE
    untrusted = len(atoms) == 1 or (len(atoms) == 2 and max(atoms.numbers) > HEAVIEST_ADSORBATE)
    return bool(squeezed or (untrusted and without_surface(atoms)))


def without_surface(atoms: Atoms) -> bool:
    """Whether a frame is a molecule or a pair of atoms alone."""
    group: str = atoms.info["group"]
    return group.startswith("gas|")


def read_labels(folders: list[Path]) -> dict[str, list[Atoms]]:
    """Frames of all chunks in these folders, by the name of the file they belong in."""
    frames: dict[str, list[Atoms]] = {name: [] for name in FILES}
    for folder in folders:
        chunks = sorted(folder.glob("chunk-[0-9]*[0-9].npz"))
        if not chunks:
            raise SystemExit(f"{folder} has no chunk-*.npz: give folders that label.py has written to.")
        for chunk in chunks:
            for split, atoms in read_chunk(chunk):
                if stays_behind(atoms):
                    continue
                frames["train-gas" if split == "train" and without_surface(atoms) else split].append(atoms)
    return frames


def summary(frames: dict[str, list[Atoms]]) -> str:
    """Table of counts and of the mean force by kind and file."""
    kinds = sorted({atoms.info["kind"] for part in frames.values() for atoms in part})
    lines = [f"{'kind':16}" + "".join(f"{name:>11}" for name in FILES) + "   mean |F|, eV/Å"]
    for kind in kinds:
        chosen = [atoms for part in frames.values() for atoms in part if atoms.info["kind"] == kind]
        mean = np.concatenate([np.linalg.norm(atoms.get_forces(), axis=1) for atoms in chosen]).mean()
        counts = [Counter(atoms.info["kind"] for atoms in frames[name])[kind] for name in FILES]
        lines.append(f"{kind:16}" + "".join(f"{count:11d}" for count in counts) + f"{mean:12.3f}")
    lines.append(f"{'all':16}" + "".join(f"{len(frames[name]):11d}" for name in FILES))
    return "\n".join(lines)


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="+", help="folders with chunks of label.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for the four files; older ones are replaced")
    arguments = parser.parse_args()
    frames = read_labels(arguments.labels)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, part in frames.items():
        partial = arguments.out / f"partial-{name}.extxyz"
        write(partial, part, format="extxyz")
        os.replace(partial, arguments.out / f"{name}.extxyz")
    print(summary(frames))


if __name__ == "__main__":
    main()
