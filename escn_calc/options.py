"""The values that the options of a model can take; free of torch, so that they can be checked before anything loads."""

from escn_calc.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPE_NAMES = ("float32", "float64")
MATMULS = ("full", "bfloat16", "tf32")
FORCES = ("direct", "gradient")
FRAMES = ("canonical", "converged")
ENERGY_REFERENCES = ("as-is", "shift-per-group", "fit-elements")


def check_flag(name: str, value: object) -> None:
    """Make sure that an option is True, False or None, which leaves the choice to the program.

    Raises
    ------
    InputError
        It is something else.
    """
    if not isinstance(value, bool | None):
        raise InputError(f"{name} is {value!r}; it must be True, False or None (automatic)")


def check_option(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Make sure that an option has one of its values.

    Raises
    ------
    InputError
        It has not; the message lists the values.
    """
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}")


def check_potential(potential: object) -> None:
    """Make sure that a potential is one: neither a calculator nor the name of a model.

    Raises
    ------
    InputError
        It is something else.
    """
    if not hasattr(potential, "evaluate_each"):
        raise InputError(
            f"potential is {potential!r}; pass load_potential(...), or the .potential of an ESCNCalculator"
        )
