"""What a batch will take: time and memory, before it is done."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deconv_cli.errors import DeconvError
from deconv_cli.images import check_pages, open_picture
from deconv_cli.images.paths import exists
from deconv_cli.restoration import memory
from deconv_cli.restoration.batch import Outcome, written_format
from deconv_cli.restoration.pages import networks_for, total_scale

if TYPE_CHECKING:
    from deconv_cli.restoration.pages import Options
    from deconv_cli.restoration.planning import Job
    from deconv_cli.restoration.restorer import Restorers

SAMPLE = 384
"""Side of the picture that is timed."""


@dataclass
class Estimate:
    """What a batch takes, added up over its files.

    Attributes
    ----------
    megapixels
        Of all pages of the inputs.
    memory
        Most bytes that a file takes, the network included.
    """

    megapixels: float = 0.0
    memory: int = memory.FIXED

    def add(self, width: int, height: int, pages: int, bytes_per_pixel: int, scale: int) -> None:
        """Add a file."""
        self.megapixels += width * height * pages / 1e6
        self.memory = max(self.memory, memory.FIXED + memory.picture_bytes(width, height, bytes_per_pixel, scale))


def look_at(job: Job, options: Options, restorers: Restorers, estimate: Estimate) -> Outcome:
    """Read the header of a file and add it to an estimate.

    Returns
    -------
    Outcome
        ``planned``, or ``failed`` if the header says that it will fail.
    """
    outcome = Outcome(str(job.source), str(job.target), "planned")
    if job.error:
        return dataclasses.replace(outcome, status="failed", error=job.error)
    try:
        size = job.source.stat().st_size if exists(job.source) else None
        with open_picture(job.source, max_pixels=options.max_pixels) as picture:
            target = written_format(picture, job.format)
            check_pages(picture.name, target, picture.count, animated=picture.animated)
            scale = total_scale(options, restorers)
            estimate.add(picture.width, picture.height, picture.count, picture.bytes_per_pixel, scale)
            return dataclasses.replace(
                outcome, width=picture.width, height=picture.height, pages=picture.count, input_bytes=size
            )
    except DeconvError as error:
        return dataclasses.replace(outcome, status="failed", error=str(error))


def seconds_per_megapixel(restorers: Restorers, options: Options) -> float:
    """Time the network on a small picture, with the options of the batch."""
    sample = np.random.default_rng(0).integers(0, 255, (SAMPLE, SAMPLE, 3), np.uint8)
    seconds = 0.0
    for restorer in networks_for(options, restorers):
        restorer.restore(sample, tta=options.tta)
        began = time.perf_counter()
        restorer.restore(sample, tta=options.tta)
        seconds += time.perf_counter() - began
    return seconds / SAMPLE**2 * 1e6
