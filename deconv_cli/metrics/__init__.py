"""PSNR and SSIM as the field counts them, and the protocol that a number belongs to.

Both are pure functions that measure one pair of pictures. The score of a set is the mean of its pictures'
values, each picture counting once whatever its size, and in PSNR those that are exact not at all; errors
pooled over a set before the logarithm give another, incomparable number.
"""

from deconv_cli.metrics.fidelity import mean_psnr, measure, psnr, ssim
from deconv_cli.metrics.luma import to_luma
from deconv_cli.metrics.protocol import Protocol

__all__ = ["Protocol", "mean_psnr", "measure", "psnr", "ssim", "to_luma"]
