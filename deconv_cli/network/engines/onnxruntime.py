"""ONNX Runtime: runs on processors, in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from deconv_cli.network.container import thread_limit
from deconv_cli.network.onnx_model import build_model
from deconv_cli.network.weights import Weights


class Engine:
    """A session for pictures of any size; see `deconv_cli.network.engines.Engine`."""

    def __init__(self, weights: Weights, device: str, precision: str) -> None:
        del device, precision  # There is one of each.
        onnxruntime.disable_telemetry_events()  # Builds for Windows would report what runs.
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_limit() or 0
        options.log_severity_level = 3
        model = build_model(weights).SerializeToString()
        with _usual_errors():
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `deconv_cli.network.engines.Engine.run`."""
        with _usual_errors():
            (residual,) = self._session.run(None, {"image": x})
        return residual  # type: ignore[no-any-return]


@contextlib.contextmanager
def _usual_errors() -> Iterator[None]:
    """Raise errors as other engines do: ONNX Runtime's own derive from `Exception` alone."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise RuntimeError(str(error)) from error
