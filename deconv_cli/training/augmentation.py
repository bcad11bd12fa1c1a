"""What training does to its pictures to see more of them: each augmentation by name, and the functions that do it.

All act on the clean picture before it is degraded, but for CutBlur and the borders, which act on both. They draw from
the generator of the step, so that a batch stays a function of seed and step. A random place (crop) is always drawn,
where the picture is larger than the patch. By name:

* flip: mirror images
* rotate: quarter turns
* scale: half of the pictures cut from a region up to twice as large, and shrunk
* soften: a third of the pictures blurred, as photographs are that nobody made smaller; what is restored stays so
* mosaic: a third of the pictures blurred by a lens and interpolated from one colour a pixel, as cameras do; what is
  restored keeps the patterns that this leaves
* colour: channels in any order
* brightness: dimmed by up to half
* mixup: half of the pictures blended with another one (Zhang et al. 2018, arXiv 1710.09412)
* cutblur: in half of the pairs a rectangle of input and truth exchanged (Yoo et al. 2020, arXiv 2004.00448)
* flat: some of the pictures are one colour, or two with an edge between, which may be as saturated as none is outdoors;
  half of these are not degraded, whatever the network is told
* text: some of the pictures are printed text, of which photographs hold next to none
* border: a quarter of the pairs end at a border, and go on beyond it mirrored, as `restore` continues a picture
* tilt: turned by up to 15 degrees
* shift: moved by up to an eighth of the side, the border repeated
"""

from __future__ import annotations

import functools
import string
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from deconv_cli.metrics.luma import LUMA

RESTORATION = (
    "flip",
    "rotate",
    "scale",
    "soften",
    "mosaic",
    "colour",
    "brightness",
    "mixup",
    "cutblur",
    "flat",
    "text",
    "border",
)
"""Those that suit restoration: the others interpolate, which would teach the network to blur."""
CLASSIFICATION = ("flip", "rotate", "colour", "brightness", "mixup", "tilt", "shift")
PAIRED = ("flip", "rotate", "colour", "border")
"""Those that leave the degradation in a degraded twin as it is."""

LARGEST_SCALE = 2.0
SCALED_SHARE = 0.5
SOFT_SHARE = 1 / 3
SOFTEST = 1.5
"""Largest standard deviation, in pixels, of the Gaussian that blurs a picture."""
MOSAIC_SHARE = 1 / 3
LENS = 0.3, 1.0
"""Least and largest deviation, in pixels, of the Gaussian that a lens blurs a picture by."""
DARKEST = 0.5
MIXED_SHARE = 0.5
MIXUP_BETA = 1.2
CUTBLUR_SIDE = 0.7
"""Mean side of CutBlur's rectangle over the side of the patch."""
FLAT_SHARE = 0.03
"""Enough for colours to stay where they are; more takes from the photographs."""
UNTOUCHED_SHARE = 0.5
"""Of the flat patches, those that are not degraded: nothing hides there what a network does to a colour."""
SATURATED_SHARE = 0.4
"""Of the channels of a flat colour, those that are 0 or 1."""
TEXT_SHARE = 0.06
SMALLEST_TYPE, LARGEST_TYPE = 8, 32
"""Size of letters in pixels of the degraded picture."""
SMALLEST_BOLD = 14
"""Size of letters in pixels of the patch from which some are bold."""
LETTERS = string.ascii_letters + string.digits + string.punctuation + 8 * string.whitespace[0]
BORDER_SHARE = 0.25
BORDER_GRID = 8
"""Borders stand on a multiple of this in the degraded patch, which keeps JPEG's blocks where they are."""
LARGEST_TILT = 15.0
LARGEST_SHIFT = 1 / 8


def cut_patch(
    picture: NDArray[np.uint8], side: int, augment: Collection[str], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Cut a random square out of a picture, with the augmentations that move pixels.

    Parameters
    ----------
    picture
        H x W x C, uint8; both sides at least `side`. C is a multiple of 3.
    side
        Side of the result in pixels.
    augment
        Names of augmentations; of these flip, rotate, scale and colour are done here.
    rng
        Source of randomness.

    Returns
    -------
    ndarray
        side x side x C, uint8.
    """
    height, width, _ = picture.shape
    cut = side
    if "scale" in augment and rng.random() < SCALED_SHARE:
        cut = int(side * rng.uniform(1, min(LARGEST_SCALE, min(height, width) / side)))
    y, x = rng.integers(height - cut + 1), rng.integers(width - cut + 1)
    patch = picture[y : y + cut, x : x + cut]
    if cut > side:
        patch = np.asarray(Image.fromarray(patch).resize((side, side), Image.Resampling.BICUBIC))
    patch = turn_and_mirror(patch, augment, rng)
    return permute_channels(patch, rng) if "colour" in augment else patch


def turn_and_mirror(patch: NDArray[np.uint8], augment: Collection[str], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn a square patch by quarters and mirror it, as far as named (rotate, flip)."""
    # One draw whatever is named, so that the other draws of a step stay the same.
    symmetry = int(rng.integers(8))
    turn, mirror = symmetry % 4, symmetry // 4 * 4
    return dihedral(patch, (turn if "rotate" in augment else 0) + (mirror if "flip" in augment else 0))


def dihedral(patch: NDArray[np.uint8], symmetry: int) -> NDArray[np.uint8]:
    """Turn and mirror a square patch.

    Parameters
    ----------
    patch
        S x S or S x S x C.
    symmetry
        Which of the square's eight symmetries, 0 to 7: quarter turns, plus 4 for a mirror image.
    """
    turned = np.rot90(patch, symmetry % 4)
    return turned[:, ::-1] if symmetry >= 4 else turned


def permute_channels(patch: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Put R, G and B of S x S x 3 (or of each part of S x S x 6) into one random order."""
    order = rng.permutation(3)
    return patch[..., [3 * part + channel for part in range(patch.shape[2] // 3) for channel in order]]


def to_gray(patch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn S x S x 3 into S x S x 1 luma."""
    return (patch @ LUMA)[..., None]


def dim(patch: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Multiply by a factor from `DARKEST` to 1; brightening would clip."""
    return patch * np.float32(rng.uniform(DARKEST, 1))


def mixing_weight(rng: np.random.Generator) -> float:
    """Return the weight of a picture in its blend with another: 1, or, for `MIXED_SHARE` of them, beta-distributed."""
    return float(rng.beta(MIXUP_BETA, MIXUP_BETA)) if rng.random() < MIXED_SHARE else 1.0


def blend(first: NDArray[np.float32], second: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Return ``weight * first + (1 - weight) * second``."""
    mixed: NDArray[np.float32] = np.float32(weight) * first + np.float32(1 - weight) * second
    return mixed


def soften(patch: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Blur `SOFT_SHARE` of the S x S x C patches, by a Gaussian of a deviation up to `SOFTEST`."""
    if rng.random() >= SOFT_SHARE:
        return patch
    return _blur(patch, float(rng.uniform(0, SOFTEST)))


def mosaic(patch: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Let a camera take `MOSAIC_SHARE` of the S x S x C patches, 0..1, through its lens and its colour filters."""
    from deconv_cli.degradation.camera import interpolate

    if rng.random() >= MOSAIC_SHARE:
        return patch
    return interpolate(_blur(patch, float(rng.uniform(*LENS))), rng)


def _blur(patch: NDArray[np.float32], deviation: float) -> NDArray[np.float32]:
    from scipy import ndimage  # type: ignore[import-untyped, unused-ignore]

    soft: NDArray[np.float32] = ndimage.gaussian_filter(patch, (deviation, deviation, 0), mode="mirror")
    return soft


def flatten(patch: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Replace `FLAT_SHARE` of the S x S x C patches by flat ones: in half of these an edge runs between two colours."""
    if rng.random() >= FLAT_SHARE:
        return patch
    colours = rng.random((2, patch.shape[2]))
    colours = np.where(rng.random(colours.shape) < SATURATED_SHARE, np.rint(colours), colours)
    edge, turns = int(rng.integers(-len(patch), len(patch))), int(rng.integers(4))
    flat = np.empty_like(patch)
    flat[: max(0, edge)], flat[max(0, edge) :] = colours
    return np.rot90(flat, turns)


def set_text(patch: NDArray[np.float32], rng: np.random.Generator, scale: int = 1) -> NDArray[np.float32]:
    """Replace `TEXT_SHARE` of the S x S x C patches by printed text, `scale` times as large.

    Of random letters in one size, between light paper and heavy ink of any colour, mostly black on white; a quarter
    light on dark, half blurred as by a scanner.
    """
    if rng.random() >= TEXT_SHARE:
        return patch
    ink = _printed(len(patch), rng, scale)[..., None]
    colours = np.stack((rng.uniform(0.6, 1, patch.shape[2]), rng.uniform(0, 0.5, patch.shape[2])))
    colours = np.where(rng.random((2, 1)) < 0.7, np.rint(colours), colours).astype(np.float32)
    paper, black = colours[::-1] if rng.random() < 0.25 else colours
    text: NDArray[np.float32] = (paper + (black - paper) * ink).astype(np.float32)
    return text


def _printed(side: int, rng: np.random.Generator, scale: int) -> NDArray[np.float32]:
    """Print a page of random letters: side x side, 0 on the paper to 1 in the ink."""
    size = int(rng.integers(SMALLEST_TYPE * scale, LARGEST_TYPE * scale + 1))
    page = Image.new("L", (side, side))
    draw, font, bold = ImageDraw.Draw(page), _font(size), int(size >= SMALLEST_BOLD and rng.random() < 0.25)
    for top in np.arange(-size * rng.random(), side, size * rng.uniform(1.1, 1.8)):
        line = "".join(LETTERS[index] for index in rng.integers(len(LETTERS), size=3 * side // size))
        draw.text((float(-size * rng.random()), float(top)), line, 255, font, stroke_width=bold)
    if rng.random() < 0.5:
        page = page.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1))))
    return np.asarray(page, np.float32) / np.float32(255)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def cutblur(degraded: NDArray[np.float32], clean: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the input with a rectangle of the truth in it, or the truth with a rectangle of the input.

    Parameters
    ----------
    degraded, clean
        S x S x C, float32, of one shape.
    """
    if rng.random() >= MIXED_SHARE:
        return degraded
    outside, inside = (degraded, clean) if rng.random() < 0.5 else (clean, degraded)
    side = degraded.shape[0]
    cut = min(side, max(1, round(side * rng.normal(CUTBLUR_SIDE, 0.1))))
    y, x = rng.integers(side - cut + 1, size=2)
    result = outside.copy()
    result[y : y + cut, x : x + cut] = inside[y : y + cut, x : x + cut]
    return result


def mirror_border(
    degraded: NDArray[np.float32], clean: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Let a border run through `BORDER_SHARE` of the pairs: what lies beyond it mirrors what lies before.

    Parameters
    ----------
    degraded, clean
        S x S x C and (S * scale) x (S * scale) x C, float32. At most a third of them comes to lie beyond.
    """
    side = degraded.shape[0]
    largest = side // (3 * BORDER_GRID)
    if rng.random() >= BORDER_SHARE or not largest:
        return degraded, clean
    depth, turns = BORDER_GRID * int(rng.integers(1, largest + 1)), int(rng.integers(4))

    def mirrored(patch: NDArray[np.float32]) -> NDArray[np.float32]:
        beyond = depth * patch.shape[0] // side
        turned = np.rot90(patch, turns)
        return np.rot90(np.concatenate((turned[beyond : 2 * beyond][::-1], turned[beyond:])), -turns)

    return mirrored(degraded), mirrored(clean)


def tilt_and_shift(picture: NDArray[np.uint8], augment: Collection[str], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn by up to `LARGEST_TILT` degrees and move by up to `LARGEST_SHIFT` of the side, as far as named.

    Parameters
    ----------
    picture
        S x S x 3, uint8; what comes in from outside repeats the border.
    """
    side = picture.shape[0]
    if "tilt" in augment:
        angle = float(rng.uniform(-LARGEST_TILT, LARGEST_TILT))
        padded = np.pad(picture, ((side, side), (side, side), (0, 0)), mode="edge")
        turned = Image.fromarray(padded).rotate(angle, Image.Resampling.BILINEAR)
        picture = np.asarray(turned)[side : 2 * side, side : 2 * side]
    if "shift" in augment:
        reach = int(side * LARGEST_SHIFT)
        padded = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        y, x = rng.integers(2 * reach + 1, size=2)
        picture = padded[y : y + side, x : x + side]
    return picture
