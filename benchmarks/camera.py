"""What weights make of several cameras' noise, of pictures that are clean or only compressed, and of soft ones.

Mosaicked are those that a camera has interpolated from one colour a pixel; the patterns that this leaves are truth.

python benchmarks/camera.py data/val photo runs/photo.safetensors

A row per kind of damage: the mean PSNR of the input and of every network.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from auto import HIGHEST, centre
from scipy import ndimage

from deconv_cli.degradation.camera import Camera, add_camera_noise, interpolate
from deconv_cli.degradation.jpeg import compress_jpeg
from deconv_cli.images import find_pictures, from_float, read_frame, to_float
from deconv_cli.metrics import psnr
from deconv_cli.restoration.restorer import Restorer

CAMERAS = {
    "typical": Camera(),
    "fine": Camera(demosaicing="malvar", luma_smoothing=0, chroma_smoothing=0),
    "smoothed": Camera(luma_smoothing=1.2, chroma_smoothing=1.2),
    "sharpened": Camera(sharpening=1.0),
}


@dataclass(frozen=True)
class Damage:
    """Noise of a camera at a level, then a JPEG, of a picture that was blurred by so many pixels, and mosaicked."""

    camera: str = ""
    level: float = 0
    quality: int = 0
    softness: float = 0
    mosaicked: bool = False

    def apply(self, clean: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return truth and damaged picture, H x W x 3, uint8."""
        soft = ndimage.gaussian_filter(to_float(clean), (self.softness, self.softness, 0), mode="mirror")
        if self.mosaicked:
            soft = interpolate(soft, np.random.default_rng(seed))
        truth = from_float(soft, np.uint8)
        image = to_float(truth)
        if self.camera:
            image = add_camera_noise(image, self.level, np.random.default_rng(seed), CAMERAS[self.camera])
        if self.quality:
            image = compress_jpeg(image, self.quality)
        return truth, from_float(image, np.uint8)


ROWS = (
    Damage(),
    Damage(quality=70),
    Damage("typical", 2, 95),
    *(Damage("typical", level, 90) for level in (5, 10, 20, 40)),
    Damage("typical", 10),
    Damage("smoothed", 8, 95),
    Damage("sharpened", 8, 95),
    *(Damage("fine", level, quality) for level, quality in ((10, 95), (30, 0))),
    Damage("typical", 8, softness=1),
    Damage("fine", 20, 95, softness=1),
    *(
        Damage(camera, level, quality, 0.6, True)
        for camera, level, quality in (("", 0, 0), ("fine", 1, 95), ("fine", 3, 0), ("fine", 8, 95))
    ),
)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clean pictures")
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--side", type=int, default=208, help="of the centre that is looked at")
    arguments = parser.parse_args()
    restorers = [Restorer(name) for name in arguments.weights]
    pictures = [
        centre(read_frame(path).pixels, arguments.side) for path in find_pictures(arguments.folder, recursive=False)
    ]
    heads = ("camera", "level", "JPEG", "blurred", "mosaicked", "input", *arguments.weights)
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for damage in ROWS:
        scores = []
        for seed, clean in enumerate(pictures):
            truth, damaged = damage.apply(clean, seed)
            results = [damaged, *(restorer.restore(damaged).pixels for restorer in restorers)]
            scores.append([min(HIGHEST, psnr(truth, result)) for result in results])
        cells = (
            damage.camera,
            damage.level or "",
            damage.quality or "",
            damage.softness or "",
            "yes" if damage.mosaicked else "",
        )
        print("|", *(f"{cell} |" for cell in cells), *(f"{mean:.2f} |" for mean in np.mean(scores, 0)), flush=True)


if __name__ == "__main__":
    main()
