"""What is done about transparency before pixels go where there is none."""

from __future__ import annotations

import numpy as np

from deconv_cli.images.frame import Samples
from deconv_cli.images.samples import to_float


def bleed_alpha(pixels: Samples, alpha: Samples) -> Samples:
    """Give fully transparent pixels the colour of the nearest visible one.

    Editors leave anything under full transparency, mostly black, and a convolution would smear it into the
    visible edge.

    Parameters
    ----------
    pixels
        H x W or H x W x 3, of any dtype.
    alpha
        H x W, 0 where the picture is fully transparent.

    Returns
    -------
    Samples
        Pixels of the same shape and dtype; `pixels` itself if nothing is transparent, or everything.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    from scipy import ndimage  # type: ignore[import-untyped, unused-ignore]

    rows, columns = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
    bled: Samples = pixels[rows, columns]
    return bled


def without_hidden(pixels: Samples, alpha: Samples) -> Samples:
    """Mark fully transparent pixels as not to be measured: NaN, for which what is left becomes float32 in 0..1.

    Parameters
    ----------
    pixels
        H x W or H x W x 3, of any dtype.
    alpha
        H x W, 0 where the picture is fully transparent.

    Returns
    -------
    Samples
        Pixels of the same shape; `pixels` itself if nothing is transparent, or everything.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    seen = np.array(to_float(pixels))
    seen[hidden] = np.nan
    return seen


def flatten_onto_white(pixels: Samples, alpha: Samples) -> Samples:
    """Composite pixels (H x W or H x W x 3) by their alpha (H x W) onto white; same shape and dtype."""
    cover = alpha[(...,) + (None,) * (pixels.ndim - 2)]
    if pixels.dtype == np.float32:
        blended: Samples = pixels * cover + (1 - cover)
        return blended
    white = int(np.iinfo(pixels.dtype).max)
    cover = cover.astype(np.uint32)
    mixed = (pixels * cover + white * (white - cover) + white // 2) // white
    flat: Samples = mixed.astype(pixels.dtype)
    return flat
