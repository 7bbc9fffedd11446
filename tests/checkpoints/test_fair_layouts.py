"""What a sound FAIR file means: keys, options, normalisers, references, card."""

import collections
import json
import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from escn_calc.checkpoints.catalogue import CATALOGUE, OC20, OC20_ENERGIES, OC20_FORCES
from escn_calc.checkpoints.checkpoint import Normalizers, derived_shapes, expected_shapes
from escn_calc.checkpoints.fair import read_fair
from escn_calc.errors import CheckpointError

PREFIX = "module.module."
ALL_PARITY = (
    "fine_grid",
    "hydra",
    "l2m1",
    "l3m3_full",
    "l4m2",
    "l6m2",
    "l6m3",
    "linearsigmoid_basis",
    "multires",
    "sigmoid_basis",
    "silu_basis",
)


@pytest.mark.parametrize("name", ALL_PARITY)
def test_every_layout_gives_exactly_the_keys_of_the_flat_network(parity, name):
    checkpoint = read_fair(parity / name / "checkpoint.pt")
    shapes = {**expected_shapes(checkpoint.config), **derived_shapes(checkpoint.config)}
    assert {key: tuple(tensor.shape) for key, tensor in checkpoint.state.items()} == shapes
    stored = json.loads((parity / name / "info.json").read_text())
    for option, value in stored["config"].items():
        found = getattr(checkpoint.config, option)
        assert (list(found) if isinstance(found, tuple) else found) == value
    mean, deviation = stored["normalizers"]["energy"]
    assert checkpoint.normalizers.energy_mean == pytest.approx(mean, rel=1e-6)
    assert checkpoint.normalizers.energy_std == pytest.approx(deviation, rel=1e-6)
    assert checkpoint.normalizers.force_std == pytest.approx(stored["normalizers"]["forces"][1], rel=1e-6)


def test_weights_are_the_stored_ones_bit_by_bit(parity, hydra):
    state = read_fair(parity / "hydra" / "checkpoint.pt").state
    stored = hydra["state_dict"]
    assert torch.equal(state["sphere_embedding.weight"], stored["module.backbone.sphere_embedding.weight"])
    assert torch.equal(state["energy_block.fc3.weight"], stored["module.output_heads.energy.energy_block.fc3.weight"])
    assert torch.equal(state["force_block.fc3.weight"], stored["module.output_heads.forces.force_block.fc3.weight"])
    assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in state.values())


def test_expected_shapes_count_the_published_parameters():
    counts = {
        "eSCN-L4-M2-Lay12-S2EF-OC20-2M": 36_109_312,
        "eSCN-L6-M2-Lay12-S2EF-OC20-All+MD": 51_837_952,
        "eSCN-L6-M3-Lay20-S2EF-OC20-All+MD": 200_227_840,
        "eSCN-S2EF-ODAC": 51_562_752,
        "eSCN-IS2RE-ODAC": 51_529_600,
    }
    from escn_calc.nn.config import ESCNConfig

    for name, count in counts.items():
        shapes = expected_shapes(ESCNConfig(**CATALOGUE[name].config)).values()
        assert sum(int(np.prod(shape)) for shape in shapes) == count


def test_the_class_name_may_be_an_import_path(content, save):
    content["config"]["model"] = "ocpmodels.models.escn.escn.eSCN"
    assert read_fair(save(content)).config.lmax_list == (2,)


def test_flat_file_of_2024_with_name_inside_the_model_options(content, save):
    options = content["config"].pop("model_attributes")
    content["config"]["model"] = {"name": "escn", **options, "activation_checkpoint": False}
    assert read_fair(save(content)).config.mmax_list == (1,)


def test_missing_derived_tensors_are_left_to_the_network(content, save):
    for key in list(content["state_dict"]):
        if "sphere_points" in key or "sphharm" in key or "distance_expansion" in key:
            del content["state_dict"][key]
    checkpoint = read_fair(save(content))
    assert set(checkpoint.state) == set(expected_shapes(checkpoint.config))


def test_stale_derived_tensors_are_dropped(content, save):
    extra = ("Jd_3", "SO3_grid.lmax_lmax.to_grid_mat", "sphharm_weights.7")
    extra += ("layer_blocks.0.message_block.so2_block_source.mappingReduced.to_m",)
    content["state_dict"] |= {PREFIX + key: torch.zeros(3) for key in extra}
    assert not set(extra) & set(read_fair(save(content)).state)


def test_exportable_variant_with_scalar_orders(content, save):
    options = content["config"]["model_attributes"]
    (lmax,), (mmax,) = options.pop("lmax_list"), options.pop("mmax_list")
    for foreign in ("regress_forces", "use_pbc", "otf_graph"):
        options.pop(foreign)
    options |= {"lmax": lmax, "mmax": mmax, "max_num_elements": 90, "export": True}
    content["config"]["model"] = "escn_export"
    content["state_dict"][PREFIX + "sphharm_weights"] = content["state_dict"].pop(PREFIX + "sphharm_weights.0")
    checkpoint = read_fair(save(content))
    assert (checkpoint.config.lmax_list, checkpoint.config.mmax_list) == ((2,), (1,))
    assert "sphharm_weights.0" in checkpoint.state


def test_energy_only_model_although_the_task_would_mean_forces(content, save):
    content["config"]["task"]["dataset"] = "lmdb"
    content["config"]["model_attributes"]["regress_forces"] = False
    del content["normalizers"]["grad_target"]
    for key in [key for key in content["state_dict"] if "force_block" in key]:
        del content["state_dict"][key]
    checkpoint = read_fair(save(content))
    assert checkpoint.card.forces is None
    assert not checkpoint.config.regress_forces
    assert checkpoint.normalizers.force_std == 1.0


def test_hydra_without_force_head_predicts_energies_only(hydra, save):
    del hydra["config"]["model"]["heads"]["forces"]
    hydra["state_dict"] = {key: value for key, value in hydra["state_dict"].items() if "force_block" not in key}
    hydra["config"]["model"]["heads"]["energy"]["reduce"] = "mean"
    checkpoint = read_fair(save(hydra))
    assert checkpoint.card.forces is None
    assert checkpoint.config.energy_reduce == "mean"


def test_raw_weights_are_used_where_averages_lie_beside_them(content, save):
    average = [torch.zeros(3)]
    content["ema"] = {"decay": 0.999, "num_updates": None, "shadow_params": average, "collected_params": []}
    checkpoint = read_fair(save(content))
    key = "energy_block.fc1.weight"
    assert torch.equal(checkpoint.state[key], content["state_dict"][PREFIX + key])
    assert any("averaged (EMA)" in note for note in checkpoint.card.notes)


def test_file_without_training_command_gets_no_note(content, save):
    content["config"]["cmd"] = {}
    assert read_fair(save(content)).card.notes == ()


def test_element_references_become_float64_by_atomic_number(content, save):
    energies = torch.linspace(-2, 0, 119)
    content["elementrefs"] = {"energy": collections.OrderedDict(element_references=energies)}
    references = read_fair(save(content)).element_references
    assert references.dtype == torch.float64
    assert torch.equal(references, energies.double())


def test_normaliser_with_rmsd(content, save):
    values = collections.OrderedDict(mean=torch.tensor(-1.5), rmsd=torch.tensor([2.5]))
    content["normalizers"] = {"energy": values, "forces": {"mean": torch.tensor(0.0), "rmsd": torch.tensor(0.5)}}
    assert read_fair(save(content)).normalizers == Normalizers(-1.5, 2.5, 0.0, 0.5)


def test_missing_normalisers_come_from_the_old_configuration(content, save):
    del content["normalizers"]
    content["config"]["dataset"] |= {"target_mean": -3.0, "target_std": 4, "grad_target_std": 5.0}
    checkpoint = read_fair(save(content))
    assert checkpoint.normalizers == Normalizers(-3.0, 4.0, 0.0, 5.0)
    assert any("taken from the file's configuration" in note for note in checkpoint.card.notes)


def test_missing_normalisers_come_from_the_new_configuration(hydra, save):
    hydra["normalizers"] = {}
    transforms = {"energy": {"mean": -3.0, "stdev": 4.0}, "forces": {"mean": 0.0, "stdev": 5.0}}
    hydra["config"]["dataset"]["transforms"]["normalizer"] = transforms
    assert read_fair(save(hydra)).normalizers == Normalizers(-3.0, 4.0, 0.0, 5.0)


@pytest.mark.parametrize("dataset", [{"src": "x"}, [], {"normalize_labels": False, "target_mean": 3.0}])
def test_no_normalisers_anywhere_is_the_identity_and_is_said(content, save, dataset):
    del content["normalizers"]
    content["config"]["dataset"] = dataset
    checkpoint = read_fair(save(content))
    assert checkpoint.normalizers == Normalizers()
    assert any("no normaliser constants" in note for note in checkpoint.card.notes)


def test_harmless_types_of_users_files_are_read(content, save):
    content["val_metrics"] = {"energy_mae": np.float64(0.3), "n": np.int64(4), "f": np.float32(0.1)}
    content["config"]["cmd"]["checkpoint_dir"] = pathlib.PosixPath("/runs/x")
    content["optimizer"] = {
        "state": collections.defaultdict(dict, {0: {"step": 1}}),
        "l": collections.defaultdict(list),
    }
    assert read_fair(save(content)).config.num_layers == 2


def test_the_process_keeps_its_own_list_of_safe_types(content, save):
    before = set(torch.serialization.get_safe_globals())
    read_fair(save(content))
    assert set(torch.serialization.get_safe_globals()) == before


def test_unknown_model_gets_no_guessed_energy_kind(parity):
    card = read_fair(parity / "l2m1" / "checkpoint.pt").card
    assert card.energy_kind == "unknown"
    assert card.name == "checkpoint"
    assert card.elements is None
    assert card.notes == ("trained with code version a2f7d8552",)


@pytest.fixture
def published(monkeypatch, content):
    """The small file, made into one that the catalogue knows."""
    from dataclasses import replace

    options = {k: v for k, v in content["config"]["model_attributes"].items() if k not in ("otf_graph", "use_pbc")}
    name = "eSCN-L4-M2-Lay12-S2EF-OC20-2M"
    monkeypatch.setitem(CATALOGUE, name, replace(CATALOGUE[name], config=options))
    content["normalizers"]["target"] = {"mean": torch.tensor(OC20_ENERGIES[0]), "std": torch.tensor(OC20_ENERGIES[1])}
    content["normalizers"]["grad_target"]["std"] = torch.tensor(OC20_FORCES[1])
    return content


def test_published_constants_and_configuration_make_the_energy_kind_known(published, save):
    card = read_fair(save(published)).card
    assert (card.energy_kind, card.name, card.metrics) == ("adsorption", "model", {})
    assert card.training_data == "OC20, which part is not known"
    assert any("normaliser constants are those of eSCN-L4-M2-Lay12-S2EF-OC20-2M" in note for note in card.notes)


def test_published_file_name_besides_makes_it_the_published_model(published, save):
    card = read_fair(save(published, "escn_l4_m2_lay12_2M_s2ef.pt")).card
    assert card.name == "eSCN-L4-M2-Lay12-S2EF-OC20-2M"
    assert card.metrics["EFwT, val ID"] == "2.55 %"
    assert card.elements == OC20.elements


def test_published_constants_with_element_references_stay_unknown(published, save):
    published["elementrefs"] = {"energy": {"element_references": torch.ones(119)}}
    assert read_fair(save(published)).card.energy_kind == "unknown"


def test_published_constants_in_another_network_stay_unknown(published, save):
    published["config"]["model_attributes"]["max_neighbors"] = 13
    assert read_fair(save(published)).card.energy_kind == "unknown"


def test_a_fetched_file_with_other_constants_says_so(published, save):
    published["normalizers"]["grad_target"]["std"] = torch.tensor(1.0)
    entry = CATALOGUE["eSCN-L4-M2-Lay12-S2EF-OC20-2M"]
    card = read_fair(save(published), entry=entry).card
    assert card.name == entry.name
    assert any("differ from the documented ones" in note for note in card.notes)


def test_another_network_is_not_taken_for_the_published_one(published, save):
    published["config"]["model_attributes"]["max_neighbors"] = 13
    entry = CATALOGUE["eSCN-L4-M2-Lay12-S2EF-OC20-2M"]
    with pytest.raises(CheckpointError, match=rf"not that of the published {entry.name}: max_neighbors is 13, not \d"):
        read_fair(save(published), entry=entry)


def test_a_fetched_file_as_documented_needs_no_note(published, save):
    entry = CATALOGUE["eSCN-L4-M2-Lay12-S2EF-OC20-2M"]
    assert read_fair(save(published), entry=entry).card.notes == ("trained with code version a2f7d8552",)


def test_another_digest_than_the_recorded_one_is_refused(parity):
    with pytest.raises(CheckpointError, match=r"sha256 is [0-9a-f]{64}, recorded is 00; the file has changed"):
        read_fair(parity / "l2m1" / "checkpoint.pt", expected_sha256="00")


def test_many_threads_may_read_at_once_and_the_process_keeps_its_own_safe_types(content, save):
    """Another thread must not take the safe types away, and what others have registered does not enter."""
    content["val_metrics"] = {"forces_mae": np.float64(0.1)}
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([np.dtype, collections.defaultdict])
    content["optimizer"] = {"state": collections.defaultdict(dict, {0: {"step": 1}})}
    path = save(content)
    try:
        with ThreadPoolExecutor(4) as pool:
            states = list(pool.map(lambda _: len(read_fair(path).state), range(40)))
        assert len(set(states)) == 1
        assert {np.dtype, collections.defaultdict} <= set(torch.serialization.get_safe_globals())
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
