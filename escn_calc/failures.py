"""What goes wrong inside torch, in words that name the structure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from escn_calc.errors import CalculationError, OutOfMemoryError
from escn_calc.memory import is_out_of_memory
from escn_calc.structures import StructureBatch


def finite(values: Tensor, what: str, name: Callable[[], str]) -> np.ndarray:
    """Copy results out of torch; a ``CalculationError`` names those that are not finite."""
    if not torch.isfinite(values).all():
        raise CalculationError(
            f"{what} {name()}: not finite, the network overflowed on this geometry; "
            "check the structure, or evaluate it with dtype='float64'"
        )
    return values.numpy().copy()


@contextmanager
def failures_described(batch: StructureBatch, device: str) -> Iterator[None]:
    """Turn what torch raises into a ``CalculationError`` that says what was evaluated."""
    try:
        yield
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"{_described(batch)}: {error}") from error
    except CalculationError:
        raise
    except (RuntimeError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"{_described(batch)}: out of memory on {device}; use a smaller structure, a smaller model or another "
                f"device ({reason})"
            ) from error
        raise CalculationError(f"{_described(batch)}: the evaluation failed on {device}: {reason}") from error


def _described(batch: StructureBatch) -> str:
    if batch.num_structures == 1:
        return batch.describe_structure(0)
    return f"{batch.num_structures} structures with {batch.num_atoms} atoms together"
