"""The network as an ONNX model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deconv_cli._version import __version__
from deconv_cli.network.activations import Activation
from deconv_cli.network.graph import Layer, draw_residual
from deconv_cli.network.quantization import Quantization
from deconv_cli.network.weights import Weights

OPSET = 20
"""The first one that has GELU; ONNX Runtime reads it from 1.17 on."""
IR_VERSION = 9
"""The version of the file format that came with it."""


def build_model(weights: Weights) -> onnx.ModelProto:
    """Return the network as a model in float32, for any number of pictures of any size.

    Its input ``image`` is N x (channels + condition_planes) x H x W, H and W multiples of the architecture's
    ``size_multiple``; its output ``residual``, N x channels x (H * scale) x (W * scale), is what is to be added to the
    picture, enlarged by bicubic interpolation if there is a scale.
    """
    architecture = weights.description.architecture
    graph = _Graph()
    last = draw_residual(graph, "image", architecture, weights.parameters, weights.quantization)
    graph.node("Identity", [last], "residual")
    planes = architecture.channels + architecture.condition_planes
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", planes, "height", "width"])
    sides = [f"{side} * {architecture.scale}" if architecture.scale > 1 else side for side in ("height", "width")]
    residual = helper.make_tensor_value_info("residual", TensorProto.FLOAT, ["batch", architecture.channels, *sides])
    drawn = helper.make_graph(graph.nodes, weights.description.name_in_utf8, [image], [residual], graph.tensors)
    return helper.make_model(
        drawn,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="deconv",
        producer_version=__version__,
    )


class _Graph:
    """Draws with the operators of ONNX, by the names of their outputs; see `deconv_cli.network.graph.Graph`."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def node(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:  # noqa: ANN401
        output = output or f"{operator}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def convolve(self, x: str, layer: Layer) -> str:
        bias = self.tensor(f"{layer.name}.bias", layer.bias)
        kernel = "" if layer.quantization else self.tensor(f"{layer.name}.weight", layer.kernel)
        if layer.quantization:
            x, kernel = self.quantize(x, layer), self.kernel_int8(layer, layer.quantization)
        return self.node(
            "ConvTranspose" if layer.transposed else "Conv",
            [x, kernel, bias],
            layer.name,
            kernel_shape=layer.kernel.shape[2:],
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
        )

    def quantize(self, x: str, layer: Layer) -> str:
        assert layer.quantization
        how = layer.quantization
        scale = self.tensor(f"{layer.name}.input_scale", np.array(how.input_scale, np.float32))
        zero = self.tensor(f"{layer.name}.zero_point", np.array(how.zero_point, np.uint8))
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [x, scale, zero]), scale, zero])

    def kernel_int8(self, layer: Layer, how: Quantization) -> str:
        kernel = self.tensor(f"{layer.name}.weight", how.to_int8(layer.kernel))
        scales = self.tensor(f"{layer.name}.scales", how.scales.ravel())
        zeros = self.tensor(f"{layer.name}.zeros", np.zeros(how.scales.size, np.int8))
        return self.node("DequantizeLinear", [kernel, scales, zeros], axis=int(layer.transposed))

    def activate(self, x: str, activation: Activation, slope: NDArray[np.float32] | None) -> str:
        match activation.name:
            case "none":
                return x
            case "silu":
                return self.node("Mul", [x, self.node("Sigmoid", [x])])
            case "prelu":
                assert slope is not None
                return self.node("PRelu", [x, self.tensor(f"slope.{len(self.nodes)}", slope[:, None, None])])
            case "leaky_relu" | "leaky_relu_0.2":
                return self.node("LeakyRelu", [x], alpha=activation.arguments["negative_slope"])
        # relu, tanh, sigmoid, elu, gelu, mish
        return self.node(activation.name.capitalize(), [x])

    def add(self, x: str, y: str) -> str:
        return self.node("Add", [x, y])

    def repeat(self, x: str) -> str:
        scales = self.tensor(f"scales.{len(self.nodes)}", np.array([1, 1, 2, 2], np.float32))
        return self.node(
            "Resize", [x, "", scales], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        )

    def shuffle(self, x: str) -> str:
        return self.node("DepthToSpace", [x], blocksize=2, mode="CRD")
