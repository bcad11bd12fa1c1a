"""Camera noise, and ``deconv degrade``: what it does to files, and what it refuses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from deconv_cli.degradation.camera import LUMA, Camera, add_camera_noise, demosaic
from deconv_cli.degradation.jpeg import compress_jpeg
from deconv_cli.errors import UsageError
from deconv_cli.images import downscale, from_float, read_frame, to_float


def noise_on(value, level=8.0, camera=None, side=192, seed=0):
    flat = np.full((side, side, 3), value, np.float32)
    return add_camera_noise(flat, level, np.random.default_rng(seed), camera) - flat


def correlation(noise, step=1):
    return float(np.corrcoef(noise[:, :-step].ravel(), noise[:, step:].ravel())[0, 1])


@settings(max_examples=15, deadline=None)
@given(st.floats(3, 15), st.integers(0, 1000))
def test_the_level_is_that_of_the_noise_on_mid_gray(level, seed):
    """Whatever the camera: its matrices, demosaicing and smoothing are accounted for."""
    noise = noise_on(0.5, level, Camera.draw(np.random.default_rng(seed)))
    assert np.sqrt(np.square(noise).mean()) * 255 == pytest.approx(level, rel=0.12)


def test_camera_noise_depends_on_the_signal_as_the_model_says():
    """Variance grows linearly with the linear signal, so that in sRGB the shadows are noisier than the lights."""
    dark, middle, light = (noise_on(value).std() for value in (0.2, 0.5, 0.9))
    assert dark > 1.1 * middle > 1.2 * light
    camera = Camera(demosaicing="none", luma_smoothing=0, chroma_smoothing=0, read_noise=0)
    variances = []
    for linear in (0.1, 0.2, 0.4):
        srgb = 1.055 * linear ** (1 / 2.4) - 0.055
        slope = 1.055 / 2.4 * linear ** (1 / 2.4 - 1)
        variances.append((noise_on(srgb, 4, camera).std() / slope) ** 2)
    assert variances[1] / variances[0] == pytest.approx(2, rel=0.1)
    assert variances[2] / variances[1] == pytest.approx(2, rel=0.1)


def test_camera_noise_is_correlated_and_stronger_in_chroma():
    noise = noise_on(0.5)
    assert correlation(noise[..., 1]) > 0.4
    white = noise_on(0.5, camera=Camera(demosaicing="none", luma_smoothing=0, chroma_smoothing=0))
    assert abs(correlation(white[..., 1])) < 0.03
    luma = noise @ LUMA
    chroma = noise - luma[..., None]
    assert np.sqrt(np.square(chroma).mean()) > luma.std()


def test_better_demosaicing_leaves_more_of_the_noise_at_fine_scales():
    """Each is an interpolation: what the three colours have in common, if it is a plane, it leaves as it is."""
    rows, columns = np.mgrid[:24, :24].astype(np.float32)
    plane = np.repeat((rows + 2 * columns)[..., None], 3, axis=2)
    for method in ("bilinear", "malvar"):
        for down, right in itertools.product((0, 1), repeat=2):
            interpolated = demosaic(plane, method, down, right)
            np.testing.assert_allclose(interpolated[4:-4, 4:-4], plane[4:-4, 4:-4], rtol=1e-6)
    cameras = [Camera(demosaicing=method, luma_smoothing=0) for method in ("bilinear", "malvar", "none")]
    bilinear, malvar, none = (correlation(noise_on(0.5, camera=camera) @ LUMA) for camera in cameras)
    assert bilinear > malvar + 0.1
    assert bilinear > none + 0.1


def test_malvar_gives_what_the_paper_says():
    """Figure 2: what one measurement contributes to the other colours of its neighbours, in eighths."""
    lone = np.zeros((11, 11, 3), np.float32)
    lone[5, 5] = 16  # Where blue is measured: rows and columns 1, 3, 5, ... of a pattern that begins with red.
    red, green, blue = demosaic(lone, "malvar", 0, 0).transpose(2, 0, 1)
    assert np.count_nonzero(blue[5, 4:7] == (8, 16, 8)) == 3
    np.testing.assert_array_equal(green[3:8, 5], (-2, 0, 8, 0, -2))
    np.testing.assert_array_equal(red[5, 3:8], (-3, 0, 12, 0, -3))


def test_a_camera_may_have_denoised_colours_and_sharpened():
    """What it took from the colours is in luma instead, for the level counts both; sharpening undoes correlation."""
    typical, gray = (noise_on(0.5, camera=Camera(chroma_gain=gain)) for gain in (1, 0.2))
    chroma = [np.sqrt(np.square(noise - (noise @ LUMA)[..., None]).mean()) for noise in (typical, gray)]
    assert chroma[1] < 0.6 * chroma[0]
    assert (gray @ LUMA).std() > 1.2 * (typical @ LUMA).std()
    smooth, sharp = (noise_on(0.5, camera=Camera(luma_smoothing=1.2, sharpening=share)) @ LUMA for share in (0, 1))
    assert correlation(sharp, 2) < correlation(smooth, 2) - 0.05
    assert correlation(sharp, 3) < correlation(smooth, 3) - 0.05


def test_camera_noise_is_seeded_and_8_bit_and_keeps_gray_gray():
    image = to_float(data.chelsea()[:64, :80])
    first, again, other = (add_camera_noise(image, 10, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.allclose(first * 255, np.rint(first * 255), atol=1e-4)
    assert (first.min(), first.max()) >= (0, 0)
    assert first.max() <= 1
    gray = add_camera_noise(image[..., 0], 10, np.random.default_rng(1))
    assert gray.shape == image.shape[:2]
    assert np.array_equal(add_camera_noise(image, 0, np.random.default_rng(0)), image)


@pytest.fixture
def clean(tmp_path):
    folder = tmp_path / "clean"
    (folder / "inner").mkdir(parents=True)
    Image.fromarray(data.chelsea()[100:165, 100:197]).save(folder / "cat.png", dpi=(300, 300))
    Image.fromarray(data.camera()[:60, :80]).save(folder / "inner" / "camera.png")
    return folder


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_noise_of_the_level_asked_for(run, tmp_path):
    Image.new("RGB", (200, 200), (128, 128, 128)).save(tmp_path / "flat.png")
    for noise in ("gaussian", "camera"):
        out = tmp_path / f"{noise}.png"
        ran = run("degrade", tmp_path / "flat.png", out, "--noise", noise, "--noise-level", 12)
        assert ran.code == 0, ran.stderr
        assert f"{noise} noise 12.0" in ran.stderr
        assert np.std(read(out).astype(float) - 128) == pytest.approx(12, rel=0.15)


def test_the_seed_and_the_bytes_decide(run, clean, tmp_path):
    outs = [tmp_path / name for name in ("a", "b", "c")]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        assert run("degrade", clean, out, "--recursive", "--noise-level", "5:30", "--seed", seed).code == 0
    first, again, other = ((out / "inner" / "camera.png").read_bytes() for out in outs)
    assert first == again != other
    # Neither the name nor what else is in the folder matters.
    (clean / "inner" / "camera.png").rename(tmp_path / "renamed.png")
    assert run("degrade", tmp_path / "renamed.png", tmp_path / "d.png", "--noise-level", "5:30", "--seed", 1).code == 0
    assert (tmp_path / "d.png").read_bytes() == first


def test_ranges_are_drawn_and_told(run, clean, tmp_path):
    options = ("--noise", "camera", "--noise-level", "3:15", "--quality", "60:95")
    ran = run("degrade", clean, tmp_path / "out", "--recursive", *options, "--json")
    assert ran.code == 0, ran.stderr
    assert [line["status"] for line in ran.json_lines] == ["degraded"] * 2
    assert len({line["noise_level"] for line in ran.json_lines}) == 2
    for line in ran.json_lines:
        assert line["output"].endswith(".jpg")
        assert 3 <= line["noise_level"] <= 15
        assert 60 <= line["quality"] <= 95
        assert read_frame((tmp_path / "out" / line["output"]).resolve()).jpeg_quality == line["quality"]


def test_compression_is_pillows_whatever_the_format(run, clean, tmp_path):
    source = clean / "cat.png"
    for name in ("q.png", "q.jpg"):
        assert run("degrade", source, tmp_path / name, "--quality", 20).code == 0
    expected = from_float(compress_jpeg(to_float(read(source)), 20), np.uint8)
    assert np.array_equal(read(tmp_path / "q.png"), expected)
    assert np.array_equal(read(tmp_path / "q.jpg"), expected)
    assert run("degrade", source, tmp_path / "full.jpg", "--quality", 20, "--subsampling", "4:4:4").code == 0
    assert not np.array_equal(read(tmp_path / "full.jpg"), expected)


def test_copies_without_loss_are_the_same_in_every_format(run, clean, tmp_path):
    """Also of an original that was not lossless; and WebP has a quality of its own, that is not meant."""
    worn = tmp_path / "worn.jpg"
    Image.open(clean / "cat.png").save(worn, quality=80)
    for source, options in ((clean / "cat.png", ("--quality", 10)), (worn, ("--noise-level", 25))):
        copies = []
        for name in ("copy.png", "copy.webp", "copy.bmp", "copy.tif"):
            ran = run("degrade", source, tmp_path / source.stem / name, *options)
            assert ran.code == 0, ran.stderr
            copies.append(read(tmp_path / source.stem / name))
        assert all(np.array_equal(copy, copies[0]) for copy in copies[1:])


def test_shrinking_is_that_of_the_protocol(run, clean, tmp_path):
    assert run("degrade", clean / "cat.png", tmp_path / "small.png", "--scale", 2).code == 0
    assert np.array_equal(
        read(tmp_path / "small.png"), from_float(downscale(to_float(read(clean / "cat.png")[:64, :96]), 2), np.uint8)
    )
    with Image.open(tmp_path / "small.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_transparency_and_16_bits_stay(run, tmp_path):
    rgba = np.dstack((data.chelsea()[:40, :40], np.full((40, 40), 99, np.uint8)))
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    deep = (data.camera()[:40, :40].astype(np.uint16)) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert run("degrade", tmp_path / "rgba.png", tmp_path / "deep.png", tmp_path / "out", "--noise-level", 9).code == 0
    assert (read(tmp_path / "out" / "rgba.png")[..., 3] == 99).all()
    assert read_frame(tmp_path / "out" / "deep.png").pixels.dtype == np.uint16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing to degrade by"),
        (("--noise", "kamera", "--noise-level", 5), "did you mean 'camera'"),
        (("--noise-level", "9:3"), "LOW:HIGH"),
        (("--noise-level", "1:2:3"), "LOW:HIGH"),
        (("--quality", 101), "JPEG quality"),
        (("--scale", 99), "scale"),
        (("--noise", "camera", "--quality", 50), "--noise does nothing without --noise-level"),
        (("--subsampling", "4:2:0", "--noise-level", 5), "--subsampling does nothing without --quality"),
        (("--subsampling", "4:1:1", "--quality", 9), "valid: 4:2:0, 4:4:4"),
        (("--noise-level", 9, "--format", "jpg"), "--quality"),
        (("--noise-level", 9, "--format", "ppm"), "unknown format"),
        (("--noise-level", 9, "--format", "avif"), "png, jpg, webp, bmp, tiff"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(run, clean, tmp_path, options, message):
    ran = run("degrade", clean, tmp_path / "out", *options)
    assert ran.code == 2
    assert message in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_name_for_a_format_that_copies_cannot_have_is_refused(run, clean, tmp_path):
    ran = run("degrade", clean / "cat.png", tmp_path / "cat.avif", "--quality", 20)
    assert ran.code == 2
    assert "png, jpg, webp, bmp, tiff" in ran.stderr
    assert not (tmp_path / "cat.avif").exists()


def test_nothing_is_lost(run, clean, tmp_path):
    options = ("--noise-level", 9)
    assert "overwrite an input" in run("degrade", clean, clean, *options).stderr
    out = tmp_path / "out"
    assert run("degrade", clean, out, *options).code == 0
    before = (out / "cat.png").read_bytes()
    ran = run("degrade", clean, out, *options, "--seed", 5)
    assert ran.code == 2
    assert str(out / "cat.png") in ran.stderr
    assert (out / "cat.png").read_bytes() == before
    assert run("degrade", clean, out, *options, "--seed", 5, "--overwrite").code == 0
    assert (out / "cat.png").read_bytes() != before


def test_a_bad_file_fails_alone_and_a_dry_run_does_nothing(run, clean, tmp_path):
    (clean / "bad.png").write_bytes(b"no picture")
    ran = run("degrade", clean, tmp_path / "out", "--scale", 2, "--json")
    assert ran.code == 1
    assert str(clean / "bad.png") in ran.stderr
    assert {line["status"] for line in ran.json_lines} == {"degraded", "failed"}
    for line in ran.json_lines:
        assert (line["error"] is None) == (line["status"] != "failed")
    planned = run("degrade", clean, tmp_path / "dry", "--scale", 2, "--dry-run")
    assert f"{clean / 'cat.png'} -> {tmp_path / 'dry' / 'cat.png'}" in planned.text
    assert not (tmp_path / "dry").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("degrade", empty, tmp_path / "none", "--scale", 2).code == 3


def test_degraded_copies_are_pairs_to_train_and_score_on(run, clean, tmp_path):
    assert run("degrade", clean, tmp_path / "noisy", "--recursive", "--noise-level", 20).code == 0
    scored = run("score", clean, tmp_path / "noisy", "--recursive", "--json").json
    assert scored["mean"]["psnr"] == pytest.approx(22.1, abs=0.7)


def test_camera_noise_names_the_task_to_train():
    from deconv_cli.cli.train import _implied_task

    assert _implied_task(None, None, "camera") == "photo"
    with pytest.raises(UsageError, match="--task photo"):
        _implied_task("denoise", None, "camera")
