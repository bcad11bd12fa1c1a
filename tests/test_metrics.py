"""PSNR, SSIM and luma against formulas written out, against scikit-image, and by their properties."""

import math
import tracemalloc

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.metrics import Protocol, psnr, ssim, to_luma
from deconv_cli.metrics.luma import to_gray

WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

SHAPES = st.tuples(st.integers(11, 20), st.integers(11, 20)).flatmap(lambda size: st.sampled_from([size, (*size, 3)]))


@st.composite
def pairs(draw):
    shape = draw(SHAPES)
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    high = np.iinfo(dtype).max
    reference = rng.integers(0, high, shape, dtype, endpoint=True)
    noise = rng.normal(0, draw(st.floats(0.001, 0.5)) * high, shape)
    return reference, np.clip(reference + noise, 0, high).astype(dtype)


def photograph(height=96, width=80):
    return data.astronaut()[100 : 100 + height, 150 : 150 + width]


def noisy(picture, sigma=10, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(picture + noise, 0, 255).round().astype(np.uint8)


def wang_ssim(x, y, peak):
    """SSIM of one channel by the formula of the paper and an explicit 11 x 11 window."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def local_mean(image):
        return convolve(image, window)[5:-5, 5:-5]

    x, y = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x = local_mean(x * x) - mean_x**2
    variance_y = local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (numerator / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean()


@given(pairs())
@settings(max_examples=30, deadline=None)
def test_psnr_and_ssim_are_symmetric(pair):
    reference, test = pair
    assert psnr(reference, test) == psnr(test, reference)
    assert ssim(reference, test) == pytest.approx(ssim(test, reference), abs=1e-12)


@given(pairs())
@settings(max_examples=30, deadline=None)
def test_a_picture_equals_itself(pair):
    for picture in pair:
        assert psnr(picture, picture.copy()) == math.inf
        assert ssim(picture, picture.copy()) == 1.0


@given(pairs())
@settings(max_examples=30, deadline=None)
def test_psnr_is_that_of_scikit_image(pair):
    reference, test = pair
    if not np.array_equal(reference, test):
        assert psnr(reference, test) == pytest.approx(peak_signal_noise_ratio(reference, test), abs=1e-9)


@given(pairs())
@settings(max_examples=20, deadline=None)
def test_ssim_is_that_of_scikit_image(pair):
    reference, test = pair
    channel_axis = 2 if reference.ndim == 3 else None
    expected = structural_similarity(
        reference, test, data_range=np.iinfo(reference.dtype).max, channel_axis=channel_axis, **WANG
    )
    assert ssim(reference, test) == pytest.approx(expected, abs=1e-12)


@given(
    hnp.arrays(np.uint8, (12, 13, 3), elements=st.integers(0, 200)),
    st.integers(1, 55),
    st.sampled_from(["rgb", "gray"]),
)
@settings(max_examples=30, deadline=None)
def test_a_constant_shift_has_a_known_psnr(reference, shift, channel):
    shifted = reference + np.uint8(shift)
    expected = 20 * math.log10(255 / shift)
    assert psnr(reference, shifted, channel=channel) == pytest.approx(expected, abs=1e-9)
    # Studio luma spans 219 of 255 steps, so it sees the same shift smaller.
    assert psnr(reference, shifted, channel="y") == pytest.approx(expected + 20 * math.log10(255 / 219), abs=1e-9)


@given(pairs(), st.integers(1, 4), st.sampled_from(["rgb", "y", "gray"]))
@settings(max_examples=30, deadline=None)
def test_crop_equals_slicing(pair, crop, channel):
    reference, test = (np.pad(image, [(4, 4), (4, 4), (0, 0)][: image.ndim]) for image in pair)
    inner = np.s_[crop:-crop, crop:-crop]
    for metric in (psnr, ssim):
        assert metric(reference, test, channel=channel, crop=crop) == metric(
            reference[inner], test[inner], channel=channel
        )


def test_psnr_is_the_formula_in_float64():
    reference, test = photograph(), noisy(photograph())
    squares = [(int(a) - int(b)) ** 2 for a, b in zip(reference.flat, test.flat, strict=True)]
    assert psnr(reference, test) == pytest.approx(10 * math.log10(255**2 / (sum(squares) / len(squares))), abs=1e-10)


@pytest.mark.parametrize("height", [11, 12, 90])
def test_ssim_is_the_formula_of_the_paper(height):
    reference, test = photograph(height, 40), noisy(photograph(height, 40))
    expected = [wang_ssim(reference[..., c], test[..., c], 255) for c in range(3)]
    assert ssim(reference, test) == pytest.approx(np.mean(expected), abs=1e-9)
    assert ssim(reference[..., 1], test[..., 1]) == pytest.approx(expected[1], abs=1e-9)


@pytest.mark.parametrize("height", [265, 266, 267, 300])
def test_ssim_of_a_tall_picture_is_that_of_the_whole(height):
    reference, test = photograph(height, 24)[..., 0], noisy(photograph(height, 24))[..., 0]
    assert ssim(reference, test) == pytest.approx(
        structural_similarity(reference, test, data_range=255, **WANG), abs=1e-13
    )


def test_sample_types_agree():
    reference, test = photograph(), noisy(photograph())
    wide = [image.astype(np.uint16) * 257 for image in (reference, test)]
    real = [(image / 255).astype(np.float32) for image in (reference, test)]
    for metric in (psnr, ssim):
        for channel in ("rgb", "y", "gray"):
            expected = metric(reference, test, channel=channel)
            assert metric(*wide, channel=channel) == pytest.approx(expected, abs=1e-9)
            assert metric(*real, channel=channel) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("channel", ["rgb", "y", "gray"])
@pytest.mark.parametrize("metric", [psnr, ssim])
def test_a_large_picture_is_measured_by_strips(metric, channel):
    """In float64 it would take 77 MB, and each of two lumas 26."""
    reference = np.random.default_rng(0).integers(0, 200, (8000, 400, 3), np.uint8)
    tracemalloc.start()
    metric(reference, reference + np.uint8(9), channel=channel, crop=1)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < reference.nbytes + 25e6


@pytest.mark.parametrize("channel", ["rgb", "y", "gray"])
@pytest.mark.parametrize("height", [255, 256, 257, 600])
def test_psnr_of_a_tall_picture_is_that_of_the_whole(height, channel):
    rng = np.random.default_rng(height)
    reference, test = rng.integers(0, 256, (2, height + 6, 40, 3), np.uint8)
    one, other = (
        {"rgb": np.float64, "y": to_luma, "gray": to_gray}[channel](image[3:-3, 3:-3]) for image in (reference, test)
    )
    expected = 10 * np.log10(255**2 / np.mean((one - other) ** 2))
    assert psnr(reference, test, channel=channel, crop=3) == pytest.approx(expected, rel=1e-12)


def test_ssim_of_float32_keeps_its_digits():
    # Nearly flat: the variances lie far below float32's resolution of the squared mean.
    rng = np.random.default_rng(0)
    reference = np.float32(0.9) + rng.normal(0, 1e-4, (32, 32)).astype(np.float32)
    test = np.float32(0.9) + rng.normal(0, 1e-4, (32, 32)).astype(np.float32)
    assert ssim(reference, test, data_range=0.001) == pytest.approx(wang_ssim(reference, test, 0.001), abs=1e-9)


def test_float_values_outside_the_range_are_measured_not_clipped():
    reference = np.ones((8, 8), dtype=np.float32)
    assert psnr(reference, reference + np.float32(0.5)) == pytest.approx(20 * math.log10(2))


def test_data_range_moves_psnr_by_its_ratio():
    reference, test = photograph(), noisy(photograph())
    narrow = psnr(reference, test, data_range=219)
    assert narrow == pytest.approx(psnr(reference, test) - 20 * math.log10(255 / 219))


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        # ITU-R BT.601, and what MATLAB's rgb2ycbcr rounds to.
        ((0, 0, 0), 16),
        ((255, 255, 255), 235),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
        ((128, 128, 128), 16 + 219 * 128 / 255),
    ],
)
def test_studio_luma(rgb, expected):
    pixel = np.array([[rgb]])
    assert to_luma(pixel.astype(np.uint8)).item() == pytest.approx(expected, abs=1e-9)
    assert to_luma(pixel.astype(np.uint16) * 257).item() == pytest.approx(257 * expected, abs=1e-6)
    assert to_luma((pixel / 255).astype(np.float32)).item() == pytest.approx(expected / 255, abs=1e-7)


def test_channels_compare_what_they_say():
    reference, test = photograph(), noisy(photograph())
    gray = [image @ np.array([0.299, 0.587, 0.114]) for image in (reference, test)]
    for metric in (psnr, ssim):
        assert metric(reference, test, channel="gray") == pytest.approx(metric(*gray, data_range=255), abs=1e-9)
        assert metric(reference, test, channel="y") == pytest.approx(
            metric(to_luma(reference), to_luma(test), data_range=255), abs=1e-9
        )


@pytest.mark.parametrize("channel", ["rgb", "y", "gray"])
def test_a_gray_picture_is_taken_as_it_is(channel):
    reference, test = photograph()[..., 0], noisy(photograph())[..., 0]
    assert psnr(reference, test, channel=channel) == psnr(reference, test)
    assert ssim(reference, test, channel=channel) == ssim(reference, test)


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    ("reference", "test", "words"),
    [
        (np.zeros((16, 16), np.uint8), np.zeros((16, 17), np.uint8), "shape"),
        (np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3), np.uint8), "shape"),
        (np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint16), "sample type"),
        (np.zeros((16, 16), bool), np.zeros((16, 16), bool), "bool"),
        (np.zeros((16, 16, 4), np.uint8), np.zeros((16, 16, 4), np.uint8), "alpha"),
        (np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 16, 16, 3), np.uint8), "H x W"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(metric, reference, test, words):
    different = test.copy()
    different.flat[0] = 1
    with pytest.raises(DeconvError, match=words) as caught:
        metric(reference, different)
    assert "\n" not in str(caught.value)


def test_too_small_pictures_are_refused():
    small = np.zeros((10, 30), np.uint8)
    assert psnr(small, small) == math.inf
    with pytest.raises(DeconvError, match="30 x 10"):
        ssim(small, small)
    with pytest.raises(DeconvError, match="leaves nothing"):
        psnr(small, small, crop=5)
    with pytest.raises(DeconvError, match=r"10 x 10 .* cropping 3"):
        ssim(np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8), crop=3)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_what_is_no_array_is_a_usage_error(metric):
    picture = np.zeros((16, 16), np.uint8)
    for pair in ((picture.tolist(), picture.tolist()), (picture, picture.tolist())):
        with pytest.raises(UsageError, match="NumPy array, not list"):
            metric(*pair)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channel": "grey"}, "did you mean 'gray'"),
        ({"crop": -1}, "crop is -1"),
        ({"data_range": 0}, "data range is 0"),
        ({"data_range": math.nan}, "data range is nan"),
        ({"crop": "4"}, "crop is 4"),
        ({"data_range": "255"}, "data range is 255"),
    ],
)
def test_an_impossible_protocol_is_a_usage_error(options, words):
    picture = photograph()
    for measure in (psnr, ssim, lambda *_, **options: Protocol(**options)):
        with pytest.raises(UsageError, match=words):
            measure(picture, picture, **options)


def test_a_protocol_says_everything_in_a_line_and_in_a_dictionary():
    protocol = Protocol(channel="y", crop=4, data_range=255)
    assert protocol.as_dict() == {
        "channel": "y",
        "crop": 4,
        "data_range": 255,
        "ssim_window": "11x11 Gaussian 1.5 K 0.01/0.03 population",
        "averaging": "mean per picture",
    }
    for value in protocol.as_dict().values():
        assert str(value) in str(protocol)
    assert "\n" not in str(protocol)
