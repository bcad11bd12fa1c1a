"""What a picture needs: the decision behind ``--task auto``."""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from dataclasses import dataclass

from deconv_cli.degradation.blocking import measure_blocking
from deconv_cli.degradation.noise_estimation import (
    estimate_coarse_chroma,
    estimate_compressed_noise,
    estimate_noise_level,
)
from deconv_cli.images import Frame

CLEAN_LEVEL = 2.0
"""An estimated noise level below this is none to speak of: clean photographs read 1 to 2."""
COMPRESSED_LEVEL = 3.5
"""The same for the noise that shows through JPEG of quality 40 to 90. Above it are 9 to 13 of 100 clean photographs,
all of them full of texture, and 85 to 100 with white noise of level 10. The weights for camera noise make 1 dB less of
the former than those for JPEG, and up to 4 dB more of the latter."""
GOOD_QUALITY = 90
"""JPEG quality from which artefacts are hardly seen."""
MIXED_QUALITY = 95
"""JPEG quality up to which the compression changed the noise: of white noise of level 10 the weights for camera noise
leave 0.6 dB less than those for white noise at quality 90, and as much at 95."""
VISIBLE_BLOCKS = 0.08
"""Blocking from which a picture must have been a JPEG: 1 or 2 of 100 photographs that were none are above it, and
99 of 100 of quality 30, 92 of quality 50, 75 of quality 75."""
COLOUR_NOISE = 1.8
"""Coarse chroma noise from which a picture is noisy: 3 of 100 photographs as their files hold them are above it, and
most with camera noise of level 5."""
COMPRESSED_COLOUR_NOISE = 1.4
"""The same for what was compressed, which takes chroma noise first: above it are 1 to 5 of 100 photographs, and with
camera noise of level 5 81 of 100 at quality 95, 63 at 90 and 28 at 70."""
WHITE_RATIO = 0.45
"""Coarse chroma noise over noise level above which the noise is not white: white noise has 0.25 to 0.35, camera noise
mostly more than 1."""


@dataclass(frozen=True)
class Findings:
    """What was measured in a picture.

    Attributes
    ----------
    noise_level
        Estimated level of white noise, sigma on 0..255.
    coarse_chroma
        Noise left in the colours of averages of 4 x 4 pixels, on 0..255.
    compressed_noise
        Estimated level of white noise that would leave as much in averages of 2 x 2 pixels; 0 for what was no JPEG of
        `GOOD_QUALITY` or a lower one.
    jpeg_quality
        Quality that the file's quantization tables stand for, or None if it is no JPEG.
    blocking
        How much the borders of 8 x 8 blocks stand out.
    """

    noise_level: float
    coarse_chroma: float
    compressed_noise: float
    jpeg_quality: int | None
    blocking: float

    @classmethod
    def of(cls, frame: Frame) -> Findings:
        """Measure a picture; what JPEG left of noise only where there was one."""
        found = cls(
            estimate_noise_level(frame.pixels),
            estimate_coarse_chroma(frame.pixels),
            0.0,
            frame.jpeg_quality,
            measure_blocking(frame.pixels),
        )
        if not found.was_jpeg(GOOD_QUALITY):
            return found
        return dataclasses.replace(found, compressed_noise=estimate_compressed_noise(frame.pixels))

    def was_jpeg(self, quality: int) -> bool:
        """Whether it is a JPEG of this quality or a lower one, or has been one before: blocks stand out."""
        return self.blocking >= VISIBLE_BLOCKS or (self.jpeg_quality is not None and self.jpeg_quality <= quality)

    @property
    def compressed(self) -> bool:
        """Whether compression shows."""
        return self.was_jpeg(GOOD_QUALITY - 1)

    @property
    def mixed(self) -> bool:
        """Whether noise, if there is any, went through a compression that changed it."""
        return self.was_jpeg(MIXED_QUALITY)

    @property
    def coloured(self) -> bool:
        """Whether there is noise that white noise does not explain."""
        least = COMPRESSED_COLOUR_NOISE if self.mixed else COLOUR_NOISE
        return self.coarse_chroma >= max(least, WHITE_RATIO * self.noise_level)

    @property
    def noisy_below(self) -> bool:
        """Whether there is noise that JPEG has covered."""
        return self.compressed_noise >= COMPRESSED_LEVEL

    @property
    def noisy(self) -> bool:
        """Whether there is white noise beyond what a clean picture may read; JPEG's blocks and ringing read as some."""
        return self.noisy_below or (self.noise_level >= CLEAN_LEVEL and not self.compressed)

    @property
    def level(self) -> float:
        """Noise level to tell a network: correlated and covered noise read low, so the highest of what there is."""
        levels = [self.noise_level]
        if self.coloured:
            levels.append(self.coarse_chroma)
        if self.noisy_below:
            levels.append(self.compressed_noise)
        return max(levels)

    def __str__(self) -> str:
        words = [f"noise level {self.noise_level:.1f} (estimated)"]
        if self.coloured:
            words.append(f"correlated colour noise ({self.coarse_chroma:.1f} left in 4 x 4 averages)")
        if self.noisy_below:
            words.append(f"noise below JPEG ({self.compressed_noise:.1f} by 2 x 2 averages)")
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


def decide(frame: Frame, tasks: Container[str]) -> Decision:
    """Look at the pixels (their noise and blocking) and at the file (its JPEG quantization tables).

    Correlated colour noise goes to the weights that know the noise of cameras. So does noise that was compressed,
    which these were trained on. Without such weights noise that can be measured outweighs compression, since it is what
    the eye sees first. ``benchmarks/auto.py`` measures all choices; docs/noise-estimation.md tells the result.

    Parameters
    ----------
    frame
        The picture.
    tasks
        Names of the tasks to choose from: those that there are weights for.
    """
    findings = Findings.of(frame)
    task = _choose(findings, tasks)
    if task is None:
        return Decision(None, findings.noise_level, f"{findings}: nothing to restore")
    return Decision(task, findings.level, str(findings))


def _choose(findings: Findings, tasks: Container[str]) -> str | None:
    if "photo" in tasks and (findings.coloured or (findings.noisy and findings.mixed)):
        return "photo"
    if findings.noisy or findings.coloured:
        return "denoise"
    if findings.compressed and "decompress" in tasks:
        return "decompress"
    return None
