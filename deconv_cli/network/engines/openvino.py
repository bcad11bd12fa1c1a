"""OpenVINO: the fastest on processors, and quick to load."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deconv_cli.network.activations import Activation
from deconv_cli.network.container import thread_limit
from deconv_cli.network.device import has_native_int8
from deconv_cli.network.graph import Layer, draw_residual
from deconv_cli.network.quantization import LEVELS, Quantization
from deconv_cli.network.weights import Weights

# With its converter of models, which nothing here needs and which it does without, OpenVINO reports every import over
# the network, from a forked process; and a fork hangs if another thread is computing.
_CONVERTER = "openvino.tools.ovc"
_modules: dict[str, Any] = sys.modules
_is_hidden = _modules.setdefault(_CONVERTER, None) is None
import openvino  # noqa: E402
from openvino import Node  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

if _is_hidden:
    del _modules[_CONVERTER]

OPSET = "opset13"
MOST_SHAPES = 24
"""OpenVINO keeps what it generates for every shape of input, 1.6 MB: after so many a network is compiled anew."""
HINTS = {
    "fp32": {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"},
    "bf16": {"INFERENCE_PRECISION_HINT": "bf16", "EXECUTION_MODE_HINT": "PERFORMANCE"},
}


@functools.cache
def core() -> openvino.Core:
    """Return the one core of the process, which lives as long as it does.

    The first network that a core compiles gives the thread a stack for its signals, taken away again with the core. Of
    two cores that go in the order in which they came, the second leaves the thread the stack of the first, which is no
    more: Ctrl-C would then end the process with a segmentation fault.
    """
    return openvino.Core()


class Engine:
    """A compiled network for pictures of any size; see `deconv_cli.network.engines.Engine`."""

    def __init__(self, weights: Weights, device: str, precision: str) -> None:
        # Threads that are bound to cores get into the way of other processes that bind theirs to the same ones.
        settings = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False, **HINTS[precision]}
        if limit := thread_limit():
            settings["INFERENCE_NUM_THREADS"] = limit
        # In float on rounded numbers the result is the same.
        model = build_model(weights, in_int8=has_native_int8())
        self._compile = functools.partial(core().compile_model, model, device.upper(), settings)
        self._request = self._compile().create_infer_request()
        self._shapes: set[tuple[int, ...]] = set()

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `deconv_cli.network.engines.Engine.run`."""
        if x.shape not in self._shapes and len(self._shapes) == MOST_SHAPES:
            self._request = self._compile().create_infer_request()
            self._shapes.clear()
        self._shapes.add(x.shape)
        residual: NDArray[np.float32] = self._request.infer([x], share_inputs=True)[0]
        return residual


def build_model(weights: Weights, *, in_int8: bool = True) -> openvino.Model:
    """Return the network as a model of OpenVINO, for any number of pictures of any size.

    Layers in eight bits run in int8, or in float on rounded numbers without `in_int8`.
    """
    architecture = weights.description.architecture
    image = ops.parameter([-1, architecture.channels + architecture.condition_planes, -1, -1], np.float32, name="image")
    residual = draw_residual(_Graph(in_int8=in_int8), image, architecture, weights.parameters, weights.quantization)
    return openvino.Model([ops.result(residual, name="residual")], [image], weights.description.name_in_utf8)


class _Graph:
    """Draws with the operations of OpenVINO; see `deconv_cli.network.graph.Graph`."""

    def __init__(self, *, in_int8: bool) -> None:
        self.in_int8 = in_int8

    def convolve(self, x: Node, layer: Layer) -> Node:
        if layer.name == "tail" and layer.transposed and layer.kernel.shape[2] == layer.stride:
            return self.enlarge(x, layer)
        kernel, bias = ops.constant(layer.kernel), ops.constant(layer.bias[None, :, None, None])
        if layer.quantization:
            x = self.quantize(x, layer.quantization)
            kernel = self.constant_int8(layer.kernel, layer.quantization) if self.in_int8 else kernel
        strides, padding = [layer.stride] * 2, [layer.padding] * 2
        if layer.transposed:
            drawn = ops.convolution_backprop_data(x, kernel, strides, pads_begin=padding, pads_end=padding)
        else:
            drawn = ops.convolution(x, kernel, strides, padding, padding, [1, 1])
        return ops.add(drawn, bias)

    def enlarge(self, x: Node, layer: Layer) -> Node:
        # The transposed convolution whose windows do not overlap, as a convolution to all of their pixels. In bfloat16
        # what is computed behind the last convolution stays in float32, and a transposed one is not among those: with
        # it at the end, so would every sum of features that leads there.
        inputs, _, side, _ = layer.kernel.shape
        kernel = layer.kernel.transpose(1, 2, 3, 0).reshape(-1, inputs, 1, 1)
        bias = layer.bias.repeat(side**2)
        pixels = self.convolve(x, Layer(layer.name, kernel, bias, stride=1, transposed=False))
        return ops.depth_to_space(pixels, "depth_first", side)

    def quantize(self, x: Node, how: Quantization) -> Node:
        # What OpenVINO fuses with the neighbouring convolutions, and takes as the sign to run them in int8.
        low, high = (ops.constant(np.full((1, 1, 1, 1), bound, np.float32)) for bound in how.input_range)
        if x.get_type_name() == "Add":
            # Features that are added to others later on cannot be rounded by the layer that makes them. Rounding alone
            # runs in another layout and in float32, converted to and fro, for half of the time of the convolutions;
            # behind another operation it becomes a part of that. This one changes nothing that rounding does not.
            x = ops.maximum(x, low)
        return ops.fake_quantize(x, low, high, low, high, LEVELS + 1)

    def constant_int8(self, kernel: NDArray[np.float32], how: Quantization) -> Node:
        return ops.multiply(ops.convert(ops.constant(how.to_int8(kernel)), "f32"), ops.constant(how.scales))

    def activate(self, x: Node, activation: Activation, slope: NDArray[np.float32] | None) -> Node:
        if activation.name == "none":
            return x
        if "negative_slope" in activation.arguments:
            slope = np.array([activation.arguments["negative_slope"]], np.float32)
        if slope is not None:
            return ops.prelu(x, ops.constant(slope))
        special = {"elu": (ops.elu, 1.0), "gelu": (ops.gelu, "erf"), "silu": (ops.swish,)}
        operation, *arguments = special.get(activation.name) or (getattr(ops, activation.name),)
        return operation(x, *arguments)

    def add(self, x: Node, y: Node) -> Node:
        return ops.add(x, y)

    def repeat(self, x: Node) -> Node:
        sides = ops.constant(np.array([2, 3])), ops.constant(np.array([2, 2], np.float32))
        return ops.interpolate(
            x,
            sides[1],
            "nearest",
            "scales",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
            axes=sides[0],
        )

    def shuffle(self, x: Node) -> Node:
        return ops.depth_to_space(x, "depth_first", 2)
