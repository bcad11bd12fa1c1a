"""The share of a batch's time in which the network works, on a folder of JPEGs of 24 megapixels.

    python benchmarks/batch.py --pictures 6

The pictures are made from scikit-image's samples, with noise, and removed again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from skimage import data

from deconv_cli.images import Frame, encode_frame

WIDTH, HEIGHT = 6000, 4000


def make_pictures(folder: Path, count: int, width: int, height: int) -> None:
    """Write noisy JPEGs."""
    for number, sample in zip(range(count), 10 * [data.astronaut(), data.coffee(), data.chelsea()], strict=False):
        noise = np.random.default_rng(number).normal(0, 8, sample.shape)
        noisy = np.clip(sample + noise, 0, 255).astype(np.uint8)
        repeats = -(-height // len(noisy)), -(-width // noisy.shape[1]), 1
        pixels = np.ascontiguousarray(np.tile(noisy, repeats)[:height, :width])
        (folder / f"{number}.jpg").write_bytes(encode_frame(Frame(pixels), "jpg", quality=92)[0])


def main() -> None:
    """Restore a folder and print the last line of its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--height", type=int, default=HEIGHT)
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "in"
        source.mkdir()
        make_pictures(source, arguments.pictures, arguments.width, arguments.height)
        command = [sys.executable, "-m", "deconv_cli", "restore", str(source), str(Path(work) / "out"), "--json"]
        done = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, text=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    megapixels = arguments.pictures * arguments.width * arguments.height / 1e6
    print(f"{summary}; {megapixels / summary['seconds']:.2f} megapixels a second")


if __name__ == "__main__":
    main()
