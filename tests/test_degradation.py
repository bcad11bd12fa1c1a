"""What the tasks undo: the statistics of the noise, and JPEG as Pillow makes it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from deconv_cli.degradation.jpeg import compress_jpeg, compress_variously
from deconv_cli.degradation.noise import add_gaussian_noise
from deconv_cli.metrics import psnr
from deconv_cli.tasks import TASKS

ASTRONAUT = data.astronaut()[:96, 180:300]


def scaled(pixels):
    return pixels.astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 1, 3), (1, 7, 3), (9, 1, 3), (5, 1)])
def test_jpeg_of_a_picture_one_pixel_wide_keeps_its_colours(shape):
    image = np.full(shape, 0.5, np.float32)
    if shape[2:] == (3,):
        image[:] = np.array([90, 10, 200], np.float32) / 255
    assert np.abs(compress_jpeg(image, 95, "4:4:4") - image).max() < 4 / 255


@settings(max_examples=20, deadline=None)
@given(level=st.floats(0.5, 75), seed=st.integers(0, 2**31))
def test_noise_is_white_gaussian_and_seeded(level, seed):
    image = np.full((64, 64, 3), 0.5, np.float32)
    noise, again = (add_gaussian_noise(image, level, np.random.default_rng(seed)) - image for _ in range(2))
    assert np.array_equal(noise, again)
    assert noise.std() * 255 == pytest.approx(level, rel=0.05)
    assert abs(noise.mean()) * 255 < level * 0.05
    neighbours = (noise[1:] * noise[:-1]).mean() / noise.var()
    assert abs(neighbours) < 0.06


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("pixels", [ASTRONAUT, data.camera()[:64, :72]])
def test_jpeg_is_pillows(pixels, subsampling):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=30, subsampling=subsampling)
    expected = np.asarray(Image.open(file))
    assert np.array_equal(np.rint(compress_jpeg(scaled(pixels), 30, subsampling) * 255), expected)


def test_a_single_channel_is_a_gray_jpeg():
    gray = scaled(data.camera()[:64, :72])
    assert np.array_equal(compress_jpeg(gray[..., None], 20)[..., 0], compress_jpeg(gray, 20))


def test_quality_is_quality():
    scores = [psnr(scaled(ASTRONAUT), compress_jpeg(scaled(ASTRONAUT), quality)) for quality in (5, 20, 50, 95)]
    assert scores == sorted(scores)


@settings(max_examples=20, deadline=None)
@given(quality=st.floats(5, 95), seed=st.integers(0, 2**31), gray=st.booleans())
def test_various_compression_is_seeded_and_keeps_the_shape(quality, seed, gray):
    image = scaled(ASTRONAUT[..., :1] if gray else ASTRONAUT)
    first, again = (compress_variously(image, quality, np.random.default_rng(seed)) for _ in range(2))
    assert first.shape == image.shape
    assert np.array_equal(first, again)
    # Compressed once or twice, shifted or not: about as far from the clean picture as the quality says.
    assert (
        psnr(image.squeeze(), first.squeeze()) < psnr(image.squeeze(), compress_jpeg(image, 95, "4:4:4").squeeze()) + 3
    )


def test_grids_are_shifted_now_and_then():
    """A flat ramp shows its block borders: not only at multiples of eight."""
    ramp = np.linspace(0, 1, 96, dtype=np.float32) * np.ones((96, 1), np.float32)
    borders = set()
    for seed in range(60):
        steps = np.abs(np.diff(compress_variously(ramp, 5, np.random.default_rng(seed)).mean(0)))
        borders.add(int(np.argmax([steps[offset::8].sum() for offset in range(8)])))
    assert len(borders) > 3


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_degrades_every_shape(task):
    for shape in ((16, 24), (16, 24, 1), (16, 24, 3)):
        image = np.full(shape, 0.5, np.float32)
        for degrade in (task.degrade, task.degrade_variously):
            out = degrade(image, task.report_levels[0], np.random.default_rng(0))
            assert out.shape == (16 // task.scales[0], 24 // task.scales[0], *shape[2:])
            assert out.dtype == np.float32
