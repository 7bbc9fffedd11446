"""Weights are held once: those of a potential are pages of the file, those of a training its own."""

import sys
from pathlib import Path

import pytest
import torch

from escn_calc import load_potential
from escn_calc.checkpoints import load_checkpoint, write_native
from escn_calc.training.start import network_to_train


@pytest.fixture(params=["FAIR", "native"])
def file(request, parity, tmp_path):
    published = parity / "l6m2" / "checkpoint.pt"
    if request.param == "FAIR":
        return published
    write_native(load_checkpoint(published), tmp_path / "model")
    return tmp_path / "model" / "model.safetensors"


def loaded_from(file):
    return file if file.suffix == ".pt" else file.parent


def is_mapped(tensor, file):
    """Whether the values of a tensor lie in the pages of a file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(address, 16) for address in line.split()[0].split("-"))
        if line.endswith(str(file)) and start <= tensor.data_ptr() < end:
            return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
@pytest.mark.parametrize(("dtype", "mapped"), [("float32", True), ("float64", False)])
def test_potential_maps_its_file(file, dtype, mapped):
    potential = load_potential(loaded_from(file), device="cpu", dtype=dtype)
    weights = list(potential._model.network.parameters())
    assert {is_mapped(tensor, file) for tensor in weights} == {mapped}
    assert {tensor.dtype for tensor in weights} == {getattr(torch, dtype)}


def test_training_leaves_the_checkpoint_as_it_was(file):
    checkpoint = load_checkpoint(loaded_from(file))
    before = {key: tensor.clone() for key, tensor in checkpoint.state.items()}
    for weight in network_to_train(checkpoint, torch.float32).parameters():
        weight.zero_()
    assert all(torch.equal(checkpoint.state[key], tensor) for key, tensor in before.items())


@pytest.mark.filterwarnings("ignore::escn_calc.potential.TurningFramesWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_checkpoint_that_was_read_in_inference_mode(file, dtype):
    with torch.inference_mode():
        potential = load_potential(loaded_from(file), device="cpu", dtype=dtype, forces="gradient")
    assert not any(weight.is_inference() for weight in potential._model.network.parameters())
