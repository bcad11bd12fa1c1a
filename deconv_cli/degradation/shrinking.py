"""Loss of resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deconv_cli.images.resampling import downscale
from deconv_cli.images.samples import from_float, to_float


def shrink(image: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Shrink a picture and round it to 8 bits, as the field's protocol for super-resolution asks.

    Parameters
    ----------
    image
        H x W or H x W x C, float32, nominally 0..1; H and W are multiples of `scale`.
    scale
        Whole factor.

    Returns
    -------
    ndarray
        H / scale x W / scale (x C), float32, 0..1 in steps of 1/255.

    Examples
    --------
    >>> shrink(np.full((4, 6), 0.5, np.float32), 2).shape
    (2, 3)
    """
    return to_float(from_float(downscale(image, scale), np.uint8))
