"""The noise that cameras leave in their pictures: a model of where it comes from and what is done to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from deconv_cli.degradation.jpeg import compress_anywhere, compress_jpeg
from deconv_cli.degradation.noise import LEVEL_SCALE, add_gaussian_noise
from deconv_cli.images.samples import from_float, to_float
from deconv_cli.metrics.luma import LUMA

Floats = NDArray[np.float32]

MID_GRAY = 0.5
"""Pixel value at which the noise level is that of the noise."""
CALIBRATION_SIDE, CALIBRATION_SEED = 64, 0
SHARPENED_RADIUS = 1.0
"""Standard deviation, in pixels, of the Gaussian that sharpening takes the picture less of."""
PHOTO_QUALITY = 90
"""JPEG quality of a typical photograph."""
WHITE_SHARE, UNCOMPRESSED_SHARE, WORST_QUALITY = 0.15, 0.2, 50
"""Of the training patches: share whose noise is white, share not compressed, and lowest JPEG quality of the others."""

# Linear sRGB to XYZ (IEC 61966-2-1), and XYZ to the raw colours of four cameras, as Brooks et al. publish them.
_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_XYZ_TO_CAMERA = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.613, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.838, -0.263, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.097, 0.1581, 0.5181]],
    ]
)
_DEMOSAICING: Final = ("none", "bilinear", "malvar")
_BILINEAR = {"green": np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4, "other": np.outer((1, 2, 1), (1, 2, 1)) / 4}
# Malvar et al.'s: green where another colour was measured; red (or blue) at green between reds in the row; at blue.
_MALVAR = {
    "green": np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]) / 8,
    "row": np.array([[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]]) / 16,
    "other": np.array([[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]]) / 16,
}


@dataclass(frozen=True)
class Camera:
    """What decides the look of the noise; the defaults are a typical camera's.

    Attributes
    ----------
    red_gain, blue_gain
        White balance: what these channels were multiplied by, and their noise with them.
    mixture
        Shares of four cameras' colour matrices, which turn raw colours into sRGB and raise the noise in chroma.
    read_noise
        Variance of the noise in the dark over the growth of the variance with the signal (0..1, linear).
    demosaicing
        How the two colours that a pixel did not measure are interpolated: ``bilinear``, ``malvar``, which keeps edges
        and with them more of the noise, or ``none``, where all three were measured.
    luma_smoothing, chroma_smoothing
        Standard deviation, in pixels, of the Gaussian that the noise was smoothed by.
    sharpening
        Share of what a Gaussian of one pixel takes from the luma of the noise that was added to it afterwards.
    chroma_gain
        What the noise in chroma was multiplied by: below 1 where a camera has taken more of it than of that in luma.
    """

    red_gain: float = 2.1
    blue_gain: float = 1.7
    mixture: tuple[float, float, float, float] = (0.25, 0.25, 0.25, 0.25)
    read_noise: float = 0.003
    demosaicing: Literal["none", "bilinear", "malvar"] = "bilinear"
    luma_smoothing: float = 0.5
    chroma_smoothing: float = 0.7
    sharpening: float = 0.0
    chroma_gain: float = 1.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Camera:
        """Draw one from a wide range: a telephone's, a good camera's, one whose pictures were reduced since."""
        luma_smoothing = float(rng.uniform(0, 1.5)) if rng.random() < 0.7 else 0.0
        first, second, third, fourth = (float(share) for share in rng.dirichlet(np.ones(4)))
        return cls(
            red_gain=float(rng.uniform(1.4, 2.6)),
            blue_gain=float(rng.uniform(1.3, 2.4)),
            mixture=(first, second, third, fourth),
            read_noise=float(np.exp(rng.uniform(np.log(3e-4), np.log(0.05)))),
            demosaicing=_DEMOSAICING[int(rng.choice(len(_DEMOSAICING), p=(0.2, 0.4, 0.4)))],
            luma_smoothing=luma_smoothing,
            chroma_smoothing=luma_smoothing + (min(float(rng.exponential(1)), 4.0) if rng.random() < 0.5 else 0.0),
            sharpening=float(rng.uniform(0, 1.5)) if rng.random() < 0.3 else 0.0,
            chroma_gain=float(rng.uniform(0.1, 1)) if rng.random() < 0.4 else 1.0,
        )


def add_camera_noise(
    image: Floats, noise_level: float, rng: np.random.Generator, camera: Camera | None = None
) -> Floats:
    """Add the noise of a camera and round to 8 bits.

    The picture is taken back to the linear colours of the sensor. There every measurement gets noise whose variance
    grows with the signal, shot noise over read noise [1]_. The noise is multiplied by the white balance, interpolated
    as demosaicing does [4]_ (of the picture itself nothing is lost), turned into sRGB by the colour matrix, which makes
    it stronger in chroma than in luma [2]_, and smoothed, more so in chroma, as cameras and resizing leave it [3]_, or
    sharpened. The tone curve makes it stronger in the shadows. The result is clipped to the format and rounded.

    Parameters
    ----------
    image
        H x W, H x W x 1 or H x W x 3, float32, nominally 0..1 (sRGB). Gray pictures get the luma of the noise.
    noise_level
        Standard deviation on the 0..255 scale of what all of this leaves on mid-gray: the root mean square over red,
        green and blue.
    rng
        Source of the noise; the same generator state gives the same noise.
    camera
        Where the noise comes from; a typical camera by default.

    Returns
    -------
    ndarray
        float32, the shape of `image`, 0..1 in steps of 1/255.

    References
    ----------
    .. [1] A. Foi, M. Trimeche, V. Katkovnik, K. Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting
       for single-image raw-data", IEEE Transactions on Image Processing 17 (2008), equation 3.
    .. [2] T. Brooks et al., "Unprocessing images for learned raw denoising", CVPR 2019 (arXiv 1811.11127), sections
       3.1 to 3.4, whose matrices and gains these are.
    .. [3] S. Guo et al., "Toward convolutional blind denoising of real photographs", CVPR 2019 (arXiv 1807.04686),
       section 3.1: demosaicing and JPEG in the model are what makes it hold for real pictures.
    .. [4] H. S. Malvar, L. He, R. Cutler, "High-quality linear interpolation for demosaicing of Bayer-patterned color
       images", ICASSP 2004, figure 2; or bilinearly.

    Examples
    --------
    >>> flat = np.full((128, 128, 3), 0.5, np.float32)
    >>> noise = add_camera_noise(flat, 10, np.random.default_rng(0)) - flat
    >>> bool(9 < noise.std() * 255 < 11)
    True
    """
    camera = camera or Camera()
    colour = image if image.ndim == 3 and image.shape[2] == 3 else np.repeat(image.reshape(*image.shape[:2], 1), 3, 2)
    colour = np.clip(colour, 0, 1)
    noise = _noise(colour, camera, _strength(camera, noise_level), rng)
    noisy = colour + noise
    if noisy.size != image.size:
        noisy = noisy @ LUMA
    return to_float(from_float(noisy, np.uint8)).reshape(image.shape)


def photograph(image: Floats, noise_level: float, rng: np.random.Generator) -> Floats:
    """Add a typical camera's noise and save as it does: JPEG 4:2:0 of quality 90."""
    return compress_jpeg(add_camera_noise(image, noise_level, rng), PHOTO_QUALITY)


def photograph_variously(image: Floats, noise_level: float, rng: np.random.Generator) -> Floats:
    """Add the noise of any camera, now and then white noise as scans have it, and compress most as JPEG."""
    if rng.random() < WHITE_SHARE:
        noisy = add_gaussian_noise(image, noise_level, rng)
    else:
        noisy = add_camera_noise(image, noise_level, rng, Camera.draw(rng))
    if rng.random() < UNCOMPRESSED_SHARE:
        return to_float(from_float(noisy, np.uint8))
    return compress_anywhere(noisy, float(rng.uniform(WORST_QUALITY, 100)), rng)


def _strength(camera: Camera, noise_level: float) -> float:
    """Return the shot noise (variance over signal) that leaves the noise level on mid-gray.

    Measured on a flat patch with noise so weak that the tone curve is a straight line, since the smoothing depends on
    the kernels and the matrices on the camera.
    """
    flat = np.full((CALIBRATION_SIDE, CALIBRATION_SIDE, 3), MID_GRAY, np.float32)
    weak = 1e-8
    left = _noise(flat, camera, weak, np.random.default_rng(CALIBRATION_SEED))
    return weak * float(noise_level / LEVEL_SCALE) ** 2 / float(np.square(left, dtype=np.float64).mean())


def _noise(colour: Floats, camera: Camera, shot_noise: float, rng: np.random.Generator) -> Floats:
    """Return what is to be added to an H x W x 3 picture, before clipping."""
    to_camera, from_camera = _colour_matrices(camera)
    gains = np.array([camera.red_gain, 1, camera.blue_gain], np.float32)
    linear = _to_linear(colour)
    raw = np.maximum(linear @ to_camera.T, 0) / gains
    deviation = np.sqrt(np.float32(shot_noise) * (raw + np.float32(camera.read_noise)))
    noise = gains * deviation * rng.standard_normal(raw.shape, dtype=np.float32)
    if camera.demosaicing != "none":
        noise = demosaic(noise, camera.demosaicing, int(rng.integers(2)), int(rng.integers(2)))
    noise = _finish(noise @ from_camera.T, camera)
    return _from_linear(np.maximum(linear + noise, 0)) - colour


def _colour_matrices(camera: Camera) -> tuple[Floats, Floats]:
    """Return the matrices from linear sRGB to the raw colours, after white balance, and back."""
    to_camera = np.tensordot(camera.mixture, _XYZ_TO_CAMERA, 1) @ _RGB_TO_XYZ
    to_camera /= to_camera.sum(axis=1, keepdims=True)
    return to_camera.astype(np.float32), np.linalg.inv(to_camera).astype(np.float32)


def interpolate(image: Floats, rng: np.random.Generator) -> Floats:
    """Let a camera measure one colour a pixel of a picture and interpolate the others, more or less well.

    Along edges that leaves patterns two pixels wide, which are no noise. Without noise there is nothing random but the
    camera, the place of the pattern, and how much of what Malvar's method (see `add_camera_noise`) gets wrong is left
    by a better one.

    Parameters
    ----------
    image
        H x W x 1 or H x W x 3, float32, 0..1 (sRGB).
    rng
        Source of randomness.

    Returns
    -------
    ndarray
        float32, the shape of `image`, 0..1.
    """
    to_camera, from_camera = _colour_matrices(Camera.draw(rng))
    colour = np.broadcast_to(image, (*image.shape[:2], 3))
    raw = _to_linear(colour) @ to_camera.T
    linear = demosaic(raw, "malvar", int(rng.integers(2)), int(rng.integers(2))) @ from_camera.T
    error = np.clip(_from_linear(linear), 0, 1) - colour
    if image.shape[2] == 1:
        error = (error @ LUMA)[..., None]
    return image + np.float32(rng.uniform()) * error


def demosaic(colours: Floats, method: str, down: int, right: int) -> Floats:
    """Keep one colour a pixel, in Bayer's pattern shifted by 0 or 1, and interpolate the others (H x W x 3)."""
    rows, columns = (
        (np.arange(side) + shift) % 2 for side, shift in zip(colours.shape[:2], (down, right), strict=True)
    )
    red, blue = np.outer(1 - rows, 1 - columns), np.outer(rows, columns)
    measured = np.stack((red, 1 - red - blue, blue), axis=2)
    kept = colours * measured.astype(np.float32)
    return _bilinear(kept) if method == "bilinear" else _malvar(kept, measured.astype(bool))


def _bilinear(kept: Floats) -> Floats:
    """Interpolate each colour from its own nearest measurements."""
    kernels = (_BILINEAR[name] for name in ("other", "green", "other"))
    return np.stack([_convolve(kept[..., channel], kernel) for channel, kernel in enumerate(kernels)], axis=2)


def _malvar(kept: Floats, measured: NDArray[np.bool_]) -> Floats:
    """Interpolate each colour from its own nearest measurements, corrected by how the measured one bends there."""
    mosaic = kept.sum(axis=2)
    green, along, across, other = (
        _convolve(mosaic, kernel) for kernel in (_MALVAR["green"], _MALVAR["row"], _MALVAR["row"].T, _MALVAR["other"])
    )
    planes = [np.where(measured[..., 1], mosaic, green)] * 3
    for here, there in ((0, 2), (2, 0)):
        in_its_row = measured[..., here].any(axis=1, keepdims=True)
        at_green = np.where(in_its_row, along, across)
        planes[here] = np.select([measured[..., here], measured[..., there]], [mosaic, other], at_green)
    return np.stack(planes, axis=2)


def _convolve(plane: Floats, kernel: NDArray[np.float64]) -> Floats:
    from scipy import ndimage  # type: ignore[import-untyped, unused-ignore]

    convolved: Floats = ndimage.convolve(plane, kernel, mode="mirror")
    return convolved


def _finish(noise: Floats, camera: Camera) -> Floats:
    """Smooth luma and the rest apart, and sharpen luma: what a camera does to its pictures, and to the noise."""
    luma = (noise @ LUMA)[..., None]
    chroma = np.float32(camera.chroma_gain) * (noise - luma)
    luma = _blur(luma, camera.luma_smoothing)
    if camera.sharpening > 0:
        luma = luma + np.float32(camera.sharpening) * (luma - _blur(luma, SHARPENED_RADIUS))
    return luma + _blur(chroma, camera.chroma_smoothing)


def _blur(planes: Floats, deviation: float) -> Floats:
    from scipy import ndimage

    if deviation < 0.1:
        return planes
    blurred: Floats = ndimage.gaussian_filter(planes, (deviation, deviation, 0), mode="mirror", truncate=3)
    return blurred


def _to_linear(srgb: Floats) -> Floats:
    """Undo the tone curve of IEC 61966-2-1."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _from_linear(linear: Floats) -> Floats:
    """Apply the tone curve of IEC 61966-2-1, which goes on above white."""
    curved = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curved).astype(np.float32)
