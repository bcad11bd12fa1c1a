"""What ``--task auto`` finds in a picture, and what it makes of it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from deconv_cli.degradation.blocking import find_blocks, measure_blocking
from deconv_cli.degradation.camera import Camera, add_camera_noise
from deconv_cli.degradation.noise import add_gaussian_noise
from deconv_cli.degradation.noise_estimation import estimate_coarse_chroma, estimate_noise_level
from deconv_cli.images import Frame, from_float, read_frame, to_float
from deconv_cli.metrics import psnr
from deconv_cli.restoration.decision import CLEAN_LEVEL, COLOUR_NOISE, VISIBLE_BLOCKS, WHITE_RATIO, decide
from deconv_cli.restoration.restorer import Restorer
from deconv_cli.restoration.trial import SIDE, removed_noise

ALL = {"denoise", "decompress", "photo"}
CLEAN = data.astronaut()[:320, 100:420]


def encoded(pixels, quality=None):
    """Return a file: PNG, or JPEG of that quality."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg" if quality else "png", **({"quality": quality} if quality else {}))
    return file.getvalue()


def decoded(pixels, quality):
    return np.asarray(Image.open(BytesIO(encoded(pixels, quality))))


def text(size, ink=0, paper=255, mode="L"):
    """Return a page of printed text."""
    page = Image.new(mode, (400, 320), paper)
    draw = ImageDraw.Draw(page)
    draw.fontmode = "1" if mode == "1" else "L"
    for at, top in enumerate(range(10, 300, size * 3 // 2)):
        words = "It was the best of times, it was the worst of times, " * 3
        draw.text((10, top), words[at % 11 :][: 770 // size], ink, ImageFont.load_default(size))
    return np.asarray(page.convert("L"))


def line_chart():
    chart = Image.new("RGB", (400, 320), "white")
    draw, across = ImageDraw.Draw(chart), np.arange(20, 380)
    for at, colour in enumerate(("red", "blue", "green")):
        steps = np.random.default_rng(at).normal(0, 6, len(across))
        draw.line(list(zip(across, 160 + 80 * np.sin(across / 30 + at) + steps, strict=True)), colour, 2)
    return np.asarray(chart)


CAMERAS = {
    "camera": Camera(),
    # What cameras leave that have taken noise from luma and colours, or from the colours alone.
    "denoised": Camera(luma_smoothing=0.9, chroma_smoothing=1.5, chroma_gain=0.25),
    "gray": Camera(luma_smoothing=0.6, chroma_smoothing=1.0, chroma_gain=0.1),
}


def noisy(kind, level):
    image, rng = to_float(CLEAN), np.random.default_rng(0)
    if kind == "white":
        return from_float(add_gaussian_noise(image, level, rng), np.uint8)
    if kind == "photons":
        return from_float(image + add_gaussian_noise(0 * image, level, rng) * np.sqrt(2 * image), np.uint8)
    return from_float(add_camera_noise(image, level, rng, CAMERAS[kind]), np.uint8)


def restore_photo(pixels):
    return Restorer("photo").restore(pixels).pixels


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
        (noisy("white", 10), 75, ALL, "photo", "hidden noise"),
        (noisy("white", 20), 40, ALL, "photo", "hidden noise"),
        (decoded(noisy("white", 20), 40), None, ALL, "photo", "hidden noise"),
        (noisy("denoised", 6), None, ALL, "photo", "hidden noise"),
        (noisy("denoised", 6)[..., 1], None, ALL, "photo", "hidden noise"),
        (noisy("denoised", 6), 97, ALL, "photo", "hidden noise"),
        (noisy("denoised", 6), 97, {"denoise"}, None, "nothing to restore"),
        (noisy("gray", 12), None, {"denoise"}, "denoise", "noise level 2"),
        (noisy("gray", 12), None, ALL, "photo", "hidden noise"),
        (noisy("gray", 12)[..., 1], None, ALL, "photo", "hidden noise"),
        (noisy("white", 10)[..., 1], None, ALL, "denoise", "noise level"),
        (noisy("photons", 15), None, ALL, "photo", "hidden noise"),
        (noisy("photons", 15)[..., 1], None, ALL, "photo", "hidden noise"),
        (CLEAN, 75, ALL, "decompress", "JPEG quality 75"),
        (noisy("white", 15), 92, ALL, "photo", "noise level"),
        (noisy("white", 15), 98, ALL, "photo", "correlated colour noise"),
        (noisy("white", 25), 75, {"denoise", "decompress"}, "denoise", "JPEG quality 75"),
    ],
)
def test_decision(pixels, quality, tasks, expected, words):
    decision = decide(read_frame(encoded(pixels, quality)), tasks, restore_photo)
    assert decision.task == expected
    assert words in decision.reason


@pytest.mark.parametrize(
    ("level", "gray", "options", "expected"),
    [
        (10, False, {"quality": 98, "subsampling": "4:4:4"}, "denoise"),
        (20, False, {"quality": 90, "subsampling": "4:4:4"}, "denoise"),
        (20, False, {"quality": 98, "subsampling": "4:2:0"}, "photo"),
        (10, False, {"quality": 80, "subsampling": "4:4:4"}, "photo"),
        (12, True, {"quality": 90}, "denoise"),
        (12, True, {"quality": 75}, "photo"),
    ],
)
def test_white_noise_stays_white_in_a_jpeg_that_keeps_it(level, gray, options, expected):
    """Coarse steps take it from the high frequencies, and subsampling from the colours: then it is photo's."""
    pixels, clean = (image[..., 1] if gray else image for image in (noisy("white", level), CLEAN))
    file = BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", **options)
    frame = read_frame(file.getvalue())
    decision = decide(frame, ALL, restore_photo)
    assert decision.task == expected
    denoised = Restorer("denoise").restore(frame.pixels).pixels
    scores = {"denoise": psnr(clean, denoised), "photo": psnr(clean, restore_photo(frame.pixels))}
    assert max(scores, key=scores.__getitem__) == expected


@pytest.mark.parametrize(
    ("drawing", "quality"),
    [
        (text(10), None),
        (text(10), 90),
        (text(11), 95),
        (text(14), 90),
        (text(14, mode="1", paper=1), None),
        (line_chart(), 90),
    ],
    ids=["10 px", "10 px, JPEG", "11 px, JPEG", "14 px, JPEG", "two levels", "chart, JPEG"],
)
def test_nothing_is_found_in_clean_text_and_line_art(drawing, quality):
    """All of its patches that are not white are strokes, which pass for noise: it was taken for level 25 to 85."""
    decision = decide(read_frame(encoded(drawing, quality)), ALL, restore_photo)
    assert decision.task is None, decision.reason
    assert decision.noise_level < CLEAN_LEVEL


def test_nothing_is_found_in_dithered_pictures():
    dithered = np.asarray(Image.fromarray(CLEAN).convert("1").convert("L"))
    assert decide(Frame(dithered), ALL, restore_photo).task is None


@pytest.mark.parametrize(("paper", "least", "most"), [(255, 2, 6), (230, 4.5, 5.5)])
def test_noise_of_scanned_text_is_measured_on_the_paper(paper, least, most):
    """Where white has clipped it, about half of it is left there."""
    scan = from_float(add_gaussian_noise(to_float(text(14, 30, paper)), 5, np.random.default_rng(0)), np.uint8)
    decision = decide(Frame(scan), {"denoise"})
    assert decision.task == "denoise"
    assert least < decision.noise_level < most


def test_the_paper_tells_of_noise_that_is_not_white():
    """White has clipped it there, but the rest of the page is strokes."""
    image = to_float(np.dstack([text(14)] * 3))
    scan = from_float(add_camera_noise(image, 10, np.random.default_rng(0), CAMERAS["denoised"]), np.uint8)
    removed = removed_noise(scan, restore_photo)
    assert removed is not None
    assert 2 < removed.typical < 12
    assert decide(Frame(scan), ALL, restore_photo).task == "photo"


def test_doubled_pixels_are_no_blocks():
    """Their steps differ by column, too, but from one to the next."""
    assert measure_blocking(np.kron(CLEAN[..., 1], np.ones((2, 2), np.uint8))) == 0


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


def test_a_quality_is_nothing_to_a_lossless_file(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "clean.png").write_bytes(encoded(CLEAN))
    (tmp_path / "in" / "clean.jpg").write_bytes(encoded(CLEAN, 98))
    ran = run("restore", tmp_path / "in", tmp_path / "out", "--quality", 80, "--json")
    assert [line["status"] for line in ran.json_lines[:-1]] == ["rewritten", "copied"]
    assert (tmp_path / "out" / "clean.png").read_bytes() == (tmp_path / "in" / "clean.png").read_bytes()


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_blocks_show_where_there_was_a_jpeg_and_only_there(name):
    """The grid may lie anywhere. These pictures of scikit-image have never been JPEGs."""
    clean = getattr(data, name)()[40:340, 60:360]
    assert measure_blocking(clean) < VISIBLE_BLOCKS
    for quality in (10, 30):
        for down, right in ((0, 0), (3, 6)):
            assert measure_blocking(decoded(clean, quality)[down:, right:]) > VISIBLE_BLOCKS
    assert measure_blocking(decoded(clean[..., 0], 30)) > VISIBLE_BLOCKS


@pytest.mark.parametrize("side", [40, 64, 96])
def test_chance_makes_no_blocks_in_small_pictures(side):
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0.5, 0.1, (side, side)).astype(np.float32)
        assert find_blocks(noise) is None


def test_coarse_chroma_tells_camera_noise_from_white():
    for level in (8, 20):
        white, camera = noisy("white", level), noisy("camera", level)
        assert estimate_coarse_chroma(white) < WHITE_RATIO * estimate_noise_level(white)
        assert estimate_coarse_chroma(camera) > WHITE_RATIO * estimate_noise_level(camera)
        assert estimate_coarse_chroma(camera) > COLOUR_NOISE
    assert estimate_coarse_chroma(CLEAN) < COLOUR_NOISE
    assert estimate_coarse_chroma(noisy("camera", 8)[..., 0]) == 0


@pytest.mark.parametrize("name", ["astronaut", "cat", "coffee", "rocket", "camera"])
def test_a_trial_takes_nothing_from_clean_pictures(name):
    clean = data.cat() if name == "cat" else getattr(data, name)()
    assert decide(read_frame(encoded(clean)), ALL, restore_photo).task is None


def test_a_trial_sees_the_centre_and_measures_where_it_is_flat():
    """A stub stands for the network: it knows the picture, but takes more from its texture than there is noise."""
    rng = np.random.default_rng(0)
    clean = np.full((SIDE + 200, SIDE + 100), 120.0)
    clean[:, : SIDE // 2] += rng.normal(0, 30, (len(clean), SIDE // 2))
    seen = []

    def restore(pixels):
        seen.append(pixels.shape)
        restored = clean[100:-100, 50:-50].copy()
        restored[:, : SIDE // 4] += 20
        assert np.isfinite(pixels).all()
        return (restored / 255).astype(np.float32)

    image = np.clip(np.rint(clean + rng.normal(0, 4, clean.shape)), 0, 255).astype(np.uint8)
    removed = removed_noise(image, restore)
    assert removed.typical == pytest.approx(4, abs=0.1)
    assert removed.strongest == pytest.approx(4, abs=0.2)
    assert seen == [(SIDE, SIDE)]
    part = to_float(image)
    part[: SIDE // 2] = np.nan
    assert removed_noise(part, restore).typical == pytest.approx(4, abs=0.1)
    assert removed_noise(image[:40, :40], lambda pixels: pixels) is None
    assert removed_noise(np.zeros((64, 64, 3), np.uint8), lambda pixels: pixels) is None


def test_a_trial_tells_white_noise_on_colourful_texture_from_coloured_noise():
    """A stub stands for the network: it takes the noise, and leaves the texture."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.normal(0, 5.5, (80, 80, 3)), np.ones((4, 4, 1)))
    clean = 120 + texture - texture.mean(2, keepdims=True)
    white = np.clip(np.rint(clean + rng.normal(0, 6, clean.shape)), 0, 255).astype(np.uint8)
    file = read_frame(encoded(white))
    assert "correlated colour noise" in decide(file, ALL).reason
    assert decide(file, ALL, lambda _: (clean / 255).astype(np.float32)).task == "denoise"
    assert decide(file, ALL, lambda _: np.full(clean.shape, 120 / 255, np.float32)).task == "photo"


def test_auto_restores_what_a_camera_has_denoised(run, tmp_path):
    """Noise in luma that pixels share looks like texture: neither its colour nor its sharpness gives it away."""
    source = tmp_path / "photo.jpg"
    source.write_bytes(encoded(noisy("denoised", 8), 97))
    ran = run("restore", source, tmp_path / "out.png", "--json")
    assert ran.code == 0, ran.stderr
    line = ran.json_lines[0]
    assert "hidden noise" in line["decision"]
    # The network is blind, but users are told what was found.
    assert (line["task"], line["noise_level"]) == ("photo", pytest.approx(8, abs=4))
    before, after = (psnr(CLEAN, read_frame(path).pixels) for path in (source, tmp_path / "out.png"))
    assert after > before + 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 40, 3), (7, 9, 3), (31, 33, 3), (64, 64, 3)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_small_and_constant_pictures_need_nothing(shape, value):
    decision = decide(read_frame(encoded(np.full(shape, value, np.uint8))), ALL)
    assert decision.task is None
