"""The table of a run survives kills, and the curves can be drawn from any of its states."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
from matplotlib.image import imread

from escn_calc.errors import InputError
from escn_calc.training.log import COLUMNS, LogRow, Scalars, TrainingLog, plot_curves, read_log


def row(epoch: int, loss: float = 1.0) -> LogRow:
    return LogRow(
        step=10 * epoch,
        epoch=epoch,
        seconds=1.5 * epoch,
        learning_rate=1e-3,
        train_loss=2 * loss,
        train_energy_mae_eV_per_atom=0.1,
        train_force_mae_eV_per_A=1 / 3,
        validation_loss=loss,
        validation_energy_mae_eV_per_atom=None,
        validation_force_mae_eV_per_A=0.3,
        validation_stress_mae_eV_per_A3=None,
    )


def test_rows_are_there_at_once_with_all_their_bits(tmp_path):
    log = TrainingLog(tmp_path / "log.csv", 0)
    for epoch in (1, 2):
        log.append(row(epoch))
        assert read_log(tmp_path / "log.csv") == log.rows == [row(number) for number in range(1, epoch + 1)]


def test_first_line_names_columns_with_units(tmp_path):
    TrainingLog(tmp_path / "log.csv", 0)
    head = (tmp_path / "log.csv").read_text().strip()
    assert head == ",".join(COLUMNS)
    assert "validation_force_mae_eV_per_A" in head and "validation_energy_mae_eV_per_atom" in head


def test_rows_of_a_future_that_did_not_happen_are_removed(tmp_path):
    log = TrainingLog(tmp_path / "log.csv", 0)
    for epoch in (1, 2, 3):
        log.append(row(epoch))
    resumed = TrainingLog(tmp_path / "log.csv", 2)
    assert read_log(tmp_path / "log.csv") == resumed.rows == [row(1), row(2)]
    resumed.append(row(3, loss=5.0))
    assert read_log(tmp_path / "log.csv") == [row(1), row(2), row(3, loss=5.0)]


def test_line_that_a_kill_cut_off_is_left_out(tmp_path):
    log = TrainingLog(tmp_path / "log.csv", 0)
    log.append(row(1))
    with log.path.open("a") as file:
        file.write("20,2,3.0,0.0")
    assert TrainingLog(log.path, 9).rows == [row(1)]
    assert log.path.read_text().endswith("\n")


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", "", ",".join(COLUMNS) + "\n1,2,3\n", ",".join(COLUMNS) + "\n" + 11 * "x,"]
)
def test_another_file_is_refused_and_stays(tmp_path, text):
    path = tmp_path / "log.csv"
    path.write_text(text + "\n" if text.endswith(",") else text)
    before = path.read_bytes()
    with pytest.raises(InputError, match="is not the log of a training run"):
        TrainingLog(path, 0)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "rows",
    [
        [row(1)],
        [row(epoch, 1 / epoch) for epoch in range(1, 80)],
        [replace(row(1), train_loss=None, validation_loss=None, validation_force_mae_eV_per_A=0.0)],
        [replace(row(2), validation_stress_mae_eV_per_A3=0.1)],
    ],
    ids=["one", "many", "hardly any values", "stress"],
)
def test_curves(tmp_path, rows):
    plot_curves(rows, "a model", tmp_path / "curves.png")
    image = imread(tmp_path / "curves.png")
    assert image.shape[1] == 1020 and image.shape[0] > 500
    assert len({tuple(pixel) for pixel in image.reshape(-1, image.shape[2])}) > 10
    assert list(tmp_path.iterdir()) == [tmp_path / "curves.png"]


def test_curves_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        plot_curves([row(1)], "a model", tmp_path / "nowhere" / "curves.png")


def test_tensorboard_is_used_where_it_is_installed(tmp_path):
    scalars = Scalars(tmp_path / "tensorboard", 0)
    scalars.add(row(1))
    scalars.close()
    assert (tmp_path / "tensorboard").exists() == (find_spec("tensorboard") is not None)
