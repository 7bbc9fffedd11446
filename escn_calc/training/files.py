"""The folder of a training run: which files are its own, and whether a run may begin, go on or replace them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from escn_calc.checkpoints.card import CARD
from escn_calc.errors import InputError
from escn_calc.records import write_json


@dataclass(frozen=True)
class RunFiles:
    """Paths of everything that a run writes."""

    folder: Path

    @property
    def state(self) -> Path:
        """Folder of the state from which a stopped run goes on."""
        return self.folder / "state"

    @property
    def best(self) -> Path:
        """Model with the smallest validation loss."""
        return self.folder / "best"

    @property
    def last(self) -> Path:
        """Model of the last validation."""
        return self.folder / "last"

    @property
    def scalars(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.folder / "tensorboard"

    @property
    def log(self) -> Path:
        """Table with a row for every validation."""
        return self.folder / "log.csv"

    @property
    def curves(self) -> Path:
        """Plot of the table."""
        return self.folder / "curves.png"

    @property
    def record(self) -> Path:
        """What was run."""
        return self.folder / "record.json"

    def check(self, *, resumable: bool, overwrite: bool) -> None:
        """Make sure that no results would be lost.

        Parameters
        ----------
        resumable : whether there is a state to go on from.
        overwrite : whether an earlier run in the folder may be removed.

        Raises
        ------
        InputError
            The folder is no folder, or holds models without a state, or ``overwrite`` would remove what is not ours.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"out: {self.folder} exists and is not a folder")
        models = [folder for folder in (self.best, self.last) if folder.exists()]
        if overwrite:
            foreign = [folder for folder in models if not (folder / CARD).is_file()]
            if self.state.exists() and not resumable and any(self.state.iterdir()):
                foreign.append(self.state)
            if foreign:
                raise InputError(f"out: {foreign[0]} was not written by a training run; it is not overwritten")
        elif models and not resumable:
            raise InputError(
                f"out: {models[0]} holds a model, but {self.state} no state to go on from; choose another folder, or "
                "give --overwrite"
            )

    def remove(self) -> None:
        """Remove all files of an earlier run and nothing else."""
        for folder in (self.state, self.best, self.last, self.scalars):
            if folder.exists():
                shutil.rmtree(folder)
        for file in (self.log, self.curves, self.record):
            file.unlink(missing_ok=True)

    def write_record(self, record: dict[str, Any]) -> None:
        """Write what was run, complete or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.record, record)

    def read_record(self) -> dict[str, Any]:
        """Read what was run.

        Raises
        ------
        InputError
            There is no record, or it cannot be read.
        """
        try:
            record: dict[str, Any] = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.record} cannot be read ({error}), without which the run cannot go on; give "
                "--overwrite to begin again"
            ) from error
        return record
