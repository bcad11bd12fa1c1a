"""Taking whole channels out of a network: those between the two convolutions of its residual blocks.

They are nobody's input but the second convolution's, so that a network without them is a smaller network of the same
kind, and they have nine tenths of the multiply-adds.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deconv_cli.compression.calibration import CPU, Crops, run
from deconv_cli.errors import UsageError
from deconv_cli.network.description import KERNEL, Architecture
from deconv_cli.network.encoder_decoder import RestorationNetwork
from deconv_cli.network.weights import Weights
from deconv_cli.tasks import Task
from deconv_cli.training.step import compute_loss, to_tensor

GROUP = 8
"""Channels are taken out so many at a time, for kernels compute on vectors of them."""

Importance = Mapping[str, NDArray[np.float64]]
"""Name of a residual block to the importance of each of its inner channels."""


def find_importance(network: RestorationNetwork, crops: Crops, task: Task, loss: str) -> Importance:
    """Estimate how much the loss would change without each channel, to first order.

    The square of the sum over pixels of feature times gradient, averaged over crops (Molchanov et al. 2019,
    arXiv 1906.10771, equation 8 with a gate at the channel). The loss of every level counts relative to its size, for
    otherwise the strongest degradation would decide alone.
    """
    found: dict[str, NDArray[np.float64]] = {}
    features: dict[str, Tensor] = {}

    def keep(name: str, inputs: tuple[Tensor, ...]) -> None:
        inputs[0].retain_grad()
        features[name] = inputs[0]

    handles = [
        network.get_submodule(f"{name}.conv2").register_forward_pre_hook(
            lambda _, inputs, name=name: keep(name, inputs)
        )
        for name in network.architecture.residual_blocks
    ]
    network.requires_grad_(requires_grad=True)
    for batch in crops.values():
        value = compute_loss(loss, run(network, batch, task) - to_tensor(batch.clean, CPU))
        (value / value.detach()).backward()  # type: ignore[no-untyped-call]
        for name, feature in features.items():
            assert feature.grad is not None
            change = (feature.detach() * feature.grad).sum((2, 3))
            found[name] = found.get(name, 0.0) + change.double().square().mean(0).numpy()
        network.zero_grad(set_to_none=True)
    network.requires_grad_(requires_grad=False)
    for handle in handles:
        handle.remove()
    return found


def choose_channels(architecture: Architecture, importance: Importance, fraction: float) -> dict[str, list[int]]:
    """Return the inner channels of every block that stay, such that a fraction of the multiply-adds goes.

    The least important channels of a block go together, `GROUP` at a time; of all blocks those groups go first that
    matter least for what they cost. One group of every block stays.

    Raises
    ------
    UsageError
        If so much cannot be taken out.
    """
    groups: list[tuple[float, float, str, list[int]]] = []
    kept = {}
    for name, (level, width) in architecture.residual_blocks.items():
        order = np.argsort(importance[name], kind="stable").tolist()
        # An odd rest goes first, so that multiples of GROUP stay.
        cuts = list(range(width % GROUP or GROUP, width + 1, GROUP))
        for start, end in itertools.pairwise([0, *cuts[:-1]]):
            channels = order[start:end]
            cost = 2 * KERNEL**2 * architecture.widths[level] * len(channels) / (4**level * architecture.scale**2)
            groups.append((float(importance[name][channels].sum()) / cost, cost, name, channels))
        kept[name] = set(order)
    to_go = fraction * architecture.multiply_adds
    possible = sum(cost for _, cost, _, _ in groups)
    if possible < to_go:
        most = possible / architecture.multiply_adds
        raise UsageError(f"--prune {fraction:g}: at most {most:.2f} of the multiply-adds of this network can go")
    for _, cost, name, channels in sorted(groups):
        if to_go <= 0:
            break
        kept[name] -= set(channels)
        to_go -= cost
    return {name: sorted(channels) for name, channels in kept.items()}


def prune(weights: Weights, kept: Mapping[str, list[int]]) -> Weights:
    """Build the weights of the network that has only the kept inner channels."""
    parameters = dict(weights.parameters)
    for name, channels in kept.items():
        for parameter in ("conv1.weight", "conv1.bias"):
            parameters[f"{name}.{parameter}"] = parameters[f"{name}.{parameter}"][channels]
        parameters[f"{name}.conv2.weight"] = np.ascontiguousarray(parameters[f"{name}.conv2.weight"][:, channels])
    architecture = dataclasses.replace(
        weights.description.architecture, inner=tuple(len(channels) for channels in kept.values())
    )
    description = dataclasses.replace(weights.description, architecture=architecture)
    return dataclasses.replace(weights, description=description, parameters=parameters)
