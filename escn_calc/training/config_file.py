"""Reading the YAML file of a training run: every mistake is named with file, line and key before any work."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from escn_calc.checkpoints import find_entry, shipped_models
from escn_calc.errors import InputError
from escn_calc.nn.config import ESCNConfig
from escn_calc.training.config import Section, TrainingConfig
from escn_calc.training.yaml_file import Key, YamlFile, dotted, read_yaml


def load_config(path: str | Path) -> TrainingConfig:
    """Read the YAML file of a training run.

    Parameters
    ----------
    path : str or Path
        The file; relative paths in it are relative to its folder.

    Returns
    -------
    TrainingConfig

    Raises
    ------
    InputError
        The file cannot be read, is not YAML, or asks for something that cannot be; the message begins with file, line
        and key.
    """
    file = read_yaml(Path(path))
    folder = file.path.absolute().parent
    try:
        config = TrainingConfig.model_validate_json(json.dumps(file.data), strict=True, context={"folder": folder})
    except ValidationError as error:
        problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] == "missing")
        raise InputError(_in_words(file, problems[0])) from error
    return _with_start_from(folder, config)


def _with_start_from(folder: Path, config: TrainingConfig) -> TrainingConfig:
    """Take a start that is there as a file or folder beside the YAML file for a path; a name stays a name."""
    start = config.model.start
    if start is None or start in ("default", *shipped_models()) or find_entry(start) is not None:
        return config
    path = folder / Path(start).expanduser()
    if not path.exists():
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"start": str(path)})})


def _in_words(file: YamlFile, problem: ErrorDetails) -> str:
    key = tuple(part for part in problem["loc"] if part != "[key]") + problem.get("ctx", {}).get("key", ())
    where = f"{dotted(key)}: " if key else ""
    return f"{file.path}:{file.line_of(key)}: {where}{_words(problem, key)}"


def _words(problem: ErrorDetails, key: Key) -> str:
    words: dict[str, Callable[[], str]] = {
        "extra_forbidden": lambda: f"there is no such key; {_nearest(key)}",
        "unexpected_keyword_argument": lambda: f"there is no such key; {_nearest(key)}",
        "missing": lambda: "this key is missing",
        "contradiction": lambda: problem["msg"],
        "value_error": lambda: problem["msg"].removeprefix("Value error, "),
    }
    if problem["type"] in words:
        return words[problem["type"]]()
    message = problem["msg"].replace("Input should", "the value should")
    return f"found {json.dumps(problem['input'], ensure_ascii=False)}; {message}"


def _nearest(key: Key) -> str:
    known = _known_keys(key[:-1])
    near = difflib.get_close_matches(str(key[-1]), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _known_keys(key: Key) -> list[str]:
    """Names of the keys of the section behind ``key``."""
    section: Any = TrainingConfig
    for part in key:
        if isinstance(part, int):
            continue
        if part == "network":
            return [field.name for field in fields(ESCNConfig) if field.name != "regress_forces"]
        section = _section_in(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[Section]:
    """The section that a field or its entries hold."""
    while not isinstance(annotation, type):
        annotation = annotation.__args__[0]
    assert issubclass(annotation, Section)
    return annotation
