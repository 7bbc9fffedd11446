"""Output heads: a small network evaluated on fixed points of every atom's sphere."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.harmonics import solid_harmonics
from escn_calc.nn.parameters import linear


class PointNetwork(nn.Module):
    """Three linear maps with SiLU between them: sphere samples (N, Q, C_all) to one number each, (N, Q)."""

    def __init__(self, config: ESCNConfig) -> None:
        super().__init__()
        width = config.all_channels
        self.fc1 = linear(width, width)
        self.fc2 = linear(width, width)
        self.fc3 = linear(width, 1, bias=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Return (N, Q)."""
        return self.fc3(F.silu(self.fc2(F.silu(self.fc1(samples))))).squeeze(-1)


class PointHarmonics(nn.Module):
    """Evaluation of the node features on the output points; one table (Q, K_i) per resolution."""

    def __init__(self, config: ESCNConfig, points: Tensor) -> None:
        super().__init__()
        self.channels = config.sphere_channels
        for index, lmax in enumerate(config.lmax_list):
            register_table(self, str(index), solid_harmonics(points, lmax), config)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, K, C_all) to (N, Q, C_all)."""
        parts = x.split(self.channels, dim=-1)
        tables = self.buffers(recurse=False)
        return torch.cat([table @ part[:, : table.shape[1]] for table, part in zip(tables, parts, strict=True)], dim=-1)


def register_table(module: nn.Module, name: str, table: Tensor, config: ESCNConfig) -> None:
    """Register a float64 table that follows from the configuration.

    Published ones are part of the state, rounded to float32, because published weights were trained with them;
    resolved ones keep the precision their quadrature is exact in, and are never read from a file.
    """
    resolved = config.resolved
    module.register_buffer(name, table if resolved else table.float(), persistent=not resolved)
