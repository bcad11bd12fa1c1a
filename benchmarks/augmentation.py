"""Measure what each augmentation is worth on validation PSNR.

    python benchmarks/augmentation.py data/train/bsds396 --val data/val

Trains a small pyramid on few crops, where augmentation matters, with each augmentation added to the default ones (or,
for these, taken away), and prints the paired difference to the default with its 95 % interval. Two runs at a time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from deconv_cli.study.data import Data, cut_data
from deconv_cli.study.run import RestorationTraining
from deconv_cli.study.statistics import compare, is_tie
from deconv_cli.training.augmentation import RESTORATION
from deconv_cli.training.config import TrainConfig

DEFAULT = TrainConfig(
    widths=(16, 32, 64), blocks=(1, 1, 1), patch=48, batch=8, level_range=(5, 50), gray_share=0.0, precision="fp32"
)
VARIANTS = {
    "flip, rotate (default)": ("flip", "rotate"),
    "none": (),
    "flip only": ("flip",),
    "rotate only": ("rotate",),
    **{f"default + {name}": ("flip", "rotate", name) for name in RESTORATION[2:]},
}


def train(data: Data, variant: str, seed: int, steps: int) -> float:
    """Train one variant and return its validation PSNR in dB, mean over sigma 15, 25 and 50."""
    torch.set_num_threads(1)
    config = dataclasses.replace(DEFAULT, augment=VARIANTS[variant], steps=steps, seed=seed)
    training = RestorationTraining(config, data)
    for step in range(steps):
        training.step(step)
    return float(training.measure(thoroughly=False)["score"])


def main() -> None:
    """Run all variants and print a table and the single results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--crops", type=int, default=64)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    data = cut_data([arguments.folder], arguments.val, DEFAULT.patch)
    few = dataclasses.replace(data, training=type(data.training)(data.training.pixels[: arguments.crops]))
    jobs = [(variant, seed) for seed in range(arguments.seeds) for variant in VARIANTS]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        waiting = {job: pool.submit(train, few, *job, arguments.steps) for job in jobs}
        scores: dict[str, dict[int, float]] = {variant: {} for variant in VARIANTS}
        for (variant, seed), future in waiting.items():
            scores[variant][seed] = future.result()
            print(json.dumps({"variant": variant, "seed": seed, "psnr": round(scores[variant][seed], 4)}), flush=True)
    default = scores["flip, rotate (default)"]
    print("| augmentation | validation PSNR | against the default |\n|---|---|---|")
    for variant, values in scores.items():
        difference = compare(values, default)
        told = f"{difference:+.3f}{' (a tie)' if is_tie(difference) else ''}" if values is not default else ""
        print(f"| {variant} | {np.mean(list(values.values())):.3f} | {told} |")


if __name__ == "__main__":
    main()
