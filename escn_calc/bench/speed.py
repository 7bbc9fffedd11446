"""How fast a calculator is on one structure, alone and in batches, and what a call takes."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from ase import Atoms

from escn_calc.bench.arithmetic import multiply_adds
from escn_calc.bench.peak_memory import peak_memory
from escn_calc.bench.slabs import System, displaced
from escn_calc.bench.timing import take_turns
from escn_calc.calculator import ESCNCalculator
from escn_calc.errors import InputError, OutOfMemoryError, renamed
from escn_calc.graph import RadiusGraph, SkinSearch, radius_graph, search_pairs
from escn_calc.graph.pairs import PairSearch
from escn_calc.potential import Potential
from escn_calc.structures import StructureBatch

Tell = Callable[[str], None]
"""Told in words what is measured next."""

STAGES = 2
"""So often :func:`measure_speed` tells."""


@dataclass(frozen=True)
class Speed:
    """What was measured on one structure.

    Attributes
    ----------
    name, atoms, edges : of the structure.
    call_seconds : of calls of the calculator, between which all atoms move a little, as in molecular dynamics.
    graph_seconds : of the graph alone, in the same turns.
    batch, batch_seconds : structures evaluated together, and the seconds of all of them.
    multiply_adds : of matrix products in one call.
    peak_bytes : of the tensors made in one call, at the moment when they take most; weights do not count.
    most_atoms : of a structure as dense as this one that fits into the free memory, by estimate; None: no limit known.
    """

    name: str
    atoms: int
    edges: int
    call_seconds: tuple[float, ...]
    graph_seconds: tuple[float, ...]
    batch: int
    batch_seconds: tuple[float, ...]
    multiply_adds: int
    peak_bytes: int
    most_atoms: int | None

    @property
    def steps_per_second(self) -> list[float]:
        """Evaluations of energy and forces, one after the other."""
        return [1 / seconds for seconds in self.call_seconds]

    @property
    def structures_per_second(self) -> list[float]:
        """Evaluations in batches."""
        return [self.batch / seconds for seconds in self.batch_seconds]

    @property
    def graph_share(self) -> float:
        """Part of a call that the graph takes; the network has the rest."""
        return statistics.median(self.graph_seconds) / statistics.median(self.call_seconds)

    @property
    def gain(self) -> float:
        """How many times as many structures per second there are in batches as alone."""
        return statistics.median(self.structures_per_second) / statistics.median(self.steps_per_second)

    def reached(self, rate: float) -> float:
        """Fraction of ``rate``, multiply-adds per second, at which a call proceeds."""
        return self.multiply_adds / statistics.median(self.call_seconds) / rate


def check_systems(potential: Potential, systems: list[System]) -> None:
    """Make sure that all structures can be evaluated, without evaluating them.

    Raises
    ------
    InputError
        One cannot; the message has its name.
    OutOfMemoryError
        One is too large for the free memory, by estimate.
    """
    for system in systems:
        try:
            most = potential.most_atoms_like(system.atoms)
            graph_of(potential, system.atoms)
        except InputError as error:
            raise InputError(renamed(str(error), system.name)) from error
        if most is not None and len(system.atoms) > most:
            raise OutOfMemoryError(
                f"{system.name} has {len(system.atoms)} atoms, but about {most} fit into the free memory; "
                "use a smaller structure or a smaller model"
            )


def graph_of(potential: Potential, atoms: Atoms, search: PairSearch = search_pairs) -> RadiusGraph:
    """Make the graph of an evaluation, finished when this returns."""
    on_gpu = potential.device == "cuda"
    batch = StructureBatch.from_atoms([atoms]).to("cuda" if on_gpu else "cpu")
    graph = radius_graph(batch, potential.config.cutoff, potential.config.max_neighbors, search)
    if on_gpu:
        torch.cuda.synchronize()
    return graph


def measure_speed(calculator: ESCNCalculator, system: System, batch: int, seconds: float, tell: Tell) -> Speed:
    """Measure everything on one structure: a call, its graph and a batch in turns, after calls that were counted.

    Parameters
    ----------
    calculator : as a script has it; its neighbour candidates are reused from call to call.
    system : the structure, which stays as it is.
    batch : structures given to the model together; each differs a little.
    seconds : how long turns go on.
    tell : told twice what comes next.
    """
    potential, atoms = calculator.potential, system.atoms
    search = SkinSearch(calculator.parameters["skin"])
    tell(f"{system.name}: memory and multiply-adds")
    count = multiply_adds(lambda: potential.evaluate([atoms]))
    peak = peak_memory(lambda: potential.evaluate([atoms]))
    tell(f"{system.name}: seconds")
    calls: dict[str, Callable[[list[Atoms]], object]] = {
        "call": lambda moved: calculator.get_potential_energy(moved[0]),
        "graph": lambda moved: graph_of(potential, moved[0], search),
        "batch": potential.evaluate,
    }
    taken = take_turns(calls, lambda turn: batch_of(atoms, batch, turn), seconds)
    return Speed(
        name=system.name,
        atoms=len(atoms),
        edges=len(graph_of(potential, atoms).source),
        call_seconds=tuple(taken["call"]),
        graph_seconds=tuple(taken["graph"]),
        batch=batch,
        batch_seconds=tuple(taken["batch"]),
        multiply_adds=count,
        peak_bytes=peak,
        most_atoms=potential.most_atoms_like(atoms),
    )


def batch_of(atoms: Atoms, size: int, turn: int = 0) -> list[Atoms]:
    """Structures that differ a little, others each turn."""
    return [displaced(atoms, turn * size + place) for place in range(size)]
