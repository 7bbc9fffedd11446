"""Two splits of relaxation frames into training and held-out files: python split.py FRAMES.extxyz.gz.

Run ``python split.py FRAMES.extxyz.gz``.

interpolation: of every system the third, eighth, thirteenth ... frame is held out.
extrapolation: five whole systems are held out, the first in the order of the SHA-256 of their names whose elements all
occur in other systems that are still trained on.
"""

import sys
from hashlib import sha256

from ase import Atoms
from ase.io import read, write

HELD_OUT_SYSTEMS = 5


def elements_of(systems: dict[str, list[Atoms]]) -> set[str]:
    return {symbol for frames in systems.values() for symbol in frames[0].symbols}


def systems_to_hold_out(systems: dict[str, list[Atoms]]) -> list[str]:
    remaining = dict(systems)
    for sid in sorted(systems, key=lambda name: sha256(name.encode()).hexdigest()):
        others = {name: frames for name, frames in remaining.items() if name != sid}
        if set(systems[sid][0].symbols) <= elements_of(others):
            remaining = others
        if len(systems) - len(remaining) == HELD_OUT_SYSTEMS:
            break
    return sorted(systems.keys() - remaining.keys())


def main(source: str) -> None:
    systems: dict[str, list[Atoms]] = {}
    for atoms in read(source, ":"):
        systems.setdefault(atoms.info["sid"], []).append(atoms)
    held_out_systems = systems_to_hold_out(systems)

    split: dict[str, list[Atoms]] = {
        f"{kind}-{part}": [] for kind in ("interpolation", "extrapolation") for part in ("train", "held-out")
    }
    for sid, frames in systems.items():
        for position, atoms in enumerate(sorted(frames, key=lambda frame: frame.info["frame"])):
            split["interpolation-held-out" if position % 5 == 2 else "interpolation-train"].append(atoms)
            split["extrapolation-held-out" if sid in held_out_systems else "extrapolation-train"].append(atoms)

    for name, frames in split.items():
        write(f"{name}.extxyz", frames)
        print(f"{name}: {len(frames)} frames of {len({atoms.info['sid'] for atoms in frames})} systems")
    for sid in held_out_systems:
        print(f"held out: {sid} {systems[sid][0].get_chemical_formula()}")


if __name__ == "__main__":
    main(sys.argv[1])
