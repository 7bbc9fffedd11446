"""What training tells about its progress, and who is told."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from escn_calc.training.state import Progress


@dataclass(frozen=True)
class StepReport:
    """One step.

    Attributes
    ----------
    step : number of this step, from 1.
    epoch : epochs completed before.
    batch, batches : number of the batch in its epoch, from 1, and of all of them.
    loss : of this batch, over all ranks.
    gradient_norm : before clipping.
    learning_rate : outside groups with their own.
    skipped : whether the gradient was not finite, and nothing was changed.
    structures : with a label of their energy, over all ranks.
    seconds : spent training so far.
    """

    step: int
    epoch: int
    batch: int
    batches: int
    loss: float
    gradient_norm: float
    learning_rate: float
    skipped: bool
    structures: int
    seconds: float


@dataclass(frozen=True, eq=False)
class ValidationReport:
    """One validation.

    Attributes
    ----------
    step, epoch : steps taken and epochs completed.
    seconds : spent training so far.
    train : figures of the batches since the last validation, each with the weights of its step.
    validation : figures of the averaged weights on the validation data (:func:`escn_calc.training.figures.figures`).
    learning_rate : at the next step.
    improved : whether the loss is lower than in all validations before.
    weights : the averaged state of the network, on the CPU.
    """

    step: int
    epoch: int
    seconds: float
    train: dict[str, float]
    validation: dict[str, float]
    learning_rate: float
    improved: bool
    weights: dict[str, Tensor]


class Callback:
    """What is told about the progress, on the first rank only; override what you need."""

    def on_start(self, progress: Progress, batches: int) -> None:
        """Training starts or resumes at ``progress``; the epoch has ``batches`` batches."""

    def on_step(self, report: StepReport) -> None:
        """A step was taken."""

    def on_validation(self, report: ValidationReport) -> None:
        """A validation was made; the state is saved afterwards, so that a callback may see one twice after a kill."""
