"""The reference's side of benchmarks/reference.py.

Run by an interpreter that has fairchem-core 1.10 and none of this package:

PYTHON -m benchmarks.inference_reference FOLDER THREADS

A call is what its calculator does for every step: structure, graph, network, energy and forces on the host.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

# isort: off
import benchmarks.fairchem_packages  # noqa: F401  (before fairchem)
from fairchem.core.datasets.lmdb_dataset import data_list_collater
from fairchem.core.models.escn.escn import eSCN
from fairchem.core.preprocessing import AtomsToGraphs

# isort: on
from benchmarks.inference_worker import follow
from benchmarks.training_worker import Answer, Orders, read_arrays, read_setting


class Model(eSCN):
    """The reference's network, which remembers graph and frames of its last call."""

    ready: Any = None

    def generate_graph(self, data: Any) -> Any:
        """Take the graph that is ready, or make one."""
        self.graph = super().generate_graph(data) if self.ready is None else self.ready
        return self.graph

    def _init_edge_rot_mat(self, *graph: Any) -> torch.Tensor:
        self.frames: torch.Tensor = super()._init_edge_rot_mat(*graph)
        return self.frames


def make_model(folder: Path, config: dict[str, Any]) -> Model:
    """Return the network with the weights of the folder."""
    model = Model(use_pbc=True, otf_graph=True, regress_forces=True, **config).eval()
    state = {name: torch.from_numpy(array) for name, array in read_arrays(folder / "weights.npz").items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(not name.endswith("distance_expansion.offset") for name in missing):
        raise SystemExit(f"the reference has other weights: missing {missing}, unexpected {unexpected}")
    return model


def main() -> None:
    """Work on the structure of the folder."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    orders = Orders()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    setting = read_setting(folder)
    model = make_model(folder, setting["config"])
    arrays = read_arrays(folder / "structure.npz")
    atoms = Atoms(arrays["numbers"], arrays["positions"], cell=arrays["cell"], pbc=arrays["pbc"])
    to_graph = AtomsToGraphs(r_edges=False, r_pbc=True)

    def batch(size: int = setting["batch"]) -> Any:
        return data_list_collater([to_graph.convert(atoms) for _ in range(size)], otf_graph=True)

    def call(data: Any = None) -> tuple[float, np.ndarray]:
        with torch.no_grad():
            out = model(batch() if data is None else data)
        energy = out["energy"].sum().item() * setting["std"] + setting["mean"]
        return energy, out["forces"].detach().numpy() * setting["std"]

    def network() -> None:
        call(prepared)
        model.ready = model.graph

    def whole_call() -> tuple[float, np.ndarray]:
        model.ready = None
        return call()

    def evaluate() -> Answer:
        model.ready = None
        energy, forces = call(batch(1))
        np.savez(
            folder / "graph.npz",
            frames=model.frames.numpy(),
            edge_index=model.graph.edge_index.numpy(),
            cell_offsets=model.graph.cell_offsets.numpy(),
            edge_vec=model.graph.edge_distance_vec.numpy(),
        )
        return {"energy": energy, "forces": forces.tolist()}

    def make_graph() -> None:
        model.ready = None
        model.generate_graph(batch())

    prepared = batch()
    facts: Answer = {"torch": torch.__version__, "fairchem-core": version("fairchem-core")}
    follow(orders, facts, {"call": whole_call, "graph": make_graph, "network": network}, evaluate)


if __name__ == "__main__":
    main()
