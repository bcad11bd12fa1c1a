"""What is done to a clean patch before it is degraded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in full-range luma (ITU-R BT.601)."""


def dihedral(patch: NDArray[np.generic], symmetry: int) -> NDArray[np.generic]:
    """Turn and mirror a square patch.

    Parameters
    ----------
    patch
        S x S or S x S x C, any dtype.
    symmetry
        Which of the square's eight symmetries, 0 to 7: quarter turns, plus 4 for a mirror image.
    """
    turned = np.rot90(patch, symmetry % 4)
    return turned[:, ::-1] if symmetry >= 4 else turned


def to_gray(patch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn S x S x 3 into S x S x 1 luma."""
    return (patch @ LUMA)[..., None]
