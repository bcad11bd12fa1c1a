"""How far flat colours come back off themselves, in 8 bits: of 49 colours the most, and how many by more than 1.

python benchmarks/flat_colours.py denoise denoise-int8 decompress
"""

from __future__ import annotations

import sys

import numpy as np

from deconv_cli.restoration.restorer import Restorer

GRAYS = (0, 1, 8, 32, 64, 96, 128, 160, 192, 224, 247, 254, 255)
PURE = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))
RANDOM = 30
LEVELS = (0, 2, 5, 15, 25, 50, 75)
SIDE = 64


def main() -> None:
    """Print the table of the weights named."""
    drawn = np.random.default_rng(0).integers(0, 256, (RANDOM, 3))
    colours = [(gray,) * 3 for gray in GRAYS] + [*map(tuple, drawn)] + list(PURE)
    print(f"| weights | told | most off | of {len(colours)} colours off by more than 1 |\n|---|---|---|---|")
    for name in sys.argv[1:]:
        restorer = Restorer(name, precision="fp32")
        for level in ("auto",) if restorer.task.condition_scale is None else LEVELS:
            errors = [error(restorer, colour, level) for colour in colours]
            print(f"| {name} | {level} | {max(errors)} | {sum(e > 1 for e in errors)} |")


def error(restorer: Restorer, colour: tuple[int, ...], level: float | str) -> int:
    """Return how far a patch of that colour comes back off it, of 255."""
    flat = np.full((SIDE, SIDE, 3), colour, np.uint8)
    restored = restorer.restore(flat, noise_level=level).pixels  # type: ignore[arg-type]
    return int(np.abs(restored.astype(int) - colour).max())


if __name__ == "__main__":
    main()
