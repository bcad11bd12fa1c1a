"""Restore images with a conv/deconv encoder-decoder.

    import deconv_cli as deconv
    out = deconv.restore(image, task="denoise", noise_level=25)
    deconv.psnr(reference, out), deconv.ssim(reference, out)

Names are imported when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deconv_cli._version import __version__
from deconv_cli.errors import DeconvError, UsageError

if TYPE_CHECKING:
    from deconv_cli.metrics import psnr, ssim
    from deconv_cli.restoration.restorer import Restored, Restorer, restore

_HOMES = {
    "Restored": "deconv_cli.restoration.restorer",
    "Restorer": "deconv_cli.restoration.restorer",
    "psnr": "deconv_cli.metrics",
    "restore": "deconv_cli.restoration.restorer",
    "ssim": "deconv_cli.metrics",
}

__all__ = ["DeconvError", "Restored", "Restorer", "UsageError", "__version__", "psnr", "restore", "ssim"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
