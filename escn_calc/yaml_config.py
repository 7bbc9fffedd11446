"""Configurations in YAML files: read strictly, and every mistake named with file, line and key before any work."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from escn_calc.errors import InputError
from escn_calc.yaml_file import Key, YamlFile, dotted


class Section(BaseModel):
    """A part of a file: unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Config = TypeVar("Config", bound=Section)


def _in_folder_of_file(path: Path, info: ValidationInfo) -> Path:
    path = path.expanduser()
    return path if info.context is None else info.context["folder"] / path


FilePath = Annotated[Path, AfterValidator(_in_folder_of_file)]
"""A path that is relative to the folder of the YAML file."""


def contradiction(key: Key, message: str) -> PydanticCustomError:
    """Make an error of several keys together, to be shown at one of them."""
    return PydanticCustomError("contradiction", "{message}", {"message": message, "key": key})


def validated(file: YamlFile, section: type[Config], derived: Collection[str] = ()) -> Config:
    """Read the data of a file as a section, strictly.

    Parameters
    ----------
    file : YamlFile
        What was read.
    section : type of Section
        What its top level is.
    derived : names of keys
        Not suggested although they exist, because they follow from others.

    Raises
    ------
    InputError
        The message begins with file, line and key.
    """
    folder = file.path.absolute().parent
    try:
        return section.model_validate_json(json.dumps(file.data), strict=True, context={"folder": folder})
    except ValidationError as error:
        problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] == "missing")
        raise InputError(_in_words(file, problems[0], section, derived)) from error


def _in_words(file: YamlFile, problem: ErrorDetails, section: type[Section], derived: Collection[str]) -> str:
    key = tuple(part for part in problem["loc"] if part != "[key]") + problem.get("ctx", {}).get("key", ())
    where = f"{dotted(key)}: " if key else ""
    nearest = _nearest(key, section, derived) if key else ""
    return f"{file.path}:{file.line_of(key)}: {where}{_words(problem, nearest)}"


def _words(problem: ErrorDetails, nearest: str) -> str:
    words: dict[str, Callable[[], str]] = {
        "extra_forbidden": lambda: f"there is no such key; {nearest}",
        "unexpected_keyword_argument": lambda: f"there is no such key; {nearest}",
        "missing": lambda: "this key is missing",
        "contradiction": lambda: problem["msg"],
        "value_error": lambda: problem["msg"].removeprefix("Value error, "),
    }
    if problem["type"] in words:
        return words[problem["type"]]()
    message = problem["msg"].replace("Input should", "the value should")
    return f"found {json.dumps(problem['input'], ensure_ascii=False)}; {message}"


def _nearest(key: Key, section: type[Section], derived: Collection[str]) -> str:
    known = [name for name in _known_keys(key[:-1], section) if name not in derived]
    near = difflib.get_close_matches(str(key[-1]), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _known_keys(key: Key, section: type[Section]) -> list[str]:
    """Names of the keys of the section behind ``key``; none where there is no section."""
    inner: Any = section
    for part in key:
        if isinstance(part, int):
            continue
        if not _is_section(inner) or part not in inner.model_fields:
            return []
        inner = _section_in(inner.model_fields[part].annotation)
    if _is_section(inner):
        return list(inner.model_fields)
    return [field.name for field in fields(inner)] if is_dataclass(inner) else []


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _section_in(annotation: Any) -> Any:
    """The section or dataclass that a field or its entries hold."""
    while not isinstance(annotation, type) and (inner := get_args(annotation)):
        annotation = inner[0]
    return annotation
