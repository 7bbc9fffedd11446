"""The state folder: everything that training needs to go on as if it had never stopped.

Tensors lie in a safetensors file with a name of its own, and ``state.json`` names that file with its sha256. A new file
of tensors is brought to the disk first, then ``state.json`` is replaced in one operation, then the old tensors are
removed: at every moment the folder holds one complete state, the old one or the new one.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.errors import InputError
from escn_calc.identity import Identity, check_identity
from escn_calc.records import write_json
from escn_calc.training.figures import SUMS
from escn_calc.training.optimisation import Optimisation

FORMAT = "escn-calc training state 1"
DOCUMENT = "state.json"
RUNNING_SUMS = "sums"


@dataclass(frozen=True)
class Progress:
    """Where training is, between two steps.

    Attributes
    ----------
    step : steps taken, skipped ones included.
    epoch : epochs completed.
    batch : batches of the current epoch that were used.
    validated : epochs that were completed at the last validation.
    best : lowest validation loss; None before the first validation.
    seconds : spent training.
    sums : of the batches since the last validation, see :data:`escn_calc.training.figures.SUMS`.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    validated: int = 0
    best: float | None = None
    seconds: float = 0.0
    sums: tuple[float, ...] = (0.0,) * len(SUMS)


@dataclass(frozen=True)
class StateFolder:
    """The folder of the state of one run.

    Attributes
    ----------
    path : of the folder.
    identity : what the run is (settings, data, model), as JSON can hold it; a state of another one is refused.
    """

    path: Path
    identity: Identity

    def exists(self) -> bool:
        """Whether there is a state."""
        return (self.path / DOCUMENT).exists()

    def check(self) -> None:
        """Make sure that the state that exists is one of this run.

        Raises
        ------
        InputError
            It belongs to another run (the message says what differs), is damaged, or cannot be read.
        """
        self._read_own()

    def save(self, progress: Progress, optimisation: Optimisation) -> None:
        """Write a state; at every moment the folder holds this one or the one before.

        Raises
        ------
        InputError
            It cannot be written.
        """
        name = f"tensors-{progress.step}-{uuid.uuid4().hex[:8]}.safetensors"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            _write_tensors(self.path / name, optimisation.tensors())
            document = {
                "format": FORMAT,
                "identity": self.identity,
                "progress": asdict(progress),
                "counters": optimisation.counters(),
                "tensors": name,
                "sha256": file_sha256(self.path / name),
            }
            write_json(self.path / DOCUMENT, document)
            self._remove_all_but(name)
        except OSError as error:
            raise InputError(f"cannot write the state {str(self.path)!r}: {error.strerror or error}") from error

    def load(self, optimisation: Optimisation) -> Progress:
        """Put the state into the network and its optimiser, and return where training was.

        Raises
        ------
        InputError
            The state belongs to another run (the message says what differs), is damaged, or cannot be read; nothing
            was changed then.
        """
        document = self._read_own()
        file = self.path / document["tensors"]
        try:
            if (found := file_sha256(file)) != document["sha256"]:
                raise InputError(f"{str(file)!r} is damaged: its sha256 is {found}, {DOCUMENT} says otherwise")
            tensors = load_file(file)
            progress = _progress(document["progress"])
            _check_tensors(file, tensors, optimisation)
            optimisation.restore(tensors, document["counters"])
        except (SafetensorError, KeyError, TypeError) as error:
            raise InputError(f"the state {str(self.path)!r} is damaged: {error}") from error
        except OSError as error:
            raise InputError(f"cannot read the state {str(file)!r}: {error.strerror or error}") from error
        return progress

    def _read_own(self) -> dict[str, Any]:
        document = self._read()
        check_identity(self.path, document["identity"], json.loads(json.dumps(self.identity)))
        return document

    def _read(self) -> dict[str, Any]:
        path = self.path / DOCUMENT
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot read the state {str(path)!r}: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{str(path)!r} is not the state of a training run, or is damaged: {error}") from error
        keys = {"format", "identity", "progress", "counters", "tensors", "sha256"}
        if not isinstance(document, dict) or document.keys() != keys or document["format"] != FORMAT:
            raise InputError(f"{str(path)!r} is not the state of a training run of this version ({FORMAT!r})")
        return document

    def _remove_all_but(self, name: str) -> None:
        for file in self.path.glob("tensors-*"):
            if file.name != name:
                file.unlink(missing_ok=True)


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _progress(values: dict[str, Any]) -> Progress:
    return Progress(**{**values, "sums": tuple(values["sums"])})


def _check_tensors(file: Path, tensors: dict[str, Tensor], optimisation: Optimisation) -> None:
    """Refuse tensors that do not fit, before any of them is used."""
    for name, wanted in optimisation.tensors().items():
        found = tensors.get(name)
        if found is None or found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise InputError(
                f"the state {str(file)!r} does not fit the network: {name} is missing or has another shape"
            )
    if not all(math.isfinite(float(tensor.double().sum())) for tensor in tensors.values()):
        raise InputError(f"the state {str(file)!r} holds numbers that are not finite: it is damaged")
