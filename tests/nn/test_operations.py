"""A guard against slowness that needs no clock: the multiply-adds of a call are counted, for the published L6-M2 shape.

The formulas below say what there should be; per-edge work that belongs on the nodes turns the guard red.
"""

from dataclasses import replace

import pytest
import torch

from escn_calc.bench.arithmetic import multiply_adds
from escn_calc.nn import ESCN, ESCNConfig
from escn_calc.nn.fast import FastESCN
from escn_calc.nn.parameters import initialise

L6M2 = ESCNConfig(num_layers=1, cutoff=12.0, max_neighbors=20, basis_width_scalar=2.0)
NODES, NEIGHBOURS = 6, 20
EDGES = NODES * NEIGHBOURS
C, H, E = L6M2.sphere_channels, L6M2.hidden_channels, L6M2.edge_channels
COEFFICIENTS, KEPT = 49, 29
EDGE_GRID, LATITUDES, NODE_GRID = 14 * 5, 14, 14 * 15
N_M = (7, 6, 5)
K_M = (49, 48, 45)


def evaluated(layers):
    """A network of random weights, and atoms with twenty edges each, in and out."""
    network = ESCN(replace(L6M2, num_layers=layers))
    initialise(network, torch.Generator().manual_seed(0))
    target = torch.arange(NODES).repeat_interleave(NEIGHBOURS)
    source = (target + torch.arange(NEIGHBOURS).repeat(NODES)) % NODES
    vectors = torch.randn(EDGES, 3, generator=torch.Generator().manual_seed(1))
    return network.requires_grad_(False), (torch.arange(1, NODES + 1), source, target, vectors)


def counted(evaluate, inputs):
    with torch.inference_mode():
        evaluate(*inputs)
        return multiply_adds(lambda: evaluate(*inputs))


def operations_of_edge_embedding():
    return EDGES * (L6M2.num_distances * E + E * E)


def operations_of_node_update():
    first, last = COEFFICIENTS * 2 * C * C, COEFFICIENTS * C * C
    return NODES * (first + 2 * NODE_GRID * COEFFICIENTS * C + NODE_GRID * C * C + last)


def operations_of_a_layer():
    """Both ends: mixing on nodes, Wigner rows, gates, second maps; then grids, rotation back with the sum."""
    signed = N_M[0] + 4 * sum(N_M[1:])
    mixing = NODES * C * H * (K_M[0] + 2 * sum(K_M[1:]))
    of_edge = H * (K_M[0] + 4 * sum(K_M[1:])) + E * H * 5 + H * C * signed
    message = C * (2 * EDGE_GRID * KEPT + COEFFICIENTS * KEPT)
    return (
        operations_of_edge_embedding() + 2 * (mixing + EDGES * of_edge) + EDGES * message + operations_of_node_update()
    )


def operations_of_the_first_layer():
    """The same with scalars only, m = 0 only, one longitude only."""
    both_ends = 2 * (NODES * C * H + EDGES * (E * H + H * C * N_M[0]))
    message = C * (2 * LATITUDES * N_M[0] + COEFFICIENTS * N_M[0])
    return operations_of_edge_embedding() + both_ends + EDGES * message + operations_of_node_update()


def operations_of_the_heads():
    """The sum of energies over the sphere is a product with a vector, which torch does not count."""
    samples = L6M2.num_sphere_samples
    return NODES * samples * (COEFFICIENTS * C + 2 * (2 * C * C + C) + 3)


def operations_of_wigner_matrices():
    sizes = [(2 * degree + 1, 3 * (2 * degree - 1)) for degree in range(1, 7)]
    return EDGES * sum(rows * columns * (columns + rows) for rows, columns in sizes)


def operations(layers):
    every = operations_of_wigner_matrices() + operations_of_the_first_layer() + operations_of_the_heads()
    return every + (layers - 1) * operations_of_a_layer()


@pytest.mark.parametrize("layers", [1, 2])
def test_no_more_operations_than_there_should_be(layers):
    network, inputs = evaluated(layers)
    of_frames = EDGES * 3**3
    assert counted(FastESCN(network), inputs) == operations(layers) + of_frames


def test_work_on_edges_that_belongs_on_nodes_turns_the_guard_red():
    network, inputs = evaluated(2)
    assert counted(network, inputs) > 1.8 * operations(2)


def test_what_a_layer_of_the_published_shape_takes():
    """5.9 million per edge, of which the second maps are 3.3 million."""
    assert operations_of_a_layer() / EDGES == pytest.approx(5.87e6, rel=0.01)
