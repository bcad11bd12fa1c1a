"""How much worse the rim of a crop comes out than the same place inside of the whole picture.

    python benchmarks/rim.py
    python benchmarks/rim.py --weights mine.safetensors --levels 10 25

Mean over crops of five of scikit-image's pictures, in dB, on the outer 8 pixels of the result, in float32.
"""

from __future__ import annotations

import argparse

import numpy as np
from skimage import data

from deconv_cli.images import to_float
from deconv_cli.restoration.restorer import Restorer

PICTURES = {
    "chelsea": (50, 100),
    "astronaut": (100, 120),
    "coffee": (100, 150),
    "camera": (100, 150),
    "rocket": (150, 200),
}
HEIGHT, WIDTH, RIM = 192, 240, 8
CROP = slice(48, 144), slice(48, 192)


def main() -> None:
    """Measure and print a row a level."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", default=["denoise", "decompress", "photo", "sr-x2", "sr-x3", "sr-x4"])
    parser.add_argument("--levels", type=float, nargs="*", help="degradation levels [those that the task reports]")
    arguments = parser.parse_args()
    print("| weights | level | loss at the rim, dB |\n|---|---|---|")
    for name in arguments.weights:
        restorer = Restorer(name, precision="fp32")
        scale = restorer.description.scale
        for level in (scale,) if scale > 1 else arguments.levels or restorer.task.report_levels:
            losses = [measure(restorer, picture, level) for picture in PICTURES]
            print(f"| {name} | {level:g} | {np.mean(losses):.2f} |", flush=True)


def measure(restorer: Restorer, picture: str, level: float) -> float:
    """Return the loss of one picture's crop, in dB."""
    top, left = PICTURES[picture]
    clean = to_float(getattr(data, picture)()[top : top + HEIGHT, left : left + WIDTH])
    degraded = restorer.task.degrade(clean, level, np.random.default_rng(0))
    scale, told = restorer.description.scale, "auto" if restorer.task.condition_scale is None else level
    part = degraded[tuple(slice(side.start // scale, side.stop // scale) for side in CROP)]
    results = [
        restorer.restore(np.ascontiguousarray(part), noise_level=told).pixels,
        restorer.restore(degraded, noise_level=told).pixels[CROP],
    ]
    errors = [np.square(result - clean[CROP]) for result in results]
    return float(10 * np.log10(np.divide(*(error.sum() - error[RIM:-RIM, RIM:-RIM].sum() for error in errors))))


if __name__ == "__main__":
    main()
