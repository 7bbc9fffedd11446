"""What a run is, kept with its state: a state is gone on from by the same run only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from escn_calc.errors import InputError

Identity = dict[str, dict[str, Any]]
"""Parts such as model and settings, each as names and values that JSON can hold."""


def check_identity(path: Path | str, found: Identity, wanted: Identity) -> None:
    """Make sure that a state belongs to the run that is to be continued.

    Raises
    ------
    InputError
        They differ; the message says in what.
    """
    differences = []
    for part, values in wanted.items():
        before = found.get(part, {})
        for name in sorted({*values, *before}):
            if values.get(name) != before.get(name):
                differences.append(f"{part} {name}: {_short(before.get(name))} there, {_short(values.get(name))} here")
    if differences:
        raise InputError(
            f"the state {str(path)!r} belongs to another run ({'; '.join(differences)}); continue with what that run "
            "used, or start a new run in other files"
        )


def _short(value: object) -> str:
    text = repr(value)
    return f"{text[:10]}…{text[-1]}" if isinstance(value, str) and len(value) == 64 else text
