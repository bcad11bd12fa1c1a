"""The protocol of a measurement: what has to be known to compare its numbers with others."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from deconv_cli.errors import DeconvError, UsageError, unknown_name

CHANNELS = ("rgb", "y", "gray")


@dataclass(frozen=True)
class Protocol:
    """How PSNR and SSIM were counted.

    Attributes
    ----------
    channel
        "rgb" (samples as they are), "y" (studio-range luma, not rounded) or "gray" (full-range luma, not
        rounded). A gray picture is taken as it is for each.
    crop
        Pixels left out at each of the four borders.
    data_range
        The peak of PSNR and the L of SSIM; None is the full scale of the samples: 255, 65535, or 1 (float).
    ssim_window
        The window and constants of SSIM.
    averaging
        How the values of several pictures become one.

    Raises
    ------
    UsageError
        If the channel is unknown, the crop negative, or the data range not positive.

    Examples
    --------
    >>> print(Protocol(channel="y", crop=2))
    channel y, crop 2, range by sample type, SSIM 11x11 Gaussian 1.5 K 0.01/0.03 population, mean per picture
    """

    channel: str = "rgb"
    crop: int = 0
    data_range: float | None = None
    ssim_window: str = field(default="11x11 Gaussian 1.5 K 0.01/0.03 population", init=False)
    averaging: str = field(default="mean per picture", init=False)

    def __post_init__(self) -> None:
        if self.channel not in CHANNELS:
            raise unknown_name("channel", self.channel, CHANNELS)
        if not isinstance(self.crop, int | np.integer) or self.crop < 0:
            raise UsageError(f"crop is {self.crop}: give the number of border pixels to leave out, 0 or more")
        if self.data_range is not None and not (
            isinstance(self.data_range, int | float | np.number) and self.data_range > 0
        ):
            raise UsageError(f"data range is {self.data_range}: it must be positive, 255 for 8-bit samples")

    def __str__(self) -> str:
        fields = self.as_dict()
        return (
            f"channel {self.channel}, crop {self.crop}, range {fields['data_range']}, "
            f"SSIM {self.ssim_window}, {self.averaging}"
        )

    def peak(self, dtype: np.dtype[Any]) -> float:
        """Return the data range that holds for samples of `dtype`.

        >>> Protocol().peak(np.dtype(np.uint16))
        65535.0
        """
        return full_scale(dtype) if self.data_range is None else float(self.data_range)

    def as_dict(self) -> dict[str, str | float]:
        """Return the fields, ready for JSON.

        >>> Protocol(data_range=255).as_dict()["data_range"], Protocol().as_dict()["data_range"]
        (255, 'by sample type')
        """
        return asdict(self) | {"data_range": "by sample type" if self.data_range is None else self.data_range}


def full_scale(dtype: np.dtype[Any]) -> float:
    """Return the value of white in samples of `dtype`: 255 (uint8), 65535 (uint16) or 1 (floating point).

    Raises
    ------
    DeconvError
        If `dtype` is none of these.
    """
    if dtype in (np.uint8, np.uint16):
        return float(np.iinfo(dtype).max)
    if np.issubdtype(dtype, np.floating):
        return 1.0
    raise DeconvError(f"samples of type {dtype} cannot be scored; convert them to uint8, uint16 or float in 0..1")
