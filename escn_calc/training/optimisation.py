"""AdamW with groups of weights, the learning rate as a function of progress, clipping, and averaged weights.

The published models were trained with AdamW's variant AMSGrad (Reddi, Kale & Kumar 2018, arXiv 1904.09237): steps are
scaled by the largest gradients so far, not by recent ones.

Decay acts on the matrices of linear maps only. Biases are left out as usual (fairchem does so for its networks that
list them). Embeddings are left out because decay would act on the rows of elements that the data lack as well: what a
checkpoint knows about them would fade without any data saying so.

Averaged weights follow theta_avg <- theta_avg + (1 - d) (theta - theta_avg) after every step, with d = min(decay,
(1 + n) / (10 + n)) after n steps, so that the beginning is soon forgotten (the rule of TensorFlow's
ExponentialMovingAverage, also used by fairchem's torch_ema).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from escn_calc.errors import CalculationError, InputError

MOST_SKIPPED = 10
"""Steps without a finite gradient in a row after which training has failed."""


@dataclass(frozen=True)
class ParameterGroup:
    """Weights with a learning rate of their own: ``match`` is a pattern of names with *, ? and [...]."""

    match: str
    learning_rate: float


@dataclass(frozen=True)
class OptimiserSettings:
    """Settings of :class:`Optimisation`.

    Attributes
    ----------
    learning_rate : largest one, of all weights outside the groups.
    weight_decay : of AdamW.
    groups : the first that matches a name decides.
    clip : largest norm of the gradient of all weights together; None for no limit.
    ema : decay of the averaged weights, below 1; None for none.
    """

    learning_rate: float
    weight_decay: float = 0.0
    groups: tuple[ParameterGroup, ...] = ()
    clip: float | None = 10.0
    ema: float | None = 0.999

    def __post_init__(self) -> None:
        for name, rate in [("learning_rate", self.learning_rate)] + [
            (f"learning_rate of {group.match!r}", group.learning_rate) for group in self.groups
        ]:
            if not 0.0 < rate < math.inf:
                raise InputError(f"{name} is {rate}: it must be positive and finite (freeze weights to keep them)")
        if not 0.0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay is {self.weight_decay}: it must be at least 0 and finite")
        if self.clip is not None and not 0.0 < self.clip < math.inf:
            raise InputError(f"clip is {self.clip}: it must be positive and finite, or None")
        if self.ema is not None and not 0.0 <= self.ema < 1.0:
            raise InputError(f"ema is {self.ema}: it must be at least 0 and below 1, or None")


@dataclass(frozen=True)
class Schedule:
    """The share of the largest learning rate that is used; a pure function of the progress.

    Attributes
    ----------
    epochs : all of the training.
    warm_up_steps : steps over which the rate grows in proportion to their number.
    decay : "cosine" falls over all epochs from 1 to ``final``; "step" multiplies by ``factor`` every ``step_epochs``
        epochs, down to ``final``.
    final : smallest share.
    """

    epochs: int
    warm_up_steps: int = 0
    decay: Literal["cosine", "step"] = "cosine"
    final: float = 0.01
    step_epochs: float = 1.0
    factor: float = 0.5

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"epochs is {self.epochs}: it must be at least 1")
        if self.warm_up_steps < 0:
            raise InputError(f"warm_up_steps is {self.warm_up_steps}: it must be at least 0")
        if self.decay not in get_args(Literal["cosine", "step"]):
            raise InputError(f"decay is {self.decay!r}: it must be 'cosine' or 'step'")
        if not 0.0 <= self.final <= 1.0:
            raise InputError(f"final is {self.final}: it must be a share between 0 and 1")
        if not 0.0 < self.factor <= 1.0:
            raise InputError(f"factor is {self.factor}: it must be above 0 and at most 1")
        if not self.step_epochs > 0.0:
            raise InputError(f"step_epochs is {self.step_epochs}: it must be positive")

    def rate_at(self, step: int, epochs_done: float) -> float:
        """Return the share for step ``step`` (from 0) after ``epochs_done`` epochs, a fraction included."""
        warm_up = min(1.0, (step + 1) / self.warm_up_steps) if self.warm_up_steps else 1.0
        if self.decay == "step":
            return warm_up * max(self.final, self.factor ** math.floor(epochs_done / self.step_epochs))
        cosine = 0.5 * (1 + math.cos(math.pi * min(epochs_done / self.epochs, 1.0)))
        return warm_up * (self.final + (1 - self.final) * cosine)


@dataclass(frozen=True)
class StepOutcome:
    """Of one step: the norm of the gradient before clipping, the learning rate, and whether nothing was changed."""

    gradient_norm: float
    learning_rate: float
    skipped: bool


class Optimisation:
    """Changes the weights of a network that require a gradient.

    Parameters
    ----------
    network : its weights are changed in place.
    settings, schedule : how.

    Raises
    ------
    InputError
        A group matches no weight, or no weight requires a gradient.
    """

    def __init__(self, network: nn.Module, settings: OptimiserSettings, schedule: Schedule) -> None:
        self.network, self.settings, self.schedule = network, settings, schedule
        self._weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        self._undecayed = undecayed_names(network)
        groups = self._groups()
        self._peaks = [group["lr"] for group in groups]
        self._adam = torch.optim.AdamW(groups, lr=settings.learning_rate, amsgrad=True)
        self._average = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._averaged_steps = 0
        self._skipped_in_a_row = 0

    def _groups(self) -> list[dict[str, Any]]:
        """AdamW's groups: weights of equal learning rate and decay."""
        if not self._weights:
            raise InputError("no weight is left to train: all of them are frozen")
        for group in self.settings.groups:
            if not any(fnmatchcase(name, group.match) for name in self._weights):
                raise InputError(f"the group {group.match!r} of the optimiser matches no weight that is trained")
        members: dict[tuple[float, float], list[Tensor]] = {}
        for name, weight in self._weights.items():
            decay = 0.0 if name in self._undecayed else self.settings.weight_decay
            members.setdefault((self._peak(name), decay), []).append(weight)
        return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in members.items()]

    def _peak(self, name: str) -> float:
        rates = (group.learning_rate for group in self.settings.groups if fnmatchcase(name, group.match))
        return next(rates, self.settings.learning_rate)

    def clear_gradients(self) -> None:
        """Forget the gradients of the last step."""
        self._adam.zero_grad(set_to_none=True)

    def step(self, step: int, epochs_done: float) -> StepOutcome:
        """Change the weights along their gradients.

        A gradient that is not finite changes nothing.

        Parameters
        ----------
        step, epochs_done : the progress before this step, see :meth:`Schedule.rate_at`.

        Raises
        ------
        CalculationError
            The gradient was not finite for the tenth time in a row.
        """
        share = self.schedule.rate_at(step, epochs_done)
        for group, peak in zip(self._adam.param_groups, self._peaks, strict=True):
            group["lr"] = share * peak
        limit = math.inf if self.settings.clip is None else self.settings.clip
        norm = nn.utils.get_total_norm([weight.grad for weight in self._weights.values() if weight.grad is not None])
        outcome = StepOutcome(float(norm), share * self.settings.learning_rate, not bool(norm.isfinite()))
        if outcome.skipped:
            self._skip(step)
            return outcome
        nn.utils.clip_grads_with_norm_(self._weights.values(), limit, norm)
        self._adam.step()
        self._skipped_in_a_row = 0
        self._follow()
        return outcome

    def _skip(self, step: int) -> None:
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MOST_SKIPPED:
            raise CalculationError(
                f"training failed at step {step + 1}: {MOST_SKIPPED} steps in a row had a gradient that is not finite; "
                "lower the learning rate, clip the gradient, or look for extreme labels in the data"
            )

    def _follow(self) -> None:
        if self.settings.ema is None:
            return
        self._averaged_steps += 1
        decay = min(self.settings.ema, (1 + self._averaged_steps) / (10 + self._averaged_steps))
        with torch.no_grad():
            for name, weight in self._weights.items():
                self._average[name].lerp_(weight, 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the network for a while."""
        if self.settings.ema is None:
            yield
            return
        trained = {name: weight.detach().clone() for name, weight in self._weights.items()}
        _fill(self._weights, self._average)
        try:
            yield
        finally:
            _fill(self._weights, trained)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that change in training, by name: ``network.``, ``average.`` and AdamW's own."""
        found = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        found |= {f"average.{name}": tensor for name, tensor in self._average.items()}
        for name, weight in self._weights.items():
            for entry, value in self._adam.state.get(weight, {}).items():
                found[f"adam.{entry}.{name}"] = value
        return found

    def counters(self) -> dict[str, int]:
        """The numbers that change in training."""
        return {"averaged_steps": self._averaged_steps, "skipped_in_a_row": self._skipped_in_a_row}

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, int]) -> None:
        """Take up what :meth:`tensors` and :meth:`counters` returned.

        Raises
        ------
        KeyError
            Something is missing.
        """
        entries = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                tensor.copy_(tensors[f"network.{name}"])
            _fill(self._average, {name: tensors[f"average.{name}"] for name in self._average})
        for name, weight in self._weights.items():
            if f"adam.step.{name}" in tensors:
                moments = {entry: tensors[f"adam.{entry}.{name}"].clone() for entry in entries}
                self._adam.state[weight] = {
                    entry: value if entry == "step" else value.to(weight) for entry, value in moments.items()
                }
        self._averaged_steps = counters["averaged_steps"]
        self._skipped_in_a_row = counters["skipped_in_a_row"]


def freeze(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Take the gradient from the weights whose names match one of ``patterns``, and return these names.

    Raises
    ------
    InputError
        A pattern matches no weight, or no weight is left to train.
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"the pattern {pattern!r} of weights to freeze matches none, such as {names[0]!r}")
    frozen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if len(frozen) == len(names):
        raise InputError("no weight is left to train: all of them are frozen")
    for name in frozen:
        network.get_parameter(name).requires_grad_(False)
    return frozen


def undecayed_names(network: nn.Module) -> set[str]:
    """Names of the weights that decay leaves alone: all but the matrices of linear maps."""
    decayed = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    return {name for name, _ in network.named_parameters()} - decayed


def _fill(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])
