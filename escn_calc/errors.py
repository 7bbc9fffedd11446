"""Every error this package raises on purpose. Messages say what was found, where, and what to do."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

Result = TypeVar("Result")

ERRORS_NAMED = 5
"""So many errors are in the message of a ``BatchError``."""

COUNTED_STRUCTURE = re.compile(r"\bstructure \d+\b")
"""How messages name a structure: by its place in the list that was evaluated."""


class ESCNError(Exception):
    """Base of all errors raised by escn_calc."""


class InputError(ESCNError, ValueError):
    """A structure, file or option given by the user cannot be used."""


class CheckpointError(ESCNError):
    """A model file is damaged, foreign, unsafe or does not fit the network it describes."""


class DownloadError(ESCNError):
    """A published checkpoint could not be fetched or does not match its recorded checksum."""


class CalculationError(ESCNError, RuntimeError):
    """An evaluation failed or would have returned a number that is not finite."""


class OutOfMemoryError(CalculationError):
    """An evaluation needs more memory than the device has free."""


class BatchError(CalculationError):
    """Some of many structures could not be evaluated; all others were.

    Attributes
    ----------
    results : in the order given, what was asked for (from ``evaluate`` a ``Prediction``), None where there is an error.
    errors : by index in the list given.
    """

    def __init__(self, results: Sequence[Any], errors: Mapping[int, BaseException]) -> None:
        super().__init__(results, errors)
        self.results, self.errors = results, errors

    def __str__(self) -> str:
        named = [f"[{index}] {error}" for index, error in list(self.errors.items())[:ERRORS_NAMED]]
        more = [f"and {len(self.errors) - ERRORS_NAMED} more"] if len(self.errors) > ERRORS_NAMED else []
        return f"{len(self.errors)} of {len(self.results)} structures failed: " + "; ".join(named + more)


def without_errors(outcomes: Sequence[Result | ESCNError]) -> list[Result]:
    """Return outcomes of structures if none of them is an error.

    Raises
    ------
    ESCNError
        The error of an only structure.
    BatchError
        The errors among several, with the results of the others.
    """
    errors = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, ESCNError)}
    if errors and len(outcomes) == 1:
        raise errors[0]
    if errors:
        raise BatchError([None if isinstance(outcome, ESCNError) else outcome for outcome in outcomes], errors)
    return [outcome for outcome in outcomes if not isinstance(outcome, ESCNError)]


def renamed(message: str, name: str) -> str:
    """Give the structure that a message is about another name than its place in a list."""
    return COUNTED_STRUCTURE.sub(lambda _: name, message)


def renumbered(error: ESCNError, index: int) -> ESCNError:
    """Return the error of a structure among others as that of place ``index`` in another list."""
    own = type(error)(renamed(str(error), f"structure {index}"))
    own.__cause__ = error.__cause__
    return own


PARSE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    StopIteration,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What the file readers of ASE and pymatgen raise on a file they cannot parse: there is no common class."""
