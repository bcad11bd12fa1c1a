"""Choosing which layers run in eight bits, and what they round to.

Features between the layers stay in float: only what goes into a convolution is rounded, so that the sums along the
skips, which carry the picture, keep their detail.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deconv_cli.compression.calibration import Crops, mean_psnr, run, worst_loss
from deconv_cli.network.encoder_decoder import RestorationNetwork
from deconv_cli.network.fake_quantization import Convolution, FakeQuantized, fake_quantize
from deconv_cli.network.quantization import LEVELS, Quantization
from deconv_cli.network.weights import Weights
from deconv_cli.tasks import Task

FLOAT = ("head", "tail")
"""Always in float: they see and make the picture itself, and cost next to nothing."""
SAMPLES = 8192
"""Inputs of a layer that are looked at for every level."""
SMALLEST_RANGE = 0.3
RANGES = 29
"""Ranges that are tried: from `SMALLEST_RANGE` of that of the calibration up to all of it."""


@dataclass(frozen=True)
class Choice:
    """Which layers run in eight bits.

    Attributes
    ----------
    quantization
        Layers in eight bits.
    sensitivity
        Loss in dB with each layer alone in eight bits, at the level that loses most.
    loss
        Loss in dB with all of `quantization`, at the level that loses most.
    """

    quantization: Mapping[str, Quantization]
    sensitivity: Mapping[str, float]
    loss: float

    @property
    def in_float(self) -> list[str]:
        """The layers that stay in float because of their sensitivity."""
        return [name for name in self.sensitivity if name not in self.quantization]


@torch.no_grad()
def calibrate(network: RestorationNetwork, crops: Crops, task: Task) -> dict[str, Quantization]:
    """Find for every layer the range of inputs that rounds with the least squared error."""
    seen: dict[str, list[NDArray[np.float32]]] = {}
    bounds: dict[str, tuple[float, float]] = {}

    def look(name: str, inputs: tuple[Tensor, ...]) -> None:
        flat = inputs[0].flatten().numpy()
        # An odd step meets all places of a row, whatever its length.
        seen.setdefault(name, []).append(flat[:: (flat.size // SAMPLES) | 1].copy())
        low, high = bounds.get(name, (0.0, 0.0))
        bounds[name] = min(low, float(flat.min())), max(high, float(flat.max()))

    layers = _layers(network)
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs))
        for name, layer in layers.items()
    ]
    for batch in crops.values():
        run(network, batch, task)
    for handle in handles:
        handle.remove()
    return {
        name: Quantization.of(
            layer.weight.numpy(),
            *best_range(np.concatenate(seen[name]), *bounds[name]),
            transposed=isinstance(layer, nn.ConvTranspose2d),
        )
        for name, layer in layers.items()
    }


def best_range(values: NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    """Return the share of the range from `low` to `high`, around zero, in which rounding and clipping err least.

    Parameters
    ----------
    values
        A sample of what is to be rounded; being one, it holds few of the rare values that make the range wide.
    low, high
        The least (at most 0) and the greatest (at least 0) of all.
    """

    def squared_error(share: float) -> float:
        step = max(share * (high - low) / LEVELS, 1e-12)
        zero = round(-share * low / step)
        rounded = (np.clip(np.rint(values / step) + zero, 0, LEVELS) - zero) * step
        return float(np.square(rounded - values).mean())

    share = min(np.linspace(1, SMALLEST_RANGE, RANGES).tolist(), key=squared_error)
    return share * low, share * high


def choose_layers(
    network: RestorationNetwork,
    quantization: Mapping[str, Quantization],
    crops: Crops,
    task: Task,
    *,
    max_loss: float,
    progress: Callable[[Iterable[str]], Iterable[str]] = lambda names: names,
    stop: Callable[[], bool] = lambda: False,
) -> Choice | None:
    """Keep the most sensitive layers in float, as many as it takes to lose no more than `max_loss`.

    Parameters
    ----------
    network
        The network in float.
    quantization
        What each layer would round to.
    crops
        Crops to measure on.
    task
        The task.
    max_loss
        Most that PSNR may fall at any level, in dB.
    progress
        Wraps the names of the layers to show progress.
    stop
        Asked before every measurement; on True nothing is chosen.

    Returns
    -------
    Choice or None
        None if it was stopped.
    """
    before = mean_psnr(network, crops, task)

    def loss_with(names: Iterable[str]) -> float:
        rounded = copy.deepcopy(network)
        fake_quantize(rounded, {name: quantization[name] for name in names}, round_kernels=True)
        return worst_loss(before, mean_psnr(rounded, crops, task))

    sensitivity: dict[str, float] = {}
    for name in progress(list(quantization)):
        if stop():
            return None
        sensitivity[name] = loss_with([name])
    chosen = sorted(quantization, key=sensitivity.__getitem__)
    while (loss := loss_with(chosen)) > max_loss and chosen:
        if stop():
            return None
        chosen.pop()
    return Choice({name: quantization[name] for name in quantization if name in chosen}, sensitivity, loss)


@torch.no_grad()
def find_bias_errors(
    network: RestorationNetwork, quantization: Mapping[str, Quantization], crops: Crops, task: Task
) -> dict[str, NDArray[np.float32]]:
    """Return what rounding takes from the mean of every output of the layers, on the inputs of the float network.

    To be added to the biases (fast bias correction, after Nagel et al. 2019, arXiv 1906.04721).
    """
    errors: dict[str, list[Tensor]] = {name: [] for name in quantization}
    layers = _layers(network)

    def compare(name: str, rounded: FakeQuantized, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        errors[name].append((output - rounded(inputs[0])).mean((0, 2, 3)))

    handles = []
    for name, how in quantization.items():
        rounded = FakeQuantized(layers[name], how, round_kernel=True)
        handles.append(
            layers[name].register_forward_hook(
                lambda _, inputs, output, name=name, rounded=rounded: compare(name, rounded, inputs, output)
            )
        )
    for batch in crops.values():
        run(network, batch, task)
    for handle in handles:
        handle.remove()
    return {name: torch.stack(found).mean(0).numpy() for name, found in errors.items()}


def quantize(
    weights: Weights,
    quantization: Mapping[str, Quantization],
    bias_errors: Mapping[str, NDArray[np.float32]] | None = None,
) -> Weights:
    """Round the kernels of the layers, each by its own largest values, and correct their biases."""
    parameters: dict[str, NDArray[np.float32]] = dict(weights.parameters)
    exact = {}
    for name, how in quantization.items():
        kernel = parameters[f"{name}.weight"]
        exact[name] = how.for_kernel(kernel)
        parameters[f"{name}.weight"] = exact[name].round(kernel)
        if bias_errors:
            parameters[f"{name}.bias"] = parameters[f"{name}.bias"] + bias_errors[name]
    return dataclasses.replace(weights, parameters=parameters, quantization=exact)


def _layers(network: RestorationNetwork) -> dict[str, Convolution]:
    """Return the convolutions that may run in eight bits, by name."""
    return {
        name: layer for name, layer in network.named_modules() if isinstance(layer, Convolution) and name not in FLOAT
    }
