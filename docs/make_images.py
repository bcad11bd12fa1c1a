"""Make the pictures of the documentation from scikit-image's, with the tool itself: ``python docs/make_images.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from deconv_cli.cli.app import run

HERE = Path(__file__).parent / "images"


def main() -> None:
    """Write a noisy sample and the sheet that shows it before and after."""
    HERE.mkdir(exist_ok=True)
    noisy = data.chelsea() + np.random.default_rng(0).normal(0, 25, data.chelsea().shape)
    sample = HERE / "noisy-cat.png"
    Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)).save(sample, optimize=True)
    restored = HERE / "restored-cat.png"
    sheet = HERE / "before-after.png"
    code = run(["restore", str(sample), str(restored), "--compare", str(sheet), "--overwrite"])
    restored.unlink()
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
