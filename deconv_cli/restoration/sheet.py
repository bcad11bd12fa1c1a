"""A picture that shows pictures before and after, side by side."""

from __future__ import annotations

import textwrap
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deconv_cli.images import Frame, excess, from_float, to_float, without_black, write_atomically
from deconv_cli.restoration.batch import Seen

CROP, CHOSEN = 400, 1600
"""Largest side of the crops, which are shown pixel by pixel; and of a part that the user has chosen."""
MOST_ROWS = 20
MARGIN, LINE, NARROWEST = 8, 18, 240
"""Pixels around pictures, for a line of a caption, and of a column at least."""


class ComparisonSheet:
    """Collects the centres of pictures before and after; pictures beyond the first `MOST_ROWS` are left out."""

    def __init__(self, side: int = CROP) -> None:
        self._side = side
        self._rows: list[tuple[str, Image.Image, Image.Image]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, seen: Seen) -> None:
        """Add a row for a page."""
        if len(self._rows) < MOST_ROWS:
            before, after = _centres(seen.before, seen.after, seen.done.scale, self._side)
            self._rows.append((seen.done.decision, before, after))

    def write(self, path: Path) -> None:
        """Write the sheet as a PNG file.

        Raises
        ------
        DeconvError
            If the file cannot be written.
        """
        font = ImageFont.load_default(13)
        width = max([before.width for _, before, _ in self._rows] + [NARROWEST])
        letters = int(width / font.getlength("n"))
        captions = [[_wrap(text, letters) for text in (before.info["name"], note)] for note, before, _ in self._rows]
        tops = [LINE * max(map(len, texts)) + MARGIN // 2 for texts in captions]
        heights = [top + before.height + MARGIN for top, (_, before, _) in zip(tops, self._rows, strict=True)]
        sheet = Image.new("RGB", (2 * width + 3 * MARGIN, sum(heights) + MARGIN), "white")
        draw, y = ImageDraw.Draw(sheet), MARGIN
        for texts, top, height, (_, *pair) in zip(captions, tops, heights, self._rows, strict=True):
            for column, (lines, picture) in enumerate(zip(texts, pair, strict=True)):
                x = MARGIN + column * (width + MARGIN)
                for number, line in enumerate(lines):
                    draw.text((x, y + number * LINE), line, "black", font)
                sheet.paste(picture, (x, y + top))
            y += height
        file = BytesIO()
        sheet.save(file, "png", optimize=True)
        write_atomically(path, file.getvalue())


def _wrap(text: str, letters: int) -> list[str]:
    return textwrap.wrap(text, letters) or [""]


def _centres(before: Frame, after: Frame, scale: int, largest: int) -> tuple[Image.Image, Image.Image]:
    """Cut the same part out of both; a smaller picture is enlarged by bicubic interpolation, to be seen beside."""
    side = largest // scale
    top, left = (max(0, length - side) // 2 for length in before.pixels.shape[:2])
    white = excess(before.pixels)
    small = _crop(before, top, left, side, white)
    name = before.name.rpartition("/")[2] + (f", enlarged {scale} times" if scale > 1 else "")
    enlarged = small.resize((small.width * scale, small.height * scale), Image.Resampling.BICUBIC)
    enlarged.info["name"] = name
    return enlarged, _crop(after, top * scale, left * scale, side * scale, white)


def _crop(frame: Frame, top: int, left: int, side: int, white: float) -> Image.Image:
    part = frame.map_layers(lambda layer: layer[top : top + side, left : left + side])
    pixels = without_black(part)[0].pixels
    return Image.fromarray(from_float(to_float(pixels) / np.float32(white), np.uint8)).convert("RGB")
