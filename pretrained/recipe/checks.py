"""What the checks of a finished model share: their command line, the model, the teacher's process, and result files."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import read, write
from matplotlib.figure import Figure

from escn_calc import ESCNCalculator

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Setting:
    """What every check is told.

    Attributes
    ----------
    model
        Name or path of the model.
    out
        Folder for results, and for what a stopped check goes on from.
    teacher
        Weights of the teacher.
    teacher_python
        Python of the environment that the teacher runs in.
    lattice
        Cubic lattice constant of each metal at the teacher's minimum, Å.
    """

    model: str
    out: Path
    teacher: Path
    teacher_python: Path
    lattice: dict[str, float]

    def calculator(self, dtype: str = "float32", forces: str | None = None) -> ESCNCalculator:
        """The model as a calculator of ASE, loaded once."""
        return load_calculator(self.model, dtype, forces)

    def teacher_results(self, name: str, structures: list[Atoms], relax: bool = False) -> list[Atoms]:
        """The structures with the teacher's energies and forces, from an earlier run if there were the same ones."""
        asked, answered = self.out / f"{name}-asked.extxyz", self.out / f"{name}-teacher.extxyz"
        wanted = [[atoms.info["key"], atoms.positions.round(6).tolist()] for atoms in structures]
        key_file = self.out / f"{name}-asked.json"
        if not (answered.exists() and key_file.exists() and json.loads(key_file.read_text()) == wanted):
            write(asked, [atoms.copy() for atoms in structures], format="extxyz")
            command = [self.teacher_python, HERE / "teacher_energies.py", "--teacher", self.teacher, asked, answered]
            options = ["--cache", self.out.parent / "teacher-compiled", *(["--relax"] if relax else [])]
            subprocess.run([str(word) for word in [*command, *options]], check=True)
            write_text(key_file, json.dumps(wanted))
        return read(answered, ":")


@cache
def load_calculator(model: str, dtype: str, forces: str | None) -> ESCNCalculator:
    """Load a model, unless that has been done."""
    return ESCNCalculator(model, dtype=dtype, forces=forces)


def read_setting(description: str, extend: argparse.ArgumentParser | None = None) -> tuple[Setting, argparse.Namespace]:
    """Parse the command line of a check.

    Parameters
    ----------
    description
        Docstring of the check; its first line is the help text.
    extend
        Parser with the check's own options, made with ``add_help=False``.
    """
    parser = argparse.ArgumentParser(description=description.split("\n")[0], parents=[extend] if extend else [])
    parser.add_argument("--model", default="default", help="name or path of the model (default: the shipped one)")
    parser.add_argument("--out", type=Path, required=True, help="folder for JSON, PNG and intermediate results")
    parser.add_argument("--teacher", type=Path, required=True, help="teacher weights, nequix-omat-1.nqx")
    parser.add_argument("--teacher-python", type=Path, required=True, help="python of the teacher's environment")
    parser.add_argument("--labels", type=Path, required=True, help="teacher.json that label.py has written")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lattice = json.loads(arguments.labels.read_text())["lattice_constants"]
    setting = Setting(arguments.model, arguments.out, arguments.teacher, arguments.teacher_python, lattice)
    return setting, arguments


def kept(path: Path, make: Callable[[], list[Atoms]]) -> list[Atoms]:
    """Structures of an earlier run, or new ones, which are written complete or not at all."""
    if not path.exists():
        partial = path.with_name(f"partial-{path.name}")
        write(partial, make(), format="extxyz")
        os.replace(partial, path)
    return read(path, ":")


def write_text(path: Path, text: str) -> None:
    """Write a file, complete or not at all."""
    partial = path.with_name(f"partial-{path.name}")
    partial.write_text(text)
    os.replace(partial, path)


def write_result(setting: Setting, name: str, result: dict[str, Any], figure: Figure) -> None:
    """Write ``name.json`` and ``name.png``, and print where they are."""
    write_text(setting.out / f"{name}.json", json.dumps({"model": setting.model, **result}, indent=1) + "\n")
    figure.savefig(setting.out / f"{name}.png", dpi=130, bbox_inches="tight")
    print(f"wrote {setting.out / name}.json and .png")
