"""YAML files as plain data, with the line of every value.

Scalars are read by the core schema of YAML 1.2, because that of 1.1, which PyYAML follows by default, has traps:
``2e-3`` is a text there, ``0:10`` a number to the base of 60, and ``No``, the symbol of nobelium, means false.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import yaml

from escn_calc.errors import InputError

DEEPEST = 12

Key = tuple[str | int, ...]
"""Keys and list indices that lead to a value."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader for plain data, with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: ClassVar[dict] = {}


_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
for _kind, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))  # 011 is eleven, not nine


@dataclass(frozen=True)
class YamlFile:
    """Content of a YAML file.

    Attributes
    ----------
    path : the file.
    data : mappings, lists, texts, numbers, booleans and None.
    lines : number of the line of every value, and for entries of mappings of their key, counted from 1.
    """

    path: Path
    data: dict
    lines: dict[Key, int]

    def line_of(self, key: Key) -> int:
        """Line of the value behind ``key``, or of the nearest one around it."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)


def read_yaml(path: Path) -> YamlFile:
    """Read a file whose top level is a mapping.

    Raises
    ------
    InputError
        The file cannot be read, is not YAML, holds a key twice, or something else than plain data; with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text in UTF-8"
        raise InputError(f"cannot read {str(path)!r}: {reason}") from error
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"{path}:1: expected keys with values, such as 'out: runs/mine'")
        reader = _Reader(path, loader)
        return YamlFile(path, reader.mapping(root, ()), reader.lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: this is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: this is not YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()


class _Reader:
    """Turns nodes into data and notes their lines."""

    def __init__(self, path: Path, loader: _Loader) -> None:
        self.path, self.loader = path, loader
        self.lines: dict[Key, int] = {}

    def mapping(self, node: yaml.MappingNode, key: Key) -> dict:
        """Return the entries of a mapping, each name once."""
        entries: dict = {}
        for name_node, value_node in node.value:
            name, line = name_node.value, name_node.start_mark.line + 1
            if not isinstance(name, str):
                raise InputError(f"{self.path}:{line}: a key must be a word")
            if name in entries:
                first = self.lines[(*key, name)]
                raise InputError(f"{self.path}:{line}: {dotted((*key, name))}: given twice, first in line {first}")
            entries[name] = self.value(value_node, (*key, name))
            self.lines[(*key, name)] = line
        return entries

    def value(self, node: yaml.Node, key: Key) -> object:
        """Return the data of any node."""
        line = self.lines[key] = node.start_mark.line + 1
        if len(key) > DEEPEST:
            raise InputError(f"{self.path}:{line}: {dotted(key[:3])}: nested more than {DEEPEST} levels deep")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(entry, (*key, index)) for index, entry in enumerate(node.value)]
        value = self.loader.construct_object(node)
        if not isinstance(value, str | int | float | None):
            raise InputError(f"{self.path}:{line}: {dotted(key)}: {node.value!r} is not plain data ({node.tag})")
        return value


def dotted(key: Key) -> str:
    """Write a key as the messages do: ``data.train[0].path``."""
    words = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in key]
    return "".join(words).removeprefix(".")
