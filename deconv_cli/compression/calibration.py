"""Pictures to decide by: what the network sees, and how well it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from deconv_cli.network.encoder_decoder import RestorationNetwork
from deconv_cli.tasks import Task
from deconv_cli.training.config import TrainConfig
from deconv_cli.training.data import Batch, Pictures, draw_batch
from deconv_cli.training.step import condition_of, to_tensor

CROPS = 8
"""Crops at every level."""
SEED = 1_000_033
CPU = torch.device("cpu")

Crops = Mapping[float, Batch]
"""Level of degradation to degraded and clean crops."""


def draw_crops(pictures: Pictures, config: TrainConfig, task: Task, levels: Iterable[float]) -> Crops:
    """Draw `CROPS` crops at every level, the same ones at every call."""
    return {
        level: draw_batch(
            pictures, dataclasses.replace(config, level_range=(level, level), batch=CROPS, seed=SEED), task, step
        )
        for step, level in enumerate(sorted(levels))
    }


def run(network: RestorationNetwork, batch: Batch, task: Task) -> torch.Tensor:
    """Restore the crops of one level: N x channels x H x W."""
    restored: torch.Tensor = network(to_tensor(batch.degraded, CPU), condition_of(task, batch, CPU))
    return restored


@torch.no_grad()
def mean_psnr(network: RestorationNetwork, crops: Crops, task: Task) -> dict[float, float]:
    """Return the mean PSNR of the crops at every level, in dB; the output is neither clipped nor rounded.

    In this mean flat crops, which have next to no error, count much; that is where rounding shows.
    """
    means = {}
    for level, batch in crops.items():
        error = run(network, batch, task) - to_tensor(batch.clean, CPU)
        means[level] = float(-10 * error.square().mean((1, 2, 3)).clamp_min(1e-12).log10().mean())
    return means


def worst_loss(before: Mapping[float, float], after: Mapping[float, float]) -> float:
    """Return how much is lost at the level that loses most, in dB."""
    return float(np.max([before[level] - after[level] for level in before]))
