"""Models that run without this project, checked against it before they are written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deconv_cli._version import __version__
from deconv_cli.errors import DeconvError, UsageError, unknown_name
from deconv_cli.images.atomic import write_atomically
from deconv_cli.network.device import has_native_int8
from deconv_cli.network.weights import Weights

if TYPE_CHECKING:
    import onnx
    import openvino

Floats = NDArray[np.float32]
Run = Callable[[Floats], Floats]

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
TOLERANCES = {"fp32": (0.05, 0.05), "fp16": (0.5, 0.5), "bf16": (4.0, 4.0), "int8": (32.0, 2.0)}
"""The largest difference to torch in float32 with which a model is written, and its largest root mean square, on the
0..255 scale, by number format. In eight bits an activation that is rounded the other way moves single samples by more
than a wrong model moves most of them, so that there the mean decides."""


@dataclass(frozen=True)
class Exported:
    """A model that has been written.

    Attributes
    ----------
    files
        What was written.
    precision
        Number format of its kernels.
    opset
        Version of the operators that it needs.
    difference
        The largest difference to torch, on the 0..255 scale, by input.
    """

    files: tuple[str, ...]
    precision: str
    opset: str
    difference: dict[str, float]


def export(weights: Weights, path: Path, model_format: str, precision: str) -> Exported:
    """Write a network as a model for pictures of any size.

    Kernels are stored in the number format asked for; what runs the model decides which one it computes in.

    Parameters
    ----------
    weights
        The network.
    path
        The file to write, ``.onnx`` or ``.xml``; beside the latter goes a ``.bin``. Earlier ones are replaced.
    model_format
        ``onnx`` or ``openvino``.
    precision
        ``fp32``, ``fp16``, ``bf16``, or ``int8`` of weights that ``deconv compress`` quantized.

    Raises
    ------
    UsageError
        If the format or the precision is unknown, or does not go with the weights.
    DeconvError
        If a package is missing, the model does not compute what torch does, or it cannot be written.
    """
    if model_format not in SUFFIXES:
        raise unknown_name("format", model_format, SUFFIXES)
    if precision not in TOLERANCES:
        raise unknown_name("precision", precision, TOLERANCES)
    if weights.description.classes:
        raise UsageError(
            f"{weights.description.name}: these weights tell classes apart; only restorations are exported"
        )
    quantized = bool(weights.quantization)
    if (precision == "int8") != quantized:
        way_out = "deconv compress --quantize int8 makes some" if precision == "int8" else "give --precision int8"
        state = "quantized" if quantized else "not quantized"
        raise UsageError(f"{weights.description.name}: these weights are {state}; {way_out}")
    try:
        write = {"onnx": _write_onnx, "openvino": _write_openvino}[model_format]
        return write(weights, path, precision)
    except ImportError as error:
        raise DeconvError(
            f"a package to export with is missing ({error}); pip install 'deconv-cli[onnxruntime]'"
        ) from error


def metadata(weights: Weights) -> dict[str, str]:
    """Return what a model says about itself."""
    description = weights.description
    architecture = description.architecture
    low, high = description.level_range
    return {
        "name": description.name_in_utf8,
        "task": description.task,
        "level_range": f"{low:g} {high:g}",
        "scale": str(architecture.scale),
        "size_multiple": str(architecture.size_multiple),
        "influence_radius": str(architecture.influence_radius),
        "weights_sha256": weights.sha256,
        "description": json.dumps(description.to_dict()),
        "producer": f"deconv {__version__}",
    }


def compare(weights: Weights, run: Run, precision: str) -> dict[str, float]:
    """Return the largest difference to torch on random numbers and on a photograph, on the 0..255 scale.

    Raises
    ------
    DeconvError
        If it is larger than `TOLERANCES`: than rounding to the number format makes it.
    """
    import torch
    from skimage import data

    from deconv_cli.images.samples import to_float

    architecture = weights.description.architecture
    side = architecture.round_up(96)
    astronaut = data.astronaut()  # type: ignore[no-untyped-call]
    photograph = to_float(astronaut[64 : 64 + side, 160 : 160 + side + architecture.size_multiple])
    rng = np.random.default_rng(0)
    inputs = {
        "random": rng.random((2, architecture.channels, side, side), np.float32),
        "photograph": np.ascontiguousarray(photograph.transpose(2, 0, 1)[None, : architecture.channels]),
    }
    network, differences, mean_squares = weights.build(), {}, []
    for name, image in inputs.items():
        told = np.full((len(image), architecture.condition_planes, *image.shape[2:]), 25 / 255, np.float32)
        stacked = np.concatenate((image, told), 1)
        with torch.inference_mode():
            expected = network.residual(torch.from_numpy(stacked)).numpy()
        difference = np.abs(run(stacked) - expected) * 255
        differences[name] = float(difference.max())
        mean_squares.append(float(np.square(difference).mean()))
    largest, typical = float(np.max([*differences.values()])), float(np.sqrt(np.max(mean_squares)))
    most, most_typical = TOLERANCES[precision]
    if not (largest <= most and typical <= most_typical):
        saturates = "OpenVINO's sums of eight-bit products saturate on processors with AVX2 alone, such as this one; "
        raise DeconvError(
            f"{weights.description.name}: the model in {precision} differs from torch by up to {largest:.3g} of 255"
            f" (at most {most:g} is allowed) and by {typical:.3g} in root mean square (at most {most_typical:g});"
            f" {saturates if precision == 'int8' and not has_native_int8() else ''}nothing was written"
        )
    return differences


def _write_onnx(weights: Weights, path: Path, precision: str) -> Exported:
    import onnx
    import onnxruntime

    from deconv_cli.network.onnx_model import OPSET, build_model

    model = build_model(weights)
    _store_onnx_kernels(model, precision)
    onnx.helper.set_model_props(model, metadata(weights))
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    difference = compare(weights, lambda x: session.run(None, {"image": x})[0], precision)
    write_atomically(path, data)
    return Exported((str(path),), precision, f"ONNX {OPSET}", difference)


def _store_onnx_kernels(model: onnx.ModelProto, precision: str) -> None:
    """Store the kernels in half the bytes; a cast in front of every convolution makes them float32 again."""
    if precision not in {"fp16", "bf16"}:
        return
    import ml_dtypes
    from onnx import TensorProto, helper, numpy_helper

    dtype = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}[precision]
    casts = []
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            name, values = tensor.name, numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), f"{name}.stored"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _write_openvino(weights: Weights, path: Path, precision: str) -> Exported:
    from deconv_cli.network.engines.openvino import OPSET, build_model, core

    model = build_model(weights)
    import openvino  # Not before the engine, which imports it without its converter.

    _store_openvino_kernels(model, precision)
    for key, value in metadata(weights).items():
        model.set_rt_info(value, ["deconv", key])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.xml"
        openvino.save_model(model, file, compress_to_fp16=False)
        description, kernels = file.read_bytes(), file.with_suffix(".bin").read_bytes()
    # Not from the files, which OpenVINO would map into memory: Windows removes none that is.
    compiled = core().compile_model(core().read_model(description, kernels), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    difference = compare(weights, lambda x: compiled([x])[0], precision)
    # The parameters first, so that a description without them is never seen.
    write_atomically(path.with_suffix(".bin"), kernels)
    write_atomically(path, description)
    return Exported((str(path), str(path.with_suffix(".bin"))), precision, f"OpenVINO {OPSET}", difference)


def _store_openvino_kernels(model: openvino.Model, precision: str) -> None:
    """Store the kernels in half the bytes, as `_store_onnx_kernels` does."""
    if precision not in {"fp16", "bf16"}:
        return
    from openvino import Type
    from openvino import opset13 as ops

    stored: Any = {"fp16": Type.f16, "bf16": Type.bf16}[precision]
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant" and len(node.shape) == 4 and node.get_element_type() == Type.f32:
            users = node.output(0).get_target_inputs()
            widened = ops.convert(ops.constant(node.data, stored), "f32")
            for user in users:
                user.replace_source_output(widened.output(0))
