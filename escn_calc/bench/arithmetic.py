"""Multiply-adds: how many a call does, and how many a second the machine does where nothing else stands in the way."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from escn_calc.bench.timing import timed

#: Rows and columns of the matrices of :func:`matrix_product_rates`, on a CPU and on other devices.
CPU_SIZE, DEVICE_SIZE = 1536, 4096
#: Products that are timed.
PRODUCTS = 5


def _added_product(_: Any, left: Tensor, right: Tensor, **__: Any) -> int:
    """Operations of ``addmm_``, which torch leaves out."""
    return 2 * len(left) * len(right) * right.shape[1]


#: Operations of a call of torch's functions for matrix products, from its arguments.
FORMULAS = {**flop_registry, torch.ops.aten.addmm_: _added_product}


class _Counter(TorchDispatchMode):
    """Adds up operations, two for each multiply-add.

    ``FlopCounterMode`` follows modules too, for which it hooks into backward passes; that fails where a module is given
    the variable of a gradient.
    """

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operation = func._overloadpacket
        if operation not in FORMULAS:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if operation in FORMULAS:
            self.operations += FORMULAS[operation](*args, **kwargs, out_val=out)
        return out


def multiply_adds(call: Callable[[], object]) -> int:
    """Count those of the matrix products of ``call()``, forward and backward, as they run."""
    with _Counter() as counter:
        call()
    return counter.operations // 2


def matrix_product_rates(device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Multiply-adds per second of ``wall`` and ``processor`` time in products of square matrices; the best of some."""
    size = CPU_SIZE if device == "cpu" else DEVICE_SIZE
    matrix = torch.ones(size, size, dtype=dtype, device=device)

    def multiply() -> float:
        """Ask for one element, which a device has only when it has finished."""
        return torch.mm(matrix, matrix)[0, 0].item()

    multiply()
    seconds = timed(multiply, PRODUCTS)
    return {clock: size**3 / min(values) for clock, values in seconds.items()}
