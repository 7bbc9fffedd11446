"""Multiply-adds of matrix products, as torch counts them while they run, those that add to their result included."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def _added_product(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    """Operations of ``addmm_``, from the shapes of its arguments."""
    return 2 * left[0] * left[1] * right[1]


def multiply_adds(call: Callable[[], object]) -> int:
    """Count those of ``call()``."""
    mapping = {torch.ops.aten.addmm_: _added_product}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        call()
    return counter.get_total_flops() // 2
