"""What a study measures on restored pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deconv_cli.images import from_float
from deconv_cli.metrics import psnr
from deconv_cli.network.encoder_decoder import RestorationNetwork
from deconv_cli.tasks import Task
from deconv_cli.training.validation import Case

NYQUIST_BAND = 1 / 16
"""How near, in cycles a pixel, a frequency must be to a period of two pixels to count as checkerboard."""


@torch.no_grad()
def restore_cases(network: RestorationNetwork, cases: Sequence[Case], task: Task) -> NDArray[np.float32]:
    """Run the network on cases of one size.

    Returns
    -------
    ndarray
        N x H x W x 3, float32, not clipped; larger than the input by the scale.
    """
    degraded = torch.from_numpy(np.stack([case.degraded for case in cases])).permute(0, 3, 1, 2)
    told = [task.condition(case.level) for case in cases]
    condition: Tensor | None = None if None in told else torch.tensor(told)
    restored: NDArray[np.float32] = network(degraded, condition).permute(0, 2, 3, 1).numpy()
    return restored


def mean_psnr(cases: Sequence[Case], restored: NDArray[np.float32]) -> float:
    """Return the mean of the pictures' PSNR by the task's protocol; NaN if an output is not finite."""
    if not np.isfinite(restored).all():
        return float("nan")
    rounded = from_float(restored, np.uint8)
    values = [
        psnr(case.clean, image, channel=case.protocol.channel, crop=case.protocol.crop)
        for case, image in zip(cases, rounded, strict=True)
    ]
    return float(np.mean(values))


def score(cases: Sequence[Case], restored: NDArray[np.float32]) -> dict[str, float]:
    """Return mean PSNR and SSIM of cases of one level, beside those of the input, and the gain, in dB."""
    reached = np.array([case.score(image) for case, image in zip(cases, restored, strict=True)])
    result = {
        "level": cases[0].reported,
        "psnr": float(reached[:, 0].mean()),
        "ssim": float(reached[:, 1].mean()),
        "input_psnr": float(np.mean([case.input_psnr for case in cases])),
        "input_ssim": float(np.mean([case.input_ssim for case in cases])),
    }
    result["gain"] = result["psnr"] - result["input_psnr"]
    return result


def share_outside(restored: NDArray[np.float32]) -> float:
    """Return the share of samples outside 0..1, which the file format will clip."""
    return float(((restored < 0) | (restored > 1)).mean())


def checkerboard_energy(error: NDArray[Any]) -> float:
    """Return how much stronger an error is at a period of two pixels than white noise of the same energy would be.

    Stride-2 upsampling that treats its phases differently leaves a pattern of that period. Measured in the spectrum:
    the energy in the bands of half-width `NYQUIST_BAND` around the frequencies 1/2 in x, in y, and in both, over the
    energy that these bands would hold if it were spread evenly.

    Parameters
    ----------
    error
        N x H x W x C, output minus truth.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = rng.standard_normal((4, 64, 64, 3))
    >>> round(checkerboard_energy(noise), 1)
    1.0
    >>> checkerboard_energy(noise + 2 * (np.indices((64, 64)).sum(0) % 2)[..., None]) > 5
    True
    """
    error = error.astype(np.float64)  # What is about to diverge is too large to be squared in float32.
    centred = error - error.mean((1, 2), keepdims=True)
    power = np.square(np.abs(np.fft.fft2(centred, axes=(1, 2)))).mean((0, 3))
    rows, columns = (np.abs(np.fft.fftfreq(side)) for side in power.shape)
    near_rows, near_columns = rows >= 0.5 - NYQUIST_BAND, columns >= 0.5 - NYQUIST_BAND
    low_rows, low_columns = rows <= NYQUIST_BAND, columns <= NYQUIST_BAND
    band = np.outer(near_rows, near_columns) | np.outer(near_rows, low_columns) | np.outer(low_rows, near_columns)
    total = power.sum()
    return float(power[band].sum() / total / band.mean()) if total else 0.0
