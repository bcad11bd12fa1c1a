"""Floors on the shipped weights, on pictures that scikit-image ships, by the field's protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import data

from deconv_cli.degradation.camera import Camera, add_camera_noise, interpolate
from deconv_cli.degradation.shrinking import shrink
from deconv_cli.images import from_float, to_float
from deconv_cli.metrics import psnr
from deconv_cli.restoration.restorer import Restorer

COLOUR = {"astronaut": (0, 256), "chelsea": (20, 150), "coffee": (80, 220)}
GRAY = {"camera": (60, 180), "coins": (0, 0), "moon": (100, 100)}
SIDE = 256


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("quality")
    for kind, pictures in (("colour", COLOUR), ("gray", GRAY)):
        (root / kind).mkdir()
        for name, (top, left) in pictures.items():
            crop = getattr(data, name)()[top : top + SIDE, left : left + SIDE]
            Image.fromarray(crop).save(root / kind / f"{name}.png")
    return root


@pytest.mark.parametrize(("kind", "floors"), [("colour", (35.76, 33.53, 30.7)), ("gray", (34.5, 32.43, 29.89))])
def test_denoising(run, folders, kind, floors):
    result = run("bench", folders / kind, "--levels", "15,25,50", "--json").json
    assert result["pictures"] == 3
    for row, floor in zip(result["rows"], floors, strict=True):
        assert row["psnr"] > floor, row
        assert row["psnr"] > row["input_psnr"] + 5
        assert row["ssim"] > row["input_ssim"]


@pytest.mark.parametrize(
    ("options", "gains"),
    [
        (("--task", "decompress"), (1.95, 1.87, 1.87, 1.78)),
        (("--task", "decompress", "--gray"), (2.03, 1.95, 1.92, 1.87)),
        (("--task", "photo"), (2.9, 5.7, 8.2)),
        (("--scale", "2"), (3.45,)),
        (("--scale", "3"), (2.45,)),
        (("--scale", "4"), (2.3,)),
    ],
)
def test_the_other_restorations(run, folders, options, gains):
    """So many decibels above the input; that of super-resolution is the bicubic enlargement."""
    rows = run("bench", folders / "colour", *options, "--json").json["rows"]
    for row, gain in zip(rows, gains, strict=True):
        assert row["psnr"] > row["input_psnr"] + gain, row
        assert row["ssim"] > row["input_ssim"]


def test_strong_noise_of_a_camera_that_keeps_edges_in_a_soft_picture(folders):
    """Decibels above the input; weights that had seen cameras up to level 30 alone, which blur noise, make 11.5."""
    clean = to_float(np.asarray(Image.open(folders / "colour" / "chelsea.png")))
    soft = ndimage.gaussian_filter(clean, (1, 1, 0))
    camera = Camera(demosaicing="malvar", luma_smoothing=0, chroma_smoothing=0)
    noisy = from_float(add_camera_noise(soft, 20, np.random.default_rng(0), camera), np.uint8)
    truth = from_float(soft, np.uint8)
    assert psnr(truth, Restorer("photo").restore(noisy).pixels) > psnr(truth, noisy) + 12.5


@pytest.mark.parametrize(("name", "most"), [("denoise", 0.2), ("decompress", 0.14), ("photo", 0.18)])
def test_half_of_a_network_in_int8_stays_near_the_whole(run, folders, name, most):
    """Decibels that it may lose at any level."""
    weights = ("--weights", name, "--weights", f"{name}-int8")
    rows = run("bench", folders / "colour", *weights, "--json").json["rows"]
    whole, half = ([row["psnr"] for row in rows if row["method"] == method] for method in (name, f"{name}-int8"))
    assert len(whole) == len(half) >= 3
    assert max(np.subtract(whole, half)) < most


@pytest.mark.parametrize(("level", "floor"), [(0, 42.3), (2, 39.5)])
def test_patterns_of_demosaicing_are_no_noise(folders, level, floor):
    """Weights that had seen weak noise as seldom as strong make 41.4 of it without noise and 39.3 with."""
    clean = to_float(np.asarray(Image.open(folders / "colour" / "chelsea.png")))
    mosaicked = interpolate(ndimage.gaussian_filter(clean, (0.6, 0.6, 0)), np.random.default_rng(0))
    camera = Camera(demosaicing="malvar", luma_smoothing=0, chroma_smoothing=0)
    noisy = from_float(add_camera_noise(mosaicked, level, np.random.default_rng(0), camera), np.uint8)
    assert psnr(from_float(mosaicked, np.uint8), Restorer("photo").restore(noisy).pixels) > floor


@pytest.mark.parametrize(("name", "floor"), [("sr-x2", 30.8), ("sr-x3", 28.4), ("sr-x4", 27.0)])
def test_printed_text_is_enlarged(monkeypatch, name, floor):
    """Letters of 13 pixels; interpolation makes 18 to 20 dB of them, weights that have not seen print 25 to 29."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    from text import print_page, restored

    restorer = Restorer(name)
    scale = restorer.description.scale
    page = print_page(13, scale, None)
    small = from_float(shrink(to_float(page), scale), np.uint8)
    assert psnr(page, restored(restorer, small, "auto")) > floor
