"""Weights files: safetensors with the model's description, recipe and scores in the metadata."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deconv_cli.errors import DeconvError
from deconv_cli.images.atomic import write_atomically
from deconv_cli.network.description import Description
from deconv_cli.network.graph import Parameters, check_parameters
from deconv_cli.network.quantization import Quantization

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deconv_cli.network.classifier import Classifier
    from deconv_cli.network.encoder_decoder import RestorationNetwork

    Network = TypeVar("Network", bound=nn.Module)

METADATA_KEY = "deconv"
FORMAT_VERSION = 2
"""1: all in float; 2: some kernels, ``NAME.weight``, in int8, each with ``NAME.scales`` and ``NAME.input`` (input scale
and zero point) beside it; see `deconv_cli.network.quantization.Quantization`."""
DISK_TYPES = {"I8": "<i1", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
MAX_BYTES = 1 << 30
"""A larger file is refused before anything is allocated."""


@dataclass(frozen=True)
class Weights:
    """A model with its parameters.

    Attributes
    ----------
    description
        What the model is.
    parameters
        Parameter name to array, float32; see `to_parameters`. Kernels of layers in eight bits are rounded.
    recipe
        The effective training configuration and the pictures it saw.
    scores
        What the training measured on its validation pictures.
    sha256
        Hash of the file it was read from; empty for one that was not read from a file.
    quantization
        Name of every layer that runs in eight bits, to what it rounds to.
    """

    description: Description
    parameters: Parameters
    recipe: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    quantization: Mapping[str, Quantization] = field(default_factory=dict)

    def build(self) -> RestorationNetwork:
        """Make the network of a restoration, in float32 on the processor, ready for inference."""
        from deconv_cli.network.encoder_decoder import build_network

        network = self._load_into(lambda: build_network(self.description.architecture, "default"))
        if self.quantization:
            from deconv_cli.network.fake_quantization import fake_quantize

            fake_quantize(network, self.quantization, round_kernels=False)
        return network

    def build_classifier(self) -> Classifier:
        """Make the classifier, in float32 on the processor, ready for inference."""
        from deconv_cli.network.classifier import build_classifier

        classes = len(self.description.classes)
        return self._load_into(lambda: build_classifier(self.description.architecture, classes, "default"))

    def _load_into(self, build: Callable[[], Network]) -> Network:
        import torch

        with torch.device("meta"):  # Nothing is drawn, since all of it is replaced.
            network = build()
        network.load_state_dict({name: torch.from_numpy(array) for name, array in self.parameters.items()}, assign=True)
        network.eval().requires_grad_(requires_grad=False)
        return network


def to_parameters(state: Mapping[str, Tensor]) -> Parameters:
    """Return the tensors of a network's ``state_dict`` as arrays, float32."""
    return {name: tensor.detach().to("cpu").float().numpy() for name, tensor in state.items()}


def save_weights(path: Path, weights: Weights, *, dtype: type[np.floating[Any]] = np.float16) -> None:
    """Write a weights file atomically.

    Parameters
    ----------
    path
        The file to write; an existing one is replaced.
    weights
        What to write.
    dtype
        Number format on disk of what is not int8.

    Raises
    ------
    DeconvError
        If the file cannot be written.
    """
    from safetensors.numpy import save

    header = {
        "format": FORMAT_VERSION if weights.quantization else 1,
        "description": weights.description.to_dict(),
        "recipe": dict(weights.recipe),
        "scores": dict(weights.scores),
    }
    arrays: dict[str, NDArray[Any]] = {
        name: np.ascontiguousarray(array, dtype) for name, array in weights.parameters.items()
    }
    for name, how in weights.quantization.items():
        arrays[f"{name}.weight"] = np.ascontiguousarray(how.to_int8(weights.parameters[f"{name}.weight"]))
        arrays[f"{name}.scales"] = how.scales
        arrays[f"{name}.input"] = np.array([how.input_scale, how.zero_point], np.float32)
    write_atomically(path, save(arrays, {METADATA_KEY: json.dumps(header)}))


def load_weights(path: Path) -> Weights:
    """Read a weights file. Nothing in it is ever executed.

    Parameters
    ----------
    path
        A file that `save_weights` wrote.

    Raises
    ------
    DeconvError
        If the file is missing, damaged, not one of this project, or written by a newer version.
    """
    data = _read_bytes(path)
    tensors, header = _parse(path, data)
    try:
        description = Description.from_dict(header["description"])
        expected = description.parameters
    except (DeconvError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DeconvError(f"{path}: does not describe a model this version knows ({error})") from error
    misfit = DeconvError(f"{path}: damaged weights: the tensors do not fit the described architecture")
    try:
        quantization = _take_quantization(tensors)
        # Counted before it is gone through, so that a description that promises a huge network takes no time.
        if sum(math.prod(tensor["shape"]) for tensor in tensors.values()) != expected:
            raise misfit
        parameters = {name: _to_array(tensor) for name, tensor in tensors.items()}
        check_parameters(description.architecture, parameters, len(description.classes), quantization)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise misfit from error
    for name, how in quantization.items():
        parameters[f"{name}.weight"] *= how.scales
    return Weights(
        description=description,
        parameters=parameters,
        recipe=header.get("recipe", {}),
        scores=header.get("scores", {}),
        sha256=hashlib.sha256(data).hexdigest(),
        quantization=quantization,
    )


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DeconvError(f"{path}: too large for a weights file of this project (over {MAX_BYTES >> 20} MiB)")
        return path.read_bytes()
    except OSError as error:
        raise DeconvError(f"{path}: cannot read the weights ({error.strerror})") from error


def _parse(path: Path, data: bytes) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    from safetensors import SafetensorError, deserialize

    try:
        tensors = dict(deserialize(data))  # type: ignore[no-untyped-call]
        # A safetensors file starts with the length of its JSON header (8 bytes, little-endian).
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, RecursionError, AttributeError) as error:
        raise DeconvError(f"{path}: not a weights file, or a damaged one ({error})") from error
    try:
        header = json.loads(metadata[METADATA_KEY])
        version = header["format"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DeconvError(f"{path}: these weights were not written by deconv; give a file that train wrote") from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise DeconvError(f"{path}: written by a newer deconv (format {version}); upgrade deconv to use it")
    if not all(isinstance(header.get(part, {}), dict) for part in ("recipe", "scores")):
        raise DeconvError(f"{path}: damaged weights: recipe and scores are not objects of JSON")
    return tensors, header


def _take_quantization(tensors: dict[str, dict[str, Any]]) -> dict[str, Quantization]:
    """Take out what tensors in int8 are rounded to, so that the parameters are left."""
    taken = {}
    for name in [name for name, tensor in tensors.items() if tensor["dtype"] == "I8"]:
        layer = name.removesuffix(".weight")
        scales, (input_scale, zero_point) = (_to_array(tensors.pop(f"{layer}.{part}")) for part in ("scales", "input"))
        taken[layer] = Quantization(scales, float(input_scale), int(zero_point))
    return taken


def _to_array(tensor: dict[str, Any]) -> NDArray[np.float32]:
    """Return a tensor of a safetensors file as float32."""
    if tensor["dtype"] == "BF16":  # numpy has no such type: it is the upper half of a float32.
        values = (np.frombuffer(tensor["data"], "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(tensor["data"], DISK_TYPES[tensor["dtype"]])
    return values.astype(np.float32).reshape(tensor["shape"])
