"""The estimate of what an evaluation takes, against what it takes, and what follows where that is too much."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from escn_calc import energy_model, memory
from escn_calc.energy_model import EnergyModel
from escn_calc.errors import OutOfMemoryError
from escn_calc.graph import radius_graph
from escn_calc.memory import Footprint, Size, Way
from escn_calc.structures import StructureBatch
from tests.finite_differences import triclinic_slab
from tests.parity import checkpoint
from tests.smooth import smooth_checkpoint


def parts(name, checkpoint_layers=None):
    stored = smooth_checkpoint(layers=3) if name == "smooth" else checkpoint(name)
    model = EnergyModel(stored, "cpu", torch.float64, None, checkpoint_layers)
    config = stored.config
    batch = StructureBatch.from_atoms([triclinic_slab(config.cutoff, config.max_neighbors)])
    return model, batch, radius_graph(batch, config.cutoff, config.max_neighbors)


def bytes_kept(model, batch, graph):
    """Storage of all tensors saved for the backward pass, parameters and grids apart."""
    lasting = [*model.network.parameters(), *model.network.buffers()]
    own = {tensor.untyped_storage().data_ptr() for tensor in lasting}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.evaluate(batch, graph, "gradient")
    return sum(kept.values())


def peak_bytes(evaluate):
    """Largest sum of all that torch allocates meanwhile."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        evaluate()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(np.cumsum([event.nbytes() for event in events]))


@pytest.mark.parametrize("forces", ["direct", "gradient"])
@pytest.mark.parametrize("name", ["l6m2", "multires", "linearsigmoid_basis", "smooth"])
def test_estimate(name, forces, record_figure):
    """The first three ways, and parts of an eighth, against what torch allocates."""
    model, batch, graph = parts(name)
    size = Size(batch.num_atoms, len(graph.source))
    estimated = [Way(False), Way(True), Way(True, size.edges // 8 + 1)] if forces == "gradient" else [Way()]
    ratios = []
    for way in estimated:
        taken = peak_bytes(lambda: model._evaluate(batch, graph, forces, None, way))  # noqa: B023
        ratios.append(model._needed_bytes(size, forces, way) / taken)
    record_figure(f"estimated memory, {name} {forces}", ", ".join(f"{ratio:.2f}" for ratio in ratios) + " of it")
    assert all(0.9 < ratio < 2 for ratio in ratios)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_less_is_kept_where_memory_is_short(monkeypatch, number):
    """The fastest way that fits is taken, not a faster one and not a thriftier one."""
    model, *_ = parts("l6m2")
    size = Size(10, 400)
    way = list(memory.ways(size.edges))[number]
    monkeypatch.setattr(energy_model, "NEGLIGIBLE", 0)
    monkeypatch.setattr(energy_model, "affordable_bytes", lambda device: model._needed_bytes(size, "gradient", way))
    assert model._affordable_way(size, "gradient", 0) == way
    assert model.fits(size, "gradient") is (number == 0)


def test_what_was_asked_for_is_kept(monkeypatch):
    monkeypatch.setattr(energy_model, "affordable_bytes", lambda device: 1e12)
    size = Size(10, 400)
    for choice in (True, False):
        model, *_ = parts("l6m2", checkpoint_layers=choice)
        assert model._affordable_way(size, "gradient", 0).recompute is choice


def test_nothing_fits(monkeypatch):
    monkeypatch.setattr(energy_model, "affordable_bytes", lambda device: 1e6)
    model, *_ = parts("l6m2")
    assert not model.fits(Size(100, 4000), "direct")
    with pytest.raises(
        OutOfMemoryError, match=r"100 atoms with about 4000 edges take at least 0\.\d+ GB, but only 0\.001 GB"
    ):
        model.check_fits(Size(100, 4000), "direct")
    model.check_fits(Size(1, 10), "direct")
    with pytest.raises(OutOfMemoryError, match="take at least 3 GB"):
        model.check_fits(Size(1, 10), "direct", search_bytes=3e9)


def test_ways_take_less_and_less():
    config, size = parts("l6m2")[0].config, Size(100, 4000)
    found = list(memory.ways(size.edges))
    assert len(found) == 1 + memory.THRIFTIEST and found[0] == Way()
    for footprint, gradient in product((Footprint.on_edges(config), Footprint.on_nodes(config)), (True, False)):
        needed = [footprint.peak(size, gradient, way, 8) for way in found]
        assert needed == sorted(needed, reverse=True)


def test_memory_is_measured_where_an_allocator_counts(monkeypatch):
    """The probe runs once for each kind of forces; the second run counts, after the device has warmed up."""
    model, *_ = parts("l6m2")
    runs = []
    monkeypatch.setattr(EnergyModel, "_evaluate", lambda self, batch, graph, forces, *_: runs.append(forces))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1000)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: runs.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 1000 + 12345678)
    plain = model._needed_bytes(Size(10, 400), "direct", Way())
    model.device = "cuda"
    factors = [model._needed_bytes(Size(10, 400), forces, Way()) / plain for forces in ("direct", "direct", None)]
    assert runs == ["direct", "reset", "direct"]
    assert factors[0] == factors[1] == factors[2] != 1


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
