"""How gradients, updates and activations fare in a training step, layer by layer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deconv_cli.network.activations import Activation, find_activation

VANISHING, EXPLODING = 1e-3, 1e3
"""Gradient norm of the first layer over that of the last, below or above which training is called so."""
MANY = 0.5
"""Share of a layer's units that are off, or of its values that are saturated, from which it is worth a warning."""
HISTOGRAM_LIMIT, HISTOGRAM_BINS = 6.0, 48
"""Histograms of z cover -limit..limit; what lies outside counts in the outermost bins."""

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


@dataclass(frozen=True)
class LayerHealth:
    """One convolution (or dense layer) in one step.

    Attributes
    ----------
    name
        Where it is in the network.
    gradient
        Euclidean norm of the loss's gradient with respect to its kernel, before clipping.
    update
        Norm of the change of the kernel over the norm of the kernel.
    """

    name: str
    gradient: float
    update: float


@dataclass(frozen=True)
class ActivationHealth:
    """What goes into one activation function, over a batch.

    Attributes
    ----------
    name
        Where it is in the network.
    off
        Share of the units (channels) that are on for no picture and pixel of the batch; None unless a rectifier.
    saturated
        Share of the values beyond `Activation.saturation`; None if the function does not saturate on both sides.
    slope
        Mean of |f'(z)|: what a gradient is multiplied by on its way through.
    histogram
        Share of the values in each of `HISTOGRAM_BINS` equal bins of z from ``-HISTOGRAM_LIMIT`` to its opposite.
    """

    name: str
    off: float | None
    saturated: float | None
    slope: float
    histogram: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class Health:
    """All layers, in the order in which they run."""

    layers: tuple[LayerHealth, ...]
    activations: tuple[ActivationHealth, ...]

    @property
    def first_over_last(self) -> float:
        """Gradient norm of the first layer over that of the last; NaN where there is none or it is not finite."""
        return gradient_ratio([layer.gradient for layer in self.layers])

    @property
    def off(self) -> float:
        """Largest share of units that are off in any layer."""
        return max((layer.off for layer in self.activations if layer.off is not None), default=0.0)

    @property
    def saturated(self) -> float:
        """Largest share of saturated values in any layer."""
        return max((layer.saturated for layer in self.activations if layer.saturated is not None), default=0.0)

    def summary(self) -> str:
        """Say it in a line."""
        parts = [f"gradients {judge_ratio(self.first_over_last)} (first over last layer {self.first_over_last:.2g})"]
        if any(layer.off is not None for layer in self.activations):
            parts.append(f"at most {self.off:.0%} of a layer's units never on")
        if any(layer.saturated is not None for layer in self.activations):
            parts.append(f"at most {self.saturated:.0%} of a layer's values saturated")
        slopes = [layer.slope for layer in self.activations]
        if slopes:
            parts.append(f"mean slope {sum(slopes) / len(slopes):.2f}")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the histograms; what is not finite becomes None."""
        return {
            "gradient": {layer.name: finite(layer.gradient) for layer in self.layers},
            "update": {layer.name: finite(layer.update) for layer in self.layers},
            "first_over_last": finite(self.first_over_last),
            "off": {layer.name: layer.off for layer in self.activations if layer.off is not None},
            "saturated": {layer.name: layer.saturated for layer in self.activations if layer.saturated is not None},
            "slope": {layer.name: finite(layer.slope) for layer in self.activations},
        }

    def warnings(self) -> dict[str, str]:
        """Return what is wrong, by kind, each with a way out."""
        found = {}
        verdict = judge_ratio(self.first_over_last)
        ratio = f"first over last layer {self.first_over_last:.1e}"
        if verdict == "vanishing":
            found["vanishing"] = (
                f"the gradients vanish ({ratio}): try --initialisation matched, --skips, or relu or leaky_relu_0.2"
            )
        elif verdict != "healthy":
            found["exploding"] = (
                f"the gradients explode ({ratio}): try a lower --lr, a lower --clip, a longer --warmup, or"
                " --initialisation matched with a --residual-gain of 0.1"
            )
        if self.off > MANY:
            found["dead"] = (
                f"{self.off:.0%} of the units of a layer are never on: try --activation leaky_relu_0.2, a lower"
                " --lr, or a longer --warmup"
            )
        if self.saturated > MANY:
            found["saturated"] = (
                f"{self.saturated:.0%} of the values of a layer are saturated: try a lower --lr, --initialisation"
                " matched, or --activation leaky_relu_0.2"
            )
        return found


def gradient_ratio(norms: list[float]) -> float:
    """Divide the first layer's gradient norm by the last one's.

    >>> gradient_ratio([0.5, 3.0, 1.0]), gradient_ratio([0.0, 0.0])
    (0.5, 0.0)
    """
    if not norms or not all(math.isfinite(norm) for norm in norms):
        return math.nan
    if not norms[-1]:
        return math.inf if norms[0] else 0.0
    return norms[0] / norms[-1]


def judge_ratio(ratio: float) -> str:
    """Name a ratio of gradient norms, first over last layer, by the stated thresholds.

    >>> [judge_ratio(ratio) for ratio in (1e-5, 0.2, 1e5, math.nan)]
    ['vanishing', 'healthy', 'exploding', 'not finite']
    """
    if math.isnan(ratio):
        return "not finite"
    return "vanishing" if ratio < VANISHING else "exploding" if ratio > EXPLODING else "healthy"


def finite(value: float) -> float | None:
    """Return the value to five digits, or None if it is not finite: JSON has no other word for it."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def measure_step(network: nn.Module, activation: Activation, step: Callable[[], Result]) -> tuple[Result, Health]:
    """Run a training step and watch it.

    Parameters
    ----------
    network
        The network that `step` runs forward and backward once, and changes.
    activation
        Its activation.
    step
        The step; what it returns is returned.
    """
    names = {module: name for name, module in network.named_modules()}
    order: list[Layer] = []
    norms: dict[Tensor, float] = {}

    def note_norm(kernel: Tensor) -> None:
        assert kernel.grad is not None
        norms[kernel] = float(kernel.grad.norm())

    layers = [module for module in names if isinstance(module, Layer)]
    before = {layer: layer.weight.detach().clone() for layer in layers}
    handles = [layer.register_forward_pre_hook(lambda layer, _: order.append(layer)) for layer in layers]
    handles += [layer.weight.register_post_accumulate_grad_hook(note_norm) for layer in layers]  # type: ignore[no-untyped-call]
    try:
        with observed(network, activation) as activations:
            result = step()
    finally:
        for handle in handles:
            handle.remove()

    def of_layer(layer: Layer) -> LayerHealth:
        old = before[layer]
        update = float((layer.weight.detach() - old).norm() / old.norm())
        return LayerHealth(names[layer], norms.get(layer.weight, 0.0), update)

    return result, Health(tuple(of_layer(layer) for layer in order), tuple(activations))


@contextmanager
def observed(network: nn.Module, activation: Activation) -> Iterator[list[ActivationHealth]]:
    """Collect, inside the block, what goes into the activations of the network whenever it runs."""
    collected: list[ActivationHealth] = []
    kind: type[nn.Module] = getattr(nn, activation.module)

    def observe(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: collected.append(_observe(name, module, activation, inputs[0]))

    handles = [
        module.register_forward_pre_hook(observe(name))
        for name, module in network.named_modules()
        if isinstance(module, kind)
    ]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()


def _observe(name: str, module: nn.Module, activation: Activation, z: Tensor) -> ActivationHealth:
    z = z.detach().float()
    with torch.enable_grad():
        leaf = z.clone().requires_grad_()
        # Not module(...), which would call the hook that this is; the copy is for the functions that work in place.
        (slope,) = torch.autograd.grad(module.forward(leaf.clone()).sum(), leaf)
    off = saturated = None
    if activation.rectifier:
        off = float((z <= 0).all(3).all(2).all(0).float().mean())
    if activation.saturation:
        saturated = float((z.abs() > activation.saturation).float().mean())
    limit = HISTOGRAM_LIMIT * (1 - 1e-6)
    counts = torch.histc(z.clamp(-limit, limit).cpu(), HISTOGRAM_BINS, -HISTOGRAM_LIMIT, HISTOGRAM_LIMIT)
    shares = (counts / z.numel()).tolist()
    return ActivationHealth(name, off, saturated, float(slope.abs().mean()), tuple(round(share, 5) for share in shares))


class GradientWatch:
    """Watches steps of a training for its user: says how it goes, and warns once of every kind of trouble.

    Parameters
    ----------
    activation
        Name of the network's activation.
    """

    def __init__(self, activation: str) -> None:
        self.activation = find_activation(activation)
        self.warned: set[str] = set()

    def __call__(
        self, network: nn.Module, number: int, step: Callable[[], Result]
    ) -> tuple[Result, dict[str, dict[str, Any]]]:
        """Take the step of that number; return what it returns, and its health for the log."""
        result, health = measure_step(network, self.activation, step)
        log.info("step %d: %s", number, health.summary())
        for kind, warning in health.warnings().items():
            if kind not in self.warned:
                self.warned.add(kind)
                log.warning("step %d: %s", number, warning)
        return result, {"health": health.to_dict()}
