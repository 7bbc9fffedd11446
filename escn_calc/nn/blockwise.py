"""Functions that act on every row by itself, computed block after block so that what lies between stays in the caches.

What a point-wise network on a sphere grid puts between its coefficients is several times as large as the coefficients.
Block by block it never reaches the memory.
"""

from collections.abc import Callable

import torch
from torch import Tensor

#: Bytes of values between input and output that one thread of a CPU works on at a time: half of a usual second cache.
BYTES_PER_THREAD = 2**20

RowFunction = Callable[..., Tensor]


def rows_at_once(numbers_per_row: int, like: Tensor) -> int:
    """Return how many rows suit the caches, at least one; all of them where there are no such caches.

    Parameters
    ----------
    numbers_per_row : size of what lies between input and output for one row.
    like : a tensor of its dtype and device.
    """
    if like.device.type != "cpu":
        return max(1, len(like))
    return max(1, BYTES_PER_THREAD * torch.get_num_threads() // (numbers_per_row * like.element_size()))


def blockwise(function: RowFunction, rows: int, *inputs: Tensor) -> Tensor:
    """Return ``function(*inputs)``; in one piece where derivatives are recorded, which keep what lies between anyway.

    Parameters
    ----------
    function : every row, or every group of consecutive rows, of its result follows from the same rows of the inputs.
    rows : of each block, a multiple of the groups.
    inputs : tensors with one first dimension.
    """
    recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    if recorded or len(inputs[0]) <= rows:
        return function(*inputs)
    return torch.cat([function(*block) for block in zip(*(tensor.split(rows) for tensor in inputs), strict=True)])
