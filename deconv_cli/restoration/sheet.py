"""A picture that shows pictures before and after, side by side."""

from __future__ import annotations

import textwrap
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deconv_cli.images import Frame, excess, from_float, to_float, without_black, write_atomically
from deconv_cli.restoration.batch import Seen

CROP, CHOSEN = 400, 1600
"""Largest side of the crops, which are shown pixel by pixel; and of a part that the user has chosen."""
MOST_ROWS = 20
MARGIN, LINE, NARROWEST = 8, 18, 240
"""Pixels around pictures, for a line of a caption, and of a column at least."""


class _Row(NamedTuple):
    """A page on the sheet: the file and which of its pages it is, what was done, and the crops."""

    name: str
    page: str
    scale: int
    decision: str
    before: Image.Image
    after: Image.Image


class ComparisonSheet:
    """Collects the centres of pictures before and after; pictures beyond the first `MOST_ROWS` are left out."""

    def __init__(self, side: int = CROP) -> None:
        self._side = side
        self._rows: list[_Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, seen: Seen) -> None:
        """Add a row for a page."""
        if len(self._rows) < MOST_ROWS:
            name, scale = seen.before.name, seen.done.scale
            number = 1 + sum(row.name == name for row in self._rows)
            page = f"page {number}" if seen.before.duration is None else f"frame {number}"
            pair = _centres(seen.before, seen.after, scale, self._side)
            self._rows.append(_Row(name, page, scale, seen.done.decision, *pair))

    def write(self, path: Path) -> None:
        """Write the sheet as a PNG file.

        Raises
        ------
        DeconvError
            If the file cannot be written.
        """
        font = ImageFont.load_default(13)
        width = max([row.before.width for row in self._rows] + [NARROWEST])
        letters = int(width / font.getlength("n"))
        captions = [[_wrap(text, letters) for text in (self._title(row), row.decision)] for row in self._rows]
        tops = [LINE * max(map(len, texts)) + MARGIN // 2 for texts in captions]
        heights = [top + row.before.height + MARGIN for top, row in zip(tops, self._rows, strict=True)]
        sheet = Image.new("RGB", (2 * width + 3 * MARGIN, sum(heights) + MARGIN), "white")
        draw, y = ImageDraw.Draw(sheet), MARGIN
        for texts, top, height, row in zip(captions, tops, heights, self._rows, strict=True):
            for column, (lines, picture) in enumerate(zip(texts, (row.before, row.after), strict=True)):
                x = MARGIN + column * (width + MARGIN)
                for number, line in enumerate(lines):
                    draw.text((x, y + number * LINE), line, "black", font)
                sheet.paste(picture, (x, y + top))
            y += height
        file = BytesIO()
        sheet.save(file, "png", optimize=True)
        write_atomically(path, file.getvalue())

    def _title(self, row: _Row) -> str:
        several = Counter(each.name for each in self._rows)[row.name] > 1
        enlarged = f"enlarged {row.scale} times" if row.scale > 1 else ""
        return ", ".join(filter(None, (row.name.rpartition("/")[2], row.page if several else "", enlarged)))


def _wrap(text: str, letters: int) -> list[str]:
    return textwrap.wrap(text, letters) or [""]


def _centres(before: Frame, after: Frame, scale: int, largest: int) -> tuple[Image.Image, Image.Image]:
    """Cut the same part out of both; a smaller picture is enlarged by bicubic interpolation, to be seen beside."""
    side = largest // scale
    top, left = (max(0, length - side) // 2 for length in before.pixels.shape[:2])
    white = excess(before.pixels)
    small = _crop(before, top, left, side, white)
    enlarged = small.resize((small.width * scale, small.height * scale), Image.Resampling.BICUBIC)
    return enlarged, _crop(after, top * scale, left * scale, side * scale, white)


def _crop(frame: Frame, top: int, left: int, side: int, white: float) -> Image.Image:
    part = frame.map_layers(lambda layer: layer[top : top + side, left : left + side])
    pixels = without_black(part)[0].pixels
    return Image.fromarray(from_float(to_float(pixels) / np.float32(white), np.uint8)).convert("RGB")
