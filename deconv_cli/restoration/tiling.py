"""Cutting a picture into tiles whose cores, put together, equal the untiled result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels.

    Attributes
    ----------
    start, stop
        The core: what the tile contributes.
    low, high
        The core with its context: what the network sees. Where they lie beyond the picture it has to be continued.
    """

    start: int
    stop: int
    low: int
    high: int

    def core(self, scale: int) -> slice:
        """Return where the core lies in the whole result, which has `scale` times the pixels along the axis."""
        return slice(self.start * scale, self.stop * scale)

    def inside(self, size: int) -> slice:
        """Return what of the tile lies in the picture, which has `size` pixels along the axis."""
        return slice(max(0, self.low), min(size, self.high))

    def beyond(self, size: int) -> tuple[int, int]:
        """Return how many pixels of the tile lie before the picture and behind it."""
        return max(0, -self.low), max(0, self.high - size)

    def core_within(self, scale: int) -> slice:
        """Return where the core lies in the tile's own result."""
        return slice((self.start - self.low) * scale, (self.stop - self.low) * scale)


def spans(size: int, core: int, overlap: int, multiple: int, *, margin: int = 0, before: int = 0) -> Iterator[Span]:
    """Cut an axis into cores with context.

    A result is exact if every tile starts on a multiple of the network's stride, so that its grids of pixels coincide
    with the untiled ones, and if the context covers the network's influence radius.

    Parameters
    ----------
    size
        Pixels along the axis.
    core
        Pixels a tile contributes; a multiple of `multiple`.
    overlap
        Pixels of context on either side; a multiple of `multiple`, at least the influence radius.
    multiple
        The total stride of the network.
    margin
        Pixels that the picture is continued for beyond its border, on every side; a multiple of `multiple`.
    before
        Pixels, less than `multiple`, that the first core starts before the picture, by which all grids move.

    Examples
    --------
    >>> [(tile.start, tile.stop, tile.low, tile.high) for tile in spans(100, 64, 16, 8)]
    [(0, 64, 0, 80), (64, 100, 48, 104)]
    >>> [(tile.start, tile.stop, tile.low, tile.high) for tile in spans(100, 64, 16, 8, margin=8)]
    [(0, 64, -8, 80), (64, 100, 48, 112)]
    >>> [(tile.start, tile.stop, tile.low, tile.high) for tile in spans(100, 64, 16, 8, margin=8, before=3)]
    [(0, 61, -11, 77), (61, 100, 45, 109)]
    """
    end = size + before
    padded = -(-end // multiple) * multiple
    for start in range(0, end, core):
        stop = min(start + core, end)
        low, high = max(-margin, start - overlap), min(padded + margin, start + core + overlap)
        yield Span(max(0, start - before), stop - before, low - before, high - before)


def even_core(size: int, largest: int, multiple: int) -> int:
    """Return a core of at most `largest` pixels that cuts an axis into tiles of about equal size."""
    count = -(-size // largest)
    return -(-size // (count * multiple)) * multiple
