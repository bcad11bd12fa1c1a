"""PyTorch: every device, every number format."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from deconv_cli.network.container import thread_limit
from deconv_cli.network.device import find_precision
from deconv_cli.network.weights import Weights


class Engine:
    """A network in channels-last layout; see `deconv_cli.network.engines.Engine`."""

    def __init__(self, weights: Weights, device: str, precision: str) -> None:
        if limit := thread_limit():  # The caller may have set fewer.
            torch.set_num_threads(min(limit, torch.get_num_threads()))
        self._device, self._dtype = torch.device(device), find_precision(precision, torch.device(device))
        network = weights.build().to(self._device, self._dtype)
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `deconv_cli.network.engines.Engine.run`."""
        given = torch.from_numpy(x).to(self._device, self._dtype, memory_format=torch.channels_last)
        residual: NDArray[np.float32] = self._network.residual(given).float().cpu().numpy()
        return residual
