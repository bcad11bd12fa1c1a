"""Ways to take less than the full strength, at the same energy given back to textured parts.

python benchmarks/strength.py FOLDER        # clean pictures, such as CBSD68
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deconv_cli.images import find_pictures, read_frame, to_float
from deconv_cli.metrics import psnr
from deconv_cli.restoration.blending import texture
from deconv_cli.restoration.restorer import Restorer

STRENGTH, SIDE, WINDOW = 0.6, 320, 9

Picture = NDArray[np.float32]


def given_back(removed: Picture, restored: Picture, sigma: float) -> dict[str, Picture]:
    """Return what each way gives back of what was removed, up to a factor."""
    low = ndimage.gaussian_filter(removed, (1, 1, 0))
    return {
        "plain blend": removed,
        "low frequencies only (Gaussian, 1 px)": low,
        "high frequencies only": removed - low,
        "by texture (in use)": removed * texture(restored, sigma)[..., None],
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=8)
    arguments = parser.parse_args()
    restorer = Restorer("denoise", precision="fp32")
    for sigma in (10, 25):
        rows = defaultdict(list)
        for path in find_pictures(arguments.folder, recursive=False)[: arguments.pictures]:
            clean = to_float(read_frame(path).pixels)[:SIDE, :SIDE]
            noise = np.random.default_rng(1).normal(0, sigma / 255, clean.shape)
            noisy = (clean + noise).astype(np.float32)
            restored = restorer.restore(noisy, noise_level=sigma).pixels
            luma = clean.mean(2)
            variance = ndimage.uniform_filter(luma**2, WINDOW) - ndimage.uniform_filter(luma, WINDOW) ** 2
            flat, textured = variance < np.quantile(variance, 0.3), variance > np.quantile(variance, 0.7)
            removed = noisy - restored
            energy = (((1 - STRENGTH) * removed[textured]) ** 2).mean()
            ways = {
                name: way * np.sqrt(energy / (way[textured] ** 2).mean())
                for name, way in given_back(removed, restored, sigma).items()
            }
            for name, returned in {**ways, "full strength": np.zeros_like(removed)}.items():
                error = restored + returned - clean
                rows[name].append((255 * np.std(error[flat]), psnr(clean, np.clip(restored + returned, 0, 1))))
        print(f"sigma {sigma}: noise in flat parts, PSNR")
        for name, values in rows.items():
            print(f"| {name} | {np.mean(values, axis=0)[0]:.2f} | {np.mean(values, axis=0)[1]:.2f} |")


if __name__ == "__main__":
    main()
