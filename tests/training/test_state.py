"""The state folder: complete at every moment, and refused by other runs."""

import json
from dataclasses import replace

import pytest
import torch

from escn_calc.errors import InputError
from escn_calc.training import state as state_module
from escn_calc.training.optimisation import Optimisation, OptimiserSettings, Schedule
from escn_calc.training.state import Progress, StateFolder
from tests.training.objectives import network

IDENTITY = {"settings": {"seed": 0, "groups": [1e-3]}, "data": {"train.extxyz": "a" * 64}}
PROGRESS = Progress(step=2, epoch=1, batch=1, validated=1, best=0.1 + 0.2, seconds=3.5)


def trained(steps=2, seed=0):
    """An optimisation after steps with gradients of its own."""
    made = Optimisation(network(seed=seed), OptimiserSettings(1e-3), Schedule(epochs=3))
    for step in range(steps):
        for number, weight in enumerate(made.network.parameters()):
            weight.grad = torch.full_like(weight, 0.1 * (number + step))
        made.step(step, 0.0)
    return made


def same(one, other):
    first, second = one.tensors(), other.tensors()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_state_comes_back_to_the_last_bit(tmp_path):
    folder, saved, loaded = StateFolder(tmp_path / "state", IDENTITY), trained(), trained(0, seed=1)
    assert not folder.exists()
    folder.save(PROGRESS, saved)
    assert folder.exists() and not same(saved, loaded)
    assert folder.load(loaded) == PROGRESS
    assert same(saved, loaded) and saved.counters() == loaded.counters()


def test_new_state_replaces_the_old_one(tmp_path):
    folder, loaded = StateFolder(tmp_path, IDENTITY), trained(0)
    folder.save(PROGRESS, trained(1))
    later = trained(3)
    folder.save(replace(PROGRESS, step=3), later)
    assert len(list(tmp_path.iterdir())) == 2
    assert folder.load(loaded).step == 3
    assert same(later, loaded)


@pytest.mark.parametrize("broken", ["file_sha256", "write_json", "_write_tensors"])
def test_kill_while_saving_leaves_the_old_state(tmp_path, monkeypatch, broken):
    folder, old, loaded = StateFolder(tmp_path, IDENTITY), trained(1), trained(0)
    folder.save(PROGRESS, old)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(state_module, broken, killed)
        with pytest.raises(KeyboardInterrupt):
            folder.save(replace(PROGRESS, step=3), trained(3))
    assert folder.load(loaded) == PROGRESS
    assert same(old, loaded)
    folder.save(PROGRESS, old)
    assert len(list(tmp_path.iterdir())) == 2


def test_kill_before_the_old_tensors_are_removed_leaves_the_new_state(tmp_path, monkeypatch):
    folder, new, loaded = StateFolder(tmp_path, IDENTITY), trained(3), trained(0)
    folder.save(PROGRESS, trained(1))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StateFolder, "_remove_all_but", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.save(replace(PROGRESS, step=3), new)
    assert folder.load(loaded).step == 3
    assert same(new, loaded)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({**IDENTITY, "settings": {"seed": 1, "groups": [1e-3]}}, "settings seed: 0 there, 1 here"),
        ({**IDENTITY, "data": {"train.extxyz": "b" * 64}}, "data train.extxyz: 'aaaaaaaaa…' there, 'bbbbbbbbb…' here"),
    ],
)
def test_state_of_another_run_is_refused(tmp_path, other, message):
    StateFolder(tmp_path, IDENTITY).save(PROGRESS, trained())
    loaded, untouched = trained(0, seed=1), trained(0, seed=1)
    with pytest.raises(InputError, match=f"belongs to another run .{message}"):
        StateFolder(tmp_path, other).load(loaded)
    assert same(loaded, untouched)


def test_damaged_states_are_refused(tmp_path):
    folder = StateFolder(tmp_path, IDENTITY)
    folder.save(PROGRESS, trained())
    (tensors,) = tmp_path.glob("tensors-*")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(InputError, match="is damaged: its sha256 is"):
        folder.load(trained(0))
    tensors.unlink()
    with pytest.raises(InputError, match=r"cannot read the state .*No such file"):
        folder.load(trained(0))
    document = tmp_path / "state.json"
    document.write_text(json.dumps({**json.loads(document.read_text()), "format": "other"}))
    with pytest.raises(InputError, match="is not the state of a training run of this version"):
        folder.load(trained(0))
    document.write_text('{"format": ')
    with pytest.raises(InputError, match="is not the state of a training run, or is damaged"):
        folder.load(trained(0))


def test_state_of_another_network_is_refused(tmp_path):
    folder = StateFolder(tmp_path, IDENTITY)
    folder.save(PROGRESS, trained())
    other = Optimisation(network(dtype=torch.float32), OptimiserSettings(1e-3), Schedule(epochs=3))
    with pytest.raises(InputError, match=r"does not fit the network: network\.distance_expansion\.offset"):
        folder.load(other)


def test_state_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the state"):
        StateFolder(tmp_path / "file" / "state", IDENTITY).save(PROGRESS, trained())
