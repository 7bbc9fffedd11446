"""The estimate of what a backward pass keeps, against what it keeps."""

import math
from pathlib import Path

import pytest
import torch

from escn_calc import memory
from escn_calc.energy_model import EnergyModel
from escn_calc.graph import radius_graph
from escn_calc.structures import StructureBatch
from tests.finite_differences import triclinic_slab
from tests.parity import MODELS, checkpoint
from tests.smooth import smooth_checkpoint


def parts(model, checkpoint_layers=None):
    stored = smooth_checkpoint(layers=3) if model == "smooth" else checkpoint(model)
    energy_model = EnergyModel(stored, "cpu", torch.float64, None, checkpoint_layers)
    config = stored.config
    batch = StructureBatch.from_atoms([triclinic_slab(config.cutoff, config.max_neighbors)])
    return energy_model, batch, radius_graph(batch, config.cutoff, config.max_neighbors)


def bytes_kept(energy_model, batch, graph):
    """Storage of all tensors saved for the backward pass, parameters and grids apart."""
    lasting = [*energy_model.network.parameters(), *energy_model.network.buffers()]
    own = {tensor.untyped_storage().data_ptr() for tensor in lasting}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        energy_model.evaluate(batch, graph, "gradient")
    return sum(kept.values())


@pytest.mark.parametrize("model", [*MODELS, "smooth"])
def test_estimate(model, record_figure):
    energy_model, batch, graph = parts(model, checkpoint_layers=False)
    kept = bytes_kept(energy_model, batch, graph)
    estimate = memory.kept_bytes(energy_model.config, batch.num_atoms, len(graph.source), torch.float64)
    record_figure(f"memory of a backward pass, {model}", f"{kept / 1e6:.1f} MB, estimate {estimate / kept:.2f} of it")
    assert 0.7 < estimate / kept < 1.1


@pytest.mark.parametrize(("free", "expected"), [(1e12, False), (1e5, True)])
def test_layers_are_recomputed_where_memory_is_short(monkeypatch, free, expected):
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    energy_model, batch, graph = parts("l6m2")
    assert energy_model._checkpoints(batch, graph) is expected
    asked, *_ = parts("l6m2", checkpoint_layers=not expected)
    assert asked._checkpoints(batch, graph) is not expected


def test_recomputing_keeps_less():
    everything, little = (bytes_kept(*parts("l6m2", checkpoint_layers=choice)) for choice in (False, True))
    assert little < everything / 4


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/proc/meminfo": "MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable:   70 kB\n"}, 70 * 1024),
        (
            {
                "/proc/meminfo": "MemAvailable: 70 kB\n",
                "/sys/fs/cgroup/memory.max": "50000\n",
                "/sys/fs/cgroup/memory.current": "20000\n",
            },
            30000,
        ),
        ({"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": "20000\n"}, math.inf),
        ({}, math.inf),
    ],
    ids=["system", "container", "unlimited container", "unknown"],
)
def test_free_memory(monkeypatch, files, expected):
    def read_text(path, encoding):
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)
    assert memory.free_bytes("cpu") == expected
