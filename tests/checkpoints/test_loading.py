"""``load_checkpoint``: which string means which model."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import escn_calc.checkpoints as checkpoints
from escn_calc.checkpoints import load_checkpoint, read_fair, shipped_models, write_native
from escn_calc.checkpoints.card import network_size
from escn_calc.checkpoints.catalogue import CATALOGUE
from escn_calc.checkpoints.checksum import file_sha256
from escn_calc.errors import CheckpointError, DownloadError, InputError


@pytest.fixture
def fair_file(parity):
    return parity / "l2m1" / "checkpoint.pt"


@pytest.fixture
def published(monkeypatch, fair_file):
    """A published name whose entry has the shape of the small file."""
    name = "eSCN-S2EF-ODAC"
    monkeypatch.setitem(CATALOGUE, name, replace(CATALOGUE[name], config=asdict(read_fair(fair_file).config)))
    return name


@pytest.fixture
def shipped(monkeypatch, tmp_path, fair_file):
    """Two shipped models in a folder of their own."""
    for name in ("escn-small-fcc", "other"):
        write_native(read_fair(fair_file), tmp_path / "pretrained" / name)
    (tmp_path / "escn_calc" / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(checkpoints, "__file__", str(tmp_path / "escn_calc" / "checkpoints" / "__init__.py"))
    return tmp_path / "pretrained"


def test_shipped_models_are_found_by_name(shipped):
    assert shipped_models() == {name: shipped / name for name in ("escn-small-fcc", "other")}
    assert load_checkpoint("default").config == load_checkpoint("other").config


def test_models_inside_the_installed_package_come_first(shipped, fair_file):
    packaged = shipped.parent / "escn_calc" / "_pretrained" / "wheel"
    write_native(read_fair(fair_file), packaged)
    assert shipped_models() == {"wheel": packaged}
    with pytest.raises(InputError, match="'escn-small-fcc' did not come with this installation"):
        load_checkpoint("default")


def test_no_shipped_models_at_all(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "__file__", str(tmp_path / "a" / "b" / "__init__.py"))
    assert shipped_models() == {}


@pytest.mark.parametrize("as_string", [True, False])
def test_paths(shipped, fair_file, as_string, monkeypatch):
    kind = str if as_string else Path
    config = read_fair(fair_file).config
    assert load_checkpoint(kind(fair_file)).config == config
    assert load_checkpoint(kind(shipped / "other")).config == config
    assert load_checkpoint(kind(shipped / "other" / "model.safetensors")).config == config
    monkeypatch.chdir(shipped / "other")
    assert load_checkpoint("model.safetensors").config == config


def test_home_folder_is_expanded(shipped, monkeypatch):
    monkeypatch.setenv("HOME", str(shipped))
    assert load_checkpoint("~/other").config.num_layers == 2


@pytest.mark.parametrize("name", ["models/x", "x.pt", "./x", "~/x", "a\\b", Path("x")])
def test_a_path_that_is_not_there(name):
    with pytest.raises(InputError, match="there is no file or folder"):
        load_checkpoint(name)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("defualt", r"there is no model 'defualt'; did you mean default\?"),
        ("eSCN-ODAC", "did you mean eSCN-S2EF-ODAC"),
        ("escn-small-fc", "did you mean escn-small-fcc"),
    ],
)
def test_unknown_names(shipped, name, match):
    with pytest.raises(InputError, match=match):
        load_checkpoint(name)


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name(name):
    with pytest.raises(InputError, match="the model name is empty"):
        load_checkpoint(name)


def test_catalogue_names_mean_the_cached_file(tmp_path, fair_file, published):
    (tmp_path / f"{published}.pt").write_bytes(fair_file.read_bytes())
    checkpoint = load_checkpoint(published.upper(), cache_dir=tmp_path, offline=True)
    assert checkpoint.card.name == published
    assert checkpoint.card.energy_kind == "adsorption"


def test_a_cached_file_that_changed_is_refused_before_it_is_opened(tmp_path, fair_file, parity, published):
    (tmp_path / f"{published}.pt").write_bytes(fair_file.read_bytes())
    load_checkpoint(published, cache_dir=tmp_path, offline=True)
    (tmp_path / f"{published}.pt").write_bytes((parity / "l4m2" / "checkpoint.pt").read_bytes())
    with pytest.raises(CheckpointError, match="the file has changed"):
        load_checkpoint(published, cache_dir=tmp_path, offline=True)


def test_a_file_of_another_network_under_a_published_name_is_refused_and_not_recorded(tmp_path, fair_file):
    (tmp_path / "eSCN-S2EF-ODAC.pt").write_bytes(fair_file.read_bytes())
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"the published eSCN-S2EF-ODAC: lmax_list is \(2,\), not \(6,\)"):
            load_checkpoint("eSCN-S2EF-ODAC", cache_dir=tmp_path, offline=True)
    assert not (tmp_path / "checksums.json").exists()


def test_a_file_of_another_network_is_refused_although_its_checksum_is_recorded(tmp_path, fair_file):
    (tmp_path / "eSCN-S2EF-ODAC.pt").write_bytes(fair_file.read_bytes())
    (tmp_path / "checksums.json").write_text(json.dumps({"eSCN-S2EF-ODAC.pt": file_sha256(fair_file)}))
    with pytest.raises(CheckpointError, match="not that of the published eSCN-S2EF-ODAC"):
        load_checkpoint("eSCN-S2EF-ODAC", cache_dir=tmp_path, offline=True)


def test_catalogue_name_offline_and_not_cached(tmp_path):
    with pytest.raises(DownloadError, match="is not in the cache and offline mode is on"):
        load_checkpoint("eSCN-S2EF-ODAC", cache_dir=tmp_path, offline=True)


def test_names_of_the_package():
    assert checkpoints.read_fair is read_fair
    assert checkpoints.ModelCard.__name__ == "ModelCard"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = checkpoints.nonsense


@pytest.mark.parametrize("module", ["escn_calc.checkpoints", "escn_calc.checkpoints.download", "escn_calc.cli.models"])
def test_the_catalogue_needs_no_torch(module):
    code = (
        f"import sys, {module}; from escn_calc.checkpoints import shipped_models; shipped_models(); "
        "assert not {'torch', 'safetensors', 'pymatgen', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_published_network_shapes_match_the_catalogue_sizes():
    sizes = {network_size(entry.config) for entry in CATALOGUE.values()}
    assert sizes == {"lmax 4, mmax 2, 12 layers", "lmax 6, mmax 2, 12 layers", "lmax 6, mmax 3, 20 layers"}
