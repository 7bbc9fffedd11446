"""From weights on disk to a network that can be evaluated."""

from dataclasses import replace

import torch
from torch import Tensor

from escn_calc.checkpoints.checkpoint import Checkpoint
from escn_calc.nn import ESCN


def build_network(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    edge_longitudes: int | None = None,
    *,
    roll_in_derivative: bool = True,
    shared: bool = False,
) -> ESCN:
    """Return the network of a checkpoint on the CPU, with its weights, in ``dtype``, ready for inference.

    Derived tensors (sphere points, their harmonics, basis centres) missing from the file keep the values the
    network computes itself.

    Parameters
    ----------
    checkpoint : configuration and weights.
    dtype : of weights, grids and arithmetic.
    edge_longitudes : replaces the longitudes of the edge grid; None keeps those of the checkpoint.
    roll_in_derivative : False if derivatives may leave the roll of the edge frames out, because the energy on this grid
        does not depend on it.
    shared : whether weights that are in ``dtype`` already stay where they are, in the pages of a file perhaps, instead
        of being copied. Such a network must not be trained.
    """
    config = checkpoint.config
    if edge_longitudes is not None:
        config = replace(config, edge_longitudes=edge_longitudes)
    with torch.device("cpu"):
        network = ESCN(config, dtype, roll_in_derivative=roll_in_derivative)
    state = {key: _usable(tensor, dtype) for key, tensor in checkpoint.state.items()} if shared else checkpoint.state
    network.load_state_dict(state, strict=False, assign=shared)
    return network.eval().requires_grad_(False)


def _usable(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights that may become parameters: those that were read in inference mode have to be copied."""
    return tensor.clone().to(dtype) if tensor.is_inference() else tensor.to(dtype)
