"""A step of a training: loss, gradient, update; on NVIDIA's GPUs recorded once, then replayed."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deconv_cli.errors import DeconvError, out_of_memory
from deconv_cli.network.device import autocast, find_precision, training_layout
from deconv_cli.network.encoder_decoder import RestorationNetwork
from deconv_cli.tasks import Task
from deconv_cli.training.checkpoint import TrainState
from deconv_cli.training.config import TrainConfig
from deconv_cli.training.data import Batch
from deconv_cli.training.optimizer import backward, make_capturable, set_rates
from deconv_cli.training.teacher import Teacher

CAPTURABLE = ("muon", "adamw")
"""Optimisers whose step can be recorded: the learning rate of PyTorch's SGD would be."""
WARM_UP = 3
"""Steps before the recording, in which libraries choose their kernels and optimisers make their state."""

log = logging.getLogger(__name__)

Step = Callable[[Batch], tuple[float, float]]
"""Takes an optimiser step with a batch and returns loss and gradient norm."""


def find_step(
    state: TrainState,
    config: TrainConfig,
    task: Task,
    device: torch.device,
    teacher: Teacher | None = None,
) -> Step:
    """Return what takes the steps of a training on a device, the fastest way there is; see `train_step`."""
    if device.type == "cuda" and config.optimizer in CAPTURABLE:
        return RecordedStep(state, config, task, device, teacher)
    return functools.partial(train_step, state, config=config, task=task, device=device, teacher=teacher)


def train_step(
    state: TrainState,
    batch: Batch,
    config: TrainConfig,
    task: Task,
    device: torch.device,
    *,
    teacher: Teacher | None = None,
) -> tuple[float, float]:
    """Take one optimiser step and return loss and gradient norm; a step that is not finite changes no parameter.

    With a teacher the network learns what that makes of the degraded patches instead of the clean ones.
    """
    set_rates(state.optimizers, config, state.step)
    inputs = inputs_of(task, batch, device, teacher, state.step)
    result = torch.stack(compute_gradients(state.network, *inputs, config)).tolist()
    if math.isfinite(sum(result)):
        update(state, average_weight(config.ema, state.step))
    else:
        state.skipped += 1
    return result[0], result[1]


def compute_gradients(
    network: RestorationNetwork, degraded: Tensor, target: Tensor, condition: Tensor | None, config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """Leave the gradient of the loss in the parameters, clipped; return the loss and the norm before clipping."""
    device = degraded.device
    dtype = find_precision(config.precision, device)
    with autocast(device, dtype):
        output = network(degraded, condition)
    return backward(network, compute_loss(config.loss, output - target), config.clip)


@torch.no_grad()
def update(state: TrainState, weight: float | Tensor) -> None:
    """Move the parameters by their gradients, and the average by `weight` of the way towards them."""
    for optimizer in state.optimizers:
        optimizer.step()
    for name, parameter in state.network.named_parameters():
        state.average[name].lerp_(parameter, weight)


def average_weight(decay: float, step: int) -> float:
    """Return the share of the parameters in their new average: more at the beginning, when they still change fast."""
    return 1 - min(decay, (1 + step) / (10 + step))


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Say in a line that memory ran out, and what helps."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise DeconvError("memory does not suffice for a step; train with a smaller --batch or --patch") from error


class RecordedStep:
    """The steps of a state on a GPU, recorded as CUDA graphs.

    So small a network leaves a GPU waiting for Python, which starts its thousands of kernels one after the other; a
    graph starts them all at once. There are two, one that ends with the gradient and one for the update, which is left
    out when the gradient is not finite. Where recording fails, steps are taken one kernel after the other.
    """

    def __init__(
        self,
        state: TrainState,
        config: TrainConfig,
        task: Task,
        device: torch.device,
        teacher: Teacher | None = None,
    ) -> None:
        self.state, self.config, self.task, self.device, self.teacher = state, config, task, device, teacher
        self.weight = torch.zeros((), device=device)
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.left_to_warm_up = WARM_UP
        self.graphs: tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph] | None = None
        make_capturable(state.optimizers, device)

    def __call__(self, batch: Batch) -> tuple[float, float]:
        """Take a step as `train_step` does."""
        if self.left_to_warm_up:
            self.left_to_warm_up -= 1
            return self._take_unrecorded(batch)
        inputs = inputs_of(self.task, batch, self.device, self.teacher, self.state.step)
        if not self.graphs:
            try:
                self._record(inputs)
            except RuntimeError as error:
                reason = str(error).partition("\n")[0]
                log.warning("CUDA graphs cannot be used, the training will be slower (%s)", reason)
                self.left_to_warm_up = self.config.steps
                return self._take_unrecorded(batch)
        return self._replay(inputs)

    def _take_unrecorded(self, batch: Batch) -> tuple[float, float]:
        """Take a step on another stream than the usual one, as must be before a recording."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            result = train_step(self.state, batch, self.config, self.task, self.device, teacher=self.teacher)
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def _record(self, inputs: tuple[Tensor, Tensor, Tensor | None]) -> None:
        self.inputs = inputs
        to_gradient, of_update = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        self.state.network.zero_grad(set_to_none=True)
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            with torch.cuda.graph(to_gradient, stream=self.stream):
                self.result = torch.stack(compute_gradients(self.state.network, *self.inputs, self.config))
            with torch.cuda.graph(of_update, stream=self.stream):
                update(self.state, self.weight)
        # The second graph reads where the first one writes: these must stay, whatever becomes of `grad` meanwhile.
        self.gradients = [parameter.grad for parameter in self.state.network.parameters()]
        self.graphs = to_gradient, of_update

    def _replay(self, inputs: tuple[Tensor, Tensor, Tensor | None]) -> tuple[float, float]:
        assert self.graphs
        to_gradient, of_update = self.graphs
        for recorded, given in zip(self.inputs, inputs, strict=True):
            if recorded is not None and given is not None and recorded is not given:
                recorded.copy_(given)
        set_rates(self.state.optimizers, self.config, self.state.step)
        self.weight.fill_(average_weight(self.config.ema, self.state.step))
        to_gradient.replay()
        loss, norm = self.result.tolist()
        if math.isfinite(loss + norm):
            of_update.replay()
        else:
            self.state.skipped += 1
        return loss, norm


def inputs_of(
    task: Task, batch: Batch, device: torch.device, teacher: Teacher | None = None, step: int = 0
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return degraded patches and their targets, N x C x H x W, and what the network is told about them."""
    degraded, condition = to_tensor(batch.degraded, device), condition_of(task, batch, device)
    target = teacher(degraded, condition, step) if teacher else to_tensor(batch.clean, device)
    return degraded, target, condition


def condition_of(task: Task, batch: Batch, device: torch.device) -> Tensor | None:
    """Return what the network is told about the levels of a batch: N numbers, or None for a blind one."""
    conditions = [task.condition(float(level)) for level in batch.levels]
    return None if None in conditions else torch.tensor(conditions, device=device)


def compute_loss(name: str, error: Tensor) -> Tensor:
    """Reduce the error (output - clean, float32) to a scalar; see `TrainConfig.loss`."""
    if name == "mse":
        return error.square().mean()
    if name == "rmse":
        # The square root has no gradient at zero.
        return (error.square().mean((1, 2, 3)) + 1e-8).sqrt().mean()
    if name == "charbonnier":
        return (error.square() + 1e-6).sqrt().mean()
    return error.abs().mean()


def to_tensor(patches: NDArray[np.float32], device: torch.device) -> Tensor:
    """Turn N x H x W x C into an N x C x H x W tensor, in the layout of the training."""
    tensor, on_cuda = torch.from_numpy(patches), device.type == "cuda"
    if on_cuda:
        # From pinned memory the copy waits its turn on the GPU; otherwise Python would, and with it all that follows.
        tensor = tensor.pin_memory()
    return tensor.permute(0, 3, 1, 2).to(device, memory_format=training_layout(device), non_blocking=on_cuda)
