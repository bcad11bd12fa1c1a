"""Make the pictures of the documentation from scikit-image's, with the tool itself: ``python docs/make_images.py``."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from deconv_cli.cli.app import run

HERE = Path(__file__).parent / "images"
SHEETS = {
    "before-after": ("cat", data.chelsea, ["--noise-level", "25"], []),
    "decompressed": ("astronaut", data.astronaut, ["--quality", "12"], ["--task", "decompress"]),
    "camera-noise": (
        "coffee-photo",
        data.coffee,
        ["--noise-level", "15", "--noise", "camera", "--quality", "90"],
        ["--task", "photo"],
    ),
    "enlarged": ("coffee", data.coffee, ["--scale", "3"], ["--scale", "3"]),
}
"""Name of the sheet: name and picture, how `degrade` damages it, how `restore` mends it."""
SAMPLE = "noisy-cat.png"
"""What the README restores."""


def main() -> None:
    """Write a sheet that shows before and after for each task, and the noisy sample."""
    HERE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for sheet, (name, picture, damage, options) in SHEETS.items():
            clean, degraded = Path(folder) / f"clean-{name}.png", Path(folder) / f"{name}.png"
            Image.fromarray(np.asarray(picture())).save(clean)
            deconv("degrade", clean, degraded, *damage)
            deconv(
                "restore",
                degraded,
                Path(folder) / "restored.png",
                "--overwrite",
                *options,
                "--compare",
                HERE / f"{sheet}.png",
            )
        shutil.copy(Path(folder) / "cat.png", HERE / SAMPLE)


def deconv(*arguments: str | Path) -> None:
    """Run the tool, and stop where it does."""
    code = run([str(argument) for argument in arguments])
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
