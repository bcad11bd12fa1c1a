"""Peak memory of `deconv restore` on large pictures, each in a process of its own.

    python benchmarks/memory.py 100 400 --precision bf16     # megapixels, denoised
    python benchmarks/memory.py 25 --scale 4                 # enlarged to 400
    python benchmarks/memory.py 100 --format png             # jpg, png or tif
    python benchmarks/memory.py 400 --sparse                 # the network on the first and the last tile only

With --sparse it takes a fraction of the time, and reads somewhat low: 3.87 GB instead of 4.04 at 400 megapixels.

The pictures are made from scikit-image's astronaut, with noise, and removed again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from skimage import data

from deconv_cli.cli.app import run
from deconv_cli.images import Frame, encode_frame
from deconv_cli.restoration.restorer import Restorer


def make_picture(path: Path, megapixels: float) -> None:
    """Write a noisy picture of so many megapixels, as 5 to 4."""
    height = round((megapixels * 1e6 / 1.25) ** 0.5)
    width = round(height * 1.25)
    tile = data.astronaut()
    noisy = np.clip(tile + np.random.default_rng(0).normal(0, 10, tile.shape), 0, 255).astype(np.uint8)
    repeats = -(-height // len(noisy)), -(-width // len(noisy)), 1
    pixels = np.tile(noisy, repeats)[:height, :width]
    path.write_bytes(encode_frame(Frame(pixels), {".jpg": "jpg", ".png": "png", ".tif": "tiff"}[path.suffix])[0])


def restore_sparsely(arguments: list[str]) -> None:
    """Run the command with the network on the first and the last tile; what is between repeats the input."""
    run_tile, tiles = Restorer._run_tile, Restorer._tiles
    ahead: list[int] = []

    def noting_tiles(self, shape, core, how):  # noqa: ANN001, ANN202
        found = list(tiles(self, shape, core, how))
        ahead[:] = range(len(found))
        return iter(found)

    def sparse_tile(self, patch, how):  # noqa: ANN001, ANN202
        number = ahead.pop(0)
        if number == 0 or not ahead:
            return run_tile(self, patch, how)
        scale = self.description.scale
        return patch.repeat(scale, axis=0).repeat(scale, axis=1)

    Restorer._run_tile, Restorer._tiles = sparse_tile, noting_tiles
    raise SystemExit(run(arguments))


def measure(megapixels: float, suffix: str, options: list[str], *, sparse: bool) -> str:
    """Restore a picture and return a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / f"in{suffix}", Path(folder) / f"out{suffix}"
        # In a process of its own too, so that its memory does not count.
        subprocess.run([sys.executable, __file__, str(megapixels), "--make", str(source)], check=True)
        began = time.perf_counter()
        program = [__file__, "0", "--restore-sparsely"] if sparse else ["-m", "deconv_cli"]
        peak = run_and_watch([sys.executable, *program, "restore", str(source), str(target), *options])
        seconds = time.perf_counter() - began
        size = source.stat().st_size / 1e6
    return f"| {megapixels:g} | {suffix[1:]} ({size:.0f} MB) | {' '.join(options)} | {peak / 1e9:.2f} | {seconds:.0f} |"


def run_and_watch(command: list[str]) -> int:
    """Run a command and return the peak of its resident memory in bytes, as the kernel counts it."""
    code = (
        "import os, resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("megapixels", type=float, nargs="+")
    parser.add_argument("--format", choices=("jpg", "png", "tif"), default="jpg")
    parser.add_argument("--sparse", action="store_true")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--restore-sparsely", action="store_true", help=argparse.SUPPRESS)
    arguments, options = parser.parse_known_args()
    if arguments.restore_sparsely:
        restore_sparsely(sys.argv[3:])
    if arguments.make:
        make_picture(arguments.make, arguments.megapixels[0])
        return
    print("| megapixels | input | options | peak memory, GB | seconds |\n|---|---|---|---|---|", flush=True)
    for megapixels in arguments.megapixels:
        print(measure(megapixels, f".{arguments.format}", options, sparse=arguments.sparse), flush=True)


if __name__ == "__main__":
    main()
