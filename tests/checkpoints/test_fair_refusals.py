"""FAIR files that must not be evaluated: each gets an error that names what is wrong with it."""

import pytest
import torch

from escn_calc.checkpoints.checkpoint import Checkpoint, Normalizers
from escn_calc.checkpoints.fair import read_fair
from escn_calc.errors import CheckpointError

PREFIX = "module.module."
KEY = "layer_blocks.1.message_block.so2_block_target.so2_conv.0.fc1_i.weight"


def refuse(path, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        read_fair(path)
    assert str(path) in str(caught.value)


def test_wrong_shape_names_key_and_both_shapes(content, save):
    content["state_dict"][PREFIX + KEY] = torch.zeros(12, 15)
    refuse(save(content), rf"{KEY} has shape \(12, 15\), the configuration asks for \(12, 16\)")


def test_wrong_shape_of_a_derived_tensor(content, save):
    content["state_dict"][PREFIX + "sphere_points"] = torch.zeros(31, 3)
    refuse(save(content), r"sphere_points has shape \(31, 3\), the configuration asks for \(32, 3\)")


def test_missing_and_unexpected_keys_are_listed(content, save):
    content["state_dict"][PREFIX + KEY + "x"] = content["state_dict"].pop(PREFIX + KEY)
    refuse(save(content), rf"missing {KEY}; unexpected {KEY}x$")


def test_long_lists_of_keys_are_cut(content, save):
    content["state_dict"] |= {f"module.module.extra{i}": torch.zeros(1) for i in range(9)}
    refuse(save(content), r"missing none; unexpected extra0, .*extra5 and 3 more")


def test_more_layers_than_tensors_is_refused_before_a_table_is_built(content, save):
    content["config"]["model_attributes"]["num_layers"] = 10**12
    refuse(save(content), "num_layers is 1000000000000, but must be a whole number from 1 to 1000")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(content, save, value):
    content["state_dict"][PREFIX + KEY][3, 2] = value
    refuse(save(content), rf"{KEY} holds 1 values that are NaN or infinite")


def test_integer_weights(content, save):
    content["state_dict"][PREFIX + KEY] = torch.zeros(12, 16, dtype=torch.int64)
    refuse(save(content), rf"{KEY} has dtype torch.int64, expected a floating-point type")


def test_a_weight_that_is_no_tensor(content, save):
    content["state_dict"][PREFIX + KEY] = 3.0
    refuse(save(content), rf"{KEY} is float, expected a tensor")


def test_two_keys_for_one_weight(content, save):
    content["state_dict"]["module." + KEY] = content["state_dict"][PREFIX + KEY]
    refuse(save(content), rf"two stored keys both mean {KEY}")


@pytest.mark.parametrize("name", ["equiformer_v2", "gemnet_oc", "scn"])
def test_other_architectures(content, save, name):
    content["config"]["model"] = name
    refuse(save(content), rf"model of type '{name}', which is not eSCN")


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("use_pbc", False, "option use_pbc is False: the model was trained without periodic images"),
        ("rescale_grid", True, "option rescale_grid is True: the model was trained with rescaled grid"),
        ("enforce_max_neighbors_strictly", False, "trained with whole shells of neighbours"),
        ("direct_forces", False, "forces are gradients of its energy"),
        ("new_trick", 3, r"option new_trick \(value 3\) is not known to eSCN"),
        ("cutoff", "12", "option cutoff has the value '12'; its type str|option cutoff has the value '12'"),
        ("num_layers", 2.0, r"option num_layers has the value 2\.0"),
        ("num_layers", True, "option num_layers has the value True"),
        ("lmax_list", [2.0], r"option lmax_list has the value \[2\.0\]"),
        ("lmax_list", None, "option lmax_list has the value None"),
        ("lmax_list", [1, 2], "need one entry per resolution"),
        ("distance_function", "bessel", "distance_function 'bessel' is not one of"),
    ],
)
def test_options_that_cannot_be_reproduced(content, save, option, value, match):
    content["config"]["model_attributes"][option] = value
    refuse(save(content), match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.pop("state_dict"), "expected entries state_dict and config, found amp, config, normalizers"),
        (lambda c: c.update(config=[]), "entry config is list"),
        (lambda c: c.update(state_dict=[]), "entry state_dict is list"),
        (lambda c: c["config"].pop("model_attributes"), r"config\['model_attributes'\] is NoneType"),
        (lambda c: c.update(normalizers=[1]), "entry normalizers is list"),
        (lambda c: c["normalizers"].update(target=3), "normaliser target is not a mapping with mean and std or rmsd"),
        (lambda c: c["normalizers"]["target"].update(mean=torch.zeros(2)), r"mean of normaliser target is .*\(2,\)"),
        (lambda c: c["normalizers"]["target"].update(mean="1"), "mean of normaliser target is a str"),
        (lambda c: c["normalizers"]["target"].update(std=torch.tensor(0.0)), "energy_std is 0.0, but must be positive"),
        (lambda c: c["normalizers"]["target"].update(mean=torch.tensor(torch.nan)), "energy_mean is nan"),
        (
            lambda c: c["normalizers"].update(stress=c["normalizers"]["target"]),
            "normaliser stress belongs to an output",
        ),
        (lambda c: c.update(elementrefs=[1]), "entry elementrefs is list"),
        (lambda c: c.update(elementrefs={"forces": {}}), r"element references are for \['forces'\]"),
        (lambda c: c.update(elementrefs={"energy": {}}), "element references have NoneType"),
        (lambda c: c.update(elementrefs={"energy": {"element_references": torch.ones(90)}}), r"have shape \(90,\)"),
        (
            lambda c: c.update(elementrefs={"energy": {"element_references": torch.full((119,), torch.inf)}}),
            "element references holds 119 values that are NaN or infinite",
        ),
    ],
)
def test_malformed_entries(content, save, change, match):
    change(content)
    refuse(save(content), match)


@pytest.mark.parametrize(
    ("dataset", "match"),
    [
        ({"normalize_labels": True}, "says normalize_labels, but neither it nor the file has the constants"),
        ({"normalize_labels": True, "target_mean": 1.0}, "normaliser target has no target_std in the configuration"),
        ({"transforms": {"normalizer": "norms.pt"}}, "names a file of normaliser constants"),
        ({"transforms": {"normalizer": {"fit": {}}}}, "normaliser fit has no mean"),
    ],
)
def test_normalisers_that_are_promised_and_not_there(content, save, dataset, match):
    content["normalizers"] = {}
    content["config"]["dataset"] = dataset
    refuse(save(content), match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: m["heads"].pop("energy"), r"no energy head, its heads are \['forces'\]"),
        (lambda m: m["heads"]["energy"].update(module="esen_head"), "head 'energy' is 'esen_head'"),
        (lambda m: m["heads"].update(energy_2=m["heads"]["energy"]), "head 'energy_2' is 'escn_energy_head'"),
        (lambda m: m["heads"]["energy"].update(reduce="max"), "energy_reduce 'max' is neither"),
        (lambda m: m["heads"]["energy"].update(gain=2), "head 'energy' has the unknown option gain"),
        (lambda m: m["backbone"].update(model="equiformer_v2_backbone"), "model of type 'equiformer_v2_backbone'"),
        (lambda m: m.pop("backbone"), r"config\['model'\]\['backbone'\] is NoneType"),
    ],
)
def test_hydra_files_with_other_parts(hydra, save, change, match):
    change(hydra["config"]["model"])
    refuse(save(hydra), match)


def test_hydra_weights_of_a_head_that_is_not_configured(hydra, save):
    hydra["state_dict"]["module.output_heads.stress.fc.weight"] = torch.zeros(2)
    refuse(save(hydra), r"unexpected output_heads\.stress\.fc\.weight$")


def test_a_file_that_is_only_a_tensor(save):
    refuse(save(torch.zeros(3)), "expected entries state_dict and config, found Tensor")


def test_element_references_of_a_checkpoint_have_one_value_per_atomic_number(parity):
    sound = read_fair(parity / "l2m1" / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"element references have shape \(90,\), expected \(119,\)"):
        Checkpoint(sound.config, sound.state, Normalizers(), torch.zeros(90), sound.card)
