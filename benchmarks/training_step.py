"""Time a training step of a recipe; on an NVIDIA GPU as it is taken, recorded, and also one kernel after the other.

python benchmarks/training_step.py weights/denoise.toml data/train/bsds396 --device cuda
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path

import torch

from deconv_cli.images import find_pictures
from deconv_cli.network.device import find_device
from deconv_cli.tasks import find_task
from deconv_cli.training.checkpoint import new_state
from deconv_cli.training.config import config_from_dict, load_toml
from deconv_cli.training.data import Batch, PictureSet, draw_batch
from deconv_cli.training.step import Step, find_step, train_step

WARM_UP = 10


def main() -> None:
    """Print milliseconds a step, with one batch that is used again and again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()

    config = config_from_dict(load_toml(arguments.recipe), str(arguments.recipe))
    device, task = find_device(arguments.device), find_task(config.task)
    paths = find_pictures(arguments.pictures, recursive=True)[: config.batch]
    batch = draw_batch(PictureSet(paths, config.patch), config, task, 0)
    plain = functools.partial(train_step, new_state(config, device), config=config, task=task, device=device)
    print(f"one after the other: {time_steps(plain, batch, device, arguments.steps):.1f} ms a step")
    if device.type == "cuda":
        recorded = find_step(new_state(config, device), config, task, device)
        print(f"recorded: {time_steps(recorded, batch, device, arguments.steps):.1f} ms a step")
        print(f"memory: {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")


def time_steps(take: Step, batch: Batch, device: torch.device, steps: int) -> float:
    """Return the mean time of a step in ms, the first ones left out."""
    for _ in range(WARM_UP):
        take(batch)
    synchronise(device)
    began = time.perf_counter()
    for _ in range(steps):
        take(batch)
    synchronise(device)
    return (time.perf_counter() - began) / steps * 1000


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
