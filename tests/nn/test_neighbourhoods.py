"""Edges by node: every edge once, equal degrees together, blocks of bounded size."""

import pytest
import torch

from escn_calc.nn.neighbourhoods import Neighbourhoods

NODES = torch.tensor([2, 0, 2, 3, 0, 2, 5, 5, 5, 6])


@pytest.mark.parametrize("edges_at_once", [1, 3, 4, 100])
def test_edges_and_nodes_of_groups(edges_at_once):
    around = Neighbourhoods.of(NODES, 8, edges_at_once)
    counts = NODES.bincount(minlength=8)
    assert around.lonely == 3
    assert sorted(around.edge_order.tolist()) == list(range(10))
    nodes, edges = around.node_order.tolist()[3:], NODES[around.edge_order].tolist()
    for group in around.groups:
        mine, nodes = nodes[: group.nodes], nodes[group.nodes :]
        assert counts[mine].tolist() == [group.degree] * group.nodes
        assert edges[: group.edges] == [node for node in mine for _ in range(group.degree)]
        edges = edges[group.edges :]
    assert not nodes and not edges


@pytest.mark.parametrize("edges_at_once", [1, 3, 4, 100])
def test_blocks(edges_at_once):
    around = Neighbourhoods.of(NODES, 8, edges_at_once)
    assert all(block.edges <= edges_at_once or block.nodes == 1 for block in around.blocks)
    firsts = [block.first for block in around.blocks]
    assert firsts == [sum(len(b.groups) for b in around.blocks[:i]) for i in range(len(around.blocks))]


def test_sums_by_group_return_to_their_nodes():
    around = Neighbourhoods.of(NODES, 8, 4)
    values = torch.arange(10.0)[:, None, None]
    sums = [part.sum(1) for part in around.by_node(values[around.edge_order])]
    expected = torch.zeros(8, 1).index_add_(0, NODES, values[:, 0])
    assert torch.equal(around.to_nodes(sums), expected)


def test_node_values_by_block():
    around = Neighbourhoods.of(NODES, 8, 4)
    values = torch.arange(8.0).expand(2, 8)
    parts = around.by_block(values)
    assert [part.shape[1] for part in parts] == [block.nodes for block in around.blocks]
    assert torch.equal(torch.cat(parts, 1), values[:, around.node_order][:, 3:])
