"""From weights on disk to a network that can be evaluated."""

import torch

from escn_calc.checkpoints.checkpoint import Checkpoint
from escn_calc.nn import ESCN


def build_network(checkpoint: Checkpoint, dtype: torch.dtype) -> ESCN:
    """Return the network of a checkpoint on the CPU, with its weights, in ``dtype``, ready for inference.

    Derived tensors (sphere points, their harmonics, basis centres) missing from the file keep the values the
    network computes itself.
    """
    with torch.device("cpu"):
        network = ESCN(checkpoint.config, dtype)
    network.load_state_dict(checkpoint.state, strict=False)
    return network.eval().requires_grad_(False)
