"""The eSCN network as pure mathematics: no files, no ASE, no random numbers."""

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.escn import ESCN, ESCNOutput

__all__ = ["ESCN", "ESCNConfig", "ESCNOutput"]
