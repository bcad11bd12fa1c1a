"""What a picture needs: the decision behind ``--task auto``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deconv_cli.degradation.blocking import measure_blocking
from deconv_cli.degradation.noise_estimation import (
    estimate_coarse_chroma,
    estimate_opponent_levels,
    estimate_smooth_noise,
    estimate_strongest_noise,
    root_mean_square,
)
from deconv_cli.images import Frame, is_gray
from deconv_cli.images.jpeg import high_frequency_step
from deconv_cli.metrics.luma import LUMA
from deconv_cli.restoration.trial import Removed, removed_noise
from deconv_cli.tasks import TASKS

CLEAN_LEVEL = 2.0
"""An estimated noise level below this is none to speak of: clean photographs read 1 to 2."""
COMPRESSED_LEVEL = 4.0
"""The same for a compressed picture, whose block borders and ringing read as noise."""
REMOVED, COMPRESSED_REMOVED = 1.5, 3.0
"""What a trial takes from where a picture is flat, from which there is noise that nothing else shows; and the same for
what shows that it was compressed, whose artefacts are taken, too."""
GOOD_QUALITY = 90
"""JPEG quality from which artefacts are hardly seen."""
COARSE_QUALITY = 95
"""JPEG quality up to which the compression takes from the noise of the colours."""
KEPT_STEPS = 2.0
"""Quantization steps of high frequencies, over noise level, up to which a JPEG leaves white noise white: with steps of
1.8 the weights for white noise are 0.4 to 1.3 dB better than those for camera noise, with 4.4 0.5 dB worse, with 5
2.4 (colours not subsampled, and gray)."""
VISIBLE_BLOCKS = 0.08
"""Blocking from which a picture must have been a JPEG: of 86 photographs that were none 1 is above it, and 77 of
quality 40, 72 of quality 60, 60 of quality 75."""
COLOUR_NOISE = 1.8
"""Coarse chroma noise from which a picture is noisy: 3 of 100 photographs as their files hold them are above it, and
most with camera noise of level 5."""
COMPRESSED_COLOUR_NOISE = 1.4
"""The same for what was compressed, which takes chroma noise first: above it are 1 to 5 of 100 photographs, and with
camera noise of level 5 81 of 100 at quality 95, 63 at 90 and 28 at 70."""
ENLARGED_LEVEL = 4.0
"""Noise level from which a picture had better be restored before it is enlarged: of 35 pictures without noise, halved,
2 read more, and with noise of level 5 a quarter is left of what `sr-x2` wins over interpolation."""
SMOOTH_RATIO = 1.5
"""Noise in averages of 2 x 2 pixels over noise level from which the noise may not be white, and a trial is to tell:
white noise has 1, of level 5 in 2 of 13 pictures with texture more than 1.5; noise that a camera has smoothed, 1.6 to
3.6."""
UNEVEN_RATIO = 1.25
"""Noise in the noisiest third of the brightness over noise level from which a trial is to tell how much there is:
white noise has 1 to 1.1, in 3 of 16 pictures with texture more than 1.25."""
WHITE_SHARE = 1.1
"""What a trial takes of the luma where it takes most, over what there is of white noise of the level, up to which the
noise is white: of white noise it takes 0.9 to 1, of noise that a camera has smoothed 2 to 10, of noise that grows with
the brightness 1.1 to 6."""
WHITE_RATIO, COLOURED_RATIO = 0.45, 2.0
"""Coarse chroma noise over fine above which the noise is not white, and above which it surely is not, so that no trial
is needed: white noise has 0.25 to 0.35, where colours have texture up to 1.5, camera noise mostly more than that, and
so does white noise that went through a JPEG with subsampled colours, of whatever quality."""


@dataclass(frozen=True)
class Findings:
    """What was measured in a picture.

    Attributes
    ----------
    noise_level
        Estimated level of white noise, sigma on 0..255.
    fine_chroma
        The same of the colours alone; 0 in gray pictures.
    coarse_chroma
        Noise left in the colours of averages of 4 x 4 pixels, on 0..255.
    jpeg_quality
        Quality that the file's quantization tables stand for, or None if it is no JPEG.
    blocking
        How much the borders of 8 x 8 blocks stand out.
    luma_share
        What there is in luma of white noise: all in gray pictures, two thirds in others.
    removed
        What the weights for camera noise took from where the picture is flat; None where that was not tried,
        or told nothing.
    """

    noise_level: float
    fine_chroma: float
    coarse_chroma: float
    jpeg_quality: int | None
    blocking: float
    luma_share: float
    removed: Removed | None = None

    @classmethod
    def of(cls, frame: Frame) -> Findings:
        """Measure a picture."""
        pixels = frame.pixels
        levels = estimate_opponent_levels(pixels)
        fine_chroma = root_mean_square(levels[1:]) if len(levels) > 1 else 0.0
        noise = root_mean_square(levels), fine_chroma, estimate_coarse_chroma(pixels)
        luma_share = 1.0 if pixels.ndim == 2 or is_gray(pixels) else math.hypot(*LUMA)
        return cls(*noise, frame.jpeg_quality, measure_blocking(pixels), luma_share)

    def was_jpeg(self, quality: int) -> bool:
        """Whether it is a JPEG of this quality or a lower one, or has been one before: blocks stand out."""
        return self.blocking >= VISIBLE_BLOCKS or (self.jpeg_quality is not None and self.jpeg_quality <= quality)

    @property
    def compressed(self) -> bool:
        """Whether compression shows."""
        return self.was_jpeg(GOOD_QUALITY - 1)

    @property
    def quantized(self) -> bool:
        """Whether noise, if there is any, went through a compression that changed it."""
        step = 0 if self.jpeg_quality is None else high_frequency_step(self.jpeg_quality)
        return self.blocking >= VISIBLE_BLOCKS or step > KEPT_STEPS * self.noise_level

    @property
    def coloured(self) -> bool:
        """Whether there is noise in the colours that white noise does not explain, as where these were subsampled."""
        least = COMPRESSED_COLOUR_NOISE if self.was_jpeg(COARSE_QUALITY) else COLOUR_NOISE
        plain = self.noisy and self.removed is not None and not self.hidden
        return not plain and self.coarse_chroma >= max(least, WHITE_RATIO * self.fine_chroma)

    @property
    def doubtful(self) -> bool:
        """Whether the colours of white noise and of texture may pass for coloured noise."""
        return self.noisy and not self.quantized and self.coarse_chroma < COLOURED_RATIO * self.fine_chroma

    @property
    def noisy(self) -> bool:
        """Whether there is white noise beyond what a clean picture may read."""
        return self.noise_level >= (COMPRESSED_LEVEL if self.compressed else CLEAN_LEVEL)

    @property
    def hidden(self) -> bool:
        """Whether there is more noise than shows without a trial: like texture, covered by JPEG, or not everywhere."""
        if self.removed is None:
            return False
        if self.noisy:
            return self.removed.strongest > WHITE_SHARE * self.luma_share * self.noise_level
        return self.removed.typical >= (COMPRESSED_REMOVED if self.compressed else REMOVED)

    @property
    def level(self) -> float:
        """Noise level to tell a network: correlated and covered noise read low, so the highest of what there is."""
        levels = [self.noise_level]
        if self.coloured:
            levels.append(self.coarse_chroma)
        if self.hidden and self.removed is not None:
            levels.append(self.removed.strongest)
        return max(levels)

    def __str__(self) -> str:
        words = [f"noise level {self.noise_level:.1f} (estimated)"]
        if self.coloured:
            words.append(f"correlated colour noise ({self.coarse_chroma:.1f} left in 4 x 4 averages)")
        if self.hidden and self.removed is not None:
            words.append(f"hidden noise (a trial takes {self.removed.strongest:.1f} from where the picture is flat)")
        if self.jpeg_quality is not None and self.compressed:
            words.append(f"JPEG quality {self.jpeg_quality}")
        if self.blocking >= VISIBLE_BLOCKS:
            words.append(f"blocks of JPEG ({self.blocking:.2f})")
        return ", ".join(words)


@dataclass(frozen=True)
class Decision:
    """What to undo, and why.

    Attributes
    ----------
    task
        Name of a task, or None if nothing needs restoring.
    noise_level
        Noise level to tell the network, sigma on 0..255.
    reason
        What was found, in words.
    """

    task: str | None
    noise_level: float
    reason: str


def decide(
    frame: Frame, tasks: Container[str], trial: Callable[[NDArray[Any]], NDArray[Any]] | None = None
) -> Decision:
    """Look at the pixels (their noise and blocking) and at the file (its JPEG quantization tables).

    Correlated colour noise goes to the weights that know the noise of cameras. So does noise that was compressed,
    which these were trained on, and what they find themselves where nothing else shows noise. Without such weights
    noise that can be measured outweighs compression, since it is what the eye sees first. ``benchmarks/auto.py``
    measures all choices; docs/noise-estimation.md tells the result.

    Parameters
    ----------
    frame
        The picture.
    tasks
        Names of the tasks to choose from: those that there are weights for.
    trial
        Restores pixels by the task ``photo``; asked for the centre of a picture in which no noise was found otherwise,
        or such that looks white and may not be.
    """
    findings = Findings.of(frame)
    task = _choose(findings, tasks)
    if trial and "photo" in tasks and _wants_trial(frame, findings, task):
        findings = dataclasses.replace(findings, removed=removed_noise(frame.pixels, trial))
        task = _choose(findings, tasks)
    if task is None:
        return Decision(None, findings.noise_level, f"{findings}: nothing to restore")
    return Decision(task, findings.level, str(findings))


def before_enlarging(frame: Frame) -> str | None:
    """Say what had better be undone before a picture is enlarged: super-resolution sharpens it as if it were detail.

    That is a warning and no decision, and looks at what is certain only: in small pictures texture and colours read as
    noise, and to remove them would lose more.
    """
    findings = Findings.of(frame)
    if findings.noise_level < ENLARGED_LEVEL and not findings.compressed:
        return None
    task = _choose(findings, TASKS)
    return f"enlarged with the picture: {findings}; --task {task} beside --scale undoes it before"


def _wants_trial(frame: Frame, findings: Findings, task: str | None) -> bool:
    """Whether there may be noise that was not found, or such that looks white and is not, or is and does not look."""
    if task == "photo":
        return findings.doubtful
    if task == "denoise":
        pixels, level = frame.pixels, findings.noise_level
        return (
            estimate_smooth_noise(pixels) >= SMOOTH_RATIO * level
            or estimate_strongest_noise(pixels) >= UNEVEN_RATIO * level
        )
    return task in (None, "decompress")


def _choose(findings: Findings, tasks: Container[str]) -> str | None:
    if "photo" in tasks and (findings.coloured or findings.hidden or (findings.noisy and findings.quantized)):
        return "photo"
    if findings.noisy or findings.coloured:
        return "denoise"
    if findings.compressed and "decompress" in tasks:
        return "decompress"
    return None
