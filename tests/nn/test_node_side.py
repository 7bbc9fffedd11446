"""The first stage on nodes gives the numbers of the network, in as many operations as its docstring says."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.edges import Edges
from escn_calc.nn.layout import EdgeLayout
from escn_calc.nn.node_side import hidden_on_edges, hidden_on_nodes
from escn_calc.nn.parameters import initialise
from escn_calc.nn.rotations import edge_frames
from escn_calc.nn.so2 import SO2Block
from tests.tolerances import TENSOR_PRODUCT

NODES, NEIGHBOURS = 7, 5
CHANNELS, HIDDEN = 3, 4


def setting(lmax, mmax):
    """A block with random weights, features, and edges into every node."""
    config = ESCNConfig(
        lmax_list=(lmax,), mmax_list=(mmax,), sphere_channels=CHANNELS, hidden_channels=HIDDEN, edge_channels=5
    )
    layout = EdgeLayout.of(config)
    block = SO2Block(config, layout)
    generator = torch.Generator().manual_seed(0)
    initialise(block, generator)
    block.double().requires_grad_(False)
    x = torch.randn(NODES, (lmax + 1) ** 2, CHANNELS, generator=generator, dtype=torch.float64)
    source = torch.randint(NODES, (NODES * NEIGHBOURS,), generator=generator)
    target = torch.arange(NODES).repeat_interleave(NEIGHBOURS)
    vectors = torch.randn(len(source), 3, generator=generator, dtype=torch.float64)
    frames = edge_frames(vectors / vectors.norm(dim=-1, keepdim=True))
    return block, x, Edges.of(config, layout, NODES, source, target, frames)


def hidden_of_the_network(block, x, edges):
    """What the first stages of the block put out while it works."""
    seen = {}
    for name, layer in block.named_modules():
        if name.rpartition(".")[2] in ("fc1_m0", "fc1_r", "fc1_i"):
            layer.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    embedding = torch.ones(len(edges.source.nodes), 5, dtype=torch.float64)
    block(edges.to_frame(x, edges.source), embedding)
    orders = range(len(block.so2_conv))
    signed = [torch.cat((seen[f"so2_conv.{i}.fc1_r"], seen[f"so2_conv.{i}.fc1_i"]), dim=-1) for i in orders]
    return [seen["fc1_m0"][:, None], *signed]


@pytest.mark.parametrize("form", [hidden_on_edges, hidden_on_nodes])
@pytest.mark.parametrize(("lmax", "mmax"), [(0, 0), (2, 0), (3, 3), (6, 2), (6, 3)])
def test_both_forms_give_what_the_network_computes(form, lmax, mmax):
    block, x, edges = setting(lmax, mmax)
    network = hidden_of_the_network(block, x, edges)
    for ours, theirs in zip(form(block, x, edges.wigner[0], edges.source), network, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < TENSOR_PRODUCT * theirs.abs().max()


@pytest.mark.parametrize(("lmax", "mmax"), [(3, 3), (6, 2), (6, 3)])
def test_operations(lmax, mmax):
    block, x, edges = setting(lmax, mmax)

    def counted(form):
        with FlopCounterMode(display=False) as counter:
            form(block, x, edges.wigner[0], edges.source)
        return counter.get_total_flops() // 2

    n = [lmax + 1 - m for m in range(mmax + 1)]
    k = [(lmax + 1) ** 2 - m * m for m in range(mmax + 1)]
    kept, every = sum(n) * 2 - n[0], (lmax + 1) ** 2
    of_edges = CHANNELS * HIDDEN * (n[0] + 4 * sum(n[1:])) + kept * every * CHANNELS
    assert counted(hidden_on_edges) == NODES * NEIGHBOURS * of_edges
    # Nodes are filled up to the one with most edges.
    slots = NODES * edges.source.nodes.bincount().max().item()
    of_nodes, rows = CHANNELS * HIDDEN * (k[0] + 2 * sum(k[1:])), HIDDEN * (k[0] + 4 * sum(k[1:]))
    assert counted(hidden_on_nodes) == NODES * of_nodes + slots * rows
    if (lmax, mmax) == (6, 2):
        assert (n[0] + 4 * sum(n[1:]), k[0] + 2 * sum(k[1:]), k[0] + 4 * sum(k[1:])) == (51, 235, 421)
