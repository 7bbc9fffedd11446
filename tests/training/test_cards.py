"""What the card of a trained model says, and how it follows from the start, the settings and the data."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from ase import Atoms

from escn_calc.checkpoints import Normalizers, load_checkpoint, read_native, write_native
from escn_calc.convergence import RESIDUAL_METRIC, roll_residual
from escn_calc.errors import InputError
from escn_calc.labels import LabelledFrame
from escn_calc.nn.config import ESCNConfig
from escn_calc.training.cards import Provenance, check_energy_kind, trained_checkpoint, write_with_roll
from escn_calc.training.config import CardSection, ModelSection
from escn_calc.training.constants import constants_record, with_recorded_constants
from escn_calc.training.start import Start, make_start, network_to_train
from tests.training.tiny import NETWORK

FIGURES = {"loss": 1.25, "energy_mae": 0.4, "energy_mae_per_atom": 0.01, "force_mae": 1 / 3, "force_error": 0.6}
COUNTS = {"training structures": 9, "training groups": 3, "validation structures": 2, "validation groups": 1}


def provenance(group_by: str = "sid", **words: str) -> Provenance:
    return Provenance(
        name="mine",
        words=CardSection(**words),
        data={"/home/me/a.extxyz": "1234", "/home/me/b.extxyz": "5678"},
        counts=COUNTS,
        group_by=group_by,
        settings_sha256="abcd",
        versions={"torch": "2.0"},
        notes=("a note",),
    )


def frames(*symbols: str) -> list[LabelledFrame]:
    return [LabelledFrame(Atoms(symbol), 0.0, None, None, symbol, f"data@{symbol}") for symbol in symbols]


@pytest.fixture(scope="module")
def scratch() -> Start:
    return make_start(ModelSection(network=ESCNConfig(**NETWORK)), frames("H", "Cu"), 0)


@pytest.fixture(scope="module")
def tuned() -> Start:
    return make_start(ModelSection(start="default", add_elements={"Ni": None}), frames("H", "Ni"), 0)


def weights_of(start: Start) -> dict[str, torch.Tensor]:
    return {name: 2 * tensor for name, tensor in network_to_train(start.checkpoint, torch.float32).state_dict().items()}


def test_weights_are_the_trained_ones_and_copies(scratch):
    weights = weights_of(scratch)
    checkpoint = trained_checkpoint(scratch, weights, provenance(), FIGURES, 5)
    for name, tensor in checkpoint.state.items():
        assert torch.equal(tensor, 2 * scratch.checkpoint.state[name])
        assert tensor.data_ptr() != weights[name].data_ptr()


def test_tables_of_the_start_stay(tuned):
    published = load_checkpoint("tests/data/parity/l2m1/checkpoint.pt")
    start = Start(published, origin=published.card)
    checkpoint = trained_checkpoint(start, weights_of(start), provenance(), FIGURES, 5)
    assert "sphere_points" in published.state
    assert torch.equal(checkpoint.state["sphere_points"], published.state["sphere_points"])
    assert torch.equal(checkpoint.state["energy_block.fc1.weight"], 2 * published.state["energy_block.fc1.weight"])


def test_card_from_scratch(scratch):
    words = {"energy_kind": "total", "licence": "MIT", "not_for": "others"}
    card = trained_checkpoint(scratch, weights_of(scratch), provenance(**words), FIGURES, 5).card
    assert (card.name, card.licence, card.not_for, card.energy_kind) == ("mine", "MIT", "others", "total")
    assert card.training_data == "9 structures in 3 groups from a.extxyz, b.extxyz"
    assert card.elements == ("H", "Cu")
    assert card.metrics == {
        **COUNTS,
        "validation loss": 1.25,
        "validation energy MAE, eV per structure": 0.4,
        "validation energy MAE, eV/atom": 0.01,
        "validation force MAE, eV/Å": 0.333333,
        "epochs": 5,
    }
    assert card.notes == (
        "data a.extxyz: sha256 1234",
        "data b.extxyz: sha256 5678",
        "settings: sha256 abcd",
        "trained with torch 2.0",
        "a note",
    )


def test_card_of_a_fine_tuned_model(tuned):
    card = trained_checkpoint(tuned, weights_of(tuned), provenance(), FIGURES, 5).card
    old = load_checkpoint("default").card
    assert (card.licence, card.energy_kind, card.energy_reference) == (
        old.licence,
        old.energy_kind,
        old.energy_reference,
    )
    assert card.training_data.startswith("fine-tuned on 9 structures in 3 groups from a.extxyz, b.extxyz; start: ")
    assert old.training_data in card.training_data
    assert set(card.elements) == {*old.elements, "Ni"}
    assert "elements added to the start: Ni (begun as the mean of the known elements)" in card.notes
    assert not old.metrics.items() & card.metrics.items()


def test_own_words_replace_those_of_the_start(tuned):
    words = {"training_data": "my slabs", "citation": "me", "energy_reference": "mine"}
    card = trained_checkpoint(tuned, weights_of(tuned), provenance(**words), FIGURES, 5).card
    assert (card.training_data, card.citation, card.energy_reference) == ("my slabs", "me", "mine")


def test_groups_of_single_frames_are_owned_up_to(scratch):
    notes = trained_checkpoint(scratch, weights_of(scratch), provenance("frame"), FIGURES, 5).card.notes
    assert any("the validation errors are those of interpolation" in note for note in notes)


def test_roll_is_measured_with_the_trained_weights(scratch, tmp_path):
    checkpoint = trained_checkpoint(scratch, weights_of(scratch), provenance(), FIGURES, 5)
    write_native(checkpoint, tmp_path / "model")
    write_with_roll(tmp_path / "model")
    card = read_native(tmp_path / "model").card
    assert card.metrics[RESIDUAL_METRIC] == pytest.approx(roll_residual(checkpoint, None), rel=0.1)
    assert card.converged_longitudes is None
    write_with_roll(tmp_path / "model")
    assert read_native(tmp_path / "model").card == card


def test_nothing_is_measured_on_published_grids(tmp_path):
    write_native(load_checkpoint("tests/data/parity/l2m1/checkpoint.pt"), tmp_path / "model")
    before = (tmp_path / "model/card.json").read_bytes()
    write_with_roll(tmp_path / "model")
    assert (tmp_path / "model/card.json").read_bytes() == before


def test_constants_come_back_from_the_record_to_the_last_bit(tuned):
    normalizers = Normalizers(energy_mean=-1 / 3, energy_std=255.38337230682373, force_std=0.1)
    references = torch.linspace(-7, 1, 119, dtype=torch.float64) / 3
    checkpoint = replace(tuned.checkpoint, normalizers=normalizers, element_references=references)
    fitted = replace(tuned, checkpoint=checkpoint, notes=("one", "two"))
    restored = with_recorded_constants(tuned, json.loads(json.dumps(constants_record(fitted))))
    assert restored.checkpoint.normalizers == normalizers
    assert torch.equal(restored.checkpoint.element_references, references)
    assert restored.notes == ("one", "two")
    without = replace(fitted, checkpoint=replace(checkpoint, element_references=None))
    assert with_recorded_constants(tuned, constants_record(without)).checkpoint.element_references is None


def test_energies_of_another_kind_need_other_references(tuned):
    other = CardSection(energy_kind="adsorption")
    with pytest.raises(InputError, match=r"has total energies and keeps its references; set references: fit, or"):
        check_energy_kind(tuned, other, references_are_fitted=False)
    check_energy_kind(tuned, other, references_are_fitted=True)
    check_energy_kind(tuned, CardSection(energy_kind="total"), references_are_fitted=False)
    unknown = replace(tuned, origin=tuned.origin.model_copy(update={"energy_kind": "unknown"}))
    check_energy_kind(unknown, other, references_are_fitted=False)
