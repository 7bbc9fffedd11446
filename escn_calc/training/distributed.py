"""Several processes that share the work, as ``torchrun`` starts them; one process is a world of its own.

The mean of the ranks' losses is not the loss of all their structures, because ranks hold different numbers of them.
Every rank therefore divides its sums by the mean number over the ranks (see
:class:`escn_calc.training.objective.Objective`): then the mean of the gradients, which DistributedDataParallel forms,
is exactly the gradient of the joined batch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from escn_calc.errors import InputError
from escn_calc.potential import choose_device


@dataclass(frozen=True)
class World:
    """The processes that train together.

    Attributes
    ----------
    rank, size : of this process, and how many there are.
    device : of this process.
    local_size : how many of them share this machine and its memory.
    """

    rank: int
    size: int
    device: torch.device
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward passes leave the mean of the gradients over the ranks."""
        if self.size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over the ranks."""
        if self.size == 1:
            return values
        total = values.detach().to(self.device, copy=True)
        dist.all_reduce(total)
        return total

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of ``values`` over the ranks."""
        return self.sum(values) / self.size

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join_world(device: str = "auto") -> Iterator[World]:
    """Join the processes that ``torchrun`` has started; without it, yield a world of one process.

    CUDA devices are given out by local rank and talk through NCCL, CPUs through Gloo.

    Parameters
    ----------
    device : "auto", "cpu" or "cuda".

    Raises
    ------
    InputError
        The device does not exist or has no float64, or there are more local processes than CUDA devices.
    """
    size, local_rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    chosen = _local_device(choose_device(device, "float64"), local_rank)
    if size == 1:
        yield World(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size, chosen, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        dist.destroy_process_group()


def _local_device(kind: str, local_rank: int) -> torch.device:
    if kind != "cuda":
        return torch.device(kind)
    if local_rank >= torch.cuda.device_count():
        raise InputError(
            f"process {local_rank} of this machine finds {torch.cuda.device_count()} CUDA devices: start at most one "
            "process per device (torchrun --nproc-per-node)"
        )
    return torch.device("cuda", local_rank)
