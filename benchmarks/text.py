"""What weights make of printed text in JPEGs, with noise, or made small: mean PSNR by the size of the letters, in gray.

python benchmarks/text.py decompress decompress-int8 photo
python benchmarks/text.py denoise --noise
python benchmarks/text.py sr-x2

The typeface is Pillow's own, or a file of another (--typeface DejaVuSans.ttf): that of the patches which
`train --augment text` prints is Pillow's, too, of random letters. For super-resolution letters have their size in the
small picture, and the input is scored as Lanczos interpolation enlarges it.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deconv_cli.degradation.noise import add_gaussian_noise
from deconv_cli.degradation.shrinking import shrink
from deconv_cli.images import from_float, to_float
from deconv_cli.metrics import psnr
from deconv_cli.restoration.restorer import Restorer

SIZES = (9, 11, 13, 16, 22)
QUALITIES = (85, 75, 50, 30)
LEVELS = (5, 10, 20)
WIDTH, HEIGHT, MARGIN = 320, 240, 12
WORDS = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", help="of one scale")
    parser.add_argument("--noise", action="store_true", help=f"white noise of level {LEVELS} instead of JPEG")
    parser.add_argument("--typeface", type=Path, help="TrueType file")
    arguments = parser.parse_args()
    restorers = [Restorer(name) for name in arguments.weights]
    scale = restorers[0].description.scale
    print(f"| pixels | input | {' | '.join(arguments.weights)} |\n|{'---|' * (2 + len(restorers))}")
    for size in SIZES:
        page = print_page(size, scale, arguments.typeface)
        given: list[tuple[np.ndarray, float | str]]
        if scale > 1:
            given = [(from_float(shrink(to_float(page), scale), np.uint8), "auto")]
        elif arguments.noise:
            given = [(scan(page, level), level) for level in LEVELS]
        else:
            given = [(compress(page, quality), "auto") for quality in QUALITIES]
        scores = [np.mean([psnr(page, enlarge(image, scale)) for image, _ in given])]
        scores += [np.mean([psnr(page, restored(each, *one)) for one in given]) for each in restorers]
        print(f"| {size} | {' | '.join(f'{score:.2f}' for score in scores)} |", flush=True)


def print_page(size: int, scale: int, typeface: Path | None) -> np.ndarray:
    """Print a page of text, black on white, `scale` times as large as said: H x W, uint8."""
    size, width, height, margin = (scale * length for length in (size, WIDTH, HEIGHT, MARGIN))
    page = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(page)
    font = ImageFont.truetype(typeface, size) if typeface else ImageFont.load_default(size)
    for at, top in enumerate(range(margin, height - margin - size, size * 3 // 2)):
        draw.text((margin, top), (2 * WORDS)[5 * at % len(WORDS) :][: 2 * (width - 2 * margin) // size], 0, font)
    return np.asarray(page)


def compress(page: np.ndarray, quality: int) -> np.ndarray:
    """Return the page as a JPEG of that quality holds it."""
    file = BytesIO()
    Image.fromarray(page).save(file, "jpeg", quality=quality)
    return np.asarray(Image.open(file))


def scan(page: np.ndarray, level: float) -> np.ndarray:
    """Return the page with white noise, clipped to 8 bits."""
    return from_float(add_gaussian_noise(to_float(page), level, np.random.default_rng(0)), np.uint8)


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """Return the image by Lanczos interpolation, unchanged at scale 1."""
    size = tuple(scale * side for side in image.shape[1::-1])
    return image if scale == 1 else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def restored(restorer: Restorer, image: np.ndarray, level: float | str) -> np.ndarray:
    """Return what the weights make of it, told the level if they can be."""
    told = "auto" if restorer.task.condition_scale is None else level
    return restorer.restore(image, noise_level=told).pixels  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
