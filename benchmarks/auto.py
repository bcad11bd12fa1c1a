"""How good the choice of ``--task auto`` is: four kinds of noise, with and without JPEG, against every other choice.

python benchmarks/auto.py data/val [--weights photo=runs/photo.safetensors]

A row per kind of damage: how often auto chose what, and the mean PSNR of doing nothing, of every task, of auto, and of
the best choice picture by picture. --weights measures weights that are not bundled yet.
"""

from __future__ import annotations

import argparse
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from deconv_cli.degradation.camera import MID_GRAY, Camera, add_camera_noise
from deconv_cli.degradation.noise import add_gaussian_noise
from deconv_cli.images import Frame, find_pictures, from_float, read_frame, to_float
from deconv_cli.metrics import psnr
from deconv_cli.network.bundled import bundled_weights
from deconv_cli.restoration.decision import decide
from deconv_cli.restoration.restorer import Restorer

TASKS = ("denoise", "decompress", "photo")
KINDS = ("white", "camera", "smoothed", "photons")
SMOOTHED = Camera(luma_smoothing=0.9, chroma_smoothing=1.5, chroma_gain=0.25)
"""One that has taken most of the noise from the colours, and smoothed what is in luma."""
HIGHEST = 60.0
"""Identical pictures count as this many dB."""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clean pictures")
    parser.add_argument("--weights", nargs="*", default=[], metavar="TASK=FILE")
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--levels", type=float, nargs="*", default=[5, 10, 20])
    parser.add_argument("--qualities", type=int, nargs="*", default=[0, 90, 70, 40], help="0: not compressed")
    parser.add_argument("--subsampling", default="4:2:0", help="of the colours in JPEGs")
    parser.add_argument("--side", type=int, default=320, help="of the centre that is looked at")
    arguments = parser.parse_args()
    names = {task: task for task in TASKS if task in bundled_weights()}
    names |= dict(pair.split("=", 1) for pair in arguments.weights)
    restorers = {task: Restorer(name) for task, name in names.items()}
    pictures = [
        centre(read_frame(path).pixels, arguments.side) for path in find_pictures(arguments.folder, recursive=False)
    ]
    columns = ("nothing", *restorers, "auto", "best")
    print(f"| noise | level | JPEG | auto chose | {' | '.join(columns)} |\n|{'---|' * (4 + len(columns))}")
    for kind, level in [("none", 0.0), *((kind, level) for kind in arguments.kinds for level in arguments.levels)]:
        for quality in arguments.qualities:
            how = {"quality": quality, "subsampling": arguments.subsampling}
            frames = [damage(clean, kind, level, at, **how) for at, clean in enumerate(pictures)]
            rows = [measure(clean, frame, restorers) for clean, frame in zip(pictures, frames, strict=True)]
            chosen = Counter(choice for choice, _ in rows)
            choices = ", ".join(f"{name} {count}" for name, count in chosen.most_common())
            means = {column: np.mean([scores[column] for _, scores in rows]) for column in columns}
            cells = " | ".join(f"{mean:.2f}" for mean in means.values())
            print(f"| {kind} | {level:g} | {quality or ''} | {choices} | {cells} |", flush=True)


def centre(pixels: np.ndarray, side: int) -> np.ndarray:
    """Cut the middle out of a picture."""
    top, left = (max(0, length - side) // 2 for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def measure(clean: np.ndarray, frame: Frame, restorers: dict[str, Restorer]) -> tuple[str, dict[str, float]]:
    """Return what auto chooses for a picture, and what every choice scores."""
    decision = decide(frame, restorers, trial=lambda pixels: restorers["photo"].restore(pixels).pixels)
    scores = {"nothing": psnr(clean, frame.pixels)}
    for task, restorer in restorers.items():
        told = restorer.within_range(decision.noise_level) if task == "denoise" else "auto"
        scores[task] = psnr(clean, restorer.restore(frame.pixels, noise_level=told).pixels)
    scores = {name: min(score, HIGHEST) for name, score in scores.items()}
    choice = decision.task or "nothing"
    return choice, {**scores, "auto": scores[choice], "best": max(scores.values())}


def damage(
    clean: np.ndarray, kind: str, level: float, seed: int, *, quality: int = 0, subsampling: str = "4:2:0"
) -> Frame:
    """Return a damaged picture as a file holds it."""
    image, rng = to_float(clean), np.random.default_rng(seed)
    if kind == "white":
        image = add_gaussian_noise(image, level, rng)
    elif kind == "photons":  # White, but its variance grows with the brightness: sensors without a tone curve.
        image = image + add_gaussian_noise(np.zeros_like(image), level, rng) * np.sqrt(image / MID_GRAY)
    elif kind != "none":
        image = add_camera_noise(image, level, rng, Camera.draw(rng) if kind == "camera" else SMOOTHED)
    pixels = from_float(image, np.uint8)
    if not quality:
        return Frame(pixels)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=quality, subsampling=subsampling)
    return Frame(np.asarray(Image.open(file)), jpeg_quality=quality)


if __name__ == "__main__":
    main()
