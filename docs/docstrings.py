"""What the site needs to know of this package's docstrings: an extension of griffe.

What a parameter is stands after its colon (``cutoff : radius in Å``), because its type stands in the signature; readers
of numpydoc expect the type there. And cross-references are written as Sphinx has them.
"""

import re
from typing import Any

import griffe

BUILT_IN = r"array|bool|callables?|dict|floats?|frozenset|int|iterable|list|mapping|ndarray|path|sequence|str|tuples?"
TYPE = rf"(?:(?:{BUILT_IN}|u?int\d+|float\d+|[A-Z]\w+|\w+\.[\w.]+)\b|\([\w ,+*-]+\))"
ONLY_TYPES = re.compile(rf"{TYPE}(?:,? (?:(?:or|of|to) )*{TYPE})*(?:, optional)?")
SECTION = re.compile(r"((?:Parameters|Attributes|Returns|Yields)\n-+\n)")
ENTRY = re.compile(r"(\*{0,2}\w+(?:, \w+)*) : (.+)")
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([\w.]+)`")


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = linked(described(obj.docstring.value))


def described(text: str) -> str:
    """Move what an entry says in the place of its type into the description below it, unless it is a type."""
    before, *rest = SECTION.split(text)
    for heading, body in zip(rest[::2], rest[1::2], strict=True):
        entries = _returned(body) if heading.startswith(("Returns", "Yields")) else _named(body)
        before += heading + entries
    return before


def _named(body: str) -> str:
    lines = []
    for line in body.split("\n"):
        entry = ENTRY.fullmatch(line)
        prose = entry is not None and not ONLY_TYPES.fullmatch(entry[2])
        lines += [entry[1], f"    {entry[2]}"] if entry and prose else [line]
    return "\n".join(lines)


def _returned(body: str) -> str:
    first, newline, others = body.partition("\n")
    return body if ONLY_TYPES.fullmatch(first) else f":\n    {first}{newline}{others}"


def linked(text: str) -> str:
    """Turn roles into links to the object where it has a page, and into code where it has none."""
    return ROLE.sub(lambda role: f'<autoref identifier="{role[1]}" optional><code>{role[1]}</code></autoref>', text)
