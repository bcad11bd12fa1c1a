"""Write scikit-learn's handwritten digits as pictures, a folder a class, to train a classifier on.

    python benchmarks/write_digits.py digits
    deconv train digits/train --val digits/val --task classify --augment tilt,shift

A fifth of every class goes to ``val``, the rest to ``train``; ``--rare 8`` leaves a tenth of the eights in ``train``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_digits(folder: Path, rare: int | None = None) -> None:
    """Write the 1797 pictures of 8 x 8 pixels as gray PNGs."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    for digit in range(10):
        members = [int(index) for index in order if digits.target[index] == digit]
        held_out = len(members) // 5
        parts = {"val": members[:held_out], "train": members[held_out:]}
        if digit == rare:
            parts["train"] = parts["train"][: len(parts["train"]) // 10]
        for part, indices in parts.items():
            target = folder / part / str(digit)
            target.mkdir(parents=True, exist_ok=True)
            for index in indices:
                pixels = np.rint(digits.images[index] * (255 / 16)).astype(np.uint8)
                Image.fromarray(pixels).save(target / f"{index}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rare", type=int)
    arguments = parser.parse_args()
    write_digits(arguments.folder, arguments.rare)
