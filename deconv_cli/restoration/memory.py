"""How much memory there is for the network, and how much a picture takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from deconv_cli.network.container import available_memory

if TYPE_CHECKING:
    from deconv_cli.network.description import Architecture

ACTIVATIONS = 1 << 30
"""Most bytes that the network may take for a tile: beyond it larger tiles gain little."""
FIXED = 320 << 20
"""What the process takes with torch and a network loaded, in bytes."""
SMALLEST_TILE, LARGEST_TILE = 64, 1536


def available_on(device: str) -> int:
    """Return the bytes that can be had on a device."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()


def activation_bytes(architecture: Architecture, itemsize: int) -> float:
    """Return about how many bytes the network takes per input pixel of a tile, measured on the bundled ones."""
    return 4.0 * architecture.widths[0] * itemsize + 80.0 + 40.0 * architecture.scale**2


def tile_side(architecture: Architecture, itemsize: int, free: int) -> int:
    """Return the largest side of a tile's core, in input pixels, that half of the free memory is enough for."""
    budget = min(ACTIVATIONS, free // 2)
    with_context = math.sqrt(budget / activation_bytes(architecture, itemsize))
    side = int(with_context) - 2 * architecture.influence_radius
    return min(max(side, SMALLEST_TILE), LARGEST_TILE)


def picture_bytes(width: int, height: int, bytes_per_pixel: int, scale: int) -> int:
    """Return about how many bytes a picture takes from being decoded to having been written.

    Decoded by Pillow it has four bytes a pixel, and is copied; then input and output are there together; then the
    output and what encodes it.
    """
    pixels = width * height
    decoded = (max(4, bytes_per_pixel) + bytes_per_pixel) * pixels
    both = bytes_per_pixel * pixels * (1 + scale**2)
    encoding = (max(4, bytes_per_pixel) + bytes_per_pixel) * pixels * scale**2
    return max(decoded, both + min(ACTIVATIONS, 400 * pixels), encoding)
