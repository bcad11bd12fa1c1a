"""The network layer by layer, from its description and parameters, drawn by whatever is to run it.

Nothing here needs torch: the engines that do not, and the checks of a file, go by this. That it is the same network as
`deconv_cli.network.encoder_decoder` is tested for every layout, activation, upsampling and scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from deconv_cli.network.activations import Activation, find_activation
from deconv_cli.network.description import KERNEL, Architecture
from deconv_cli.network.quantization import Quantization

Value = TypeVar("Value")
"""What an engine calls the features between two layers."""

Parameters = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Layer:
    """A convolution, or a transposed one, with its bias.

    Attributes
    ----------
    name
        What its parameters are called: ``NAME.weight`` and ``NAME.bias``.
    kernel
        Outputs x inputs x side x side; of a transposed convolution inputs x outputs x side x side. float32.
    bias
        A number for each output.
    stride
        Of the windows in the input; of a transposed convolution in the output.
    transposed
        Which of the two it is.
    quantization
        What inputs and kernel are rounded to, if it runs in eight bits; `kernel` is rounded already.
    """

    name: str
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: int
    transposed: bool
    quantization: Quantization | None = None

    @property
    def padding(self) -> int:
        """Zeros around the input, such that the side is kept, or divided or multiplied by the stride exactly."""
        return int(self.kernel.shape[2] - self.stride) // 2


class Graph(Protocol[Value]):
    """What an engine has to know how to do; features are N x channels x height x width."""

    def convolve(self, x: Value, layer: Layer) -> Value:
        """Apply a convolution, or a transposed one."""

    def activate(self, x: Value, activation: Activation, slope: NDArray[np.float32] | None) -> Value:
        """Apply an activation; `slope` is prelu's parameter, one number, and None for the others."""

    def add(self, x: Value, y: Value) -> Value:
        """Add features to others."""

    def repeat(self, x: Value) -> Value:
        """Double both sides, every pixel becoming four equal ones."""

    def shuffle(self, x: Value) -> Value:
        """Double both sides, four channels in a row becoming 2 x 2 pixels of one (Shi et al. 2016)."""


def draw_residual(
    graph: Graph[Value],
    x: Value,
    architecture: Architecture,
    parameters: Parameters,
    quantization: Mapping[str, Quantization] = MappingProxyType({}),
) -> Value:
    """Draw what `deconv_cli.network.encoder_decoder.RestorationNetwork.residual` computes.

    Parameters
    ----------
    graph
        What draws.
    x
        Picture and condition planes, stacked: N x (channels + condition_planes) x H x W.
    architecture, parameters, quantization
        The network: see `deconv_cli.network.weights.Weights`.

    Raises
    ------
    ValueError
        If a parameter is missing, left over, or of another shape than the architecture has.
    """
    drawing = _Drawing(graph, architecture, parameters, quantization=quantization)
    drawn = drawing.tail(drawing.features(x))
    drawing.finish()
    return drawn


def check_parameters(
    architecture: Architecture,
    parameters: Parameters,
    classes: int = 0,
    quantization: Mapping[str, Quantization] = MappingProxyType({}),
) -> None:
    """Refuse parameters that are not those of the network, or of a classifier around it.

    Raises
    ------
    ValueError
        If one is missing, left over, or of another shape than the architecture has.
    """
    drawing = _Drawing(_Nothing(), architecture, parameters, "body." if classes else "", quantization)
    drawing.features(None)
    if classes:
        drawing.take("dense.weight", (classes, architecture.widths[0]), within="")
        drawing.take("dense.bias", (classes,), within="")
    else:
        drawing.tail(None)
    drawing.finish()


class _Drawing(Generic[Value]):
    """A walk through the network that takes every parameter once.

    Parameters
    ----------
    graph, architecture, parameters
        See `draw_residual`.
    prefix
        What the names of the parameters start with.
    quantization
        See `draw_residual`.
    """

    def __init__(
        self,
        graph: Graph[Value],
        architecture: Architecture,
        parameters: Parameters,
        prefix: str = "",
        quantization: Mapping[str, Quantization] = MappingProxyType({}),
    ) -> None:
        self.graph, self.architecture, self.parameters, self.prefix = graph, architecture, parameters, prefix
        self.quantization = quantization
        self.activation = find_activation(architecture.activation)
        self.taken: set[str] = set()
        self.convolutions: set[str] = set()

    def take(self, name: str, shape: tuple[int, ...], within: str | None = None) -> NDArray[np.float32]:
        """Return a parameter of the network, or of what is around it if `within` is another prefix."""
        name = (self.prefix if within is None else within) + name
        found = self.parameters.get(name)
        if found is None or found.shape != shape:
            raise ValueError(f"{name} is not {' x '.join(map(str, shape))}")
        self.taken.add(name)
        return found

    def finish(self) -> None:
        """Refuse parameters that the network does not have."""
        if left := self.parameters.keys() - self.taken or self.quantization.keys() - self.convolutions:
            raise ValueError(f"{min(left)} is not of this network")

    def features(self, x: Value) -> Value:
        """Draw what the last layer sees."""
        architecture = self.architecture
        x = self.convolve(x, "head", architecture.channels + architecture.condition_planes, architecture.widths[0])
        return self.stacks(x) if architecture.layout == "rednet" else self.pyramid(x)

    def tail(self, x: Value) -> Value:
        """Draw the last layer."""
        architecture = self.architecture
        transposed = architecture.scale > 1 or architecture.layout == "rednet"
        width, kernel, scale = architecture.widths[0], architecture.tail_kernel, architecture.scale
        return self.convolve(
            x, "tail", width, architecture.channels, kernel=kernel, stride=scale, transposed=transposed
        )

    def pyramid(self, x: Value) -> Value:
        """Draw an `EncoderDecoder` behind its head."""
        architecture = self.architecture
        widths, skips = architecture.widths, []
        bottom = len(widths) - 1
        for level in range(bottom):
            x = self.blocks(x, f"encoder.{level}", level)
            skips.append(x)
            x = self.convolve(x, f"down.{level}", widths[level], widths[level + 1], kernel=2, stride=2)
        x = self.blocks(x, "bottom", bottom)
        for level in reversed(range(bottom)):
            x = self.upsample(x, f"up.{level}", widths[level + 1], widths[level])
            x = self.graph.add(x, skips.pop()) if architecture.skips else x
            x = self.blocks(x, f"decoder.{level}", level)
        return x

    def blocks(self, x: Value, name: str, level: int) -> Value:
        """Draw the residual blocks of a level."""
        width = self.architecture.widths[level]
        for number in range(self.architecture.blocks[level]):
            block = f"{name}.{number}"
            _, inner = self.architecture.residual_blocks[block]
            residual = self.activate(self.convolve(x, f"{block}.conv1", width, inner), f"{block}.activation")
            x = self.graph.add(self.convolve(residual, f"{block}.conv2", inner, width), x)
        return x

    def upsample(self, x: Value, name: str, inputs: int, outputs: int) -> Value:
        """Draw the layer that doubles the side."""
        if self.architecture.upsampling == "resize":
            return self.convolve(self.graph.repeat(x), f"{name}.1", inputs, outputs)
        if self.architecture.upsampling == "shuffle":
            return self.graph.shuffle(self.convolve(x, f"{name}.0", inputs, 4 * outputs, kernel=1))
        return self.convolve(x, name, inputs, outputs, kernel=2, stride=2, transposed=True)

    def stacks(self, x: Value) -> Value:
        """Draw a `RedNet` behind its head."""
        width, layers = self.architecture.widths[0], self.architecture.blocks[0]
        skips = []
        for number in range(1, layers + 1):
            x = x if number == 1 else self.convolve(x, f"encoder.{number - 2}", width, width)
            x = self.activate(x, f"activations.{number - 1}")
            if number % 2 == 0 and number < layers:
                skips.append(x)
        for number in range(1, layers):
            x = self.convolve(x, f"decoder.{number - 1}", width, width, transposed=True)
            if (layers - number) % 2 == 0:
                skip = skips.pop()
                x = self.graph.add(x, skip) if self.architecture.skips else x
            x = self.activate(x, f"activations.{layers + number - 1}")
        return x

    def convolve(
        self,
        x: Value,
        name: str,
        inputs: int,
        outputs: int,
        *,
        kernel: int = KERNEL,
        stride: int = 1,
        transposed: bool = False,
    ) -> Value:
        """Draw a convolution, or a transposed one."""
        channels = (inputs, outputs) if transposed else (outputs, inputs)
        weight = self.take(f"{name}.weight", (*channels, kernel, kernel))
        bias, quantization = self.take(f"{name}.bias", (outputs,)), self.quantization.get(name)
        self.convolutions.add(name)
        if quantization and quantization.scales.shape != ((1, outputs) if transposed else (outputs, 1)) + (1, 1):
            raise ValueError(f"{name}.scales is not one for each of {outputs} outputs")
        return self.graph.convolve(x, Layer(name, weight, bias, stride, transposed, quantization))

    def activate(self, x: Value, name: str) -> Value:
        """Draw an activation."""
        slope = self.take(f"{name}.weight", (1,)) if self.activation.name == "prelu" else None
        return self.graph.activate(x, self.activation, slope)


class _Nothing:
    """A graph of which nothing is kept."""

    def convolve(self, x: None, layer: Layer) -> None:
        """Keep nothing."""

    def activate(self, x: None, activation: Activation, slope: NDArray[np.float32] | None) -> None:
        """Keep nothing."""

    def add(self, x: None, y: None) -> None:
        """Keep nothing."""

    def repeat(self, x: None) -> None:
        """Keep nothing."""

    def shuffle(self, x: None) -> None:
        """Keep nothing."""
