"""How well the network does on pictures it has not seen, beside doing nothing."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deconv_cli.images import from_float, to_float, upscale
from deconv_cli.metrics import Protocol, mean_psnr, measure
from deconv_cli.network.device import autocast
from deconv_cli.network.encoder_decoder import RestorationNetwork
from deconv_cli.tasks import Task
from deconv_cli.training.augmentation import to_gray
from deconv_cli.training.config import TrainConfig
from deconv_cli.training.data import Pictures

CROP = 256
"""Side of the centre crop that stands for a validation picture."""
SEED = 1_000_003
SSIM_SIDE = 11
"""The least that SSIM can be measured on."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One validation picture at one level.

    Attributes
    ----------
    clean
        H x W x 3, or H x W for a network of one channel; uint8.
    degraded
        H x W x C, float32, nominally 0..1; smaller by the scale, C is the network's.
    level
        Degradation level in the task's unit.
    reported
        Level under which the case is reported: its own, or of pairs the mean of the estimated noise levels.
    protocol
        How it is scored.
    input_psnr, input_ssim
        What doing nothing (to a smaller picture: bicubic interpolation) scores.
    """

    clean: NDArray[np.uint8]
    degraded: NDArray[np.float32]
    level: float
    reported: float
    protocol: Protocol
    input_psnr: float
    input_ssim: float

    @property
    def blank(self) -> bool:
        """Whether the picture is of one colour."""
        return bool((self.clean == self.clean[0, 0]).all())

    def score(self, restored: NDArray[np.float32]) -> tuple[float, float]:
        """Return PSNR and SSIM of a result, H x W x C, rounded to 8 bits."""
        return score_rounded(self.clean, restored, self.protocol)


@dataclass(frozen=True)
class Score:
    """Means over the validation pictures at one level: PSNR in dB and SSIM, output rounded to 8 bits.

    PSNR is that of `deconv_cli.metrics.mean_psnr`.
    """

    level: float
    psnr: float
    ssim: float
    input_psnr: float
    input_ssim: float

    def to_dict(self) -> dict[str, float | None]:
        """Return plain values for JSON, where an infinite PSNR is null."""
        return {name: value if math.isfinite(value) else None for name, value in dataclasses.asdict(self).items()}


def smallest_side(task: Task, config: TrainConfig) -> int:
    """Return the least side of a picture to validate on, whose centre crop can be scored by the task's protocol."""
    scored = SSIM_SIDE + 2 * task.protocol(config.scale).crop
    return -(-scored // config.multiple) * config.multiple


def leave_out_blank(cases: list[Case]) -> list[Case]:
    """Return the cases that show something, or all if none does.

    An empty page is restored exactly, or nearly so now and exactly later: its PSNR, huge or infinite, would drown out
    those of the others.
    """
    showing = [case for case in cases if not case.blank]
    if 0 < len(showing) < len(cases):
        log.info("pictures of one colour are not counted in the validation")
    return showing or cases


def make_cases(pictures: Pictures, task: Task, config: TrainConfig) -> list[Case]:
    """Cut and degrade the validation crops, the same ones at every call.

    The levels are the task's report levels that lie in the range of the training, or the middle of the range. Pictures
    that have degraded twins are taken with these, at their estimated noise levels, whatever the task's unit is.
    """
    low, high = config.level_range
    protocol, channels = task.protocol(config.scale), config.architecture.channels
    crops = [centre_crop(pictures[index], config.multiple) for index in range(len(pictures))]
    if channels == 1:
        crops = [np.dstack([from_float(to_gray(to_float(part)), np.uint8) for part in _parts(crop)]) for crop in crops]
    if pictures.twins:
        estimates = [pictures.level(at, gray=channels == 1) for at in range(len(pictures))]
        mean = float(np.mean(estimates))
        return [
            _make_case(crop[..., :channels], to_float(crop[..., channels:]), min(max(at, low), high), mean, protocol)
            for crop, at in zip(crops, estimates, strict=True)
        ]
    levels = task.levels_within(low, high)
    cases = []
    for index, clean in enumerate(crops):
        for level in levels:
            rng = np.random.default_rng([SEED, index, round(level * 1000)])
            cases.append(_make_case(clean, task.degrade(to_float(clean), level, rng), level, level, protocol))
    return cases


def _parts(crop: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Split H x W x 6 into a picture and its degraded twin; H x W x 3 is a picture."""
    return np.split(crop, crop.shape[2] // 3, axis=2)


def _make_case(
    clean: NDArray[np.uint8], degraded: NDArray[np.float32], level: float, reported: float, protocol: Protocol
) -> Case:
    baseline = upscale(degraded, clean.shape[0] // degraded.shape[0])
    clean = clean[..., 0] if clean.shape[2] == 1 else clean
    return Case(clean, degraded, level, reported, protocol, *score_rounded(clean, baseline, protocol))


def score_rounded(clean: NDArray[np.uint8], image: NDArray[np.float32], protocol: Protocol) -> tuple[float, float]:
    """Return PSNR and SSIM of a picture in float after rounding it to the 8 bits of the clean one."""
    rounded = from_float(image.reshape(clean.shape), np.uint8)
    return measure(clean, rounded, protocol)


def centre_crop(picture: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """Cut the middle of a picture: at most `CROP` a side, a multiple of the network's stride and scale."""
    height, width = (min(CROP, side) // multiple * multiple for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width].copy()  # Without the rest of the picture.


@torch.inference_mode()
def validate(
    network: RestorationNetwork, cases: list[Case], task: Task, device: torch.device, dtype: torch.dtype
) -> list[Score]:
    """Score the network on the cases, a mean per level."""
    network.eval()
    by_level: dict[float, list[tuple[float, float, float, float]]] = {}
    for case in cases:
        image = torch.from_numpy(case.degraded).to(device).permute(2, 0, 1)[None]
        told = task.condition(case.level)
        condition = None if told is None else torch.tensor([told], device=device)
        with autocast(device, dtype):
            output = network(image, condition)
        scores = case.score(output[0].permute(1, 2, 0).float().cpu().numpy())
        by_level.setdefault(case.reported, []).append((*scores, case.input_psnr, case.input_ssim))
    network.train()
    means: tuple[Callable[..., float], ...] = (mean_psnr, np.mean, mean_psnr, np.mean)
    return [
        Score(level, *(float(mean(column)) for mean, column in zip(means, zip(*rows, strict=True), strict=True)))
        for level, rows in by_level.items()
    ]
