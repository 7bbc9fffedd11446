"""The YAML file: what it means, and that every mistake is named with file, line, key and remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from escn_calc.errors import InputError
from escn_calc.training import TrainingConfig, load_config

ROOT = Path(__file__).parents[2]

WHOLE = """\
out: runs/mine
model:
  start: default
  name: escn-ni
  forces: gradient
  add_elements: {Ni: Pd}
  freeze: ["sphere_embedding.*"]
data:
  train:
    - path: train.extxyz
      repeat: 2
    - more.traj
  validation: valid.db
  group_by: sid
  labels: {energy: dft_energy}
references: keep
loss: {energy: 2, forces: 1e2, stress: 0.5, energy_per: atom}
optimizer:
  learning_rate: 2e-3
  groups: [{match: "*embedding*", learning_rate: 1e-4}]
schedule: {epochs: 30, decay: step, step_epochs: 10, factor: 0.3}
batch: {edges: 1000}
seed: 7
card: {energy_kind: total}
"""

SCRATCH = """\
out: run
model:
  network: {lmax_list: [2], mmax_list: [1]}
data: {train: a.extxyz, validation_fraction: 0.1, group_by: sid}
schedule: {epochs: 1}
card: {energy_kind: total}
"""


@pytest.fixture
def load(tmp_path):
    def load(text: str) -> TrainingConfig:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path)

    return load


def test_all_sections(load, tmp_path):
    config = load(WHOLE)
    assert config.out == tmp_path / "runs/mine"
    assert config.model.start == "default"
    assert config.model.add_elements == {"Ni": "Pd"}
    assert [(source.path, source.index, source.repeat) for source in config.data.train] == [
        (tmp_path / "train.extxyz", ":", 2),
        (tmp_path / "more.traj", ":", 1),
    ]
    assert config.data.validation[0].path == tmp_path / "valid.db"
    assert config.loss.forces == 100.0
    assert config.optimizer.learning_rate == 0.002
    assert config.optimizer.groups[0].match == "*embedding*"
    assert config.schedule.step_epochs == 10
    assert config.precision == "float32"


def test_network_from_scratch(load):
    config = load(SCRATCH)
    assert config.model.network.lmax_list == (2,)
    assert config.model.forces is None
    assert config.references is None


def test_scalars_of_yaml_1_2(load):
    """1e-3 is a number, 0:10 is no number to the base of 60, and No is nobelium rather than false."""
    text = WHOLE.replace("{Ni: Pd}", "[No]").replace("- more.traj", "- {path: more.traj, index: 0:10}")
    config = load(text.replace("learning_rate: 2e-3", "learning_rate: 1e-3"))
    assert config.model.add_elements == {"No": None}
    assert config.data.train[1].index == "0:10"
    assert config.optimizer.learning_rate == 0.001


def test_start_beside_the_file_is_a_path_and_a_name_stays_a_name(load, tmp_path):
    (tmp_path / "mine").mkdir()
    assert load(WHOLE.replace("start: default", "start: mine")).model.start == str(tmp_path / "mine")
    (tmp_path / "default").mkdir()
    assert load(WHOLE).model.start == "default"


def test_the_example_can_be_read():
    config = load_config(ROOT / "examples/train_small.yaml")
    assert config.model.network.grids == "resolved"


def test_python_without_a_file():
    config = TrainingConfig(
        out="run",
        model={"start": "default"},
        data={"train": ["a.extxyz"], "validation": ["b.extxyz"], "group_by": "frame"},
        schedule={"epochs": 1},
    )
    assert config.out == Path("run")


MISTAKES = {
    "typo": ("optimizer:", "optimiser:", 18, r"optimiser: there is no such key; did you mean optimizer\?"),
    "typo inside": ("repeat: 2", "repeats: 2", 11, r"data\.train\[0\]\.repeats: .* did you mean repeat\?"),
    "typo in a group": ("{match:", "{mach:", 20, r"optimizer\.groups\[0\]\.mach: .* did you mean match\?"),
    "typo in the labels": ("{energy: dft", "{enrgy: dft", 15, r"data\.labels\.enrgy: .* did you mean energy\?"),
    "unlike any": ("seed: 7", "wwwww: 7", 23, r"wwwww: there is no such key; known are out, model, data"),
    "missing": ("  group_by: sid\n", "", 8, r"data\.group_by: this key is missing"),
    "text for a number": ("edges: 1000", "edges: many", 22, r'batch\.edges: found "many"; .* valid integer'),
    "text that looks like a number": ("edges: 1000", 'edges: "1000"', 22, r'batch\.edges: found "1000"'),
    "fraction for a count": ("edges: 1000", "edges: 10.5", 22, r"batch\.edges: found 10\.5; .* valid integer"),
    "true for a number": ("seed: 7", "seed: true", 23, r"seed: found true; .* valid integer"),
    "infinite": ("learning_rate: 2e-3", "learning_rate: .inf", 19, r"optimizer\.learning_rate: .*finite"),
    "negative": ("learning_rate: 2e-3", "learning_rate: -1", 19, r"found -1; .* greater than 0"),
    "choice": ("forces: gradient", "forces: both", 5, r"model\.forces: found \"both\"; .* 'direct' or 'gradient'"),
    "given twice": ("seed: 7", "seed: 7\nseed: 8", 24, r"seed: given twice, first in line 23"),
    "unknown element": ("{Ni: Pd}", "{Xy: Pd}", 6, r"'Xy' is not the symbol of an element"),
    "unknown similar element": ("{Ni: Pd}", "{Ni: P d}", 6, r"'P d' is not the symbol of an element"),
    "not an element but a dummy": ("{Ni: Pd}", "{X: Pd}", 6, r"'X' is not the symbol of an element"),
    "start and network": (
        "start: default",
        "start: default\n  network: {}",
        2,
        r"model: found both of start and network; give start to fine-tune",
    ),
    "neither start nor network": ("  start: default\n", "", 2, r"model: found neither of start and network"),
    "stress of direct forces": ("forces: gradient", "forces: direct", 17, r"loss\.stress: is above zero, but only"),
    "both validations": (
        "validation: valid.db",
        "validation: valid.db\n  validation_fraction: 0.1",
        8,
        r"data: found both of validation and validation_fraction",
    ),
    "no validation": ("  validation: valid.db\n", "", 8, r"data: found neither of validation and validation_fraction"),
    "no training data": ("  validation: valid", "  train: []\n  validation: valid", 13, r"data\.train: given twice"),
    "step without epochs": ("step_epochs: 10, ", "", 21, r"schedule: decay: step needs step_epochs"),
    "step keys of a cosine": ("decay: step", "decay: cosine", 21, r"schedule: step_epochs means nothing"),
    "nothing to learn": (
        "{energy: 2, forces: 1e2, stress: 0.5, energy_per: atom}",
        "{energy: 0, forces: 0}",
        17,
        r"loss: all weights are zero",
    ),
    "list for a section": ("{edges: 1000}", "[1000]", 22, r"batch: found \[1000\]"),
    "not YAML": ("seed: 7", "seed: [7", 24, r"this is not YAML"),
    "date": ("name: escn-ni", "name: !!timestamp 2020-01-01", 4, r"model\.name: '2020-01-01' is not plain data"),
    "code": ("name: escn-ni", "name: !!python/name:os.system x", 4, r"this is not YAML: could not determine"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(load, tmp_path, mistake):
    right, wrong, line, message = MISTAKES[mistake]
    assert right in WHOLE
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path / 'config.yaml'))}:{line}: .*{message}"):
        load(WHOLE.replace(right, wrong, 1))


SCRATCH_MISTAKES = {
    "energy kind": ("card: {energy_kind: total}\n", "", r":1: card\.energy_kind: is missing: say"),
    "typo in the network": ("{lmax_list", "{lmx_list", r":3: model\.network\.lmx_list: .* did you mean lmax_list\?"),
    "impossible network": ("mmax_list: [1]", "mmax_list: [3]", r":3: model\.network: .*lmax=2, mmax=3 violates"),
    "force head": ("[1]}", "[1], regress_forces: true}", r":3: model\.network: regress_forces follows from"),
    "kept references": ("data:", "references: keep\ndata:", r":4: references: keep needs model\.start"),
    "added elements": ("data:", "  add_elements: [Ni]\ndata:", r":2: model: add_elements extends a start"),
    "no training data": ("train: a.extxyz", "train: []", r":4: data\.train: found \[\]; .* at least 1 item"),
    "empty file": (SCRATCH, "", r"config\.yaml:1: expected keys with values"),
    "too deep": ("epochs: 1}", "epochs: " + 14 * "[" + 14 * "]" + "}", r":5: schedule.*: nested more than 12"),
    "loop": ("epochs: 1}", "epochs: &a [*a]}", r":5: schedule.*: nested more than 12"),
}


@pytest.mark.parametrize("mistake", SCRATCH_MISTAKES)
def test_mistakes_from_scratch(load, mistake):
    right, wrong, message = SCRATCH_MISTAKES[mistake]
    assert right in SCRATCH
    with pytest.raises(InputError, match=message):
        load(SCRATCH.replace(right, wrong, 1))


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"cannot read '.*none\.yaml': No such file"):
        load_config(tmp_path / "none.yaml")


def test_file_that_is_no_text(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="it is not a text in UTF-8"):
        load_config(tmp_path / "config.yaml")
