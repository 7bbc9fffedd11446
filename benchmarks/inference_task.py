"""What benchmarks/reference.py lets both implementations do, in files that both read."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training_task import COMMON, TRAINING, make_weights
from escn_calc.bench.slabs import standard_slab
from escn_calc.checkpoints.card import ModelCard, Normalizers
from escn_calc.checkpoints.checkpoint import Checkpoint, plain_config
from escn_calc.checkpoints.native import write_native
from escn_calc.nn import ESCNConfig

#: Published shapes.
MODELS = {
    "L4-M2": {"lmax_list": [4], "mmax_list": [2], "sphere_channels": 128, "hidden_channels": 256, "num_layers": 12},
    "L6-M2": {"lmax_list": [6], "mmax_list": [2], "sphere_channels": 128, "hidden_channels": 256, "num_layers": 12},
    "L6-M3": {"lmax_list": [6], "mmax_list": [3], "sphere_channels": 160, "hidden_channels": 384, "num_layers": 20},
}
#: Atoms of the slabs.
SLABS = (38, 102, 198)


def model_settings(model: str) -> dict[str, Any]:
    """Configuration in the words of both implementations."""
    return MODELS[model] | COMMON | {"edge_channels": 128}


def write_task(folder: Path, model: str, atoms: int, batch: int) -> None:
    """Write setting, structure, and random amplified weights, for us as a native model ``folder/model``."""
    settings = model_settings(model)
    setting = {"config": settings, "mean": TRAINING["mean"], "std": TRAINING["std"], "batch": batch}
    (folder / "setting.json").write_text(json.dumps(setting))
    structure = standard_slab(atoms)
    np.savez(
        folder / "structure.npz",
        numbers=structure.numbers,
        positions=structure.positions,
        cell=structure.cell.array,
        pbc=structure.pbc,
    )
    config = ESCNConfig(**settings)
    state = make_weights(config)
    np.savez(folder / "weights.npz", **{name: tensor.numpy() for name, tensor in state.items()})
    card = ModelCard(
        name=model,
        sha256=sha256(model.encode()).hexdigest(),
        licence="none",
        elements=None,
        cutoff=config.cutoff,
        energy_kind="unknown",
        energy_reference="none: the weights are random",
        training_data="none",
        citation="none",
        forces="direct",
        config=plain_config(config),
    )
    std = TRAINING["std"]
    normalizers = Normalizers(energy_mean=TRAINING["mean"], energy_std=std, force_std=std)
    write_native(Checkpoint(config, state, normalizers, None, card), folder / "model")
