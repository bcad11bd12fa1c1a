"""What a picture needs: the decision behind ``--task auto``."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from deconv_cli.degradation.noise_estimation import estimate_noise_level
from deconv_cli.images import Frame

CLEAN_LEVEL = 2.0
"""An estimated noise level below this is none to speak of: clean photographs read 1 to 2."""
NOISY_JPEG_LEVEL = 4.0
"""The same for a compressed picture, whose block borders and ringing read as noise."""
GOOD_QUALITY = 90
"""JPEG quality from which artefacts are hardly seen."""


@dataclass(frozen=True)
class Decision:
    """What to undo, and why.

    Attributes
    ----------
    task
        Name of a task, or None if nothing needs restoring.
    noise_level
        Estimated noise level, sigma on 0..255.
    reason
        What was found, in words.
    """

    task: str | None
    noise_level: float
    reason: str


def decide(frame: Frame, tasks: Container[str]) -> Decision:
    """Look at the pixels (their noise) and at the file (its JPEG quantisation tables).

    Noise that can be measured in a JPEG outweighs its artefacts, since it is what the eye sees first.

    Parameters
    ----------
    frame
        The picture.
    tasks
        Names of the tasks to choose from: those that there are weights for.
    """
    level = estimate_noise_level(frame.pixels)
    quality = frame.jpeg_quality
    compressed = quality is not None and quality < GOOD_QUALITY
    found = f"noise level {level:.1f} (estimated)" + (f", JPEG quality {quality}" if compressed else "")
    if level >= (NOISY_JPEG_LEVEL if compressed else CLEAN_LEVEL):
        return Decision("denoise", level, found)
    if compressed and "decompress" in tasks:
        return Decision("decompress", level, found)
    return Decision(None, level, f"{found}: nothing to restore")
