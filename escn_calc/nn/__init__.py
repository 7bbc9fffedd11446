"""The eSCN network and its SO(2) convolution as pure mathematics: no files, no ASE, no random numbers of its own."""

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.edge_rotation import EdgeRotation
from escn_calc.nn.escn import ESCN, ESCNOutput
from escn_calc.nn.so2_convolution import SO2Convolution
from escn_calc.nn.tensor_product_weights import SO2Weights, filter_degrees, path_weights, so2_weights

__all__ = [
    "ESCN",
    "ESCNConfig",
    "ESCNOutput",
    "EdgeRotation",
    "SO2Convolution",
    "SO2Weights",
    "filter_degrees",
    "path_weights",
    "so2_weights",
]
