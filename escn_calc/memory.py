"""How much memory an evaluation takes, and what to do where it takes too much.

The estimate is linear in the numbers of atoms and edges. Its coefficients follow from the shape of the network; on
CUDA, where the allocator counts, they are multiplied by what a small probe takes there (:mod:`escn_calc.energy_model`).
A :class:`Way` says what is kept and what is computed again. All ways give the same results up to rounding.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from escn_calc.nn.blockwise import BYTES_PER_THREAD
from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.fast_edges import EDGES_PER_THREAD, degrees_of_order
from escn_calc.nn.layout import kept_coefficients
from escn_calc.nn.sphere_grid import edge_grid_shape, node_grid_size

#: Part of the free memory that an evaluation may take by its estimate.
SHARE = 0.5
#: Bytes. Estimates below are not compared with the free memory, which takes time to ask for.
NEGLIGIBLE = 5.0e7
#: Bytes for each pair of atoms within the cutoff while the graph is built: measured for vesin's search.
SEARCH_BYTES = 400
#: Edges of structures that are evaluated together on a CPU, for each thread: together, small ones share what a call
#: costs whatever its size, while larger ones push one another out of the caches.
EDGES_TOGETHER = 500
#: Ways that save more and more memory, see :func:`ways`.
THRIFTIEST = 7
#: In messages of torch about memory that have no class of their own.
MEMORY_WORDS = ("allocate memory", "out of memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Size:
    """Atoms and edges of one structure or of several together."""

    atoms: int = 0
    edges: int = 0

    def __add__(self, other: "Size") -> "Size":
        return Size(self.atoms + other.atoms, self.edges + other.edges)


@dataclass(frozen=True)
class Way:
    """What an evaluation keeps in memory.

    Attributes
    ----------
    recompute : a backward pass keeps only the input of each layer and computes the layer again.
    edges_at_once : messages are computed for so many edges after the other, and again in a backward pass; None for all
        at once.
    """

    recompute: bool = False
    edges_at_once: int | None = None


def ways(edges: int) -> Iterator[Way]:
    """Ways to evaluate a batch, from the fastest to the one that takes the least memory; 1 + ``THRIFTIEST`` of them.

    The second one computes layers again, which saves nothing without a gradient. Each of those that follow halves the
    number of edges at once.
    """
    yield Way()
    yield Way(True)
    for halvings in range(1, THRIFTIEST):
        yield Way(True, max(1, edges >> halvings))


@dataclass(frozen=True)
class Footprint:
    """Numbers that an evaluation of one network holds at its peak.

    Attributes
    ----------
    config : of the network.
    kept_of_edge, kept_of_atom : numbers kept for a backward pass through one layer.
    held_of_edge : rows of Wigner matrices, for the whole call.
    layer_of_edge : for all edges worked on after one another in a layer.
    work_of_edge, samples_of_edge : at work for the edges at once, apart from samples on grids.
    work_of_atom, samples_of_atom : at work on the nodes, likewise.
    blockwise : whether samples are worked on in blocks (:mod:`escn_calc.nn.blockwise`) without a gradient.
    """

    config: ESCNConfig
    kept_of_edge: int
    kept_of_atom: int
    held_of_edge: int
    layer_of_edge: int
    work_of_edge: int
    samples_of_edge: int
    work_of_atom: int
    samples_of_atom: int
    blockwise: bool

    @classmethod
    def on_edges(cls, config: ESCNConfig) -> "Footprint":
        """Count them for the network itself.

        Kept are the factors of products and the arguments of activations: per edge and layer the node features of both
        ends, the samples on the edge grid, gates and hidden values of the SO(2) maps; per node the samples on its grid.
        At work are samples and coefficients before and after an activation.
        """
        shape = _Shape.of(config)
        channels, samples = config.sphere_channels, shape.node_samples * config.all_channels
        coefficients = 2 * shape.coefficients + shape.edge_samples + shape.kept
        hidden = 2 * (3 + 8 * max(config.mmax_list)) * config.hidden_channels
        return cls(
            config,
            kept_of_edge=channels * coefficients + hidden + 2 * config.edge_channels,
            kept_of_atom=2 * samples,
            held_of_edge=shape.wigner,
            layer_of_edge=0,
            work_of_edge=2 * channels * shape.kept,
            samples_of_edge=2 * channels * shape.edge_samples,
            work_of_atom=4 * shape.largest * config.all_channels,
            samples_of_atom=2 * (samples + config.num_sphere_samples * config.all_channels),
            blockwise=False,
        )

    @classmethod
    def on_nodes(cls, config: ESCNConfig) -> "Footprint":
        """Count them for :mod:`escn_calc.nn.fast`.

        Hidden values of the sources are held for a whole layer; those of the targets, gates and coefficients for the
        edges at once. Kept are hidden values, gates and coefficients of edges, and what is mixed on the nodes.
        """
        shape = _Shape.of(config)
        channels, orders = config.sphere_channels, max(config.mmax_list)
        hidden = (1 + 4 * orders) * config.hidden_channels
        gates = (1 + 2 * orders) * config.hidden_channels
        features, samples = shape.largest * config.all_channels, shape.node_samples * config.all_channels
        return cls(
            config,
            kept_of_edge=2 * hidden
            + 4 * gates
            + channels * (shape.kept + shape.edge_samples)
            + 4 * config.edge_channels,
            kept_of_atom=2 * shape.mixed * config.hidden_channels + 4 * features + 2 * samples,
            held_of_edge=shape.wigner + 2 * shape.rows,
            layer_of_edge=hidden,
            work_of_edge=2 * hidden + 6 * config.hidden_channels + 2 * channels * shape.kept,
            samples_of_edge=2 * channels * shape.edge_samples,
            work_of_atom=6 * features + 2 * shape.largest * config.hidden_channels,
            samples_of_atom=2 * max(shape.node_samples, config.num_sphere_samples) * config.all_channels,
            blockwise=True,
        )

    def peak(self, size: Size, gradient: bool, way: Way, itemsize: int) -> int:
        """Numbers of ``itemsize`` bytes held at once in one evaluation."""
        in_part = min(size.edges, way.edges_at_once or size.edges)
        at_once = min(in_part, EDGES_PER_THREAD * torch.get_num_threads()) if self.blockwise else in_part
        basis = self.config.num_distances
        matrices = sum((2 * degree + 1) ** 2 for degree in range(max(self.config.lmax_list) + 1))
        basis_work = (5 if self.config.distance_function == "linearsigmoid" else 3) * basis
        held = self.held_of_edge * size.edges
        layer = basis * size.edges + self.layer_of_edge * in_part + self.work_of_edge * at_once
        layer += self._samples(self.samples_of_edge * at_once, gradient, itemsize)
        forward = max(basis_work * size.edges, 2 * (basis + matrices) * size.edges, layer) + held
        forward += self.work_of_atom * size.atoms + self._samples(self.samples_of_atom * size.atoms, gradient, itemsize)
        if not gradient:
            return forward
        layers = self.config.num_layers
        heads = 2 * self.config.num_sphere_samples * self.config.all_channels * size.atoms
        if not way.recompute:
            layer_kept = self.kept_of_edge * size.edges + self.kept_of_atom * size.atoms
            return forward + 2 * held + layers * layer_kept + heads
        inputs = layers * max((lmax + 1) ** 2 for lmax in self.config.lmax_list) * self.config.all_channels
        kept = 3 * held + self.kept_of_edge * in_part
        return forward + kept + (inputs + self.kept_of_atom) * size.atoms + heads // layers

    def _samples(self, numbers: int, gradient: bool, itemsize: int) -> int:
        """Samples at work at one time."""
        if gradient or not self.blockwise:
            return numbers
        return min(numbers, 3 * BYTES_PER_THREAD * torch.get_num_threads() // itemsize)


@dataclass(frozen=True)
class _Shape:
    """Sizes that follow from the degrees and orders of a network, all resolutions together.

    Attributes
    ----------
    coefficients, kept : of a node, and of an edge.
    largest : coefficients of a node for one channel, of the largest resolution.
    wigner : elements of the kept rows, with the zeros outside the blocks.
    rows, mixed : elements of the rows as :mod:`escn_calc.nn.fast_edges` holds them; what is mixed on a node for them.
    edge_samples, node_samples : points of the grids.
    """

    coefficients: int
    kept: int
    largest: int
    wigner: int
    rows: int
    mixed: int
    edge_samples: int
    node_samples: int

    @classmethod
    def of(cls, config: ESCNConfig) -> "_Shape":
        sizes = [(lmax + 1) ** 2 for lmax in config.lmax_list]
        kept = [len(kept_coefficients(*orders)) for orders in zip(config.lmax_list, config.mmax_list, strict=True)]
        terms = (degrees_of_order(config, order) for order in range(max(config.mmax_list) + 1))
        zero, *others = (sum(2 * degree + 1 for _, degree in of_order) for of_order in terms)
        return cls(
            coefficients=sum(sizes),
            kept=sum(kept),
            largest=max(sizes),
            wigner=sum(size * rows for size, rows in zip(sizes, kept, strict=True)),
            rows=zero + 4 * sum(others),
            mixed=zero + 2 * sum(others),
            edge_samples=sum(prod(edge_grid_shape(config, index)) for index in range(len(sizes))),
            node_samples=node_grid_size(config),
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out."""
    reason = str(error).partition("\n")[0]
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in reason for words in MEMORY_WORDS)


def affordable_bytes(device: str) -> float:
    """Memory that an evaluation may take now."""
    return SHARE * free_bytes(device)


def free_bytes(device: str) -> float:
    """Memory that can be allocated now, without limit where the system does not tell."""
    if device == "cuda":
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return float(torch.cuda.mem_get_info()[0] + cached)
    return min(_free_of_the_system(), _free_of_the_container())


def _free_of_the_system() -> float:
    """Linux's own estimate, which counts what its caches would give back."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return math.inf
    sizes = dict(line.split(":", 1) for line in lines)
    return 1024.0 * int(sizes["MemAvailable"].split()[0])


def _free_of_the_container() -> float:
    """Limit less use of the control group of a container or batch job (cgroup v2)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = (folder / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return math.inf
    return math.inf if limit == "max" else float(int(limit) - int(used))
