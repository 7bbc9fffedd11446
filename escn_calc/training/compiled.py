"""The loss and its gradient as one compiled graph.

The gradient of a loss on gradient forces is a second derivative, which ``torch.compile`` does not take through a
module. Here the whole step is traced first: network, forces by differentiation, loss, and its gradient with respect to
the weights are plain operations in one graph without autograd, and that graph is compiled. Inside training it is a
differentiable function whose derivative is already known, so that clipping, optimiser and DistributedDataParallel see
nothing new.

A graph holds for one size of batch, so batches are filled up to it (:mod:`escn_calc.training.loader`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch_geometric.data import Batch

from escn_calc.errors import InputError
from escn_calc.training.loader import PaddedSize
from escn_calc.training.objective import Losses, Objective, StepInputs, label_counts

Step = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
"""From weights and the tensors of a batch to the loss, its sums, and the gradient of every weight."""


class CompiledObjective(nn.Module):
    """An :class:`Objective` that evaluates loss and gradient in one go; same values up to rounding.

    Parameters
    ----------
    objective : what is evaluated; its weights remain where they are.
    size : of the batches it is compiled for. A batch of another size, and any batch where no gradient is recorded, is
        evaluated by ``objective`` itself.
    backend : "inductor" compiles; "eager" runs the traced graph operation by operation.

    Raises
    ------
    InputError
        There is no working C++ compiler (on CUDA, no Triton).
    """

    def __init__(
        self, objective: Objective, size: PaddedSize, backend: Literal["inductor", "eager"] = "inductor"
    ) -> None:
        super().__init__()
        if backend == "inductor":
            check_compiler(objective.network.sphere_embedding.weight.device)
        self.objective = objective
        self.size = size
        self.backend = backend
        self._step: Step | None = None

    def forward(self, batch: Batch, counts: Tensor | None = None) -> Losses:
        """Return the loss of a batch, see :meth:`Objective.forward`."""
        found = PaddedSize(len(batch.batch), batch.edge_index.shape[1], batch.num_graphs)
        if found != self.size or not torch.is_grad_enabled():
            evaluated: Losses = self.objective(batch, counts)
            return evaluated
        inputs = list(self.objective.inputs(batch, label_counts(batch) if counts is None else counts))
        weights = [weight for weight in self.objective.parameters() if weight.requires_grad]
        if self._step is None:
            self._step = compiled_step(self.objective, weights, inputs, self.backend)
        total, sums = _KnownGradient.apply(self._step, inputs, *weights)
        return Losses(total, sums)


def compiled_step(objective: Objective, weights: Sequence[Tensor], inputs: list[Tensor], backend: str) -> Step:
    """Trace the step for inputs of these shapes, to be compiled at its first call (minutes on a CPU)."""
    graph = traced_step(objective, weights, inputs)
    if backend == "eager":
        return graph
    compiled: Step = torch.compile(graph, backend=backend, dynamic=False)
    return compiled


def check_compiler(device: torch.device) -> None:
    """Compile something small, to find out whether ``torch.compile`` works.

    Raises
    ------
    InputError
        There is no working C++ compiler, or on CUDA no Triton.
    """

    def small(values: Tensor) -> Tensor:
        return values.sin() + 1

    try:
        torch.compile(small, dynamic=False)(torch.zeros(64, device=device))
    except RuntimeError as error:
        raise InputError(
            "a compiled training step needs a working C++ compiler (on CUDA, Triton), which torch.compile does not "
            f"find: install one, set the environment variable CXX, or train without compilation ({_first_line(error)})"
        ) from error


def traced_step(objective: Objective, weights: Sequence[Tensor], inputs: list[Tensor]) -> GraphModule:
    """Return the step as a graph of plain operations for inputs of these shapes."""
    names = [name for name, weight in objective.named_parameters() if weight.requires_grad]

    def step(values: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
        evaluated = dict(zip(names, values, strict=True))
        total, sums = torch.func.functional_call(
            _LossOfInputs(objective), _prefixed(evaluated), (StepInputs(*tensors),)
        )
        gradients = torch.autograd.grad(total, values, materialize_grads=True)
        return [total.detach(), sums, *gradients]

    leaves = [weight.detach().clone().requires_grad_() for weight in weights]
    with torch.enable_grad():
        graph = make_fx(step)(leaves, inputs)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


class _LossOfInputs(nn.Module):
    """``Objective.losses`` as a module call, whose weights can be replaced."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, inputs: StepInputs) -> Losses:
        return self.objective.losses(inputs)


def _prefixed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"objective.{name}": weight for name, weight in weights.items()}


class _KnownGradient(torch.autograd.Function):
    """A step, whose derivative with respect to the weights comes with its value."""

    @staticmethod
    def forward(ctx: Any, step: Step, inputs: list[Tensor], *weights: Tensor) -> tuple[Tensor, Tensor]:
        total, sums, *gradients = step([weight.detach() for weight in weights], inputs)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(sums)
        return total, sums

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(slope * gradient for gradient in ctx.saved_tensors)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
