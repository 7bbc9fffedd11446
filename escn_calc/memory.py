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

from escn_calc.nn.config import ESCNConfig
from escn_calc.nn.layout import kept_coefficients
from escn_calc.nn.sphere_grid import edge_grid_shape, node_grid_shape

#: Part of the free memory that an evaluation may take by its estimate.
SHARE = 0.5
#: Bytes. Estimates below are not compared with the free memory, which takes time to ask for.
NEGLIGIBLE = 5.0e7
#: Bytes for each pair of atoms within the cutoff while the graph is built: measured for vesin's search.
SEARCH_BYTES = 400
#: Edges of a layer that a thread of a CPU computes at once: what it works on stays in its caches, and torch's overhead
#: is small. Measured by ``benchmarks/batching.py``; twice as many are 10 % slower, eight times as many 50 %.
EDGES_PER_THREAD = 1000
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


def ways(edges: int, gradient: bool, device: str) -> Iterator[Way]:
    """Ways to evaluate a batch, from the fastest to the one that takes the least memory; 1 + ``THRIFTIEST`` of them.

    The second one computes layers again, which saves nothing unless there is a ``gradient``. Each of those that follow
    halves the number of edges at once.
    """
    usual = None if gradient or device != "cpu" else edges_for_caches(edges)
    yield Way(False, usual)
    yield Way(True, usual)
    for halvings in range(1, THRIFTIEST):
        yield Way(True, max(1, min(usual or edges, edges >> halvings)))


def edges_for_caches(edges: int) -> int | None:
    """Number of edges in each of the fewest equal parts that suit a CPU; None if that is one part."""
    parts = math.ceil(edges / (EDGES_PER_THREAD * torch.get_num_threads()))
    return math.ceil(edges / parts) if parts > 1 else None


@dataclass(frozen=True)
class Footprint:
    """Numbers that an evaluation of one network holds at its peak.

    Attributes
    ----------
    config : of the network.
    kept_of_edge, kept_of_atom : numbers kept for a backward pass through the whole network.
    """

    config: ESCNConfig
    kept_of_edge: int
    kept_of_atom: int
    wigner: int
    edge_work: int
    atom_work: int

    @classmethod
    def of(cls, config: ESCNConfig) -> "Footprint":
        """Count them.

        Kept are the factors of products and the arguments of activations: per edge and layer the node features of both
        ends, the samples on the edge grid, gates and hidden values of the SO(2) maps; per node the samples on its grid.
        At work are samples and coefficients before and after an activation.
        """
        channels, layers = config.sphere_channels, config.num_layers
        kept = [len(kept_coefficients(*orders)) for orders in zip(config.lmax_list, config.mmax_list, strict=True)]
        sizes = [(lmax + 1) ** 2 for lmax in config.lmax_list]
        grids = [prod(edge_grid_shape(config, index)) for index in range(len(sizes))]
        coefficients = sum(2 * size + grid + rows for size, grid, rows in zip(sizes, grids, kept, strict=True))
        hidden = 2 * (3 + 8 * max(config.mmax_list)) * config.hidden_channels
        wigner = sum(size * rows for size, rows in zip(sizes, kept, strict=True))
        node_samples = prod(node_grid_shape(config))
        return cls(
            config,
            kept_of_edge=layers * (channels * coefficients + hidden + 2 * config.edge_channels) + 2 * wigner,
            kept_of_atom=2 * (layers * node_samples + config.num_sphere_samples) * config.all_channels,
            wigner=wigner,
            edge_work=2 * channels * (sum(grids) + sum(kept)),
            atom_work=2 * (node_samples + config.num_sphere_samples + 2 * max(sizes)) * config.all_channels,
        )

    def peak(self, size: Size, gradient: bool, way: Way) -> int:
        """Numbers held at once in one evaluation."""
        at_once = min(size.edges, way.edges_at_once or size.edges)
        basis = self.config.num_distances
        basis_work = (5 if self.config.distance_function == "linearsigmoid" else 3) * basis
        forward = max(basis_work * size.edges, basis * size.edges + self.edge_work * at_once)
        forward += self.wigner * size.edges + self.atom_work * size.atoms
        if not gradient:
            return forward
        if not way.recompute:
            return forward + self.kept_of_edge * size.edges + self.kept_of_atom * size.atoms
        layers = self.config.num_layers
        layer_of_edge = (self.kept_of_edge - 2 * self.wigner) // layers
        inputs = layers * max((lmax + 1) ** 2 for lmax in self.config.lmax_list) * self.config.all_channels
        kept = 3 * self.wigner * size.edges + layer_of_edge * at_once
        return forward + kept + (inputs + self.kept_of_atom // layers) * size.atoms


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
