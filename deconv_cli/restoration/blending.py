"""How much of what the network changes is taken: strength, apart for luma and chroma, that gives texture back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deconv_cli.metrics.luma import LUMA

WINDOW = 7
"""Side of the window in which texture is measured, in pixels."""


def blend(
    base: NDArray[np.float32],
    added: NDArray[np.float32],
    *,
    strength: float,
    chroma: float,
    noise_level: float | None,
) -> NDArray[np.float32]:
    """Add what the network changes, less where the strength is below 1.

    A plain blend brings the noise back everywhere alike. Where the noise level is known, what was removed comes back by
    how much texture there is: ``w = v / (v + sigma**2)``, with the variance `v` of the restored luma in a window. In
    flat parts, where the eye sees noise first, little of it returns. As the strength goes to 0 the weight goes to 1, so
    that 0 is the input exactly.

    Parameters
    ----------
    base
        What to start from: the input, or its enlargement. H x W or H x W x 3, float32.
    added
        What the network adds, of the same shape.
    strength, chroma
        1 takes all of it, 0 nothing; the second one for what changes the colour but not the luma.
    noise_level
        Sigma on the 0..255 scale, or None for a plain blend.
    """
    if strength == chroma == 1:
        return base + added
    if strength == chroma == 0:
        return base
    restored = base + added
    weight = 1.0 if noise_level is None else texture(restored, noise_level)
    by_luma = _taken(strength, weight)
    if base.ndim == 2 or strength == chroma:
        taken = _per_pixel(by_luma, base) * added
    else:
        luma = (added @ LUMA)[..., None]
        taken = _per_pixel(by_luma, base) * luma + _per_pixel(_taken(chroma, weight), base) * (added - luma)
    blended: NDArray[np.float32] = base + taken
    return blended


def texture(restored: NDArray[np.float32], noise_level: float) -> NDArray[np.float32]:
    """Return 0 where a restored picture is flat, to 1 where its texture is much stronger than the noise.

    Parameters
    ----------
    restored
        H x W or H x W x 3, float32.
    noise_level
        Sigma on the 0..255 scale.

    Returns
    -------
    ndarray
        H x W, float32.
    """
    from scipy import ndimage

    luma = restored if restored.ndim == 2 else restored @ LUMA
    mean = ndimage.uniform_filter(luma, WINDOW)
    variance = np.maximum(ndimage.uniform_filter(np.square(luma), WINDOW) - np.square(mean), 0)
    weight: NDArray[np.float32] = variance / (variance + np.float32(max(noise_level, 0.1) / 255) ** 2)
    return weight


def _taken(strength: float, weight: Any) -> Any:  # noqa: ANN401 - a number or an array
    """Return the share of the change that is taken."""
    towards_input = weight + (1 - weight) * np.float32((1 - strength) ** 4)
    return 1 - np.float32(1 - strength) * towards_input


def _per_pixel(share: Any, image: NDArray[np.float32]) -> Any:  # noqa: ANN401
    return share[..., None] if isinstance(share, np.ndarray) and image.ndim == 3 else share
