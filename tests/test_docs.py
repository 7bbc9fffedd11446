"""Every Python, shell and YAML block of the README and the docs runs as it stands, or says why not.

Python blocks run each by itself, from the top folder. The shell blocks of a page are one session, in a new folder with
a copy of ``examples/`` and the files that a reader would bring. In the line before a block can stand

- ``<!-- not run: REASON -->``,
- ``<!-- in tests: s/--steps 5000/--steps 20/ -->``, what ``sed`` is to change so that it does not take long.

Shell blocks of the README are ``.ci/run``'s.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from ase.build import add_adsorbate, bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from escn_calc.training import load_config

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
LANGUAGES = ("python", "bash", "yaml", "text")
BLOCK = re.compile(r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
SHIMS = {
    "escn": "-c \"from escn_calc.cli import main; main(prog_name='escn')\"",
    "ase": "-m ase",
    "python": "",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: page, line of its first line, language, text, and the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def place(self) -> str:
        """Page and line."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def to_run(self) -> bool:
        """Whether no reason is given against it."""
        return re.match(r"not run: \S", self.mark) is None


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start("text")].count("\n") + 1, found["language"], found["text"], found["mark"] or "")
        for found in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of_language(language: str) -> list[object]:
    chosen = [block for block in BLOCKS if block.language == language and block.to_run]
    return [pytest.param(block, id=block.place) for block in chosen]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_escapes(page):
    blocks, fences = blocks_of(page), re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.M)
    assert 2 * len(blocks) == len(fences)
    assert [block.place for block in blocks if block.language not in LANGUAGES] == []
    for block in blocks:
        assert re.match(r"$|ci: run$|not run: \S|in tests: s/", block.mark), f"{block.place}: {block.mark}"


@pytest.mark.parametrize("block", of_language("python"))
def test_python(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = compile("\n" * (block.line - 1) + block.text, block.page, "exec")
    exec(code, {"__name__": "__main__"})


@pytest.mark.parametrize("block", of_language("yaml"))
def test_training_configuration(block, tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(block.text, encoding="utf-8")
    assert load_config(path).schedule.epochs > 0


SHELL_PAGES = sorted({block.page for block in BLOCKS if block.language == "bash"} - {ROOT / "README.md"})


@pytest.mark.parametrize("page", SHELL_PAGES, ids=lambda page: page.name)
def test_shell(page, tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    bring_files(tmp_path)
    commands = put_commands(tmp_path / ".commands")
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    run = partial(subprocess.run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    for block in blocks_of(page):
        if block.language == "bash" and block.to_run:
            script = block.text
            if block.mark:
                script = run(["sed", block.mark.removeprefix("in tests: ")], input=script, check=True).stdout
                assert script != block.text, f"{block.place}: there is nothing to change"
            done = run(["bash", "-euo", "pipefail", "-c", script])
            assert done.returncode == 0, f"{block.place}: {done.stderr[-2000:]}"


def put_commands(folder: Path) -> Path:
    """Write the commands of this interpreter, which may not be installed as such."""
    folder.mkdir()
    for name, arguments in SHIMS.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n', encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


def bring_files(folder: Path) -> None:
    """Write the files that pages suppose a reader to have, as small as can be."""
    slabs = [fcc111(metal, (1, 1, 2), vacuum=6.0, periodic=True) for metal in ("Cu", "Pd")]
    (folder / "slabs" / "silver").mkdir(parents=True)
    for slab in slabs:
        slab.set_tags([0, 1])
        write(folder / "slabs" / f"{slab.symbols[0]}.xyz", slab, format="extxyz")
    write(folder / "slabs" / "silver" / "POSCAR", fcc111("Ag", (1, 1, 2), vacuum=6.0, periodic=True))
    write(folder / "placements.xyz", slabs, format="extxyz")
    write(folder / "cu.cif", bulk("Cu"))
    labelled = fcc111("Cu", (1, 1, 2), vacuum=6.0, periodic=True)
    add_adsorbate(labelled, "O", 1.3, "fcc")
    labelled.info = {"sid": "Cu111-O"}
    labelled.calc = EMT()
    energy, forces = labelled.get_potential_energy(), labelled.get_forces()
    labelled.calc = SinglePointCalculator(labelled, energy=energy, forces=forces)
    write(folder / "validation.extxyz", labelled)
    write(folder / "more.traj", labelled)
    small = (folder / "examples" / "train_small.yaml").read_text(encoding="utf-8")
    assert "epochs: 20" in small
    (folder / "examples" / "short.yaml").write_text(small.replace("epochs: 20", "epochs: 1"), encoding="utf-8")
