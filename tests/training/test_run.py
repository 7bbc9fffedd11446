"""Whole runs on a tiny network: it learns, goes on exactly after kills, and gives a model that a calculator can use."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read
from safetensors.torch import load_file

from escn_calc import ESCNCalculator
from escn_calc.checkpoints import load_checkpoint, read_native
from escn_calc.errors import InputError
from escn_calc.training import TrainingResult, load_config, train
from escn_calc.training.callbacks import Callback, StepReport
from escn_calc.training.log import read_log
from tests.training.tiny import NETWORK, slab, write_config, write_data

ROOT = Path(__file__).parents[2]
MODELS = ("best", "last")

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def run(folder: Path, overwrite: bool = False, callbacks=(), **changes) -> TrainingResult:
    return train(load_config(write_config(folder, **changes)), overwrite=overwrite, callbacks=callbacks)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a few epochs that nothing has disturbed, and where it is."""
    folder = tmp_path_factory.mktemp("finished")
    write_data(folder)
    return run(folder), folder


def test_results_are_all_there(finished):
    result, folder = finished
    assert result.finished and result.epochs == 3 and result.signal is None
    names = {path.name for path in (folder / "run").iterdir()} - {"tensorboard"}
    assert names == {"best", "last", "state", "log.csv", "curves.png", "record.json"}
    rows = read_log(result.files.log)
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert rows[-1].step == result.steps
    assert min(row.validation_loss for row in rows) == pytest.approx(result.metrics["validation loss"], rel=1e-5)


def test_record_says_what_was_run(finished):
    result, folder = finished
    record = json.loads(result.files.record.read_text())
    assert record["config"]["model"]["name"] == "tiny"
    assert record["data"]["sha256"] == {str(folder / "data.extxyz"): load_sha(folder / "data.extxyz")}
    assert record["data"]["training groups"] + record["data"]["validation groups"] == 4
    assert record["start"] is None
    assert record["result"]["reason"] == "finished"
    assert [process["threads"] for process in record["processes"]] == [torch.get_num_threads()]
    assert record["processes"][0]["versions"]["torch"] == torch.__version__


def load_sha(path: Path) -> str:
    from escn_calc.checkpoints.checksum import file_sha256

    return file_sha256(path)


def validation_frames(result: TrainingResult) -> list:
    """The structures that were held back: those of the groups that the record does not count for training."""
    config = load_config(result.files.folder.parent / "config.yaml")
    from escn_calc.training.data import read_data

    origins = [frame.origin.rsplit("@", 1)[1] for frame in read_data(config).validation]
    frames = read(result.files.folder.parent / "data.extxyz", ":")
    return [frames[int(number)] for number in origins]


def errors(calculator: ESCNCalculator, frames: list) -> tuple[float, float]:
    """Energy MAE in eV/atom and force MAE in eV/Å on free atoms, by the calculator."""
    energies, forces = [], []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        energies.append(abs(atoms.get_potential_energy() - frame.get_potential_energy()) / len(atoms))
        wanted = frame.calc.results["forces"]
        free = np.setdiff1d(np.arange(len(atoms)), atoms.constraints[0].index)
        forces.append(np.abs(atoms.get_forces(apply_constraint=False) - wanted)[free])
    return float(np.mean(energies)), float(np.mean(np.concatenate(forces)))


def check_card_against_calculator(result: TrainingResult) -> None:
    energy, force = errors(ESCNCalculator(str(result.files.best), device="cpu"), validation_frames(result))
    assert energy == pytest.approx(result.metrics["validation energy MAE, eV/atom"], rel=1e-4)
    assert force == pytest.approx(result.metrics["validation force MAE, eV/Å"], rel=1e-4)


def test_calculator_has_the_errors_of_the_card(finished):
    result, _ = finished
    check_card_against_calculator(result)


def test_card(finished):
    result, folder = finished
    card = read_native(result.files.best).card
    assert card.name == "tiny"
    assert card.elements == ("H", "O", "Cu", "Pd")
    assert (card.energy_kind, card.energy_reference) == ("total", "EMT")
    assert card.forces == "gradient" and card.refuse_unseen_elements
    assert card.training_data == "30 structures in 3 groups from data.extxyz"
    notes = "\n".join(card.notes)
    assert f"data data.extxyz: sha256 {load_sha(folder / 'data.extxyz')}" in notes
    assert str(folder) not in notes
    assert f"torch {torch.__version__}" in notes
    assert card.metrics["relative change under rolls of the edge frames that converged frames leave"] < 1e-6


def test_run_that_is_finished_stays_as_it_is(finished):
    result, folder = finished
    before = {name: data for name, data in contents(folder / "run").items() if name != "record.json"}
    again = run(folder)
    assert (again.finished, again.steps, again.metrics) == (True, result.steps, result.metrics)
    after = contents(folder / "run")
    assert all(after[name] == data for name, data in before.items() if name != "curves.png")
    assert len(json.loads(after["record.json"])["processes"]) == 2


def killed(folder: Path, moment: str, number: int) -> None:
    """Train in a process that is killed with SIGKILL."""
    command = [sys.executable, "-m", "tests.training.tiny", str(folder / "config.yaml"), moment, str(number)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_resume_after_kills_is_exact(finished, tmp_path):
    """Killed in the middle of an epoch, and between the models of a validation and the state after it."""
    _, whole = finished
    write_data(tmp_path)
    write_config(tmp_path, save_every_minutes=1e-9)
    killed(tmp_path, "step", 3)
    assert (tmp_path / "run/state/state.json").exists()
    killed(tmp_path, "validation", 2)
    assert len(read_log(tmp_path / "run/log.csv")) == 2
    assert run(tmp_path, save_every_minutes=1e-9).finished
    for name in MODELS:
        expected, found = (load_file(folder / "run" / name / "model.safetensors") for folder in (whole, tmp_path))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    rows = [
        [(row.step, row.train_loss, row.validation_loss) for row in read_log(folder / "run/log.csv")]
        for folder in (whole, tmp_path)
    ]
    assert rows[0] == rows[1]
    assert len(json.loads((tmp_path / "run/record.json").read_text())["processes"]) == 3


@pytest.mark.parametrize(
    ("forces", "rate", "epochs"),
    [("gradient", 2e-2, 50), pytest.param("direct", 1e-2, 20, marks=pytest.mark.slow)],
    ids=["gradient", "direct"],
)
def test_loss_falls(tmp_path, record_figure, forces, rate, epochs):
    write_data(tmp_path)
    result = run(
        tmp_path,
        model={"forces": forces},
        data={"group_by": "number"},
        optimizer={"learning_rate": rate, "ema": 0.8},
        schedule={"epochs": epochs},
        batch={"edges": 250},
    )
    rows = read_log(result.files.log)
    trained, validated = (
        getattr(rows[0], name) / getattr(rows[-1], name) for name in ("train_loss", "validation_loss")
    )
    words = f"{trained:.1f} (training), {validated:.1f} (validation) in {result.seconds:.0f} s"
    record_figure(f"loss of a tiny model with {forces} forces, first epoch over last", words)
    assert trained > 2
    assert validated > 1.3
    check_card_against_calculator(result)


def write_files(folder: Path, train_frames: list, validation_frames: list) -> dict:
    from ase.io import write

    write(folder / "train.extxyz", train_frames)
    write(folder / "valid.extxyz", validation_frames)
    return {"train": "train.extxyz", "validation": "valid.extxyz", "validation_fraction": None}


def test_leakage_between_groups_is_refused(tmp_path):
    frames = [slab("Cu", "H", seed) for seed in range(3)]
    data = write_files(tmp_path, frames[:2], frames[2:])
    with pytest.raises(InputError, match=r"1 group\(s\) are both in training and in validation: Cu-H"):
        run(tmp_path, data=data)
    assert not (tmp_path / "run").exists()


def test_same_structure_under_another_group_is_refused(tmp_path):
    frames = [slab("Cu", "H", seed) for seed in (0, 1, 0)]
    frames[2].info["sid"] = "another"
    data = write_files(tmp_path, frames[:2], frames[2:])
    with pytest.raises(InputError, match="have the very structure of a training frame, under another group"):
        run(tmp_path, data=data)


REFUSED = {
    "no file": ({"data": {"train": "none.extxyz"}}, r"data file .*none\.extxyz does not exist"),
    "no such label": ({"data": {"labels": {"energy": "dft"}}}, r"data\.extxyz@0: no entry 'dft' for the energy"),
    "nothing frozen": ({"model": {"freeze": ["none.*"]}}, r"none\.\*.*matches"),
    "all frozen": ({"model": {"freeze": ["*"]}}, "frozen"),
    "group matches nothing": (
        {"optimizer": {"groups": [{"match": "none", "learning_rate": 1e-3}]}},
        "the group 'none' of the optimiser matches no weight",
    ),
    "too small a table": (
        {"model": {"network": {"max_num_elements": 20}}},
        r"the training data hold Pd, atomic number 46, but model\.network\.max_num_elements is 20",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_a_file_is_written(finished, tmp_path, case):
    changes, message = REFUSED[case]
    (tmp_path / "data.extxyz").write_bytes((finished[1] / "data.extxyz").read_bytes())
    if "network" in changes.get("model", {}):
        changes = {"model": {"network": {**NETWORK, **changes["model"]["network"]}}}
    with pytest.raises(InputError, match=message):
        run(tmp_path, **changes)
    assert {path.name for path in tmp_path.iterdir()} == {"data.extxyz", "config.yaml"}


def test_refitted_references_do_not_judge_elements_without_one(tmp_path):
    """The start knows oxygen, but its reference would be zero after a fit to data without any."""
    data = write_files(tmp_path, [slab("Cu", "H", 0), slab("Pd", "H", 1)], [slab("Cu", "O", 2)])
    changes = {**FINE_TUNING, "model": {"network": None, "start": "default"}, "references": "fit"}
    with pytest.raises(InputError, match=r"valid\.extxyz@0 holds O, which no training structure holds"):
        run(tmp_path, data=data, **changes)
    assert not (tmp_path / "run").exists()


def test_state_of_more_processes_is_not_gone_on_from(finished, tmp_path):
    """Their batches are others: a place in the epoch would mean something else."""
    _, folder = finished
    for name, data in contents(folder).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    path = tmp_path / "run/state/state.json"
    state = json.loads(path.read_text())
    state["identity"]["processes"]["number"] = 4
    path.write_text(json.dumps(state))
    write_config(tmp_path)
    with pytest.raises(InputError, match=r"processes number: 4 there, 1 here"):
        run(tmp_path)


def test_labels_that_the_loss_wants(tmp_path):
    frames = [slab("Cu", adsorbate, 0) for adsorbate in ("H", "O")]
    for frame in frames:
        del frame.calc.results["stress"]
    data = write_files(tmp_path, frames[:1], frames[1:])
    with pytest.raises(InputError, match=r"no training structure has stresses .* but loss\.stress is above zero"):
        run(tmp_path, data=data, loss={"stress": 1})


def test_other_settings_do_not_go_on_and_overwrite_begins_again(finished, tmp_path):
    _, folder = finished
    for name, data in contents(folder).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "run/mine.txt").write_text("mine")
    before = contents(tmp_path / "run")
    with pytest.raises(
        InputError, match=r"belongs to another run \(.*settings optimizer\.learning_rate: 0\.01 there, 0\.02"
    ):
        run(tmp_path, optimizer={"learning_rate": 2e-2})
    assert contents(tmp_path / "run") == before
    result = run(tmp_path, overwrite=True, optimizer={"learning_rate": 2e-2}, schedule={"epochs": 1})
    assert result.epochs == 1
    assert len(read_log(result.files.log)) == 1
    assert (tmp_path / "run/mine.txt").read_text() == "mine"


def test_model_without_a_state_is_not_replaced(finished, tmp_path):
    result, folder = finished
    (tmp_path / "data.extxyz").write_bytes((folder / "data.extxyz").read_bytes())
    (tmp_path / "run/best").mkdir(parents=True)
    (tmp_path / "run/best/card.json").write_bytes((result.files.best / "card.json").read_bytes())
    with pytest.raises(InputError, match=r"run/best holds a model, but .*run/state no state to go on from"):
        run(tmp_path)
    (tmp_path / "run/best/card.json").rename(tmp_path / "run/best/mine.json")
    with pytest.raises(InputError, match=r"run/best was not written by a training run; it is not overwritten"):
        run(tmp_path, overwrite=True)
    assert (tmp_path / "run/best/mine.json").exists()


class Interrupt(Callback):
    """Asks this process to stop, in the step of some number."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, report: StepReport) -> None:
        if report.step == self.step:
            signal.raise_signal(signal.SIGINT)


def test_interrupt_keeps_the_state_and_goes_on_exactly(finished, tmp_path):
    result, whole = finished
    write_data(tmp_path)
    stopped = run(tmp_path, callbacks=[Interrupt(2)])
    assert not stopped.finished and stopped.signal == signal.SIGINT
    assert json.loads(stopped.files.record.read_text())["result"]["reason"] == "interrupted"
    assert run(tmp_path).steps == result.steps
    expected, found = (load_file(folder / "run/last/model.safetensors") for folder in (whole, tmp_path))
    assert all(torch.equal(expected[key], found[key]) for key in expected)


FINE_TUNING = {
    "model": {"network": None, "start": "default", "add_elements": {"Ni": "Pd"}, "freeze": ["layer_blocks.0.*"]},
    "optimizer": {"learning_rate": 1e-3},
    "schedule": {"epochs": 1, "warm_up_steps": 0},
    "card": {"energy_kind": None, "energy_reference": None},
}


def test_fine_tuning_with_a_new_element(tmp_path):
    write_data(tmp_path, ("Ni-H", "Ni-O", "Pd-H"), copies=3)
    result = run(tmp_path, **FINE_TUNING)
    before, after = load_checkpoint("default"), read_native(result.files.best)
    changed = {name for name, weight in after.state.items() if not same_known_rows(name, weight, before)}
    assert changed and not any(name.startswith("layer_blocks.0.") for name in changed)
    assert any(name.startswith("layer_blocks.1.") for name in changed)
    references = [checkpoint.element_references.clone() for checkpoint in (before, after)]
    assert references[1][28] != 0
    references[0][28] = references[1][28]
    assert torch.equal(*references)
    assert after.normalizers == before.normalizers
    assert set(after.card.elements) == {*before.card.elements, "Ni"}
    assert after.card.energy_kind == before.card.energy_kind
    assert after.card.training_data.startswith("fine-tuned on ")
    assert f"start: {before.card.name}, sha256 {before.card.sha256}" in after.card.notes
    assert "elements added to the start: Ni (begun as Pd)" in after.card.notes
    check_card_against_calculator(result)


def same_known_rows(name: str, weight: torch.Tensor, before) -> bool:
    """Whether a weight is what it was, the embedding of nickel aside."""
    old = before.state[name].clone()
    if name.endswith("_embedding.weight") and not name.startswith("sphere"):
        old[28] = weight[28]
    return torch.equal(weight, old)


def test_fine_tuning_onto_other_energies(tmp_path):
    write_data(tmp_path, ("Pd-H", "Pd-O", "Cu-H"), copies=3)
    changes = {**FINE_TUNING, "model": {"network": None, "start": "default"}}
    with pytest.raises(
        InputError, match=r"card\.energy_kind is adsorption, but model \S+ has total energies and keeps"
    ):
        run(tmp_path, **{**changes, "card": {"energy_kind": "adsorption"}})
    result = run(tmp_path, **{**changes, "references": "fit", "card": {"energy_kind": "adsorption"}})
    card = read_native(result.files.best).card
    assert card.energy_kind == "adsorption"
    assert set(card.elements) <= {"H", "O", "Cu", "Pd"}
    check_card_against_calculator(result)
