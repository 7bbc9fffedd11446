"""How numbers and names are written on the page."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

MINUS = "−"
LONGEST_LABEL = 22
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

Value = TypeVar("Value")


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with a real minus sign; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """Write a difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def species(key: tuple[str, float | None]) -> str:
    """Name an adsorbate as chemists do, with its coverage where that is given: "NH₃*", "O*, 0.25 ML"."""
    name, coverage = key
    name = name.strip("*")
    written = name.translate(SUBSCRIPTS) if name.isalnum() and name[:1].isupper() else name
    return f"{written}*" if coverage is None else f"{written}*, {coverage:.3g} ML"


def short(label: str) -> str:
    """Bring a label onto one line, and cut it if it would not fit a figure."""
    label = " ".join(label.split())
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


def plural(count: int, singular: str, several: str | None = None) -> str:
    """Count things: "1 surface", "7 surfaces"."""
    return f"{count} {singular if count == 1 else several or singular + 's'}"


def typeset(reaction: str) -> str:
    """Write the formulas of a reaction with subscripts, and ½."""
    lowered = re.sub(r"(?<=[A-Za-z])\d+", lambda digits: digits[0].translate(SUBSCRIPTS), reaction)
    return lowered.replace("1/2", "½").replace(" - ", f" {MINUS} ")


def printable(value: Value) -> Value:
    """Replace characters that no page can show, or that reorder text, in all strings of nested records."""
    cleaned: Any = value
    if isinstance(value, str):
        cleaned = "".join(one if one.isprintable() or one in "\n\t\u00a0" else "\ufffd" for one in value)
    elif isinstance(value, tuple):
        cleaned = tuple(printable(one) for one in value)
    elif isinstance(value, list):
        cleaned = [printable(one) for one in value]
    elif isinstance(value, dict):
        cleaned = {printable(key): printable(one) for key, one in value.items()}
    elif is_dataclass(value) and not isinstance(value, type):
        cleaned = replace(value, **{one.name: printable(getattr(value, one.name)) for one in fields(value)})
    return cleaned
