"""Every error this package raises on purpose. Messages say what was found, where, and what to do."""


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
