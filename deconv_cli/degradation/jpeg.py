"""JPEG compression, by Pillow."""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deconv_cli.images.samples import from_float, to_float

BLOCK = 8
"""Side of a JPEG block in pixels."""
SHIFTED_SHARE = 0.25
"""Share of training patches whose block grid does not start at the corner, as in a picture that was cropped since."""
TWICE_SHARE = 0.2
"""Share of training patches that were compressed before."""

Subsampling = Literal["4:4:4", "4:2:0"]


def compress_jpeg(
    image: NDArray[np.float32], quality: float, subsampling: Subsampling = "4:2:0"
) -> NDArray[np.float32]:
    """Round a picture to 8 bits, write it as JPEG, and read it back.

    Parameters
    ----------
    image
        H x W, H x W x 1 or H x W x 3, float32, nominally 0..1; values outside are clipped. A single channel becomes a
        gray JPEG.
    quality
        1 to 100 on Pillow's (libjpeg's) scale; rounded.
    subsampling
        Of the colour; no matter to gray.

    Returns
    -------
    ndarray
        float32, the shape of `image`.

    Examples
    --------
    >>> ramp = np.linspace(0, 1, 64, dtype=np.float32) * np.ones((64, 1), np.float32)
    >>> bool(0 < np.abs(compress_jpeg(ramp, 10) - ramp).max() < 0.2)
    True
    """
    samples = from_float(image, np.uint8)
    file = BytesIO()
    single = samples.ndim == 3 and samples.shape[2] == 1
    Image.fromarray(samples[..., 0] if single else samples).save(
        file, "jpeg", quality=round(quality), subsampling=subsampling
    )
    return to_float(np.asarray(Image.open(file)).reshape(image.shape))


def compress_variously(image: NDArray[np.float32], quality: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Compress as pictures come: either subsampling, a shifted grid now and then, some of them twice."""
    if rng.random() < TWICE_SHARE:
        image = _compress_shifted(image, float(rng.uniform(quality, 95)) if quality < 95 else quality, rng)
    return compress_anywhere(image, quality, rng)


def compress_anywhere(image: NDArray[np.float32], quality: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Compress with either subsampling and, now and then, a shifted grid."""
    if rng.random() < SHIFTED_SHARE:
        return _compress_shifted(image, quality, rng)
    return compress_jpeg(image, quality, _any_subsampling(rng))


def _compress_shifted(image: NDArray[np.float32], quality: float, rng: np.random.Generator) -> NDArray[np.float32]:
    down, right = (int(shift) for shift in rng.integers(BLOCK, size=2))
    padding = [(down, 0), (right, 0), (0, 0)][: image.ndim]
    return compress_jpeg(np.pad(image, padding, mode="edge"), quality, _any_subsampling(rng))[down:, right:]


def _any_subsampling(rng: np.random.Generator) -> Subsampling:
    """Draw a subsampling."""
    return "4:2:0" if rng.random() < 0.5 else "4:4:4"
