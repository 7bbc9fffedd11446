"""Output heads: a small network evaluated on fixed points of every atom's sphere."""

from torch import Tensor, nn
from torch.nn import functional as F

from escn_calc.nn.config import ESCNConfig
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
