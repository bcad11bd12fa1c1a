"""Pixels: what is read, what is written, and what is refused instead of being read in part."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, JpegImagePlugin
from skimage.data import astronaut

from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.images import Frame, bleed_alpha, encode_frame, read_frame, read_size
from deconv_cli.images.alpha import flatten_onto_white
from deconv_cli.images.jpeg import estimate_quality

HEIGHT, WIDTH = 21, 34
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*channels, dtype=np.uint8):
    shape = (HEIGHT, WIDTH, *channels)
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def smooth(*channels):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    gray = (40 + 4 * x + 2 * y).astype(np.uint8)
    return np.stack([gray, 255 - gray, gray // 2], axis=-1) if channels else gray


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(samples, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


def png(width, height, depth, colour, rows, *chunks):
    """Make a PNG by hand: rows are bytes without the filter byte, chunks are (name, data)."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*c) for c in chunks) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("pixels", [noise(), noise(3)], ids=["gray", "rgb"])
@pytest.mark.parametrize(
    ("kind", "transparent"),
    [("png", False), ("png", True), ("tiff", False), ("tiff", True), ("webp", False), ("webp", True), ("bmp", False)],
)
def test_lossless_formats_return_every_sample(kind, transparent, pixels):
    alpha = noise()[::-1] if transparent else None
    data, warnings = encode_frame(Frame(pixels, alpha), kind)
    frame = read_frame(data)
    assert warnings == frame.warnings == ()
    assert (frame.format, frame.lossless) == (kind, True)
    expected = np.dstack([pixels] * 3) if kind == "webp" and pixels.ndim == 2 else pixels
    np.testing.assert_array_equal(frame.pixels, expected)
    if alpha is None:
        assert frame.alpha is None
    else:
        np.testing.assert_array_equal(frame.alpha, alpha)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bit_gray_returns_every_sample(kind):
    pixels = noise(dtype=np.uint16)
    frame = read_frame(encode_frame(Frame(pixels), kind)[0])
    assert frame.pixels.dtype == np.uint16
    np.testing.assert_array_equal(frame.pixels, pixels)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_16_bit_gray_tiff_of_every_kind(photometric, compression, byteorder):
    pixels = noise(dtype=np.uint16)
    data = tiff(pixels, photometric=photometric, compression=compression, byteorder=byteorder)
    frame = read_frame(data)
    assert frame.pixels.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(frame.pixels, ~pixels if photometric == "miniswhite" else pixels)


@pytest.mark.parametrize("pixels", [smooth(), smooth(3)], ids=["gray", "rgb"])
@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_lossy_formats_come_close(kind, pixels):
    frame = read_frame(encode_frame(Frame(pixels, lossless=False), kind)[0])
    assert not frame.lossless
    assert frame.pixels.ndim == (3 if kind == "webp" else pixels.ndim)
    expected = np.dstack([pixels] * 3) if frame.pixels.ndim > pixels.ndim else pixels
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 2


def test_palette_becomes_rgb_and_keeps_transparency():
    image = Image.fromarray(smooth(3)).quantize(16)
    expected = np.array(image.convert("RGB"))
    opaque = read_frame(saved(image, "PNG"))
    np.testing.assert_array_equal(opaque.pixels, expected)
    assert opaque.alpha is None
    frame = read_frame(saved(image, "PNG", transparency=bytes([0, 128] + [255] * 14)))
    np.testing.assert_array_equal(frame.pixels, expected)
    np.testing.assert_array_equal(frame.alpha, np.array([0, 128] + [255] * 14)[np.array(image)])


def test_gray_palette_becomes_gray_unless_its_profile_is_rgb():
    image = Image.fromarray(smooth()).quantize(8)
    assert read_frame(saved(image, "PNG")).pixels.ndim == 2
    assert read_frame(saved(image, "PNG", icc_profile=SRGB)).pixels.ndim == 3


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_bilevel_becomes_gray(kind):
    bits = noise() > 128
    frame = read_frame(saved(Image.fromarray(bits), kind))
    np.testing.assert_array_equal(frame.pixels, np.where(bits, 255, 0))


def test_transparent_colour_of_a_png():
    four_bits = read_frame(png(2, 1, 4, 0, [b"\x3f"], (b"tRNS", b"\0\3")))
    np.testing.assert_array_equal(four_bits.pixels, [[51, 255]])
    np.testing.assert_array_equal(four_bits.alpha, [[0, 255]])
    colour = read_frame(png(2, 1, 8, 2, [b"\1\2\3\4\5\6"], (b"tRNS", b"\0\4\0\5\0\6")))
    np.testing.assert_array_equal(colour.alpha, [[255, 0]])


@pytest.mark.parametrize("profile", [None, b"no profile", SRGB], ids=["none", "damaged", "of-rgb"])
def test_cmyk_becomes_rgb_and_says_so(profile):
    image = Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0))
    frame = read_frame(saved(image, "JPEG", icc_profile=profile))
    assert frame.pixels.shape == (HEIGHT, WIDTH, 3)
    assert frame.pixels[0, 0, 0] > 200
    assert frame.pixels[0, 0, 1:].max() < 60
    assert frame.icc is None
    assert any("CMYK" in warning for warning in frame.warnings)


def test_premultiplied_tiff_is_divided_by_its_alpha():
    samples = np.full((HEIGHT, WIDTH, 4), 100, np.uint8)
    frame = read_frame(tiff(samples, photometric="rgb", extrasamples=["assocalpha"]))
    assert frame.pixels.max() == frame.pixels.min() == 255
    np.testing.assert_array_equal(frame.alpha, samples[..., 3])


def test_transparency_is_found_behind_other_extra_channels():
    pixels, alpha = noise(3), noise(2)
    frame = read_frame(tiff(np.dstack([pixels, alpha]), photometric="rgb", extrasamples=["unspecified", "unassalpha"]))
    np.testing.assert_array_equal(frame.alpha, alpha[..., 1])
    np.testing.assert_array_equal(frame.pixels, pixels)
    assert frame.warnings == ("extra channels of unspecified meaning were left out",)


def test_unspecified_channels_are_reported():
    frame = read_frame(tiff(noise(4), photometric="rgb", extrasamples=["unspecified"]))
    np.testing.assert_array_equal(frame.pixels, noise(4)[..., :3])
    assert any("extra channels" in warning for warning in frame.warnings)


@pytest.mark.parametrize(
    "data",
    [
        tiff(np.ones((HEIGHT, WIDTH), np.float64)),
        tiff(np.ones((HEIGHT, WIDTH), np.int16)),
        tiff(np.ones((HEIGHT, WIDTH), np.int8)),
        tiff(np.ones((HEIGHT, WIDTH), np.uint32)),
        tiff(noise(3, dtype=np.uint16), photometric="cielab"),
    ],
    ids=["float64", "int16", "int8", "uint32", "lab"],
)
def test_samples_that_would_lose_bits_are_refused(data, tmp_path):
    (tmp_path / "deep.tif").write_bytes(data)
    for read in (read_frame, read_size):
        with pytest.raises(DeconvError, match=r"deep\.tif: .*cannot be read without loss") as caught:
            read(tmp_path / "deep.tif")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_several_pictures_in_a_file_are_refused(kind):
    pages = [Image.fromarray(noise(3)), Image.fromarray(255 - noise(3))]
    data = saved(pages[0], kind, save_all=True, append_images=pages[1:])
    with pytest.raises(DeconvError, match="album: holds 2 pages or frames"):
        read_frame(data, name="album")


def test_pictures_beside_a_jpeg_are_reported():
    images = [Image.fromarray(smooth(3)), Image.fromarray(smooth(3)[::2, ::2])]
    frame = read_frame(saved(images[0], "MPO", save_all=True, append_images=images[1:]))
    assert frame.format == "jpg"
    assert frame.pixels.shape == (HEIGHT, WIDTH, 3)
    assert any("main picture" in warning for warning in frame.warnings)


def test_content_wins_over_suffix(tmp_path):
    path = tmp_path / "really-a-jpeg.png"
    path.write_bytes(encode_frame(Frame(smooth(3)), "jpg")[0])
    assert read_frame(path).format == "jpg"


SAMPLES = {kind: encode_frame(Frame(noise(3)), kind)[0] for kind in ("png", "jpg", "webp", "bmp", "tiff")}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_are_errors(kind, share, tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(SAMPLES[kind][: int(share * len(SAMPLES[kind]))])
    with pytest.raises(DeconvError, match=r"cut\.png: ") as caught:
        read_frame(path)
    assert "\n" not in str(caught.value)


def noticed_damage(jpeg):
    try:
        return any("may be damaged" in warning for warning in read_frame(jpeg).warnings)
    except DeconvError as error:
        return "damaged" in str(error)


JPEG_KINDS = {
    "plain": {},
    "optimised": {"optimize": True, "subsampling": 0},
    "progressive": {"progressive": True, "subsampling": 1},
    "restarts": {"restart_marker_rows": 1},
    "progressive-restarts": {"progressive": True, "restart_marker_rows": 1},
}


@pytest.mark.parametrize("options", JPEG_KINDS.values(), ids=JPEG_KINDS)
def test_a_jpeg_that_misses_samples_before_its_end_is_an_error(options):
    whole = saved(Image.fromarray(astronaut()[:128, 100:260]), "JPEG", quality=93, **options)
    with pytest.raises(DeconvError, match=r"cut: the picture is damaged or incomplete \(samples are missing\)"):
        read_frame(whole[:-200] + b"\xff\xd9", name="cut")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}], ids=str)
def test_a_jpeg_whose_samples_were_overwritten_is_an_error_or_warned_of(options, share):
    damaged = bytearray(saved(Image.fromarray(astronaut()[:128, 100:260]), "JPEG", quality=93, **options))
    start = int(share * len(damaged))
    damaged[start:-2] = bytes(len(damaged) - 2 - start)
    assert noticed_damage(bytes(damaged))


def test_noise_over_a_jpeg_is_mostly_noticed():
    rng = np.random.default_rng(0)
    whole = saved(Image.fromarray(astronaut()[:128, 100:260]), "JPEG", quality=93)
    starts = rng.integers(1000, len(whole) - 1000, 20)
    damaged = [whole[:start] + bytes(rng.integers(0, 255, 60, np.uint8)) + whole[start + 60 :] for start in starts]
    assert sum(map(noticed_damage, damaged)) > 12


@pytest.mark.parametrize("options", JPEG_KINDS.values(), ids=JPEG_KINDS)
@pytest.mark.parametrize("quality", [1, 75, 100])
def test_sound_jpegs_raise_no_alarm(options, quality):
    flat = np.full((40, 50, 3), 128, np.uint8)
    corner = flat.copy()
    corner[-1, -1] = 0
    for picture in (smooth(3), noise(), noise(3)[:2], flat, flat[:1, :1], flat + 5, corner):
        for after in (b"", b"more bytes \xff\xd9"):
            whole = saved(Image.fromarray(picture), "JPEG", quality=quality, **options)
            told = ("13 bytes behind its end were left out",) if after else ()
            assert read_frame(whole + after).warnings == told


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "empty"), (b"GIF89a" + bytes(40), "not a picture"), (b"\x89PNG\r\n\x1a\n", "not a picture")],
)
def test_other_files_are_errors(data, message):
    with pytest.raises(DeconvError, match=f"thing: .*{message}"):
        read_frame(data, name="thing")


def test_missing_files_and_folders_are_errors(tmp_path):
    with pytest.raises(DeconvError, match=r"absent\.png: no such file"):
        read_frame(tmp_path / "absent.png")
    with pytest.raises(DeconvError, match="cannot be read"):
        read_frame(tmp_path)


def test_bombs_are_refused_unopened():
    with pytest.raises(DeconvError, match="megapixels"):
        read_frame(png(100_000, 100_000, 8, 0, [b""]), name="bomb.png")
    with pytest.raises(DeconvError, match=r"larger than 500 megapixels; raise --max-pixels"):
        read_frame(png(25_000, 20_001, 16, 2, [b""]), name="bomb.png")
    with pytest.raises(DeconvError, match="megapixels"):
        read_frame(SAMPLES["tiff"], max_pixels=HEIGHT * WIDTH - 1)
    assert read_frame(SAMPLES["tiff"], max_pixels=HEIGHT * WIDTH).pixels.shape == (HEIGHT, WIDTH, 3)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.data())
@pytest.mark.filterwarnings("ignore")
def test_any_damage_gives_a_picture_or_a_one_line_error(kind, data):
    damaged = bytearray(SAMPLES[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        # Mostly the header: that is where damage confuses decoders.
        at = data.draw(st.integers(0, len(damaged) - 1) | st.integers(0, 120))
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        frame = read_frame(bytes(damaged), name="damaged")
    except DeconvError as error:
        outcome = str(error)
    else:
        outcome = f"damaged: {frame.pixels.shape}"
    assert outcome.startswith("damaged: ")
    assert "\n" not in outcome


@pytest.mark.parametrize("quality", [1, 10, 37, 50, 75, 90, 95, 100])
def test_quality_is_read_from_the_tables(quality):
    assert read_frame(saved(Image.fromarray(smooth(3)), "JPEG", quality=quality)).jpeg_quality == quality


def test_quality_of_foreign_tables_is_near():
    table = [16 + 2 * (i // 8 + i % 8) for i in range(64)]
    assert 50 < estimate_quality(table) < 95


@pytest.mark.parametrize(("before", "asked", "after"), [(None, None, 95), (60, None, 95), (98, None, 98), (98, 80, 80)])
def test_jpeg_quality_never_falls_unasked(before, asked, after):
    data, _ = encode_frame(Frame(smooth(3), jpeg_quality=before), "jpg", quality=asked)
    assert read_frame(data).jpeg_quality == after
    assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(data))) == 0  # 4:4:4


@pytest.mark.parametrize("kind", ["jpg", "bmp"])
def test_lost_transparency_is_flattened_onto_white_and_reported(kind):
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, : WIDTH // 2] = 0
    data, warnings = encode_frame(Frame(pixels, alpha), kind)
    frame = read_frame(data)
    assert frame.pixels[:, :8].min() > 250
    assert frame.pixels[:, -8:].max() < 5
    assert len(warnings) == 1
    assert "transparency" in warnings[0]


@pytest.mark.parametrize("kind", ["jpg", "webp", "bmp"])
def test_16_bits_are_rounded_to_8_and_reported(kind):
    pixels = (smooth().astype(np.uint16) * 257) + 100
    data, warnings = encode_frame(Frame(pixels), kind)
    assert np.abs(read_frame(data).pixels.astype(int).reshape(HEIGHT, WIDTH, -1)[..., 0] - smooth()).max() < 6
    assert len(warnings) == 1
    assert "8 bits" in warnings[0]


def test_what_cannot_be_written_is_an_error():
    with pytest.raises(DeconvError, match="wide: cannot be written as WebP"):
        encode_frame(Frame(np.zeros((1, 20_000), np.uint8), name="wide"), "webp")
    with pytest.raises(UsageError, match="did you mean 'webp'"):
        encode_frame(Frame(noise()), "web")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_flattening_agrees_with_the_definition(dtype):
    pixels, alpha = noise(3, dtype=dtype), noise(dtype=dtype)[::-1]
    white = np.iinfo(dtype).max
    cover = alpha[..., None] / white
    flat = flatten_onto_white(pixels, alpha)
    assert flat.dtype == dtype
    assert np.abs(flat - (pixels * cover + white * (1 - cover))).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(flatten_onto_white(pixels[..., 0], alpha), flat[..., 0])


@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "rgb"])
def test_bleeding_fills_hidden_pixels_from_the_nearest_visible(channels):
    pixels = np.zeros((5, 7, *channels), np.uint8)
    pixels[:, 3], pixels[:, 6] = 80, 200
    alpha = np.zeros((5, 7), np.uint8)
    alpha[:, 3], alpha[:, 6] = 1, 255
    bled = bleed_alpha(pixels, alpha)
    np.testing.assert_array_equal(bled[:, :5], np.full((5, 5, *channels), 80))
    np.testing.assert_array_equal(bled[:, 5:], np.full((5, 2, *channels), 200))
    np.testing.assert_array_equal(pixels[:, :3], 0)


def test_bleeding_leaves_visible_and_invisible_pictures_alone():
    pixels = noise(3)
    for alpha in (np.full((HEIGHT, WIDTH), 1, np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)):
        np.testing.assert_array_equal(bleed_alpha(pixels, alpha), pixels)


def test_colours_under_transparency_survive_where_the_format_can():
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    for kind in ("png", "webp", "tiff"):
        np.testing.assert_array_equal(read_frame(encode_frame(Frame(noise(3), alpha), kind)[0]).pixels, noise(3))


def test_a_frame_can_be_changed_by_replacing_its_pixels():
    frame = read_frame(SAMPLES["png"])
    doubled = replace(frame, pixels=np.repeat(np.repeat(frame.pixels, 2, 0), 2, 1))
    assert read_frame(encode_frame(doubled, "tiff")[0]).pixels.shape == (2 * HEIGHT, 2 * WIDTH, 3)
