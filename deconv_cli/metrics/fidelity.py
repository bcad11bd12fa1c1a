"""How near a picture is to its reference: PSNR and SSIM."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.metrics.luma import to_gray, to_luma
from deconv_cli.metrics.protocol import Protocol

_WINDOW = 11
_BAND = 256  # rows at a time: in float64 a large picture would take gigabytes


def psnr(
    reference: NDArray[Any],
    test: NDArray[Any],
    *,
    channel: str = "rgb",
    crop: int = 0,
    data_range: float | None = None,
) -> float:
    """Return the peak signal-to-noise ratio of two pictures in dB, counted in float64.

    The squared error is averaged over all samples of all channels before the logarithm.

    Parameters
    ----------
    reference, test
        H x W or H x W x 3; both uint8, both uint16, or both floating point in 0..1. Alpha is refused: the
        colour under transparent pixels is arbitrary, so the caller has to say what is to be compared
        (``image[..., :3]``).
    channel
        "rgb" (samples as they are), "y" (studio-range luma, not rounded) or "gray" (full-range luma, not
        rounded). A gray picture is taken as it is for each.
    crop
        Pixels left out at each of the four borders.
    data_range
        The peak; by default the full scale of the samples: 255, 65535 or 1. It is the same for "y", as usual.

    Returns
    -------
    float
        Infinite where all samples compared are equal.

    Raises
    ------
    UsageError
        If a picture is no array, the channel is unknown, the crop negative, or the data range not positive.
    DeconvError
        If the pictures differ in shape or type, have alpha, or nothing is left after cropping.

    Examples
    --------
    >>> reference = np.zeros((16, 16, 3), dtype=np.uint8)
    >>> round(psnr(reference, reference + np.uint8(1)), 2)
    48.13
    >>> psnr(reference, reference)
    inf
    """
    protocol = Protocol(channel, crop, data_range)
    reference_part, test_part = _compared(reference, test, protocol)
    peak = protocol.peak(reference.dtype)
    squares, count = 0.0, 0
    for top in range(0, len(reference_part), _BAND):
        rows = slice(top, top + _BAND)
        error = np.subtract(
            _samples(reference_part[rows], protocol), _samples(test_part[rows], protocol), dtype=np.float64
        )
        squares += float(np.square(error, out=error).sum())
        count += error.size
    if squares == 0:
        return math.inf
    return 20 * math.log10(peak) - 10 * math.log10(squares / count)


def ssim(
    reference: NDArray[Any],
    test: NDArray[Any],
    *,
    channel: str = "rgb",
    crop: int = 0,
    data_range: float | None = None,
) -> float:
    """Return the structural similarity of two pictures as Wang et al. defined it, counted in float64.

    An 11 x 11 Gaussian window of sigma 1.5, K 0.01 and 0.03, population covariance; the mean over the
    positions where the window lies wholly inside the picture, as in the authors' program and in scikit-image
    (which computes it), so that the outermost 5 pixels (after `crop`) count as neighbours only. RGB is the
    mean of the three channels' values. Large pictures are not shrunk first, as the authors suggest.

    Parameters
    ----------
    reference, test
        H x W or H x W x 3, at least 11 pixels a side after cropping; types and alpha as for `psnr`.
    channel
        "rgb" (samples as they are), "y" (studio-range luma, not rounded) or "gray" (full-range luma, not
        rounded). A gray picture is taken as it is for each.
    crop
        Pixels left out at each of the four borders.
    data_range
        The L of the constants; by default the full scale of the samples: 255, 65535 or 1.

    Returns
    -------
    float
        1 for equal pictures, otherwise in -1..1.

    Raises
    ------
    UsageError
        If a picture is no array, the channel is unknown, the crop negative, or the data range not positive.
    DeconvError
        If the pictures differ in shape or type, have alpha, or are smaller than the window.

    References
    ----------
    Wang, Bovik, Sheikh, Simoncelli: Image quality assessment: from error visibility to structural similarity.
    IEEE Transactions on Image Processing 13 (2004). https://doi.org/10.1109/TIP.2003.819861

    Examples
    --------
    >>> reference = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (32, 1))
    >>> ssim(reference, reference)
    1.0
    >>> round(ssim(reference, reference[:, ::-1]), 2)
    -0.5
    """
    protocol = Protocol(channel, crop, data_range)
    reference_part, test_part = _compared(reference, test, protocol)
    height, width = reference_part.shape[:2]
    if min(height, width) < _WINDOW:
        raise DeconvError(
            f"SSIM needs {_WINDOW} x {_WINDOW} pixels, but only {width} x {height} are left to compare after "
            f"cropping {crop} at each border"
        )
    return _mean_ssim(reference_part, test_part, protocol)


def measure(reference: NDArray[Any], test: NDArray[Any], protocol: Protocol) -> tuple[float, float]:
    """Return PSNR and SSIM by a protocol; see `psnr` and `ssim`."""
    how: dict[str, Any] = {
        "channel": protocol.channel,
        "crop": protocol.crop,
        "data_range": protocol.data_range,
    }
    return psnr(reference, test, **how), ssim(reference, test, **how)


def mean_psnr(values: Iterable[float]) -> float:
    """Return the mean of those that are finite, infinity if none is: one exact picture would hide the others.

    >>> mean_psnr([30.0, math.inf, 34.0]), mean_psnr([math.inf])
    (32.0, inf)
    """
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.inf


def _mean_ssim(reference: NDArray[Any], test: NDArray[Any], protocol: Protocol) -> float:
    """Average SSIM over bands of rows.

    Bands that overlap by the window less one cover every position of the window once, so the result is that
    of the whole picture, in a third of the time and little memory (scikit-image holds some sixteen copies).
    """
    from skimage.metrics import structural_similarity

    positions, peak = reference.shape[0] - (_WINDOW - 1), protocol.peak(reference.dtype)
    total = 0.0
    for top in range(0, positions, _BAND):
        count = min(_BAND, positions - top)
        rows = slice(top, top + count + _WINDOW - 1)
        # In float32 a variance, the small difference of two large means, would lose its digits.
        one, other = (_samples(part[rows], protocol).astype(np.float64) for part in (reference, test))
        total += count * structural_similarity(  # type: ignore[no-untyped-call]
            one,
            other,
            data_range=peak,
            channel_axis=2 if one.ndim == 3 else None,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            K1=0.01,
            K2=0.03,
        )
    return float(total / positions)


def _compared(reference: NDArray[Any], test: NDArray[Any], protocol: Protocol) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the part of both pictures that the protocol compares."""
    for image in (reference, test):
        if not isinstance(image, np.ndarray):
            raise UsageError(f"a picture is a NumPy array, not {type(image).__name__}; see numpy.asarray")
    if reference.shape != test.shape:
        raise DeconvError(f"the pictures differ in shape: {reference.shape} and {test.shape}")
    if reference.dtype != test.dtype:
        raise DeconvError(f"the pictures differ in sample type: {reference.dtype} and {test.dtype}")
    return _inner(reference, protocol.crop), _inner(test, protocol.crop)


def _inner(image: NDArray[Any], crop: int) -> NDArray[Any]:
    match image.shape:
        case (height, width) | (height, width, 3):
            pass
        case (_, _, 2 | 4):
            raise DeconvError(f"alpha cannot be scored; pass the colours only, not an array of shape {image.shape}")
        case _:
            raise DeconvError(f"a picture to score is H x W or H x W x 3, not of shape {image.shape}")
    if min(height, width) <= 2 * crop:
        raise DeconvError(f"cropping {crop} at each border leaves nothing of {width} x {height} pixels")
    return image[crop : height - crop, crop : width - crop]


def _samples(part: NDArray[Any], protocol: Protocol) -> NDArray[Any]:
    """Return the samples of a part that the protocol compares."""
    if part.ndim == 2 or protocol.channel == "rgb":
        return part
    return to_luma(part) if protocol.channel == "y" else to_gray(part)
