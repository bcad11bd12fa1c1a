"""Noise that was clipped at black and white: its mean is put back where there is some, and nothing else is changed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from skimage import data

from deconv_cli.images import from_float, to_float
from deconv_cli.metrics import psnr
from deconv_cli.network.weights import load_weights, save_weights
from deconv_cli.restoration.restorer import Restorer

ENGINES = ("openvino", "onnxruntime", "torch")


@pytest.fixture(scope="module")
def denoise():
    return Restorer("denoise", precision="fp32")


def noisy(clean, level, dtype=np.uint8):
    noise = np.random.default_rng(0).normal(0, level / 255, clean.shape)
    return from_float((to_float(clean) + noise).astype(np.float32), dtype)


def gain(restorer, clean, level, told=None):
    """Return by how much integers come out better, in dB, than the same samples as float, whose range has no limits."""
    samples = noisy(clean, level)
    told = level if told is None else told
    as_float = from_float(restorer.restore(to_float(samples), noise_level=told).pixels, np.uint8)
    return psnr(clean, restorer.restore(samples, noise_level=told).pixels) - psnr(clean, as_float)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("limit", [0, 1])
@pytest.mark.parametrize("gray", [False, True])
def test_black_and_white_come_back_from_strong_noise(denoise, dtype, limit, gray):
    clean = np.full((64, 64) if gray else (64, 64, 3), limit, np.float32)
    result = to_float(denoise.restore(noisy(clean, 50, dtype), noise_level=50).pixels)
    assert np.abs(result - limit).mean() < 3 / 255


@pytest.mark.parametrize("told", [50, "auto"])
def test_a_photograph_with_black_parts_gains_from_it(denoise, told):
    assert gain(denoise, data.astronaut()[128:320, 128:320], 50, told) > 1


@pytest.mark.parametrize("name", ["astronaut", "page", "rocket", "coins"])
@pytest.mark.parametrize("level", [5, 15, 25])
def test_no_photograph_loses_by_it(denoise, name, level):
    assert gain(denoise, np.ascontiguousarray(getattr(data, name)()[40:168, 100:260]), level) > -0.02


@pytest.mark.parametrize("level", [5, 25, 75])
@pytest.mark.parametrize("colour", [(0, 0, 0), (0, 3, 20), (12, 20, 40), (240, 250, 255), (255, 255, 255)])
def test_where_no_noise_was_clipped_nothing_is_put_back(denoise, level, colour):
    flat = np.full((40, 56, 3), colour, np.uint8)
    assert np.abs(denoise.restore(flat, noise_level=level).pixels.astype(int) - colour).max() <= 1


def test_weights_that_were_trained_on_pairs_of_files_have_learnt_it_themselves(tiny_weights, tmp_path):
    weights, path = load_weights(tiny_weights), tmp_path / "paired.safetensors"
    save_weights(path, dataclasses.replace(weights, recipe={"paired": "noisy"}), dtype=np.float32)
    clean = data.astronaut()[128:192, 128:192]
    assert gain(Restorer(path, precision="fp32"), clean, 50) == 0
    assert gain(Restorer(tiny_weights, precision="fp32"), clean, 50) != 0


@pytest.mark.parametrize("strength", [1, 0.6])
def test_tiles_do_not_show(denoise, strength):
    samples = noisy(data.astronaut()[:250, 40:300], 50, np.uint16)
    options = {"noise_level": 50, "strength": strength}
    whole, tiled = (denoise.restore(samples, tile=tile, **options).pixels.astype(int) for tile in ("off", 64))
    assert np.abs(whole - tiled).max() <= 1


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree(engine):
    pytest.importorskip(engine)
    clean = data.astronaut()[128:192, 128:192]
    assert gain(Restorer("denoise", precision="fp32", engine=engine), clean, 50) == pytest.approx(
        gain(Restorer("denoise", precision="fp32", engine="torch"), clean, 50), abs=0.01
    )
