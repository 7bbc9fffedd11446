"""Whether a backward pass can keep all intermediate values of the network in memory."""

import math
from math import prod
from pathlib import Path

import torch

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.layout import kept_coefficients
from escn_calc.nn.sphere_grid import edge_grid_shape, node_grid_shape

#: Part of the free memory that kept values may take.
SHARE = 0.4
#: In messages of torch about memory that have no class of their own.
MEMORY_WORDS = ("allocate memory", "out of memory", "ALLOC_FAILED")


def layers_need_checkpointing(
    config: ESCNConfig, num_atoms: int, num_edges: int, dtype: torch.dtype, device: str
) -> bool:
    """Whether the values kept for a backward pass would take more than ``SHARE`` of the free memory."""
    return kept_bytes(config, num_atoms, num_edges, dtype) > SHARE * free_bytes(device)


def kept_bytes(config: ESCNConfig, num_atoms: int, num_edges: int, dtype: torch.dtype) -> int:
    """Estimate what a backward pass through the whole network keeps, in bytes.

    Counted are the factors of products and the arguments of activations: per edge and layer the node features of both
    ends, the samples on the edge grid, gates and hidden values of the SO(2) maps; per node the samples on its grid.
    """
    channels = config.sphere_channels
    kept = [len(kept_coefficients(*orders)) for orders in zip(config.lmax_list, config.mmax_list, strict=True)]
    sizes = [(lmax + 1) ** 2 for lmax in config.lmax_list]
    grids = [prod(edge_grid_shape(config, index)) for index in range(len(sizes))]
    coefficients = sum(2 * size + grid + rows for size, grid, rows in zip(sizes, grids, kept, strict=True))
    hidden = 2 * (3 + 8 * max(config.mmax_list)) * config.hidden_channels
    per_edge = config.num_layers * (channels * coefficients + hidden + 2 * config.edge_channels)
    wigner = 2 * sum(size * rows for size, rows in zip(sizes, kept, strict=True))
    samples = config.num_layers * prod(node_grid_shape(config)) + config.num_sphere_samples
    per_atom = 2 * samples * config.all_channels
    return dtype.itemsize * (num_edges * (per_edge + wigner) + num_atoms * per_atom)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out."""
    reason = str(error).partition("\n")[0]
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in reason for words in MEMORY_WORDS)


def free_bytes(device: str) -> float:
    """Memory that can be allocated now, without limit where the system does not tell."""
    if device == "cuda":
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return float(torch.cuda.mem_get_info()[0] + cached)
    return min(_free_of_the_system(), _free_of_the_container())


def _free_of_the_system() -> float:
    """Linux's own estimate, which counts what its caches would give back."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return math.inf
    sizes = dict(line.split(":", 1) for line in lines)
    return 1024.0 * int(sizes["MemAvailable"].split()[0])


def _free_of_the_container() -> float:
    """Limit less use of the control group of a container or batch job (cgroup v2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = (folder / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return math.inf
    return math.inf if limit == "max" else float(int(limit) - int(used))
