"""Measure the blind noise-level estimate on folders of clean pictures and print a Markdown table.

    python benchmarks/noise_estimation.py data/bench/CBSD68_10 data/bench/Set12 [--clip]

Noise is seeded by the picture's name and the level, so that every run measures the same pixels.
"""

from __future__ import annotations

import argparse
import time
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deconv_cli.degradation.noise import add_gaussian_noise
from deconv_cli.degradation.noise_estimation import estimate_noise_level

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def main() -> None:
    """Print one row for each folder and level."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--levels", default="0,5,15,25,50", help="noise levels, 0..255 scale (default %(default)s)")
    parser.add_argument("--clip", action="store_true", help="clip and round the noisy picture to 8 bits")
    options = parser.parse_args()
    levels = [float(level) for level in options.levels.split(",")]
    print("| set | level | mean estimate | mean abs. error | worst error | CPU s / megapixel |")
    print("|---|---|---|---|---|---|")
    for folder in options.folders:
        pictures = {path.name: _read(path) for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES}
        if not pictures:
            parser.error(f"no picture in {folder}")
        for level in levels:
            print(f"| {folder.name} | {level:g} | {_measure(pictures, level, clip=options.clip)} |", flush=True)


def _read(path: Path) -> NDArray[np.float32]:
    with Image.open(path) as file:
        mode = "L" if file.mode in {"1", "L"} else "RGB"
        return np.asarray(file.convert(mode), np.float32) / np.float32(255)


def _measure(pictures: dict[str, NDArray[np.float32]], level: float, *, clip: bool) -> str:
    estimates, seconds, pixels = [], 0.0, 0
    for name, clean in pictures.items():
        rng = np.random.default_rng([zlib.crc32(name.encode()), round(level * 1000)])
        noisy = add_gaussian_noise(clean, level, rng)
        if clip:
            noisy = np.rint(noisy.clip(0, 1) * 255) / np.float32(255)
        start = time.process_time()
        estimates.append(estimate_noise_level(noisy))
        seconds += time.process_time() - start
        pixels += clean.shape[0] * clean.shape[1]
    errors = np.array(estimates) - level
    worst = errors[np.abs(errors).argmax()]
    return f"{np.mean(estimates):.2f} | {np.abs(errors).mean():.2f} | {worst:+.2f} | {seconds / pixels * 1e6:.3f}"


if __name__ == "__main__":
    main()
