"""Restoring arrays: exact tiles, types, strength, alpha, self-ensemble, and what goes wrong."""

from __future__ import annotations

import dataclasses
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage import data

import deconv_cli as deconv
from deconv_cli.degradation.blocking import find_blocks
from deconv_cli.errors import UsageError
from deconv_cli.images import to_float
from deconv_cli.network import bundled
from deconv_cli.network.description import Architecture, Description
from deconv_cli.network.encoder_decoder import build_network
from deconv_cli.network.weights import Weights, load_weights, save_weights, to_parameters
from deconv_cli.restoration.restorer import Restorer
from deconv_cli.restoration.running import Runner

TYPES = {"uint8": 255, "uint16": 65535, "float32": 1}


@pytest.fixture(scope="module")
def tiny(tiny_weights):
    return Restorer(tiny_weights, precision="fp32")


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """Random networks of one to four levels, by number of levels."""
    restorers = {}
    for levels in range(1, 5):
        torch.manual_seed(levels)
        architecture = Architecture(widths=(4, 6, 6, 8)[:levels], blocks=(1,) * levels)
        network = build_network(architecture)
        path = tmp_path_factory.mktemp("deep") / f"{levels}.safetensors"
        description = Description("deep", "denoise", architecture, (0.0, 75.0))
        save_weights(path, Weights(description, to_parameters(network.state_dict())), dtype=np.float32)
        restorers[levels] = Restorer(path, precision="fp32")
    return restorers


def picture(shape, dtype="float32", seed=0):
    values = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return values if dtype == "float32" else np.rint(values * TYPES[dtype]).astype(dtype)


@settings(max_examples=40, deadline=None)
@given(
    levels=st.integers(1, 4),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.integers(1, 64),
    gray=st.booleans(),
    tta=st.booleans(),
)
def test_tiled_equals_untiled(deep, levels, height, width, tile, gray, tta):
    image = picture((height, width) if gray else (height, width, 3), seed=height * 100 + width)
    whole, tiled = (deep[levels].restore(image, noise_level=20, tile=how, tta=tta).pixels for how in ("off", tile))
    assert image.size < 100 or not np.allclose(whole, image, atol=1e-3)
    assert np.abs(tiled - whole).max() <= 1e-4 / 255


def test_tiled_equals_untiled_with_the_shipped_weights():
    image = to_float(data.astronaut()[:400, 40:340])
    restorer = Restorer("denoise", precision="fp32")
    whole, tiled = (restorer.restore(image, noise_level=50, tile=how).pixels for how in ("off", 160))
    assert np.abs(tiled - whole).max() <= 1e-4 / 255
    eight = data.astronaut()[:400, 40:340]
    half = Restorer("denoise", precision="bf16")
    whole, tiled = (half.restore(eight, noise_level=50, tile=how).pixels.astype(int) for how in ("off", 160))
    assert np.abs(tiled - whole).max() <= 1


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4), (1, 1), (1, 9, 3)])
def test_type_and_shape_stay(tiny, shape, dtype):
    image = picture(shape, dtype)
    out = tiny.restore(image, noise_level=20).pixels
    assert out.dtype == image.dtype
    assert out.shape == image.shape


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(33, 47), (33, 47, 3)])
def test_strength_zero_is_the_input_and_half_lies_beyond_the_middle(tiny, shape, dtype):
    image = picture(shape, dtype)
    none, half, full = (tiny.restore(image, noise_level=20, strength=s).pixels for s in (0, 0.5, 1))
    assert np.array_equal(none, image)
    change, taken = (other.astype(np.float64) - image for other in (full, half))
    strong = (np.abs(change) > 0.05 * TYPES[dtype]) & (full > 0) & (full < TYPES[dtype])
    share = taken[strong] / change[strong]
    assert share.min() >= 0.5 - 0.1
    assert share.max() <= 1 + 0.1


def test_luma_and_chroma_have_strengths_of_their_own(tiny):
    image = to_float(data.chelsea()[60:100, 100:160])
    luma = np.array([0.299, 0.587, 0.114])
    grain_kept = tiny.restore(image, noise_level=20, strength=0, chroma=1).pixels
    colour_kept = tiny.restore(image, noise_level=20, strength=1, chroma=0).pixels
    full = tiny.restore(image, noise_level=20).pixels
    np.testing.assert_allclose(grain_kept @ luma, image @ luma, atol=1e-6)
    np.testing.assert_allclose(colour_kept @ luma, full @ luma, atol=1e-6)
    np.testing.assert_allclose(grain_kept - image + colour_kept - image, full - image, atol=1e-6)


def test_less_strength_gives_back_texture_before_noise():
    """At equal energy given back to textured parts, flat parts stay quieter than with a plain blend."""
    clean = to_float(data.astronaut()[:200, 150:400])
    noisy = (clean + np.random.default_rng(0).normal(0, 15 / 255, clean.shape)).astype(np.float32)
    restorer = Restorer("denoise", precision="fp32")
    full, weaker = (restorer.restore(noisy, noise_level=15, strength=s).pixels for s in (1, 0.6))
    luma = clean.mean(2)
    variance = ndimage.uniform_filter(luma**2, 9) - ndimage.uniform_filter(luma, 9) ** 2
    flat, textured = variance < np.quantile(variance, 0.3), variance > np.quantile(variance, 0.7)
    returned = weaker - full
    share = np.sqrt((returned[textured] ** 2).mean() / ((noisy - full)[textured] ** 2).mean())
    plain = full + share * (noisy - full)
    assert share > 0.2
    assert np.std((weaker - clean)[flat]) < 0.75 * np.std((plain - clean)[flat])


@pytest.mark.parametrize("tile", ["off", 48])
def test_a_cropped_jpeg_is_restored_as_what_it_was_cropped_from(tile):
    """Most of the training was on blocks of JPEG that start at the corner: those of a crop do not."""
    file = BytesIO()
    Image.fromarray(data.chelsea()[:144, 100:260]).save(file, "jpeg", quality=40)
    picture, restorer = np.asarray(Image.open(file)), Restorer("photo", precision="fp32")
    assert find_blocks(picture) == (0, 0)
    whole = restorer.restore(picture).pixels.astype(int)
    for down, right in ((3, 6), (0, 5), (7, 0)):
        part = np.ascontiguousarray(picture[down:, right:])
        assert find_blocks(part) == (-down % 8, -right % 8)
        restored = restorer.restore(part, tile=tile).pixels
        assert restored.shape == part.shape
        # Beside the new border there is less to go by.
        away = np.abs(restored - whole[down:, right:])[40:, 40:]
        assert away.max() <= 2
        assert away.mean() < 0.1


def test_tiles_do_not_show_with_less_strength(tiny):
    image = picture((90, 110, 3))
    whole, tiled = (tiny.restore(image, noise_level=20, strength=0.6, tile=how).pixels for how in ("off", 32))
    assert np.abs(tiled - whole).max() <= 1e-4 / 255


def test_all_number_types_say_the_same(tiny):
    eight = np.clip(picture((24, 32, 3), "uint8"), 1, 254)  # Black and white may be clipped noise, save in float.
    as_float = tiny.restore(to_float(eight), noise_level=20).pixels
    as_eight = tiny.restore(eight, noise_level=20).pixels
    as_sixteen = tiny.restore(eight.astype(np.uint16) * 257, noise_level=20).pixels
    assert np.array_equal(as_eight, np.rint(np.clip(as_float, 0, 1) * 255))
    assert np.array_equal(as_sixteen, np.rint(np.clip(as_float, 0, 1) * 65535))


def test_float_is_neither_clipped_nor_rounded(tiny):
    image = picture((24, 24, 3)) * 3 - 1
    out = tiny.restore(image, noise_level=20).pixels
    assert out.min() < -0.1
    assert out.max() > 1.1


def test_gray_is_three_equal_channels_averaged(tiny):
    gray = picture((24, 40))
    almost = np.dstack([gray, gray, gray + np.float32(1e-6)])
    colour = tiny.restore(almost, noise_level=20).pixels
    assert np.allclose(tiny.restore(gray, noise_level=20).pixels, colour.mean(2), atol=1e-5)
    assert np.ptp(colour, axis=2).max() > 1e-3


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_three_equal_channels_stay_equal(tiny, dtype, alpha):
    gray = picture((24, 40), dtype)
    beside = [np.full_like(gray, TYPES[dtype])] if alpha else []
    out = tiny.restore(np.dstack([gray] * 3 + beside), noise_level=20).pixels
    for channel in range(3):
        assert np.array_equal(out[..., channel], tiny.restore(gray, noise_level=20).pixels)


def test_self_ensemble_turns_with_the_picture(tiny):
    image = picture((32, 48, 3))
    turned = tiny.restore(np.ascontiguousarray(np.rot90(image)), noise_level=20, tta=True).pixels
    straight = tiny.restore(image, noise_level=20, tta=True).pixels
    assert np.allclose(np.rot90(straight), turned, atol=1e-5)


def test_transparent_pixels_stay_and_do_not_show(tiny):
    image = picture((32, 32, 4), "uint8")
    image[..., 3] = 255
    image[:16, :, 3] = 0
    other = image.copy()
    other[:16, :, :3] = 255 - other[:16, :, :3]
    first, second = (tiny.restore(given, noise_level=20).pixels for given in (image, other))
    assert np.array_equal(first[16:], second[16:])
    assert np.array_equal(first[:16], image[:16])
    assert np.array_equal(first[..., 3], image[..., 3])


def test_only_8_bit_pictures_run_in_bfloat16_by_themselves(tiny_weights, monkeypatch):
    monkeypatch.setattr("deconv_cli.restoration.restorer.choose_precision", lambda *_: "bf16")
    restorer = Restorer(tiny_weights, engine="torch")
    precisions = [restorer.precision_for(np.dtype(kind)) for kind in (np.uint8, np.uint16, np.float32)]
    assert precisions == ["bf16", "fp32", "fp32"]


def test_what_is_no_picture_is_refused_in_words(tiny_weights):
    restorer = Restorer(tiny_weights)
    with pytest.raises(UsageError, match="not Image"):
        restorer.restore(Image.new("RGB", (16, 16)))
    with pytest.raises(UsageError, match="alpha of shape"):
        restorer.restore(np.zeros((16, 16), np.uint8), alpha=np.zeros((8, 8), np.uint8))


def test_a_float_picture_in_0_to_255_is_warned_of(tiny_weights, caplog):
    picture = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    Restorer(tiny_weights).restore(picture, noise_level=10)
    assert not caplog.records
    Restorer(tiny_weights).restore(np.dstack([255 * picture] * 3), noise_level=10)
    assert "divide it by its peak" in caplog.text
    assert len(caplog.records) == 1


def test_out_of_memory_goes_on_with_smaller_tiles(tiny_weights, monkeypatch):
    restorer = Restorer(tiny_weights, precision="fp32")
    image = picture((500, 500, 3))
    expected = restorer.restore(image, noise_level=20, tile="off").pixels
    run, most = Runner.run, 300 * 300

    def scarce(self, x, precision):
        if x.shape[2] * x.shape[3] > most:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
        return run(self, x, precision)

    monkeypatch.setattr(Runner, "run", scarce)
    assert np.abs(restorer.restore(image, noise_level=20, tile="off").pixels - expected).max() <= 1e-4 / 255
    most = 10
    with pytest.raises(deconv.DeconvError, match="memory"):
        restorer.restore(image, noise_level=20)


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (np.zeros((4, 4, 2), np.uint8), {}),
        (np.zeros((0, 4), np.uint8), {}),
        (np.zeros((4, 4), np.float64), {}),
        (np.full((4, 4), np.nan, np.float32), {}),
        (np.zeros((4, 4), np.uint8), {"strength": 1.5}),
        (np.zeros((4, 4), np.uint8), {"noise_level": 100}),
        (np.zeros((4, 4), np.uint8), {"tile": 0}),
        (np.zeros((4, 4), np.uint8), {"tile": "big"}),
        (np.zeros((4, 4), np.uint8), {"noise_level": "loud"}),
        (np.zeros((4, 4), np.uint8), {"noise_level": None}),
        (np.zeros((4, 4), np.uint8), {"strength": "full"}),
    ],
)
def test_what_is_no_picture_or_option_is_refused(tiny, image, options):
    with pytest.raises(UsageError):
        tiny.restore(image, **{"noise_level": 20, **options})


def test_the_public_function_keeps_its_restorer_and_checks_the_task(tiny_weights):
    image = picture((16, 16, 3), "uint8")
    expected = Restorer(tiny_weights).restore(image, noise_level=5).pixels
    assert np.array_equal(deconv.restore(image, noise_level=5, weights=tiny_weights), expected)
    with pytest.raises(UsageError, match="did you mean 'denoise'"):
        deconv.restore(image, task="denoize")


def test_weights_that_were_rewritten_are_loaded_again(tiny_weights, tmp_path):
    image, path = picture((16, 16, 3)), tmp_path / "mine.safetensors"
    weights = load_weights(tiny_weights)
    for share in (1, 0):
        parameters = {name: share * values for name, values in weights.parameters.items()}
        save_weights(path, dataclasses.replace(weights, parameters=parameters), dtype=np.float32)
        out = deconv.restore(image, noise_level=5, weights=path)
        assert np.array_equal(out, image) == (share == 0)


def test_fast_is_refused_beside_weights(tiny_weights):
    with pytest.raises(UsageError, match="fast"):
        deconv.restore(picture((16, 16, 3)), noise_level=5, weights=tiny_weights, fast=True)


def test_damaged_bundled_weights_are_not_used(run, tmp_path, monkeypatch):
    for name in ("registry.json", "denoise.safetensors"):
        (tmp_path / name).write_bytes((bundled.weights_folder() / name).read_bytes())
    monkeypatch.setattr(bundled, "weights_folder", lambda: tmp_path)
    assert Restorer("denoise").weights.sha256 == bundled.bundled_weights()["denoise"].sha256
    damaged = bytearray((tmp_path / "denoise.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "denoise.safetensors").write_bytes(damaged)
    with pytest.raises(deconv.DeconvError, match=r"denoise\.safetensors: .* damaged; install deconv again"):
        Restorer("denoise")
    ran = run("export", "denoise", "--out", tmp_path / "denoise.onnx")
    assert ran.code == 1
    assert "damaged; install deconv again" in ran.stderr


def test_auto_noise_level_is_the_estimate_within_the_training_range(tiny):
    rng = np.random.default_rng(0)
    image = (0.5 + rng.normal(0, 30 / 255, (128, 128, 3))).astype(np.float32)
    assert tiny.restore(image).noise_level == pytest.approx(30, rel=0.05)
    loud = (0.5 + rng.normal(0, 200 / 255, (128, 128, 3))).astype(np.float32)
    assert tiny.restore(loud).noise_level == 75
