"""Muon, the parameter groups, and the learning-rate schedule."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from deconv_cli.errors import UsageError
from deconv_cli.network.device import has_fast_bf16
from deconv_cli.training.config import FitConfig

STREAMS = 8
"""Of a GPU, which so small matrices leave idle one after the other: enough that they take no time any more."""


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: every kernel moves by a matrix whose singular values are all near one.

    After Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (Nesterov momentum, five
    Newton-Schulz steps). A kernel is taken as a matrix of its first axis by the rest, which for the 2 x 2
    kernels with stride 2 is the linear map between the levels itself, up or down. PyTorch's own Muon takes matrices
    only.

    Parameters
    ----------
    parameters
        Kernels of at least two axes.
    lr
        Learning rate.
    momentum
        Decay of the gradient average.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step; `closure` is not supported."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shape = len(parameter), parameter.numel() // len(parameter)
                    by_shape.setdefault(shape, []).append(parameter)
            # Kernels of one shape go together: as many small products take twice the time on a processor.
            for alike in side_by_side(list(by_shape.values())):
                directions = [self._direction(parameter, group["momentum"]) for parameter in alike]
                updates = orthogonalise(torch.stack(directions)) * group["lr"]
                for parameter, update in zip(alike, updates, strict=True):
                    parameter.sub_(update.view_as(parameter))

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Return Nesterov's direction as a matrix."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum).flatten(1)


def side_by_side(groups: list[list[nn.Parameter]]) -> Iterator[list[nn.Parameter]]:
    """Yield groups of parameters that do not depend on each other; on an NVIDIA GPU each on one of several streams."""
    if not groups or groups[0][0].device.type != "cuda":
        yield from groups
        return
    device = groups[0][0].device
    current, streams = torch.cuda.current_stream(device), _streams(device)
    for stream, group in zip(itertools.cycle(streams), groups, strict=False):
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            yield group
    for stream in streams[: len(groups)]:
        current.wait_stream(stream)


@functools.cache
def _streams(device: torch.device) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(STREAMS)]  # type: ignore[no-untyped-call]


def orthogonalise(matrices: Tensor) -> Tensor:
    """Replace the singular values of N matrices, m x n each, by values near one, scaled by ``max(1, m / n) ** 0.5``.

    Five quintic Newton-Schulz steps with Jordan's coefficients, in bfloat16 where that is fast: without its
    instructions a processor would be at it for longer than at the gradient. The result has the dtype of `matrices`.
    """
    dtype = torch.bfloat16 if has_fast_bf16(matrices.device.type) else matrices.dtype
    rows, columns = matrices.shape[1:]
    x = matrices.mT if rows > columns else matrices
    x = (x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-12)).to(dtype)
    for _ in range(5):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)
    x = x.mT if rows > columns else x
    orthogonal: Tensor = x.to(matrices.dtype) * max(1.0, rows / columns) ** 0.5
    return orthogonal


def build_optimizers(network: nn.Module, config: FitConfig) -> list[torch.optim.Optimizer]:
    """Make the optimisers: Muon for the kernels between head and tail, Adam for the rest; or AdamW or SGD for all.

    Raises
    ------
    UsageError
        If there is nothing between head and tail for Muon.
    """
    if config.optimizer == "adamw":
        return [torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=0.0)]
    if config.optimizer == "sgd":
        return [torch.optim.SGD(network.parameters(), lr=config.lr, momentum=0.9)]
    kernels: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        outer = name.removeprefix("body.").startswith(("head.", "tail.", "dense."))
        (rest if outer or parameter.ndim < 2 else kernels).append(parameter)
    if not kernels:
        raise UsageError("muon is for the layers between the first and the last, and there are none: use adamw")
    return [Muon(kernels, lr=config.lr), torch.optim.Adam(rest, lr=config.adam_lr)]


def make_capturable(optimizers: Iterable[torch.optim.Optimizer], device: torch.device) -> None:
    """Let optimisers keep on the GPU all that changes, so that their steps can be recorded as CUDA graphs."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"], device=device)
            if "capturable" in group:
                group["capturable"] = True
        for state in optimizer.state.values():
            if "step" in state:
                state["step"] = state["step"].to(device)


def set_rates(optimizers: Iterable[torch.optim.Optimizer], config: FitConfig, step: int) -> None:
    """Set the learning rates of a step by the schedule."""
    factor = rate_factor(step, config.steps, config.warmup)
    for optimizer, rate in zip(optimizers, (config.lr, config.adam_lr), strict=False):
        group = optimizer.param_groups[0]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate * factor)
        else:
            group["lr"] = rate * factor


def backward(network: nn.Module, loss: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Leave the gradient of a loss in the parameters, clipped to the norm `clip`.

    Returns
    -------
    tuple[Tensor, Tensor]
        The loss, and the norm of the gradient before clipping.
    """
    network.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), nn.utils.clip_grad_norm_(network.parameters(), clip)


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Return the factor on the learning rate at a step: a linear rise, then half a cosine down to zero.

    >>> [round(rate_factor(step, 100, 0.1), 2) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
