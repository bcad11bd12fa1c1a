"""The blind noise-level estimate."""

import functools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from deconv_cli.degradation.noise import add_gaussian_noise
from deconv_cli.degradation.noise_estimation import estimate_noise_level


@functools.cache
def picture(name):
    return getattr(data, name)().astype(np.float32) / np.float32(255)


def noisy(clean, level, seed=0):
    return add_gaussian_noise(clean, level, np.random.default_rng(seed))


def as_8_bit(image):
    return np.rint(image.clip(0, 1) * 255).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("stored", [lambda image: image, as_8_bit], ids=["float", "8-bit"])
@pytest.mark.parametrize(("level", "bound"), [(5, 1.0), (15, 1.0), (25, 1.5), (50, 4.0)])
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "camera", "coffee"])
def test_estimate_is_near_the_noise_that_was_added(name, level, bound, stored):
    assert estimate_noise_level(stored(noisy(picture(name), level))) == pytest.approx(level, abs=bound)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "camera", "coffee"])
def test_clean_photographs_are_near_zero(name):
    assert estimate_noise_level(picture(name)) < 2


@pytest.mark.parametrize("level", [5, 25, 50])
def test_large_clipped_areas_do_not_hide_the_noise(level):
    night = picture("astronaut").copy()
    night[:, :300] = -1.0  # stays black under the noise
    night[400:] = 2.0  # stays blown
    assert estimate_noise_level(as_8_bit(noisy(night, level))) == pytest.approx(level, rel=0.1, abs=0.5)


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_noise_half_clipped_by_a_black_or_white_background_is_recovered(background):
    page = np.full((256, 256), background, np.float32)
    assert estimate_noise_level(as_8_bit(noisy(page, 20))) == pytest.approx(20, rel=0.15)


def test_black_print_on_white_does_not_pass_for_less_noise():
    print_on_white = np.repeat((np.arange(256) // 4 % 2).astype(np.float32)[None], 256, axis=0)
    page = np.full((256, 512, 3), 0.5, np.float32)
    page[:, :256] = print_on_white[..., None]
    assert estimate_noise_level(as_8_bit(noisy(page, 20))) == pytest.approx(20, rel=0.1)


def test_gray_equals_three_equal_channels():
    gray = noisy(picture("camera"), 15)
    assert estimate_noise_level(np.dstack([gray] * 3)) == pytest.approx(estimate_noise_level(gray), rel=1e-4)


def test_channels_that_differ_give_their_root_mean_square():
    levels = np.array([5.0, 10.0, 40.0])
    noise = np.random.default_rng(0).standard_normal((256, 256, 3)) * levels / 255
    estimate = estimate_noise_level((0.5 + noise).astype(np.float32))
    assert estimate == pytest.approx(np.sqrt(np.mean(levels**2)), rel=0.05)


def test_estimate_is_deterministic_and_leaves_the_picture_alone():
    image = noisy(np.tile(picture("astronaut"), (2, 2, 1)), 25)
    before = image.copy()
    assert estimate_noise_level(image) == estimate_noise_level(image)
    np.testing.assert_array_equal(image, before)


def test_estimate_grows_with_the_noise():
    estimates = [estimate_noise_level(noisy(picture("coffee"), level)) for level in (0, 2, 5, 10, 20, 40, 75)]
    assert estimates == sorted(estimates)


@pytest.mark.parametrize("shape", [(1, 1), (7, 200), (200, 7, 3), (1, 1, 3), (0, 0)])
def test_a_picture_smaller_than_a_patch_gives_zero(shape):
    assert estimate_noise_level(np.ones(shape, np.float32)) == 0.0


@pytest.mark.parametrize("image", [np.full((64, 64, 3), v, np.float32) for v in (0.0, 0.3, 1.0, np.nan)])
def test_a_constant_picture_gives_zero(image):
    assert estimate_noise_level(image) == 0.0


def test_a_drawing_in_black_and_white_has_no_noise():
    drawing = (np.hypot(*(np.indices((128, 128)) - 64)) % 40 < 20).astype(np.float32)
    assert estimate_noise_level(drawing) == 0.0


def test_pixels_that_are_not_numbers_are_left_out():
    image = noisy(picture("camera"), 25)
    image[:100, :100] = np.nan
    assert estimate_noise_level(image) == pytest.approx(25, abs=1.5)


def test_time_does_not_grow_with_the_picture():
    image = np.broadcast_to(noisy(picture("camera"), 25)[:8], (20, 8, 512)).reshape(160, 512)
    large = np.tile(image, (25, 8))  # 16 megapixels
    start = time.process_time()
    estimate_noise_level(large)
    assert time.process_time() - start < 2.0


@settings(max_examples=25, deadline=None)
@given(
    level=st.floats(0.5, 75),
    factor=st.floats(0.1, 1),
    side=st.integers(64, 96),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_on_pure_noise_the_estimate_is_right_and_scales_with_it(level, factor, side, channels, seed):
    noise = noisy(np.zeros((side, side, channels), np.float32).squeeze(), level, seed)
    estimate = estimate_noise_level(noise)
    assert estimate == pytest.approx(level, rel=0.15)
    assert estimate_noise_level(noise * np.float32(factor) + np.float32(0.5)) == pytest.approx(
        factor * estimate, rel=0.03
    )
