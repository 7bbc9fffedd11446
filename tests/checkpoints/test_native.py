"""The native folder: a round trip loses nothing, damage is named, writing is all or nothing."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from escn_calc.checkpoints.card import ModelCard, read_document
from escn_calc.checkpoints.checkpoint import Normalizers
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.checkpoints.fair import read_fair
from escn_calc.checkpoints.native import read_native, write_native
from escn_calc.errors import CheckpointError, InputError


@pytest.fixture
def checkpoint(parity):
    return read_fair(parity / "multires" / "checkpoint.pt")


@pytest.fixture
def folder(checkpoint, tmp_path):
    write_native(checkpoint, tmp_path / "model")
    return tmp_path / "model"


def edit_card(folder, change):
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def edit_weights(folder, change):
    """Change the tensors and make the recorded sha256 fit again."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    sha256 = file_sha256(folder / "model.safetensors")
    edit_card(
        folder, lambda card: (card["files"].update({"model.safetensors": sha256}), card["card"].update(sha256=sha256))
    )


def leftovers(folder):
    return sorted(path.name for path in folder.parent.iterdir())


def test_round_trip_is_exact(checkpoint, tmp_path):
    references = torch.linspace(-3, 1, 119, dtype=torch.float64) / 3
    original = replace(checkpoint, element_references=references, normalizers=Normalizers(0.1, 1 / 3, -0.2, 2 / 7))
    write_native(original, tmp_path / "a" / "model")
    copy = read_native(tmp_path / "a" / "model")
    assert copy.config == original.config
    assert copy.normalizers == original.normalizers
    assert torch.equal(copy.element_references, references)
    assert copy.state.keys() == original.state.keys()
    assert all(torch.equal(copy.state[key], tensor) for key, tensor in original.state.items())
    assert copy.card.model_dump(exclude={"sha256"}) == original.card.model_dump(exclude={"sha256"})
    assert copy.card.sha256 == file_sha256(tmp_path / "a" / "model" / "model.safetensors")
    assert leftovers(tmp_path / "a" / "model") == ["model"]


def test_writing_twice_gives_the_same_bytes(checkpoint, folder, tmp_path):
    write_native(checkpoint, tmp_path / "again")
    for name in ("model.safetensors", "card.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_card_alone(folder):
    assert read_document(folder).card == read_native(folder).card


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"card": {"name": "x"}}'])
def test_unreadable_card_alone(folder, text):
    (folder / "card.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"^.*/model/card\.json: "):
        read_document(folder)


def test_whole_numbers_among_the_figures_stay_whole(checkpoint, tmp_path):
    card = ModelCard.model_validate(checkpoint.card.model_dump() | {"metrics": {"structures": 263, "MAE": 1.0}})
    write_native(replace(checkpoint, card=card), tmp_path / "model")
    metrics = read_native(tmp_path / "model").card.metrics
    assert {name: type(value) for name, value in metrics.items()} == {"structures": int, "MAE": float}


def test_one_flipped_bit(folder):
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: sha256 is [0-9a-f]{64}, card\.json records"):
        read_native(folder)


def test_a_card_with_another_models_digest(folder):
    edit_card(folder, lambda card: card["card"].update(sha256="0" * 64))
    with pytest.raises(CheckpointError, match="the folder is damaged"):
        read_native(folder)


def test_broken_header(folder):
    data = b"\xff" * 100
    (folder / "model.safetensors").write_bytes(data)
    sha256 = file_sha256(folder / "model.safetensors")
    edit_card(
        folder, lambda card: (card["files"].update({"model.safetensors": sha256}), card["card"].update(sha256=sha256))
    )
    with pytest.raises(CheckpointError, match=r"/model: model\.safetensors is not a valid safetensors file"):
        read_native(folder)


def test_weights_are_checked_as_strictly_as_those_of_a_pickle(folder):
    edit_weights(folder, lambda state: state["energy_block.fc1.weight"].fill_(torch.nan))
    with pytest.raises(CheckpointError, match=r"/model: energy_block\.fc1\.weight holds 256 values that are NaN"):
        read_native(folder)
    edit_weights(folder, lambda state: state.pop("energy_block.fc1.weight"))
    with pytest.raises(CheckpointError, match=r"missing energy_block\.fc1\.weight; unexpected none"):
        read_native(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda card: card.update(format_version=2), r"card\.json: format_version: Input should be 1"),
        (lambda card: card.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda card: card["card"].update(colour="red"), r"card\.colour: Extra inputs are not permitted"),
        (lambda card: card["card"].update(energy_kind="formation"), r"card\.energy_kind: Input should be"),
        (lambda card: card["normalizers"].pop("energy_mean") and card["normalizers"].update(x=1), "normalizers.x"),
        (lambda card: card["normalizers"].update(energy_std=-1.0), r"card\.json: .*energy_std is -1.0, but"),
        (lambda card: card.update(element_references=[1.0]), r"/model: element references have shape \(1,\)"),
    ],
)
def test_malformed_documents(folder, change, match):
    edit_card(folder, change)
    with pytest.raises(CheckpointError, match=match):
        read_native(folder)


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("depth", 3, r"card\.json: configuration is malformed .*depth"),
        ("num_layers", "3", r"card\.json: num_layers is '3', but must be a whole number"),
        ("max_neighbors", 1.5, r"card\.json: max_neighbors is 1\.5, but must be a whole number"),
        ("max_neighbors", None, r"card\.json: max_neighbors is None, but must be a whole number"),
        ("regress_forces", "no", r"card\.json: regress_forces is 'no', but must be true or false"),
        ("cutoff", "6", r"card\.json: cutoff is '6', but must be positive"),
        ("cutoff", True, r"card\.json: cutoff is True, but must be positive"),
        ("cutoff", 4.0, r"/model: .* has shape .*, the configuration asks for"),
    ],
)
def test_malformed_configurations(folder, option, value, match):
    edit_card(folder, lambda card: card["card"]["config"].update({option: value}))
    with pytest.raises(CheckpointError, match=match):
        read_native(folder)


@pytest.mark.parametrize("most", [0, -1])
def test_no_cap_on_neighbours(folder, most):
    edit_card(folder, lambda card: card["card"]["config"].update(max_neighbors=most))
    assert read_native(folder).config.max_neighbors == most


def test_document_that_is_no_json(folder):
    (folder / "card.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"card\.json: the document: Invalid JSON"):
        read_native(folder)


@pytest.mark.parametrize("name", ["card.json", "model.safetensors"])
def test_folder_without_one_of_the_files(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"is not a model folder: it has no file {name}"):
        read_native(folder)


def test_existing_folders_are_replaced_only_when_asked(checkpoint, folder):
    before = (folder / "card.json").read_bytes()
    with pytest.raises(InputError, match=r"is not empty; .*overwrite=True \(at the command line --overwrite"):
        write_native(checkpoint, folder)
    assert (folder / "card.json").read_bytes() == before
    write_native(replace(checkpoint, normalizers=Normalizers(5.0)), folder, overwrite=True)
    assert read_native(folder).normalizers.energy_mean == 5.0
    assert leftovers(folder) == ["model"]


def test_only_model_folders_are_replaced(checkpoint, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    with pytest.raises(InputError, match="is not a model folder"):
        write_native(checkpoint, tmp_path / "thesis", overwrite=True)
    with pytest.raises(InputError, match="exists and is not a folder"):
        write_native(checkpoint, tmp_path / "thesis" / "chapter.txt", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "precious"


def test_an_empty_folder_is_used(checkpoint, tmp_path):
    (tmp_path / "model").mkdir()
    write_native(checkpoint, tmp_path / "model")
    assert read_native(tmp_path / "model").config == checkpoint.config
    assert leftovers(tmp_path / "model") == ["model"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_write_leaves_what_was_there(checkpoint, folder, monkeypatch, existing):
    def full(*_):
        raise OSError(28, "No space left on device")

    if not existing:
        shutil.rmtree(folder)
    monkeypatch.setattr("escn_calc.checkpoints.native.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_native(checkpoint, folder, overwrite=True)
    assert leftovers(folder) == (["model"] if existing else [])
    if existing:
        assert read_native(folder).normalizers == checkpoint.normalizers


def test_a_failed_swap_brings_the_old_folder_back(checkpoint, folder, monkeypatch):
    from pathlib import Path

    rename = Path.rename

    def fail(self, target):
        if self.name.endswith(".tmp"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_native(checkpoint, folder, overwrite=True)
    assert leftovers(folder) == ["model"]
    assert read_native(folder).config == checkpoint.config


def test_no_pickle_is_opened(folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("unpickled")

    monkeypatch.setattr("pickle.Unpickler", refuse)
    monkeypatch.setattr("torch.load", refuse)
    read_native(folder)
