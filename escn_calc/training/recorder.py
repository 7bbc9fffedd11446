"""What a run leaves behind while it goes on: table, curves, models and record."""

from __future__ import annotations

import math
import time
from typing import Any

from escn_calc.checkpoints import write_native
from escn_calc.training.callbacks import Callback, ValidationReport
from escn_calc.training.cards import Provenance, trained_checkpoint, write_with_roll
from escn_calc.training.files import RunFiles
from escn_calc.training.log import LogRow, Scalars, TrainingLog, plot_curves
from escn_calc.training.loop import FitResult
from escn_calc.training.start import Start
from escn_calc.training.state import Progress

SECONDS_BETWEEN_CURVES = 30.0


class Recorder(Callback):
    """Writes the results of a run; used on the first process alone.

    Parameters
    ----------
    files : where to write.
    start : what is trained, with its constants.
    provenance : for the cards.
    record : what is run, as values that JSON can hold.
    """

    def __init__(self, files: RunFiles, start: Start, provenance: Provenance, record: dict[str, Any]) -> None:
        self._files, self._start, self._provenance, self._record = files, start, provenance, record

    def on_start(self, progress: Progress, batches: int) -> None:
        """Write the record, and open the table where the run has come to."""
        self._files.write_record({**self._record, "result": {"reason": "running"}})
        self._log = TrainingLog(self._files.log, progress.validated)
        self._scalars = Scalars(self._files.scalars, progress.step)
        self._drawn = -math.inf

    def on_validation(self, report: ValidationReport) -> None:
        """Write a row and the models."""
        row = log_row(report)
        self._log.append(row)
        self._scalars.add(row)
        checkpoint = trained_checkpoint(self._start, report.weights, self._provenance, report.validation, report.epoch)
        write_native(checkpoint, self._files.last, overwrite=True)
        if report.improved:
            write_native(checkpoint, self._files.best, overwrite=True)
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_CURVES:
            self._draw()

    def finish(self, fitted: FitResult) -> None:
        """Complete the cards of a finished run, and write how it ended."""
        self._scalars.close()
        if self._log.rows:
            self._draw()
        if fitted.finished:
            for folder in (self._files.best, self._files.last):
                write_with_roll(folder)
        progress = fitted.progress
        result = {
            "reason": "finished" if fitted.finished else "interrupted",
            "steps": progress.step,
            "epochs": progress.epoch,
            "training_s": progress.seconds,
        }
        self._files.write_record({**self._record, "result": result})

    def _draw(self) -> None:
        plot_curves(self._log.rows, self._provenance.name, self._files.curves)
        self._drawn = time.monotonic()


def log_row(report: ValidationReport) -> LogRow:
    """Return a validation as a row of the table."""
    train, validation = report.train, report.validation
    return LogRow(
        step=report.step,
        epoch=report.epoch,
        seconds=round(report.seconds, 3),
        learning_rate=report.learning_rate,
        train_loss=train.get("loss"),
        train_energy_mae_eV_per_atom=train.get("energy_mae_per_atom"),
        train_force_mae_eV_per_A=train.get("force_mae"),
        validation_loss=validation.get("loss"),
        validation_energy_mae_eV_per_atom=validation.get("energy_mae_per_atom"),
        validation_force_mae_eV_per_A=validation.get("force_mae"),
        validation_stress_mae_eV_per_A3=validation.get("stress_mae"),
    )
