"""What training begins with: networks from scratch, elements that are new to a model, forces that change their kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers

from escn_calc.checkpoints import load_checkpoint
from escn_calc.convergence import RESIDUAL_METRIC
from escn_calc.errors import CheckpointError, InputError
from escn_calc.labels import LabelledFrame
from escn_calc.nn.config import ESCNConfig
from escn_calc.training.config import ModelSection
from escn_calc.training.start import (
    EMBEDDING,
    knowing_only,
    make_start,
    network_to_train,
    refuse_untrained_elements,
    with_elements,
)
from tests.training.tiny import NETWORK

PARITY = "tests/data/parity/l2m1/checkpoint.pt"


def frames(*symbols: str) -> list[LabelledFrame]:
    return [LabelledFrame(Atoms(symbol), 0.0, None, None, symbol, f"data.extxyz@{symbol}") for symbol in symbols]


def scratch(**changes) -> ModelSection:
    return ModelSection(network=ESCNConfig(**NETWORK), **changes)


@pytest.fixture(scope="module")
def shipped():
    return load_checkpoint("default")


def test_from_scratch_depends_on_the_seed_alone():
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    one, same, other = (make_start(scratch(), frames("Cu", "H"), seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, weight in one.checkpoint.state.items():
        assert torch.equal(weight, same.checkpoint.state[name])
        assert not torch.equal(weight, other.checkpoint.state[name])
    card = one.checkpoint.card
    assert card.elements == ("H", "Cu")
    assert card.refuse_unseen_elements
    assert card.forces == "gradient"
    assert one.origin is None


@pytest.mark.parametrize("forces", ["direct", "gradient"])
def test_force_head_from_scratch_follows_from_the_forces(forces):
    start = make_start(scratch(forces=forces), frames("Cu"), 0)
    assert start.checkpoint.config.regress_forces == (forces == "direct")
    assert (network_to_train(start.checkpoint, torch.float32).force_block is not None) == (forces == "direct")


def test_too_heavy_for_the_network():
    with pytest.raises(InputError, match=r"hold Pb, atomic number 82, but model\.network\.max_num_elements is 80; set"):
        make_start(scratch(), frames("H", "Pb"), 0)


def test_roll_is_left_out_of_derivatives_on_resolved_grids_alone(shipped):
    assert not network_to_train(make_start(scratch(), frames("Cu"), 0).checkpoint, torch.float32).roll_in_derivative
    published = replace(ESCNConfig(), num_layers=1, sphere_channels=4, hidden_channels=4)
    start = make_start(ModelSection(network=published), frames("Cu"), 0)
    assert network_to_train(start.checkpoint, torch.float64).roll_in_derivative


def test_a_start_keeps_its_weights_on_other_grids(shipped):
    sizes = {"resolution": 9, "num_sphere_samples": 98}
    start = make_start(ModelSection(start="default", grids=sizes), frames("Cu"), 0)
    assert start.checkpoint.config == replace(shipped.config, **sizes)
    assert start.checkpoint.card.config["resolution"] == 9
    assert RESIDUAL_METRIC in shipped.card.metrics and RESIDUAL_METRIC not in start.checkpoint.card.metrics
    assert all(torch.equal(weight, shipped.state[name]) for name, weight in start.checkpoint.state.items())
    with pytest.raises(CheckpointError, match="resolution is 3"):
        make_start(ModelSection(start="default", grids={"resolution": 3}), frames("Cu"), 0)
    with pytest.raises(ValueError, match="give those of a network from scratch under network"):
        ModelSection(network=NETWORK, grids=sizes)


@pytest.mark.parametrize("like", ["Pd", None])
def test_added_element_begins_as_another_or_as_the_mean(shipped, like):
    extended = with_elements(shipped, {"Ni": like})
    known = [atomic_numbers[symbol] for symbol in shipped.card.elements]
    tables = [name for name in shipped.state if name.endswith(EMBEDDING)]
    assert len(tables) == 1 + 2 * shipped.config.num_layers
    for name, weight in shipped.state.items():
        if name not in tables:
            assert torch.equal(extended.state[name], weight)
            continue
        expected = weight.clone()
        expected[28] = weight[46] if like else weight[known].mean(0)
        assert torch.equal(extended.state[name], expected)
    assert set(extended.card.elements) == {*shipped.card.elements, "Ni"}
    assert "Ni" not in shipped.card.elements


def test_reference_of_an_added_element_is_still_to_be_fitted(shipped):
    everything = replace(shipped, element_references=torch.full((119,), -3.0, dtype=torch.float64))
    extended = with_elements(everything, {"Ni": None}).element_references
    assert extended[28] == 0.0 and extended[29] == -3.0
    assert everything.element_references[28] == -3.0


def test_network_grows_for_a_heavy_element(shipped):
    extended = with_elements(shipped, {"U": None})
    assert extended.config.max_num_elements == 93
    assert extended.state["sphere_embedding.weight"].shape[0] == 93
    assert extended.card.config["max_num_elements"] == 93


def test_growth_that_the_repulsion_cannot_follow(shipped):
    start = make_start(
        ModelSection(network=ESCNConfig(**{**NETWORK, "cutoff": 5.0, "repulsion": "zbl"})), frames("Cu"), 0
    )
    checkpoint = replace(
        start.checkpoint, card=start.checkpoint.card.model_copy(update={"name": "mine", "elements": ("Cu",)})
    )
    with pytest.raises(InputError, match=r"model\.add_elements: the network cannot be extended: .*covalent radii"):
        with_elements(checkpoint, {"Lr": None})


def test_model_that_does_not_list_its_elements():
    """Published models have embeddings for everything; an added element begins anew although there is a row for it."""
    checkpoint = load_checkpoint(PARITY)
    assert checkpoint.card.elements is None
    extended = with_elements(checkpoint, {"Ni": "Pd"})
    assert extended.card.elements is None
    table = extended.state["sphere_embedding.weight"]
    assert torch.equal(table[28], checkpoint.state["sphere_embedding.weight"][46])


def section(**changes) -> ModelSection:
    return ModelSection(start="default", **changes)


@pytest.mark.parametrize(
    ("changes", "symbols", "message"),
    [
        ({}, ("Cu", "Ni"), r"data\.extxyz@Ni holds Ni, which model \S+ has not seen; add it under model\.add_elements"),
        ({"add_elements": ["Ni"]}, ("Ni", "Zn"), r"data\.extxyz@Zn holds Zn, which model"),
        ({"add_elements": ["Ni"]}, ("Cu",), r"no training structure holds Ni, so it cannot be learnt"),
        ({"add_elements": ["Cu"]}, ("Cu",), r"knows Cu already; leave it out"),
        (
            {"add_elements": {"Ni": "Zn"}},
            ("Ni",),
            r"Ni cannot begin as Zn, which model \S+ does not know either; known",
        ),
    ],
    ids=["not added", "another one", "absent", "known", "unknown similar"],
)
def test_elements_that_do_not_fit(changes, symbols, message):
    with pytest.raises(InputError, match=message):
        make_start(section(**changes), frames(*symbols), 0)


def test_validation_element_that_was_not_trained():
    with pytest.raises(InputError, match=r"data\.extxyz@H holds H, which no training structure holds"):
        refuse_untrained_elements(frames("Cu", "H"), ("Cu",))


def with_and_without_head():
    direct = load_checkpoint(PARITY)
    state = {name: weight for name, weight in direct.state.items() if not name.startswith("force_block.")}
    config = replace(direct.config, regress_forces=False)
    card = direct.card.model_copy(update={"forces": "gradient"})
    return direct, replace(direct, config=config, state=state, card=card)


def test_direct_model_loses_its_force_head_for_gradient_forces():
    direct, _ = with_and_without_head()
    start = make_start(ModelSection(start=PARITY, forces="gradient"), frames("Cu"), 0)
    checkpoint = start.checkpoint
    assert not checkpoint.config.regress_forces and checkpoint.card.forces == "gradient"
    assert set(direct.state) - set(checkpoint.state) == {key for key in direct.state if key.startswith("force_block.")}
    assert "the force head of the start was left out; forces are the gradient of the energy" in start.notes
    assert not start.new_force_head


def test_gradient_model_gains_a_force_head_for_direct_forces(tmp_path):
    from escn_calc.checkpoints import write_native

    _, without = with_and_without_head()
    write_native(without, tmp_path / "without")
    begin = [
        make_start(ModelSection(start=str(tmp_path / "without"), forces="direct"), frames("Cu"), seed)
        for seed in (0, 0)
    ]
    one, two = (start.checkpoint.state["force_block.fc1.weight"] for start in begin)
    assert torch.equal(one, two)
    assert begin[0].new_force_head and begin[0].checkpoint.card.forces == "direct"
    assert "the start had no force head; a new one was trained" in begin[0].notes
    for name, weight in without.state.items():
        assert torch.equal(begin[0].checkpoint.state[name], weight)


def test_unchanged_forces_change_nothing(shipped):
    start = make_start(section(), frames("Cu"), 0)
    assert start.checkpoint.card.forces == shipped.card.forces
    assert start.notes == ()
    assert start.checkpoint.state.keys() == shipped.state.keys()


def test_fitted_references_forget_elements_that_the_data_do_not_hold():
    start = knowing_only(make_start(section(), frames("Cu", "H"), 0), ("H", "Cu"))
    assert start.checkpoint.card.elements == ("H", "Cu")
    assert start.checkpoint.card.refuse_unseen_elements
    assert "are lost: Ag, Au, C, Ir, N, O, Pd, Pt, Rh" in start.notes[-1]


def test_start_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="there is no model 'escn-smal'; did you mean escn-small-fcc"):
        make_start(ModelSection(start="escn-smal"), frames("Cu"), 0)
    (tmp_path / "damaged.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"damaged\.pt"):
        make_start(ModelSection(start=str(tmp_path / "damaged.pt")), frames("Cu"), 0)
