"""Converting colours by their ICC profile, where a file cannot keep the profile."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from deconv_cli.images.frame import Frame, Samples


def is_gray_profile(icc: bytes) -> bool:
    """Tell whether a profile is for one channel."""
    return icc[16:20] == b"GRAY"


def without_black(frame: Frame) -> tuple[Frame, str | None]:
    """Turn a CMYK picture into sRGB by its profile, or by the simple formula if it has none that works.

    Returns
    -------
    tuple[Frame, str | None]
        The picture, and what happened; unchanged and None if it is not CMYK.
    """
    if frame.black is None:
        return frame, None
    largest = _largest(frame.pixels)
    if frame.icc and frame.pixels.dtype != np.float32:
        inks = np.dstack([largest - frame.pixels, largest - frame.black])
        converted = _transform(inks, frame.icc, "cmyk")
        if converted is not None:
            return replace(frame, pixels=converted, black=None, icc=None), "CMYK was converted to sRGB by its profile"
    product = frame.pixels.astype(np.float32) * (frame.black.astype(np.float32) / np.float32(largest))[..., None]
    pixels = product if frame.pixels.dtype == np.float32 else np.rint(product).astype(frame.pixels.dtype)
    return replace(frame, pixels=pixels, black=None, icc=None), "CMYK was converted to RGB without a profile"


def to_srgb(frame: Frame) -> tuple[Frame, str | None]:
    """Convert pixels to sRGB and drop the profile, so that the colours stay what they were without it.

    Returns
    -------
    tuple[Frame, str | None]
        The picture, and what could not be done; a CMYK or float picture keeps its values.
    """
    if frame.icc is None:
        return frame, None
    bare = replace(frame, icc=None)
    if frame.black is not None or frame.pixels.dtype == np.float32:
        return bare, "the ICC profile was dropped without converting the colours"
    if frame.pixels.ndim == 2 and is_gray_profile(frame.icc):
        converted = _transform(frame.pixels, frame.icc, "gray")
    elif frame.pixels.ndim == 2:
        coloured = _transform(np.dstack([frame.pixels] * 3), frame.icc, "rgb")
        converted = None if coloured is None else np.ascontiguousarray(coloured[..., 1])
    else:
        converted = _transform(frame.pixels, frame.icc, "rgb")
    if converted is None:
        return bare, "the ICC profile was dropped; the colours could not be converted by it"
    return replace(bare, pixels=converted), None


def _largest(samples: Samples) -> int:
    return 1 if samples.dtype == np.float32 else int(np.iinfo(samples.dtype).max)


def _transform(samples: Samples, icc: bytes, space: str) -> Samples | None:
    """Convert to sRGB (gray to gray with sRGB's curve), a part of the picture at a time; None if that fails."""
    import imagecodecs

    target_space = "gray" if space == "gray" else "rgb"
    shape = samples.shape[:2] if space == "gray" else (*samples.shape[:2], 3)
    out: Samples = np.empty(shape, samples.dtype)
    rows = max(1, (1 << 24) // samples[:1].size)
    try:
        for top in range(0, len(samples), rows):
            part = np.ascontiguousarray(samples[top : top + rows])
            out[top : top + rows] = imagecodecs.cms_transform(
                part,
                icc,
                _target_profile(target_space),
                colorspace=space,
                outcolorspace=target_space,
                outdtype=samples.dtype.name,
                # Its short cut for 16 bits, a table of 33 steps, is wrong by some per cent in the shadows.
                flags=imagecodecs.CMS.FLAGS.NOOPTIMIZE,
            ).reshape(part.shape[:2] + shape[2:])
    except (imagecodecs.CmsError, ValueError, TypeError, RuntimeError):
        return None
    return out


@functools.cache
def _target_profile(space: str) -> bytes:
    import imagecodecs

    if space == "rgb":
        return bytes(imagecodecs.cms_profile("srgb"))
    levels = np.linspace(0, 1, 4096)
    curve = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return bytes(imagecodecs.cms_profile("gray", transferfunction=curve.astype(np.float32)))
