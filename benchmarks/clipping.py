"""What undoing the clipping of the noise is worth: PSNR of noisy pictures of 8 bits without and with it.

python benchmarks/clipping.py FOLDER... [--skimage] [--told auto]

Samples as float, whose range has no limits, are restored without it. A row is a level; the worst is the picture that
gains least.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from skimage import data

from deconv_cli.images import find_pictures, from_float, read_frame, to_float
from deconv_cli.metrics import psnr
from deconv_cli.restoration.restorer import Restorer

SKIMAGE = ("astronaut", "camera", "cat", "chelsea", "coffee", "coins", "moon", "page", "rocket", "text")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", help="of clean pictures")
    parser.add_argument("--skimage", action="store_true", help="the pictures that come with scikit-image, too")
    parser.add_argument("--side", type=int, default=256, help="of the centre that is looked at")
    parser.add_argument("--levels", type=float, nargs="*", default=[5, 15, 25, 50, 75])
    parser.add_argument("--told", choices=("true", "auto"), default="true", help="the level that the network is told")
    parser.add_argument("--weights", default="denoise")
    arguments = parser.parse_args()
    restorer = Restorer(arguments.weights, precision="fp32")
    paths = [path for folder in arguments.folders for path in find_pictures(folder, recursive=False)]
    pictures = [read_frame(path).pixels for path in paths]
    if arguments.skimage:
        pictures += [getattr(data, name)() for name in SKIMAGE]
    print(f"| level | noisy | without | with | worst | better on, of {len(pictures)} |\n|{'---|' * 6}")
    for level in arguments.levels:
        rows = []
        for at, picture in enumerate(pictures):
            clean = centre(picture, arguments.side)
            rows.append(measure(restorer, clean, level, "auto" if arguments.told == "auto" else level, at))
        table = np.array(rows)
        gains = table[:, 2] - table[:, 1]
        means = " | ".join(f"{mean:.2f}" for mean in table.mean(0))
        print(f"| {level:g} | {means} | {gains.min():+.3f} | {np.count_nonzero(gains > 0)} |", flush=True)


def centre(pixels: np.ndarray, side: int) -> np.ndarray:
    """Cut the centre out of a picture."""
    top, left = (max(0, length - side) // 2 for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def measure(restorer: Restorer, clean: np.ndarray, level: float, told: float | str, seed: int) -> list[float]:
    """Return the PSNR of the noisy picture in 8 bits, and restored without and with its clipping undone."""
    noise = np.random.default_rng([seed, round(level)]).normal(0, level / 255, clean.shape)
    noisy = from_float((to_float(clean) + noise).astype(np.float32), np.uint8)
    told = restorer.find_noise_level(noisy, told)  # type: ignore[arg-type, assignment]
    results = [restorer.restore(samples, noise_level=told).pixels for samples in (to_float(noisy), noisy)]  # type: ignore[arg-type]
    return [psnr(clean, from_float(to_float(result), np.uint8)) for result in (noisy, *results)]


if __name__ == "__main__":
    main()
