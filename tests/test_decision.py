"""What ``--task auto`` finds in a picture, and what it makes of it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from skimage import data

from deconv_cli.degradation.blocking import measure_blocking
from deconv_cli.degradation.camera import Camera, add_camera_noise
from deconv_cli.degradation.noise import add_gaussian_noise
from deconv_cli.degradation.noise_estimation import (
    estimate_coarse_chroma,
    estimate_compressed_noise,
    estimate_noise_level,
)
from deconv_cli.images import from_float, read_frame, to_float
from deconv_cli.restoration.decision import COLOUR_NOISE, COMPRESSED_LEVEL, VISIBLE_BLOCKS, WHITE_RATIO, decide

ALL = {"denoise", "decompress", "photo"}
CLEAN = data.astronaut()[:320, 100:420]


def encoded(pixels, quality=None):
    """Return a file: PNG, or JPEG of that quality."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg" if quality else "png", **({"quality": quality} if quality else {}))
    return file.getvalue()


def decoded(pixels, quality):
    return np.asarray(Image.open(BytesIO(encoded(pixels, quality))))


def noisy(kind, level):
    image, rng = to_float(CLEAN), np.random.default_rng(0)
    if kind == "white":
        return from_float(add_gaussian_noise(image, level, rng), np.uint8)
    return from_float(add_camera_noise(image, level, rng, Camera()), np.uint8)


@pytest.mark.parametrize(
    ("pixels", "quality", "tasks", "expected", "words"),
    [
        (CLEAN, None, ALL, None, "nothing to restore"),
        (CLEAN, 95, ALL, None, "nothing to restore"),
        (CLEAN, 40, ALL, "decompress", "JPEG quality 40"),
        (CLEAN, 40, {"denoise"}, None, "JPEG quality 40"),
        (decoded(CLEAN, 40), None, ALL, "decompress", "blocks of JPEG"),
        (decoded(CLEAN, 25)[3:, 5:], 95, ALL, "decompress", "blocks of JPEG"),
        (noisy("white", 15), None, ALL, "denoise", "noise level 14"),
        (noisy("camera", 12), None, ALL, "photo", "correlated colour noise"),
        (noisy("camera", 12), 85, ALL, "photo", "correlated colour noise"),
        (noisy("camera", 12), None, {"denoise"}, "denoise", "correlated colour noise"),
        (noisy("white", 25), 75, ALL, "photo", "JPEG quality 75"),
        (noisy("white", 10), 75, ALL, "photo", "noise below JPEG"),
        (noisy("white", 20), 40, ALL, "photo", "noise below JPEG"),
        (decoded(noisy("white", 20), 40), None, ALL, "photo", "noise below JPEG"),
        (CLEAN, 75, ALL, "decompress", "JPEG quality 75"),
        (noisy("white", 15), 92, ALL, "photo", "noise level"),
        (noisy("white", 15), 98, ALL, "denoise", "noise level"),
        (noisy("white", 25), 75, {"denoise", "decompress"}, "denoise", "JPEG quality 75"),
    ],
)
def test_decision(pixels, quality, tasks, expected, words):
    decision = decide(read_frame(encoded(pixels, quality)), tasks)
    assert decision.task == expected
    assert words in decision.reason


def test_auto_says_what_and_why_also_in_json(run, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encoded(noisy("white", 25)[:96, :96], 95))
    (tmp_path / "clean.png").write_bytes(encoded(CLEAN))
    ran = run("restore", tmp_path / "photo.jpg", tmp_path / "clean.png", tmp_path / "out", "--json")
    assert ran.code == 0, ran.stderr
    restored, copied = ran.json_lines[:2]
    assert "noise level" in restored["decision"]
    assert (copied["status"], copied["task"]) == ("copied", None)
    assert "nothing to restore" in copied["decision"]
    assert (tmp_path / "out" / "clean.png").read_bytes() == (tmp_path / "clean.png").read_bytes()


@pytest.mark.parametrize(("pixels", "status"), [(CLEAN, "copied"), (noisy("white", 25), "restored")])
def test_files_keep_the_format_that_they_have_whatever_their_names_say(run, tmp_path, pixels, status):
    (tmp_path / "in").mkdir()
    for name, quality in (("png.jpg", None), ("jpg.png", 98)):
        (tmp_path / "in" / name).write_bytes(encoded(pixels[:96, :96], quality))
    ran = run("restore", tmp_path / "in", tmp_path / "out", "--json")
    assert [line["status"] for line in ran.json_lines[:-1]] == [status, status], ran.stderr
    for name, kind in (("png.jpg", "PNG"), ("jpg.png", "JPEG")):
        assert Image.open(tmp_path / "out" / name).format == kind
        assert f"{tmp_path / 'in' / name}: its name does not say so" in ran.stderr
    # A single OUTPUT, and --format, are what the user says.
    for options, out in (((), tmp_path / "out.jpg"), (("--format", "jpg"), tmp_path / "other" / "png.jpg")):
        where = out.parent if options else out
        assert run("restore", tmp_path / "in" / "png.jpg", where, *options).code == 0
        assert Image.open(out).format == "JPEG"


def test_what_needs_nothing_and_is_not_copied_is_called_rewritten(run, tmp_path):
    (tmp_path / "clean.png").write_bytes(encoded(CLEAN))
    for out, options in (("out.jpg", ()), ("part.png", ("--crop", "0,0,9,9"))):
        ran = run("restore", tmp_path / "clean.png", tmp_path / out, "--json", *options)
        assert (ran.json_lines[0]["status"], ran.json_lines[0]["task"]) == ("rewritten", None)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_blocks_show_where_there_was_a_jpeg_and_only_there(name):
    """The grid may lie anywhere. These pictures of scikit-image have never been JPEGs."""
    clean = getattr(data, name)()[40:340, 60:360]
    assert measure_blocking(clean) < VISIBLE_BLOCKS
    for quality in (10, 30):
        for down, right in ((0, 0), (3, 6)):
            assert measure_blocking(decoded(clean, quality)[down:, right:]) > VISIBLE_BLOCKS
    assert measure_blocking(decoded(clean[..., 0], 30)) > VISIBLE_BLOCKS


def test_coarse_chroma_tells_camera_noise_from_white():
    for level in (8, 20):
        white, camera = noisy("white", level), noisy("camera", level)
        assert estimate_coarse_chroma(white) < WHITE_RATIO * estimate_noise_level(white)
        assert estimate_coarse_chroma(camera) > WHITE_RATIO * estimate_noise_level(camera)
        assert estimate_coarse_chroma(camera) > COLOUR_NOISE
    assert estimate_coarse_chroma(CLEAN) < COLOUR_NOISE
    assert estimate_coarse_chroma(noisy("camera", 8)[..., 0]) == 0


@pytest.mark.parametrize("quality", [75, 50])
def test_averages_keep_the_noise_that_jpeg_takes(quality):
    compressed = decoded(noisy("white", 20), quality)
    for pixels in (compressed, compressed[..., 1]):
        assert estimate_compressed_noise(pixels) > max(2 * COMPRESSED_LEVEL, 1.3 * estimate_noise_level(pixels))
    assert estimate_compressed_noise(decoded(CLEAN, quality)) < COMPRESSED_LEVEL


@pytest.mark.parametrize("shape", [(1, 1), (1, 40, 3), (7, 9, 3), (31, 33, 3), (64, 64, 3)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_small_and_constant_pictures_need_nothing(shape, value):
    decision = decide(read_frame(encoded(np.full(shape, value, np.uint8))), ALL)
    assert decision.task is None
