"""First stage of the network's SO(2) maps on edges and on nodes: operations and times, for published shapes.

The graph is that of the slab in ``examples/``; features are taken at the sources of the edges.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ase.io import read
from torch.utils.flop_counter import FlopCounterMode

from escn_calc.graph import radius_graph
from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.edges import Edges
from escn_calc.nn.layout import EdgeLayout
from escn_calc.nn.node_side import hidden_on_edges, hidden_on_nodes
from escn_calc.nn.parameters import initialise
from escn_calc.nn.rotations import edge_frames
from escn_calc.nn.so2 import SO2Block
from escn_calc.structures import StructureBatch

SLAB = Path(__file__).resolve().parents[1] / "examples" / "co_on_cu111.xyz"
#: Å, of the published OC20 models.
CUTOFF = 12.0
#: lmax, mmax, C, H, neighbours: the three published shapes, and one of them without the cap of 20 neighbours.
SHAPES = ((4, 2, 128, 256, 20), (6, 2, 128, 256, 20), (6, 3, 160, 384, 20), (6, 2, 128, 256, 60))
TOLERANCE = 1e-5

Timer = Callable[[dict[str, Callable[[], object]], int], dict[str, list[float]]]


def forms(lmax: int, mmax: int, channels: int, hidden: int, neighbours: int) -> dict[str, Callable[[], Any]]:
    """Return both forms as functions without arguments, with random weights and features, float32."""
    config = ESCNConfig(
        lmax_list=(lmax,), mmax_list=(mmax,), sphere_channels=channels, hidden_channels=hidden, edge_channels=8
    )
    layout = EdgeLayout.of(config)
    block = SO2Block(config, layout).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    initialise(block, generator)
    batch = StructureBatch.from_atoms([read(SLAB)])
    graph = radius_graph(batch, CUTOFF, neighbours)
    nodes = len(batch.numbers)
    x = torch.randn(nodes, (lmax + 1) ** 2, channels, generator=generator)
    frames = edge_frames(graph.vectors / graph.vectors.norm(dim=-1, keepdim=True)).float()
    edges = Edges.of(config, layout, nodes, graph.source, graph.target, frames)
    (rows,) = edges.wigner
    return {
        "edges": lambda: hidden_on_edges(block, x, rows, edges.source),
        "nodes": lambda: hidden_on_nodes(block, x, rows, edges.source),
    }


def operations(lmax: int, mmax: int, channels: int, hidden: int, neighbours: int) -> dict[str, float]:
    """Multiply-adds per edge of the maps alone, without the rotation that only the form on edges needs."""
    n = [lmax + 1 - m for m in range(mmax + 1)]
    k = [(lmax + 1) ** 2 - m * m for m in range(mmax + 1)]
    of_nodes = channels * hidden * (k[0] + 2 * sum(k[1:])) / neighbours
    return {
        "edges": channels * hidden * (n[0] + 4 * sum(n[1:])),
        "nodes": of_nodes + hidden * (k[0] + 4 * sum(k[1:])),
    }


def compare_first_stages(repeats: int, timer: Timer) -> list[dict[str, Any]]:
    """Check that both forms agree, then count and time them."""
    compared = []
    for shape in SHAPES:
        calls, counted, results = forms(*shape), {}, {}
        for name, call in calls.items():
            with FlopCounterMode(display=False) as counter:
                results[name] = call()
            counted[name] = counter.get_total_flops() / 2 / len(results[name][0])
        for ours, theirs in zip(results["nodes"], results["edges"], strict=True):
            if not (ours - theirs).abs().max() < TOLERANCE * theirs.abs().max():
                raise SystemExit(f"shape {shape}: the first stages on nodes and on edges differ")
        seconds = timer(calls, repeats)
        maps = operations(*shape)
        compared.append(
            {
                **dict(zip(("lmax", "mmax", "channels", "hidden", "neighbours"), shape, strict=True)),
                "operations_per_edge": counted,
                "operations_per_edge_of_the_maps": maps,
                "operations_ratio": counted["edges"] / counted["nodes"],
                "operations_ratio_of_the_maps": maps["edges"] / maps["nodes"],
                "seconds": {name: statistics.median(values) for name, values in seconds.items()},
                "times_as_fast": statistics.median(
                    a / b for a, b in zip(seconds["edges"], seconds["nodes"], strict=True)
                ),
            }
        )
    return compared
