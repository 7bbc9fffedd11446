"""Order of the edge coefficients."""

import torch

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.layout import EdgeLayout, kept_coefficients, node_index


def test_m_major_order():
    assert kept_coefficients(2, 1) == [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (1, -1), (2, -1)]
    assert node_index(2, 1) == [0, 2, 6, 3, 7, 1, 5]


def test_one_resolution_needs_no_permutation():
    layout = EdgeLayout.of(ESCNConfig(lmax_list=(6,), mmax_list=(2,)))
    assert layout.order is None
    assert layout.degrees == (7, 6, 5)
    assert layout.block_sizes == (7, 6, 6, 5, 5)


def test_two_resolutions_are_joined_per_order():
    layout = EdgeLayout.of(ESCNConfig(lmax_list=(2, 1), mmax_list=(1, 0)))
    assert layout.resolution_sizes == (7, 2)
    assert layout.degrees == (5, 2)
    assert layout.order.tolist() == [0, 1, 2, 7, 8, 3, 4, 5, 6]
    assert torch.equal(layout.order[layout.inverse], torch.arange(9))
