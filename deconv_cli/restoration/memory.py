"""How much memory there is, in containers too, and how much a picture takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from deconv_cli.network.description import Architecture

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

ACTIVATIONS = 1 << 30
"""Most bytes that the network may take for a tile: beyond it larger tiles gain little."""
FIXED = 320 << 20
"""What the process takes with torch and a network loaded, in bytes."""
SMALLEST_TILE, LARGEST_TILE = 64, 1536


def available_memory() -> int:
    """Return the bytes that can be had: what the machine has free, or what the limits of the container leave."""
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_by_cgroups()])


def _left_by_cgroups() -> Iterator[int]:
    """Yield what every control group around the process leaves of its limit (version 2, and version 1)."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            root, limit, usage, cache = CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        inner = root / place.lstrip("/")
        for folder in (inner, *inner.parents):
            if not folder.is_relative_to(root):
                break
            left = _left(folder, limit, usage, cache)
            if left is not None:
                yield left


def _left(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
        stat = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None  # No limit ("max"), or no such file.
    # Cached files are given back when memory is needed.
    return max(0, most - used + int(stat.get(cache, 0)))


def available_on(device: torch.device) -> int:
    """Return the bytes that can be had on a device."""
    import torch

    if device.type == "cuda":
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
