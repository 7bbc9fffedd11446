"""The state file: everything that a run needs to go on as if it had never stopped.

An ``.npz`` file of arrays and one JSON text, without pickles. It is written beside its final place, brought to the disk
and then renamed, so that there is always one complete state.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.io.jsonio import encode

from escn_calc.calculator import ESCNCalculator
from escn_calc.errors import InputError
from escn_calc.identity import Identity
from escn_calc.md.outputs import Mark, writing

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

FORMAT = "escn-calc molecular dynamics state 1"


@dataclass(frozen=True)
class Snapshot:
    """The dynamics between two steps.

    Attributes
    ----------
    step : int
        Number of steps taken.
    positions, momenta : ndarray, (N, 3)
        In Å and ASE's unit of momentum.
    cell : ndarray, (3, 3)
        In Å.
    memory : dict of str to ndarray
        What the integrator keeps between steps.
    random : dict
        State of the random generator.
    drift, temperature : dict
        States of the ``DriftMeter`` and of the ``RunningMean`` of the temperature.
    """

    step: int
    positions: np.ndarray
    momenta: np.ndarray
    cell: np.ndarray
    memory: dict[str, np.ndarray]
    random: dict[str, Any]
    drift: dict[str, Any]
    temperature: dict[str, Any]


@dataclass(frozen=True)
class State:
    """Content of a state file: the run, where it is, and how much of its output belongs to that."""

    identity: Identity
    snapshot: Snapshot
    mark: Mark


def save_state(path: Path, state: State) -> None:
    """Write a state file, complete or not at all.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    snapshot = state.snapshot
    text = {
        "format": FORMAT,
        "identity": state.identity,
        "mark": asdict(state.mark),
        "step": snapshot.step,
        "random": snapshot.random,
        "drift": snapshot.drift,
        "temperature": snapshot.temperature,
    }
    arrays = {
        "text": np.frombuffer(json.dumps(text).encode(), dtype=np.uint8),
        "positions": snapshot.positions,
        "momenta": snapshot.momenta,
        "cell": snapshot.cell,
        **{f"memory:{name}": value for name, value in snapshot.memory.items()},
    }
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            with unfinished.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load_state(path: Path) -> State:
    """Read a state file.

    Raises
    ------
    InputError
        It cannot be read, or is no state file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        text = json.loads(arrays.pop("text").tobytes())
        if text["format"] != FORMAT:
            raise InputError(f"{str(path)!r} is a state of another version: {text['format']!r}, not {FORMAT!r}")
        np.random.default_rng(0).bit_generator.state = text["random"]  # refuses that of another generator
        memory = {name.removeprefix("memory:"): value for name, value in arrays.items() if name.startswith("memory:")}
        snapshot = Snapshot(
            step=text["step"],
            positions=arrays["positions"],
            momenta=arrays["momenta"],
            cell=arrays["cell"],
            memory=memory,
            random=text["random"],
            drift=text["drift"],
            temperature=text["temperature"],
        )
        return State(text["identity"], snapshot, Mark.restored(text["mark"]))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read the state {str(path)!r}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{str(path)!r} is not the state of a run, or is damaged: {error}") from error


def model_identity(calculator: BaseCalculator) -> dict[str, Any]:
    """Return what makes the numbers of a calculator.

    For a model of this package these are its weights and how they are used, not where it runs. For other calculators
    they are the name and those parameters that JSON can hold, and for a mixture of calculators the same of its parts.
    """
    if isinstance(calculator, ESCNCalculator):
        potential = calculator.potential
        return {
            "name": potential.card.name,
            "sha256": potential.card.sha256,
            "dtype": calculator.parameters["dtype"],
            "matmul": calculator.parameters["matmul"],
            "frames": calculator.parameters["frames"],
            "forces": potential.forces,
        }
    identity = {"name": calculator.name, **_as_json(calculator.parameters)}
    mixed = getattr(calculator, "mixer", None)
    if mixed is None:
        return identity
    weights = [float(weight) for weight in mixed.weights]
    return {**identity, "parts": [model_identity(part) for part in mixed.calcs], "weights": weights}


def structure_identity(atoms: Atoms) -> dict[str, Any]:
    """Return hashes of all that the dynamics starts from.

    Raises
    ------
    InputError
        A constraint cannot be written down.
    """
    unknown = [type(constraint).__name__ for constraint in atoms.constraints if not hasattr(constraint, "todict")]
    if unknown:
        raise InputError(f"the constraint {unknown[0]} cannot be written to a file; ASE's own can")
    arrays = {
        "numbers": atoms.numbers.astype(np.int64),
        "masses": atoms.get_masses(),
        "cell": np.array(atoms.cell),
        "pbc": atoms.pbc,
        "positions": atoms.positions,
        "momenta": atoms.get_momenta(),
    }
    hashes = {name: _hash(np.ascontiguousarray(values).tobytes()) for name, values in arrays.items()}
    return {**hashes, "constraints": _hash(encode(atoms.constraints).encode())}


def _as_json(parameters: dict[str, Any]) -> dict[str, Any]:
    """Keep the parameters that JSON can hold, as they come back from it."""
    kept = {}
    for name, value in parameters.items():
        try:
            kept[str(name)] = json.loads(encode(value))
        except (TypeError, ValueError):
            continue
    return kept


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
