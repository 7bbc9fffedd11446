"""Whether a backward pass can keep all intermediate values of the network in memory."""

import os
from math import prod

import torch

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.layout import kept_coefficients
from escn_calc.nn.sphere_grid import edge_grid_shape, node_grid_shape

#: Part of the free memory that kept values may take.
SHARE = 0.4


def layers_need_checkpointing(
    config: ESCNConfig, num_atoms: int, num_edges: int, dtype: torch.dtype, device: str
) -> bool:
    """Whether the values kept for a backward pass would take more than ``SHARE`` of the free memory."""
    return kept_bytes(config, num_atoms, num_edges, dtype) > SHARE * _free_bytes(device)


def kept_bytes(config: ESCNConfig, num_atoms: int, num_edges: int, dtype: torch.dtype) -> int:
    """Estimate what a backward pass through the whole network keeps, in bytes.

    Counted are the factors of products and the arguments of activations: per edge and layer the node features of both
    ends, the samples on the edge grid, gates and hidden values of the SO(2) maps; per node the samples on its grid.
    """
    channels = config.sphere_channels
    kept = [len(kept_coefficients(*orders)) for orders in zip(config.lmax_list, config.mmax_list, strict=True)]
    sizes = [(lmax + 1) ** 2 for lmax in config.lmax_list]
    grids = [prod(edge_grid_shape(config, index)) for index in range(len(sizes))]
    coefficients = sum(2 * size + grid + 2 * rows for size, grid, rows in zip(sizes, grids, kept, strict=True))
    hidden = 2 * (3 + 8 * max(config.mmax_list)) * config.hidden_channels
    per_edge = config.num_layers * (channels * coefficients + hidden + 2 * config.edge_channels)
    wigner = 3 * sum(size * rows for size, rows in zip(sizes, kept, strict=True))
    samples = config.num_layers * prod(node_grid_shape(config)) + config.num_sphere_samples
    per_atom = 2 * samples * config.all_channels
    return dtype.itemsize * (num_edges * (per_edge + wigner) + num_atoms * per_atom)


def _free_bytes(device: str) -> float:
    """Memory that can be allocated now; where the system does not tell, half of what it has."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    page = os.sysconf("SC_PAGE_SIZE")
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return float(page * os.sysconf("SC_AVPHYS_PAGES"))
    return 0.5 * page * os.sysconf("SC_PHYS_PAGES")
