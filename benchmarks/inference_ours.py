"""Our side of benchmarks/reference.py: ``python -m benchmarks.inference_ours FOLDER THREADS MATMUL``."""

import sys
import warnings
from pathlib import Path

import torch
from ase import Atoms

from benchmarks.inference_worker import follow
from benchmarks.training_worker import Answer, Orders, read_arrays, read_setting
from escn_calc import load_potential
from escn_calc.graph import RadiusGraph, radius_graph
from escn_calc.structures import StructureBatch


def main() -> None:
    """Work on the structure of the folder."""
    folder, threads, matmul = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    orders = Orders()
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    arrays = read_arrays(folder / "structure.npz")
    atoms = Atoms(arrays["numbers"], arrays["positions"], cell=arrays["cell"], pbc=arrays["pbc"])
    potential = load_potential(folder / "model", device="cpu", dtype="float32", matmul=matmul)
    structures = [atoms] * read_setting(folder)["batch"]
    model, config = potential._model, potential.config
    batch = StructureBatch.from_atoms(structures)
    graph = radius_graph(batch, config.cutoff, config.max_neighbors)

    def make_graph() -> RadiusGraph:
        return radius_graph(StructureBatch.from_atoms(structures), config.cutoff, config.max_neighbors)

    def evaluate() -> Answer:
        """With the graph and the frames of the reference."""
        single, given = StructureBatch.from_atoms([atoms]), read_arrays(folder / "graph.npz")
        source, target = torch.from_numpy(given["edge_index"])
        offsets, vectors = torch.from_numpy(given["cell_offsets"]).long(), torch.from_numpy(given["edge_vec"]).double()
        theirs = RadiusGraph(source, target, offsets, vectors)
        found = model.evaluate(single, theirs, "direct", torch.from_numpy(given["frames"]))
        assert found.forces is not None
        return {"energy": found.energies.sum().item(), "forces": found.forces.tolist()}

    calls = {
        "call": lambda: potential.evaluate(structures),
        "graph": make_graph,
        "network": lambda: model.evaluate(batch, graph, "direct"),
    }
    parameters = sum(weight.numel() for weight in model.network.parameters())
    facts = {"torch": torch.__version__, "edges": len(graph.source), "parameters": parameters}
    follow(orders, facts, calls, evaluate)


if __name__ == "__main__":
    main()
