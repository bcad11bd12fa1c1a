"""The two lumas of ITU-R BT.601: studio range, as papers count, and full range, as gray pictures store."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deconv_cli.errors import DeconvError
from deconv_cli.metrics.protocol import full_scale

_STUDIO_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255
_STUDIO_BLACK = 16 / 255
_FULL_WEIGHTS = np.array([0.299, 0.587, 0.114])
LUMA = _FULL_WEIGHTS.astype(np.float32)
"""Weights of R, G and B in full-range luma, for pictures in float32."""


def to_luma(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Return the studio-range luma of BT.601, on the scale of the input and not rounded.

    Black becomes 16/255 and white 235/255 of full scale, as in MATLAB's ``rgb2ycbcr`` (it rounds integers).

    Parameters
    ----------
    rgb
        H x W x 3; uint8, uint16, or floating point in 0..1.

    Returns
    -------
    NDArray[np.float64]
        H x W; 16..235 for uint8, 4112..60395 for uint16, 16/255..235/255 for floating point.

    Raises
    ------
    DeconvError
        If `rgb` is not H x W x 3, or is of another sample type.

    Examples
    --------
    >>> black_and_white = np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    >>> to_luma(black_and_white).round(6).tolist()
    [[16.0, 235.0]]
    """
    _require_rgb(rgb)
    luma: NDArray[np.float64] = rgb @ _STUDIO_WEIGHTS + _STUDIO_BLACK * full_scale(rgb.dtype)
    return luma


def to_gray(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Return the full-range luma of BT.601 (the Y of JPEG), on the scale of the input and not rounded.

    Parameters
    ----------
    rgb
        H x W x 3; uint8, uint16, or floating point in 0..1.

    Returns
    -------
    NDArray[np.float64]
        H x W; black stays 0 and white stays full scale.

    Raises
    ------
    DeconvError
        If `rgb` is not H x W x 3.

    Examples
    --------
    >>> to_gray(np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)).round(6).tolist()
    [[0.0, 255.0]]
    """
    _require_rgb(rgb)
    gray: NDArray[np.float64] = rgb @ _FULL_WEIGHTS
    return gray


def _require_rgb(rgb: NDArray[Any]) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise DeconvError(f"luma needs an H x W x 3 array, not one of shape {rgb.shape}")
