"""The methods from before neural networks, to compare with, by scikit-image and Pillow."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from deconv_cli.errors import DeconvError, UsageError, unknown_name
from deconv_cli.images import upscale

Floats = NDArray[np.float32]

# Chosen by PSNR at sigma 15, 25 and 50 on photographs that stand in no benchmark.
NLM_STRENGTH, NLM_PATCH, NLM_DISTANCE = 0.6, 5, 6
TV_WEIGHT = 0.7


def non_local_means(image: Floats, sigma: float) -> Floats:
    """Average similar patches (Buades, Coll, Morel, "A non-local algorithm for image denoising", CVPR 2005).

    Parameters
    ----------
    image
        H x W or H x W x 3, float32, nominally 0..1.
    sigma
        Standard deviation of the noise, on 0..1.
    """
    from skimage.restoration import denoise_nl_means

    return _float32(
        denoise_nl_means(
            image,
            patch_size=NLM_PATCH,
            patch_distance=NLM_DISTANCE,
            h=NLM_STRENGTH * sigma,
            sigma=sigma,
            fast_mode=True,
            channel_axis=_channel_axis(image),
        )
    )


def total_variation(image: Floats, sigma: float) -> Floats:
    """Minimise total variation (Chambolle, J. Mathematical Imaging and Vision 20, 2004); as `non_local_means`."""
    from skimage.restoration import denoise_tv_chambolle

    axis = _channel_axis(image)
    return _float32(denoise_tv_chambolle(image, weight=TV_WEIGHT * sigma, channel_axis=axis))  # type: ignore[no-untyped-call]


def wavelet(image: Floats, sigma: float) -> Floats:
    """Shrink wavelet coefficients (BayesShrink: Chang, Yu, Vetterli 2000), in YCbCr; as `non_local_means`.

    Raises
    ------
    DeconvError
        If PyWavelets, which scikit-image needs for it, is not installed.
    """
    from skimage.restoration import denoise_wavelet

    axis = _channel_axis(image)
    try:
        # It rescales by the range of the picture, outside 0..1 too; a copy keeps the input as it is.
        shrunk = denoise_wavelet(
            image.copy(), sigma=sigma, convert2ycbcr=axis is not None, rescale_sigma=True, channel_axis=axis
        )
    except ImportError as error:
        raise DeconvError(
            "wavelet needs PyWavelets: pip install 'deconv-cli[wavelet]', or leave it out of --against"
        ) from error
    return _float32(shrunk)


def lanczos(image: Floats, scale: int) -> Floats:
    """Enlarge H x W (x 3), float32, by a windowed sinc of three lobes, by Pillow."""
    from PIL import Image

    height, width = image.shape[:2]
    planes = np.moveaxis(image.reshape(height, width, -1), 2, 0)
    size = (width * scale, height * scale)
    enlarged = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS)) for plane in planes]
    return np.stack(enlarged, axis=2).reshape(size[1], size[0], *image.shape[2:])


DENOISERS: MappingProxyType[str, Callable[[Floats, float], Floats]] = MappingProxyType(
    {"nlm": non_local_means, "tv": total_variation, "wavelet": wavelet}
)
ENLARGERS: MappingProxyType[str, Callable[[Floats, int], Floats]] = MappingProxyType(
    {"bicubic": upscale, "lanczos": lanczos}
)


def find_classical(name: str, scale: int) -> Callable[[Floats, float], Floats]:
    """Return the method of that name, for a scale.

    Parameters
    ----------
    name
        ``nlm``, ``tv`` or ``wavelet`` at scale 1, ``bicubic`` or ``lanczos`` above.
    scale
        Output side over input side.

    Returns
    -------
    Callable
        Degraded picture (float32) and standard deviation of its error (0..1) to restored picture.

    Raises
    ------
    UsageError
        If there is no such method, or not for this scale.
    """
    valid = (*DENOISERS, *ENLARGERS)
    if name not in valid:
        raise unknown_name("method", name, valid)
    if (name in ENLARGERS) != (scale > 1):
        fitting = ENLARGERS if scale > 1 else DENOISERS
        raise UsageError(f"{name} is not for this task; valid: {', '.join(fitting)}")
    if scale > 1:
        return lambda image, _: ENLARGERS[name](image, scale)
    return DENOISERS[name]


def _channel_axis(image: Floats) -> int | None:
    return 2 if image.ndim == 3 else None


def _float32(image: NDArray[np.floating]) -> Floats:
    return image.astype(np.float32)
