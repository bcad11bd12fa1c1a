"""Every format and mode, written by other programs' libraries and by this one: nothing is lost on the way."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps, ImageSequence

from deconv_cli.errors import DeconvError
from deconv_cli.images import Frame, boxes, encode_frame, open_picture, read_frame, to_float, write_frames
from deconv_cli.images.samples import widen

HEIGHT, WIDTH = 24, 37
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ADOBE_RGB = bytes(imagecodecs.cms_profile("adobergb"))
# Both have the white point D65: the matrix of Adobe RGB (1998), times the inverse of sRGB's.
ADOBE_TO_SRGB = np.array([[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]])
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a/></x:xmpmeta>'
IPTC = b"\x1c\x02\x78\x00\x07caption"


def samples(*channels, dtype=np.uint8):
    rng = np.random.default_rng(3)
    if dtype == np.float32:
        return rng.normal(0.5, 0.5, (HEIGHT, WIDTH, *channels)).astype(np.float32)
    return rng.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, *channels), dtype, endpoint=True)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def exif():
    tags = Image.Exif()
    tags[ExifTags.Base.ImageDescription] = "a scan"
    tags[ExifTags.Base.Make] = "Maker"
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "1931:05:01 12:00:00"}
    tags[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return tags.tobytes()


def frames_of(data, **options):
    with open_picture(data, **options) as picture:
        return picture, list(picture.frames)


def means_the_same(profile, other):
    colours = samples(3)
    same = imagecodecs.cms_transform(colours, profile, other, colorspace="rgb", outcolorspace="rgb")
    return np.abs(same.astype(int) - colours).mean() < 0.5


def assert_same(a, b):
    for layer in ("pixels", "alpha", "black"):
        one, other = getattr(a, layer), getattr(b, layer)
        assert (one is None) == (other is None), layer
        if one is not None:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


LOSSLESS = {
    ("png", np.uint8),
    ("png", np.uint16),
    ("tiff", np.uint8),
    ("tiff", np.uint16),
    ("tiff", np.float32),
    ("jp2", np.uint8),
    ("jp2", np.uint16),
    ("jxl", np.uint8),
    ("jxl", np.uint16),
    ("jxl", np.float32),
    ("webp", np.uint8),
    ("bmp", np.uint8),
}


@pytest.mark.parametrize("transparent", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "rgb"])
@pytest.mark.parametrize(
    ("kind", "dtype"), sorted(LOSSLESS, key=str), ids=lambda value: getattr(value, "__name__", value)
)
def test_lossless_formats_keep_every_bit(kind, dtype, channels, transparent):
    alpha = np.abs(samples(dtype=dtype)[::-1]) if transparent else None
    frame = Frame(samples(*channels, dtype=dtype), alpha)
    if (kind == "bmp" and transparent) or (kind == "webp" and not channels):
        pytest.skip("the format has no such mode; what becomes of it is tested elsewhere")
    data, warnings = encode_frame(frame, kind)
    picture, (again,) = frames_of(data)
    assert warnings == again.warnings == ()
    assert again.format == kind
    assert_same(frame, again)
    assert picture.bytes_per_pixel * picture.width * picture.height >= again.nbytes


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("layout", ["strips", "tiles", "planes"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiffs_of_other_programs(dtype, layout, compression):
    array = samples(3, dtype=dtype)
    options = {"tiles": {"tile": (16, 16)}, "planes": {"planarconfig": "separate"}, "strips": {"rowsperstrip": 5}}[
        layout
    ]
    stored = np.moveaxis(array, -1, 0) if layout == "planes" else array
    for byteorder in "<>":
        data = tiff(stored, photometric="rgb", compression=compression, byteorder=byteorder, **options)
        np.testing.assert_array_equal(read_frame(data).pixels, array)


@pytest.mark.parametrize("channels", [3, 4])
def test_tiffs_compressed_as_webp_are_read(channels):
    array = samples(channels)
    extra = ["unassalpha"] if channels == 4 else None
    options = {"photometric": "rgb", "extrasamples": extra, "compressionargs": {"lossless": True}}
    frame = read_frame(tiff(array, compression="webp", tile=(16, 16), **options))
    np.testing.assert_array_equal(frame.pixels, array[..., :3])
    assert (frame.alpha is not None) == (channels == 4)
    assert not frame.lossless


def test_half_floats_become_floats():
    half = samples(dtype=np.float32).astype(np.float16)
    frame = read_frame(tiff(half))
    assert frame.pixels.dtype == np.float32
    np.testing.assert_array_equal(frame.pixels, half.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_premultiplied_alpha_is_divided_out(dtype):
    largest = np.iinfo(dtype).max
    straight = samples(3, dtype=dtype)
    alpha = np.full((HEIGHT, WIDTH), largest // 2, dtype)
    premultiplied = np.rint(straight * (alpha[..., None] / largest)).astype(dtype)
    frame = read_frame(tiff(np.dstack([premultiplied, alpha]), photometric="rgb", extrasamples=["assocalpha"]))
    assert np.abs(frame.pixels.astype(int) - straight).max() <= 2
    np.testing.assert_array_equal(frame.alpha, alpha)


def test_16_bit_png_with_a_transparent_colour_and_interlace():
    array = samples(3, dtype=np.uint16)
    data = imagecodecs.png_encode(array)
    chunk = b"tRNS" + struct.pack(">HHH", *array[0, 0])
    data = data[:33] + struct.pack(">I", 6) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    frame = read_frame(data)
    np.testing.assert_array_equal(frame.pixels, array)
    assert frame.alpha[0, 0] == 0
    assert frame.alpha[1:].min() == 65535


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_tiffs_keep_their_inks_and_profile(dtype):
    inks = samples(4, dtype=dtype)
    data = tiff(inks, photometric="separated", iccprofile=b"inks" * 40, compression="lzw")
    _, (frame,) = frames_of(data)
    file = io.BytesIO()
    assert write_frames(file, [frame], "tiff") == ()
    file.seek(0)
    with tifffile.TiffFile(file) as again:
        np.testing.assert_array_equal(again.pages[0].asarray(), inks)
        assert again.pages[0].tags[34675].value == b"inks" * 40
        assert again.pages[0].photometric.name == "SEPARATED"


def test_cmyk_jpegs_stay_cmyk():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inks = np.stack([4 * x, 5 * y, 3 * x + y, 2 * y], axis=-1).astype(np.uint8)
    data = saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=98, subsampling=0, icc_profile=b"inks" * 40)
    _, (frame,) = frames_of(data)
    assert frame.black is not None
    again = encode_frame(frame, "jpg")[0]
    with Image.open(io.BytesIO(again)) as image:
        assert image.mode == "CMYK"
        assert image.info["icc_profile"] == b"inks" * 40
        assert np.abs(np.asarray(image).astype(int) - inks).max() < 8
    png, warnings = encode_frame(frame, "png")
    assert len(warnings) == 1
    assert "CMYK" in warnings[0]
    assert read_frame(png).pixels.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("source", ["png", "jpg", "tiff"])
@pytest.mark.parametrize("target", ["png", "jpg", "tiff", "webp", "avif", "jp2", "jxl"])
def test_metadata_goes_wherever_the_target_can_hold_it(source, target):
    frame = Frame(samples(3), icc=ADOBE_RGB, exif=exif(), xmp=XMP, iptc=IPTC, dpi=(300.0, 150.0))
    data, warnings = encode_frame(frame, source)
    assert warnings == ()
    first = read_frame(data)
    again, warnings = encode_frame(first, target)
    result = read_frame(again)
    lost = " ".join(warnings)
    # A lossy JPEG XL says by its colour space what the profile said, where that can be said.
    assert (result.icc is not None and means_the_same(result.icc, ADOBE_RGB)) != ("ICC" in lost)
    assert (result.icc == ADOBE_RGB) or (source, target) == ("jpg", "jxl") or "ICC" in lost
    assert (result.xmp == XMP) != ("XMP" in lost)
    assert (result.iptc == IPTC) != ("IPTC" in lost)
    assert (result.dpi == pytest.approx((300, 150), abs=0.02)) != ("resolution" in lost)
    tags = Image.Exif()
    tags.load(result.exif)
    assert tags[ExifTags.Base.Make] == "Maker"
    assert tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "1931:05:01 12:00:00"
    assert tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    expected = {"png": set(), "jpg": set(), "tiff": set()}
    assert {word for word in ("ICC", "EXIF", "XMP", "IPTC", "resolution") if word in lost} == expected.get(
        target, {"IPTC", "resolution"}
    )


def test_png_text_and_colour_chunks_pass_through():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Author", "somebody")
    info.add_itxt("Title", "Gemälde")
    info.add_text("Long", "x" * 3000, zip=True)
    info.add(b"gAMA", struct.pack(">I", 45455))
    frame = read_frame(saved(Image.fromarray(samples(3)), "PNG", pnginfo=info))
    data, warnings = encode_frame(frame, "png")
    assert warnings == ()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.text == {"Author": "somebody", "Title": "Gemälde", "Long": "x" * 3000}
        assert image.info["gamma"] == pytest.approx(0.45455)
    assert encode_frame(frame, "jpg")[1] == ("JPEG cannot hold: PNG text",)


def test_comments_pass_between_jpeg_gif_and_png():
    frame = read_frame(saved(Image.fromarray(samples(3)), "JPEG", comment=b"a comment"))
    assert frame.comment == b"a comment"
    assert read_frame(encode_frame(frame, "jpg")[0]).comment == b"a comment"
    assert read_frame(encode_frame(frame, "gif")[0]).comment == b"a comment"
    with Image.open(io.BytesIO(encode_frame(frame, "png")[0])) as image:
        assert image.text["Comment"] == "a comment"


def test_strip_leaves_nothing_and_the_colours_as_they_look():
    frame = Frame(samples(3), icc=ADOBE_RGB, exif=exif(), xmp=XMP, iptc=IPTC, dpi=(300.0, 300.0), comment=b"c")
    for kind in ("png", "jpg", "tiff", "webp"):
        data, warnings = encode_frame(frame, kind, metadata="strip", quality=100)
        result = read_frame(data)
        assert warnings == ()
        assert [result.icc, result.exif, result.xmp, result.iptc, result.dpi, result.comment] == [None] * 6
    to_srgb = ImageCms.profileToProfile(
        Image.fromarray(frame.pixels), ImageCms.ImageCmsProfile(io.BytesIO(ADOBE_RGB)), ImageCms.createProfile("sRGB")
    )
    result = read_frame(encode_frame(frame, "png", metadata="strip")[0])
    assert np.abs(result.pixels.astype(int) - np.asarray(to_srgb)).max() <= 2
    deep = replace(frame, pixels=frame.pixels.astype(np.uint16) * 257)
    result16 = read_frame(encode_frame(deep, "png", metadata="strip")[0])
    linear = (frame.pixels / 255) ** 2.19921875 @ ADOBE_TO_SRGB.T
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)
    inside = ((linear > 0.01) & (linear < 1)).all(2)
    assert np.abs(result16.pixels / 65535 - expected)[inside].max() < 0.002


def srgb_of(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["webp", "avif", "gif", "bmp", "jxl"])
def test_gray_whose_profile_cannot_stay_is_converted_to_srgb(kind):
    gray = np.tile(np.arange(0, 65536, 256, dtype=np.uint16), (8, 1))
    linear_profiles = [bytes(imagecodecs.cms_profile("gray", gamma=1.0)), linear_rgb()]
    for profile in linear_profiles if kind in ("gif", "bmp", "jxl") else linear_profiles[:1]:
        data, warnings = encode_frame(Frame(gray, icc=profile), kind)
        assert any("cannot hold the ICC profile: the colours were converted to sRGB by it" in said for said in warnings)
        result = read_frame(data)
        shown = result.pixels / np.iinfo(result.pixels.dtype).max
        expected = srgb_of(gray / 65535)
        assert result.icc is None
        assert np.abs((shown if shown.ndim == 2 else shown[..., 1]) - expected).max() < 0.01


def linear_rgb():
    """Make a matrix profile of sRGB's primaries without a curve."""
    profile = bytearray(imagecodecs.cms_profile("srgb"))
    for entry in range(132, 132 + 12 * int.from_bytes(profile[128:132]), 12):
        name, at, length = struct.unpack_from(">4sII", profile, entry)
        if name.endswith(b"TRC"):
            profile[at : at + length] = struct.pack(">4s4xI", b"curv", 0).ljust(length, b"\0")
    return bytes(profile)


def test_colours_whose_profile_cannot_stay_are_converted_to_srgb():
    frame = Frame(samples(3), icc=ADOBE_RGB)
    converted = read_frame(encode_frame(frame, "png", metadata="strip")[0])
    data, warnings = encode_frame(frame, "bmp")
    assert warnings == ("BMP cannot hold the ICC profile: the colours were converted to sRGB by it",)
    assert_same(read_frame(data), converted)
    assert not np.array_equal(converted.pixels, frame.pixels)
    floats = Frame(to_float(frame.pixels), icc=ADOBE_RGB)
    assert_same(read_frame(encode_frame(floats, "bmp")[0]), converted)


def document(*pages):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for number, page in enumerate(pages):
            writer.write(
                page,
                photometric="rgb" if page.ndim == 3 else "minisblack",
                compression="lzw",
                description=f"page {number}",
                software="scanner 1.0",
                resolution=(300 + number, 300),
                resolutionunit="inch",
                metadata=None,
                extratags=[
                    (285, 2, 0, f"name {number}", True),
                    (297, 3, 2, (number, len(pages)), True),
                    (33550, 12, 3, (1.5, 2.5, 0.0), True),
                    (65000, 7, 4, b"\x01\x02\x03\x04", True),
                ],
            )
    return file.getvalue()


def test_every_page_of_a_tiff_keeps_size_depth_mode_and_tags():
    pages = [samples(3), samples(dtype=np.uint16)[:9], samples(3, dtype=np.float32)[:, :11]]
    picture, frames = frames_of(document(*pages))
    assert (picture.count, picture.animated, picture.format) == (3, False, "tiff")
    file = io.BytesIO()
    assert write_frames(file, frames, "tiff", count=3) == ()
    file.seek(0)
    with tifffile.TiffFile(file) as again:
        for number, (page, expected) in enumerate(zip(again.pages, pages, strict=True)):
            np.testing.assert_array_equal(page.asarray(), expected)
            assert page.compression.name == "LZW"
            assert page.description == f"page {number}"
            values = {code: page.tags[code].value for code in (285, 297, 305, 33550, 65000)}
            assert values == {
                285: f"name {number}",
                297: (number, 3),
                305: "scanner 1.0",
                33550: (1.5, 2.5, 0.0),
                65000: b"\x01\x02\x03\x04",
            }
            assert page.tags[282].value[0] / page.tags[282].value[1] == pytest.approx(300 + number)


def test_a_mask_beside_a_page_is_left_out_with_a_warning():
    """GDAL writes such pages."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(samples(3), photometric="rgb")
        writer.write(samples() > 100, photometric="mask", subfiletype=4)
    picture, (page,) = frames_of(file.getvalue())
    assert picture.count == 1
    assert page.warnings == ("reduced copies or masks were left out: 1",)
    np.testing.assert_array_equal(page.pixels, samples(3))


def test_every_page_is_read_by_others_too():
    file = io.BytesIO()
    frames = [Frame(samples(3), exif=exif(), xmp=XMP, iptc=IPTC, icc=SRGB), Frame(samples(), exif=exif())]
    write_frames(file, frames, "tiff", count=2)
    with Image.open(file) as image:
        assert image.n_frames == 2
        for page, frame in zip(ImageSequence.Iterator(image), frames, strict=True):
            np.testing.assert_array_equal(np.asarray(page), frame.pixels)
            assert page.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "1931:05:01 12:00:00"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True], ids=["classic", "big"])
def test_tags_of_numbers_stay_the_same_from_both_byte_orders(order, big):
    tags = {
        286: (5, 1, (5, 2)),
        297: (3, 2, (0, 3)),
        318: (5, 2, (3127, 10000, 3290, 10000)),
        33550: (12, 3, (1.5, 2.5, 0.0)),
        34735: (3, 4, (1, 1, 0, 7)),
        65000: (3, 1, 258),
        65001: (12, 1, 0.1),
        65002: (10, 1, (-1, 3)),
        65003: (1, 3, b"\1\2\3"),
        65004: (9, 2, (-70000, 70000)),
    }
    options = {"photometric": "rgb", "byteorder": order, "bigtiff": big}
    data = tiff(samples(3), extratags=[(code, *tag, True) for code, tag in tags.items()], **options)
    with tifffile.TiffFile(io.BytesIO(encode_frame(read_frame(data), "tiff")[0])) as file:
        found = file.pages[0].tags
        assert {code: (int(found[code].dtype), found[code].count, found[code].value) for code in tags} == tags


@pytest.mark.parametrize("inside", [{1: "R98", 2: b"0100"}, {}], ids=["with", "without"])
def test_the_directory_of_interoperability_goes_along_or_leaves_no_pointer(inside, monkeypatch):
    tags = Image.Exif()
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "1931:05:01 12:00:00", ExifTags.IFD.Interop: inside}
    jpeg = saved(Image.fromarray(samples(3)), "JPEG", exif=tags)
    first = encode_frame(read_frame(jpeg), "tiff")[0]
    second = encode_frame(read_frame(first), "tiff")[0]
    monkeypatch.setattr("deconv_cli.images.tiff._BIG", 10)
    for data in (first, second, encode_frame(read_frame(second), "tiff")[0]):
        with Image.open(io.BytesIO(data)) as image:
            found = image.getexif()
            described = found.get_ifd(ExifTags.IFD.Exif)
            assert described[ExifTags.Base.DateTimeOriginal] == "1931:05:01 12:00:00"
            assert (ExifTags.IFD.Interop in described) == bool(inside)
            assert found.get_ifd(ExifTags.IFD.Interop) == inside


@pytest.mark.parametrize("kind", ["bilevel", "palette", "jpeg"])
@pytest.mark.filterwarnings("error")
def test_the_limit_of_size_is_the_one_asked_for_and_not_pillows(kind, monkeypatch):
    coding = {"bilevel": "group4", "palette": "tiff_lzw", "jpeg": "jpeg"}[kind]
    mode = {"bilevel": "1", "palette": "P", "jpeg": "RGB"}[kind]
    data = saved(Image.fromarray(samples(3)).convert(mode), "TIFF", compression=coding)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 3)
    monkeypatch.setattr("deconv_cli.images.reading._STRIP", WIDTH)
    assert read_frame(data).pixels.shape[:2] == (HEIGHT, WIDTH)
    assert Image.MAX_IMAGE_PIXELS == HEIGHT * WIDTH // 3
    with pytest.raises(DeconvError, match="larger than"):
        read_frame(data, max_pixels=HEIGHT * WIDTH - 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("mode", "coding"), [("1", "group4"), ("P", "tiff_lzw"), ("RGB", "tiff_adobe_deflate")])
def test_pages_that_pillow_reads_are_turned_once(mode, coding, orientation):
    image = Image.fromarray(samples(3)).convert(mode)
    pages = [image, Image.fromarray(samples(3)[:9]).convert(mode)]
    data = saved(image, "TIFF", compression=coding, tiffinfo={274: orientation}, save_all=True, append_images=pages[1:])
    _, frames = frames_of(data)
    for page, frame in zip(pages, frames, strict=True):
        page.getexif()[ExifTags.Base.Orientation] = orientation
        upright = ImageOps.exif_transpose(page)
        np.testing.assert_array_equal(frame.pixels, np.asarray(upright.convert("L" if mode == "1" else "RGB")))


def test_a_frame_of_a_gif_that_is_larger_than_its_header_says_is_checked_too():
    data = struct.pack("<6s2H3B", b"GIF89a", 1, 1, 0x80, 0, 0) + bytes(6)
    for width in (1, 200):
        data += struct.pack("<B4HB", 0x2C, 0, 0, width, width, 0) + b"\x02\x02\x44\x01\0"
    with open_picture(data + b";", name="banner", max_pixels=10_000) as picture:
        next(picture.frames)
        with pytest.raises(DeconvError, match=r"banner: larger than 0\.01 megapixels"):
            next(picture.frames)


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((300, 200), "inch", (300, 200)),
        ((100, 200), "centimeter", (254, 508)),
        ((300, 200), "none", None),
        ((70000, 70000), "inch", None),
        ((0.5, 0.5), "inch", None),
    ],
)
def test_a_resolution_that_cannot_be_kept_is_said_to_be_left_out(resolution, unit, expected):
    frame = read_frame(tiff(samples(3), photometric="rgb", resolution=resolution, resolutionunit=unit))
    assert frame.dpi == (expected and pytest.approx(expected))
    assert frame.warnings == (() if expected else ("the resolution was left out",))


@pytest.mark.parametrize("resolution", [None, (1, 1), (0, 0)])
def test_a_tiff_without_a_resolution_loses_none(resolution):
    frame = read_frame(tiff(samples(3), photometric="rgb", resolution=resolution, resolutionunit="none"))
    assert (frame.dpi, frame.warnings) == (None, ())


def test_pages_are_read_as_they_are_asked_for():
    data = bytearray(document(samples(3), samples(3)))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        start = file.pages[1].dataoffsets[0]
    data[start : start + 40] = bytes(40)
    with open_picture(bytes(data), name="album") as picture:
        np.testing.assert_array_equal(next(picture.frames).pixels, samples(3))
        with pytest.raises(DeconvError, match="album: the picture is damaged"):
            next(picture.frames)


def movie(kind, *, transparent=False, **options):
    rng = np.random.default_rng(5)
    frames = []
    for _ in range(3):
        colours = rng.integers(0, 255, (4, 3), np.uint8)
        picture = colours[rng.integers(0, 4, (HEIGHT, WIDTH))]
        if transparent:
            cover = np.where(rng.random((HEIGHT, WIDTH)) < 0.3, 0, 255).astype(np.uint8)
            picture = np.dstack([np.where(cover[..., None] == 0, 0, picture), cover])
        frames.append(Image.fromarray(picture))
    lossless = {"WEBP": {"lossless": True, "exact": True}, "PNG": {"blend": 0}, "GIF": {"disposal": 2}}.get(kind, {})
    data = saved(
        frames[0], kind, save_all=True, append_images=frames[1:], duration=[70, 200, 50], loop=3, **lossless, **options
    )
    return data, [np.asarray(frame) for frame in frames]


def shown(data):
    """Return what is seen of every frame: RGBA with nothing under full transparency, and its time."""
    with Image.open(io.BytesIO(data)) as image:
        for frame in ImageSequence.Iterator(image):
            rgba = np.asarray(frame.convert("RGBA")).copy()
            rgba[rgba[..., 3] == 0] = 0
            yield rgba, frame.info["duration"]


@pytest.mark.parametrize("transparent", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animations_keep_every_frame_and_its_time(kind, transparent):
    data, _ = movie(kind, transparent=transparent)
    picture, frames = frames_of(data)
    assert (picture.count, picture.animated, picture.loop) == (3, True, 3)
    assert [frame.duration for frame in frames] == [70, 200, 50]
    file = io.BytesIO()
    warnings = write_frames(file, frames, picture.format, count=3, loop=picture.loop)
    assert warnings == ()
    for (before, time), (after, same_time) in zip(shown(data), shown(file.getvalue()), strict=True):
        np.testing.assert_array_equal(after, before)
        assert same_time == time
    with Image.open(file) as image:
        assert image.info["loop"] == 3


def test_animated_avif_keeps_frames_and_times():
    data, _ = movie("AVIF", quality=100)
    picture, frames = frames_of(data)
    assert (picture.count, picture.format) == (3, "avif")
    file = io.BytesIO()
    write_frames(file, frames, "avif", count=3, loop=picture.loop)
    _, again = frames_of(file.getvalue())
    assert [frame.duration for frame in again] == [70, 200, 50]


def test_an_apng_keeps_its_still_picture_outside_the_animation():
    data, pictures = movie("PNG", default_image=True)
    del pictures
    picture, frames = frames_of(data)
    assert picture.still_first
    assert frames[0].duration is None
    file = io.BytesIO()
    write_frames(file, frames, "png", count=picture.count, loop=0, still_first=True)
    again, _ = frames_of(file.getvalue())
    assert again.still_first
    assert again.count == picture.count


def test_what_holds_one_picture_takes_no_more():
    from deconv_cli.images import check_pages

    with pytest.raises(DeconvError, match=r"album: holds 3 pages, which JPEG cannot; choose tiff"):
        check_pages("album", "jpg", 3, animated=False)
    with pytest.raises(DeconvError, match="frames, which BMP"):
        check_pages("film", "bmp", 3, animated=True)
    with pytest.raises(DeconvError, match="pages, which PNG"):
        check_pages("album", "png", 3, animated=False)
    check_pages("film", "webp", 3, animated=True)
    check_pages("film", "tiff", 3, animated=True)


def test_palettes_become_full_colour_and_palettes_again_only_when_asked():
    colours = np.random.default_rng(2).integers(0, 255, (40, 3), np.uint8)
    pixels = colours[np.random.default_rng(3).integers(0, 40, (HEIGHT, WIDTH))]
    frame = read_frame(saved(Image.fromarray(pixels).quantize(64), "PNG"))
    assert frame.palette
    for palette, mode in ((False, "RGB"), (True, "P")):
        with Image.open(io.BytesIO(encode_frame(frame, "png", palette=palette)[0])) as image:
            assert image.mode == mode
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels)


def deep(bits, channels=3):
    """A smooth picture of so many bits, stretched to 16."""
    y, x = np.mgrid[:64, :64]
    largest = 2**bits - 1
    ramp = np.stack([(x * 64 + y) * (n + 1) for n in range(channels)], -1) % (2 * largest)
    native = np.where(ramp > largest, 2 * largest - ramp, ramp).astype(np.uint16)
    return native, widen(native, bits)


@pytest.mark.parametrize("transparent", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("kind", ["avif", "heif"])
def test_bits_between_8_and_16_stay_with_all_metadata(kind, bits, transparent):
    _, layers = deep(bits, 4)
    alpha = layers[..., 3] if transparent else None
    frame = Frame(layers[..., :3], alpha, bits=bits, exif=exif(), xmp=XMP, icc=ADOBE_RGB, lossless=False)
    data, warnings = encode_frame(frame, kind, quality=100)
    assert warnings == ()
    assert boxes.depth_of(data) == bits
    result = read_frame(data)
    assert (result.bits, result.icc, result.xmp, result.warnings) == (bits, ADOBE_RGB, XMP, ())
    tags = Image.Exif()
    tags.load(result.exif)
    assert tags[ExifTags.Base.Make] == "Maker"
    # x265 is off by more than a step of 10 bits at its best; in 8 bits there would be 256 levels.
    assert np.abs(result.pixels.astype(int) - frame.pixels).mean() < 128
    assert len(np.unique(result.pixels)) > 700
    if transparent:
        assert np.abs(result.alpha.astype(int) - alpha).mean() < 128
    assert encode_frame(frame, "png")[1] == (f"{bits}-bit samples are written with 16",)


def test_a_lossless_picture_of_12_bits_becomes_a_lossless_avif():
    native, wide = deep(12)
    data = encode_frame(Frame(wide, bits=12), "avif")[0]
    np.testing.assert_array_equal(imagecodecs.avif_decode(data), native)


def test_16_bits_are_rounded_to_the_12_that_avif_and_heif_hold():
    frame = Frame(samples(3, dtype=np.uint16), lossless=False)
    for kind, label in (("avif", "AVIF"), ("heif", "HEIF")):
        data, warnings = encode_frame(frame, kind, quality=100)
        assert warnings == (f"{label} holds 12 bits a sample: 16 were rounded to 12",)
        assert read_frame(data).bits == 12


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_jpeg_2000_keeps_its_bits(bits):
    native, wide = deep(bits)
    frame = read_frame(imagecodecs.jpeg2k_encode(native, level=0, reversible=True, bitspersample=bits))
    assert frame.bits == bits
    np.testing.assert_array_equal(frame.pixels, wide)
    data, warnings = encode_frame(frame, "jp2")
    assert warnings == ()
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(data), native)
    assert read_frame(data).bits == bits


def jp2(array, *boxes_after, header=b"", old=b"", new=b""):
    """Return a JP2 file with boxes at the end and inside its header, where one string of bytes becomes another."""
    data = bytes(imagecodecs.jpeg2k_encode(array, level=0, reversible=True, codecformat="jp2"))
    parts = []
    for name, start, stop in boxes.boxes(data):
        if name in {b"jP  ", b"ftyp", b"jp2h", b"jp2c"}:
            content = data[start:stop]
            parts.append(boxes.make_box(name, content.replace(old, new) + header if name == b"jp2h" else content))
    return b"".join((*parts, *boxes_after))


@pytest.mark.parametrize("colour", [b"\x01\0\0" + (12).to_bytes(4), b"\x02\0\0" + bytes(16) + b"CMYK" + bytes(108)])
def test_jpeg_2000_of_cmyk_is_refused(colour):
    plain = boxes.make_box(b"colr", b"\x01\0\0" + (16).to_bytes(4))
    data = jp2(samples(4), old=plain, new=boxes.make_box(b"colr", colour))
    assert read_frame(jp2(samples(4))).alpha is not None
    with pytest.raises(DeconvError, match="scan: JPEG 2000 with CMYK colours cannot be read"):
        read_frame(data, name="scan")


def resolution_box(*numbers):
    return boxes.make_box(b"res ", boxes.make_box(b"resc", struct.pack(">4H2b", *numbers)))


def test_jpeg_2000_keeps_its_resolution():
    # In dots per metre, the vertical one first: 600 and 300 an inch.
    frame = read_frame(jp2(samples(3), header=resolution_box(23622, 100, 11811, 1, 2, 0)))
    assert frame.dpi == pytest.approx((300, 600), rel=1e-4)
    assert read_frame(encode_frame(frame, "tiff")[0]).dpi == pytest.approx((300, 600), rel=1e-4)
    assert "resolution" in str(encode_frame(frame, "jp2")[1])


@pytest.mark.parametrize("numbers", [(1, 0, 1, 1, 0, 0), (1, 1, 1, 1, 120, 0), (1, 1, 1, 1, -120, 0)])
def test_a_resolution_in_jpeg_2000_that_makes_no_sense_is_left_out_with_a_warning(numbers):
    frame = read_frame(jp2(samples(3), header=resolution_box(*numbers)))
    assert (frame.dpi, frame.warnings) == (None, ("the resolution was left out",))


def test_of_the_xml_in_jpeg_2000_only_xmp_is_taken_for_xmp():
    mets, packet = boxes.make_box(b"xml ", b"<?xml version='1.0'?><mets/>"), boxes.make_box(b"xml ", XMP)
    frame = read_frame(jp2(samples(3), mets, packet))
    assert (frame.xmp, frame.warnings) == (XMP, ("XML that is not XMP was left out",))
    assert read_frame(jp2(samples(3), packet)).warnings == ()


@pytest.mark.parametrize("bits", [1, 4])
def test_fewer_than_8_bits_are_stretched(bits):
    native = samples() >> (8 - bits)
    largest = 2**bits - 1
    for data in (
        imagecodecs.jpeg2k_encode(native, level=0, reversible=True, bitspersample=bits),
        imagecodecs.jpegxl_encode(native, lossless=True, bitspersample=bits),
    ):
        np.testing.assert_array_equal(read_frame(data).pixels, native * (255 // largest))


def test_jpeg_xl_of_10_bits_is_stretched_and_written_with_16():
    native, wide = deep(10)
    frame = read_frame(imagecodecs.jpegxl_encode(native, lossless=True, bitspersample=10))
    np.testing.assert_array_equal(frame.pixels, wide)
    data, warnings = encode_frame(frame, "jxl", quality=100)
    assert warnings == ("10-bit samples are written with 16",)
    assert read_frame(data).pixels.dtype == np.uint16


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "rgb"])
@pytest.mark.parametrize("transparent", [False, True], ids=["opaque", "alpha"])
def test_jpeg_xl_keeps_metadata_and_the_profile_of_integer_colours(channels, dtype, transparent):
    icc = ADOBE_RGB if channels else bytes(imagecodecs.cms_profile("gray", gamma=1.8))
    alpha = np.abs(samples(dtype=dtype)) if transparent else None
    frame = Frame(samples(*channels, dtype=dtype), alpha, icc=icc, exif=exif(), xmp=XMP)
    data, warnings = encode_frame(frame, "jxl")
    kept = bool(channels) and dtype != np.float32
    result = read_frame(data)
    if kept:
        assert warnings == ()
        assert_same(result, frame)
    elif dtype == np.float32:
        assert warnings == ("the ICC profile was dropped without converting the colours",)
        assert_same(result, frame)
    else:
        assert warnings == ("JPEG XL cannot hold the ICC profile: the colours were converted to sRGB by it",)
    assert (result.icc, result.xmp) == (icc if kept else None, XMP)
    tags = Image.Exif()
    tags.load(result.exif)
    assert tags[ExifTags.Base.Make] == "Maker"


def test_a_jpeg_xl_that_says_nothing_about_its_colours_gets_no_profile():
    for pixels in (samples(), samples(3)):
        assert read_frame(imagecodecs.jpegxl_encode(pixels, lossless=True)).icc is None


def test_of_an_animated_jpeg_xl_the_first_frame_is_read_with_a_warning():
    film = np.stack([samples(3), 255 - samples(3)])
    frame = read_frame(imagecodecs.jpegxl_encode(film, lossless=True))
    np.testing.assert_array_equal(frame.pixels, film[0])
    assert frame.warnings == ("only the first frame of the animation was read",)


def test_what_a_palette_cannot_hold_is_said():
    frame = Frame(samples(3))
    assert encode_frame(frame, "gif")[1] == ("GIF holds 256 colours here: they were reduced",)
    assert encode_frame(replace(frame, palette=True), "png", palette=True)[1] == (
        "PNG holds 256 colours here: they were reduced",
    )
    gray = Frame(samples(), samples())
    assert encode_frame(gray, "gif")[1] == ("GIF holds no half transparency here: it was made full or none",)


def test_colours_that_are_hidden_take_no_place_in_a_palette():
    gray = np.arange(512, dtype=np.uint16).reshape(16, 32)
    pixels = np.dstack([gray % 255, gray % 255, gray // 256]).astype(np.uint8)
    alpha = np.where(gray < 255, 255, 0).astype(np.uint8)
    data, warnings = encode_frame(Frame(pixels, alpha), "gif")
    assert warnings == ()
    again = read_frame(data)
    np.testing.assert_array_equal(again.alpha, alpha)
    np.testing.assert_array_equal(again.pixels[alpha > 0] if again.pixels.ndim == 3 else None, pixels[alpha > 0])


@pytest.mark.parametrize("depth", [10, 12])
def test_deep_avif_is_not_cut_to_8_bits(depth):
    y, x = np.mgrid[:64, :64]
    ramp = (x * 13 + y * 3).astype(np.uint16) << (depth - 10)
    data = imagecodecs.avif_encode(np.dstack([ramp] * 3), bitspersample=depth, level=100)
    frame = read_frame(data)
    assert frame.pixels.dtype == np.uint16
    assert np.abs(frame.pixels.astype(int) - np.dstack([ramp] * 3) * (65535 / (2**depth - 1))).max() < 200
    assert len(np.unique(frame.pixels)) > 256


def test_float_goes_to_integers_with_one_warning():
    frame = Frame(samples(3, dtype=np.float32))
    data, warnings = encode_frame(frame, "png")
    assert len(warnings) == 1
    assert "16 bits" in warnings[0]
    np.testing.assert_allclose(read_frame(data).pixels / 65535, np.clip(frame.pixels, 0, 1), atol=1e-5)


def test_values_that_are_not_finite_are_refused():
    broken = samples(dtype=np.float32)
    broken[3, 4] = np.nan
    with pytest.raises(DeconvError, match=r"map\.tif: holds values that are not finite"):
        read_frame(tiff(broken), name="map.tif")


def test_formats_of_extras_say_which_extra_reads_them(monkeypatch):
    import builtins

    original = builtins.__import__

    def without_extras(name, *arguments, **options):
        if name in {"rawpy", "pillow_heif", "OpenImageIO", "pyvips"}:
            raise ImportError(name)
        return original(name, *arguments, **options)

    jxl = encode_frame(Frame(samples(3)), "jxl")[0]
    monkeypatch.setattr(builtins, "__import__", without_extras)
    with pytest.raises(DeconvError, match=r"deconv-cli\[raw\]"):
        read_frame(b"II*\0" + bytes(100), name="photo.NEF")
    with pytest.raises(DeconvError, match=r"deconv-cli\[heif\]"):
        read_frame(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), name="photo.heic")
    with pytest.raises(DeconvError, match=r"photo\.jxl: .*'deconv-cli\[jxl\]'"):
        read_frame(jxl, name="photo.jxl")
    with pytest.raises(DeconvError, match=r"deconv-cli\[jxl\]"):
        encode_frame(Frame(samples(3), icc=ADOBE_RGB), "jxl")
    with pytest.raises(DeconvError, match=r"deconv-cli\[avif\]"):
        encode_frame(Frame(samples(3, dtype=np.uint16)), "avif")


def dng(linear, orientation=1):
    """A raw file of 12 bits, with sRGB's primaries and a red and a blue that are weaker than green."""
    height, width = linear.shape[:2]
    mosaic = np.empty((height, width))
    for row, column, channel, gain in ((0, 0, 0, 0.5), (0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 2, 0.6)):
        mosaic[row::2, column::2] = linear[row::2, column::2, channel] * gain
    black, white = 64, 4095

    def rationals(*values):
        return [part for value in values for part in (round(value * 10000), 10000)]

    from_xyz = (3.2405, -1.5371, -0.4985, -0.9693, 1.8760, 0.0416, 0.0556, -0.2040, 1.0572)
    tags = [
        (254, 4, 1, 0, True),
        (271, 2, 0, "Maker", True),
        (274, 3, 1, orientation, True),
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, bytes([0, 1, 1, 2]), True),
        (50706, 1, 4, bytes([1, 4, 0, 0]), True),
        (50708, 2, 0, "Maker Camera", True),
        (50714, 3, 1, black, True),
        (50717, 3, 1, white, True),
        (50721, 10, 9, rationals(*from_xyz), True),
        (50728, 5, 3, rationals(0.5, 1, 0.6), True),
        (50778, 3, 1, 21, True),
    ]
    samples = np.rint(black + mosaic * (white - black)).astype(np.uint16)
    return tiff(samples, photometric=32803, metadata=None, software=False, extratags=tags)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_raw_file_is_developed_to_16_bits_of_srgb(orientation):
    from skimage import data

    shown = data.astronaut()[:128, :192] / 255
    shown[:8, :8] = 1  # LibRaw takes the brightest sample for white if it is near.
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    with open_picture(dng(linear, orientation), name="photo.DNG") as picture:
        (frame,) = picture.frames
    expected = np.rot90(shown, -1) if orientation == 6 else shown
    assert (picture.height, picture.width) == expected.shape[:2] == frame.pixels.shape[:2]
    assert frame.pixels.dtype == np.uint16
    assert len(np.unique(frame.pixels)) > 256
    # Demosaicking blurs edges; colours and brightness are the picture's.
    assert np.abs(frame.pixels.mean((0, 1)) / 65535 - expected.mean((0, 1))).max() < 0.01
    assert np.median(np.abs(frame.pixels / 65535 - expected)) < 0.02
    tags = Image.Exif()
    tags.load(frame.exif)
    assert dict(tags) == {ExifTags.Base.Make: "Maker"}
    written, warnings = encode_frame(frame, "tiff")
    assert warnings == ()
    with tifffile.TiffFile(io.BytesIO(written)) as file:
        assert not file.pages[0].is_dng


def test_heif_round_trip():
    y, x = np.mgrid[:64, :64]
    frame = Frame(np.stack([4 * x, 4 * y, 2 * (x + y)], -1).astype(np.uint8), exif=exif(), xmp=XMP, icc=ADOBE_RGB)
    data, warnings = encode_frame(frame, "heif")
    result = read_frame(data)
    assert warnings == ()
    assert (result.format, result.icc, result.xmp) == ("heif", ADOBE_RGB, XMP)
    assert np.abs(result.pixels.astype(int) - frame.pixels).mean() < 3


def test_the_film_in_a_heif_is_warned_of():
    """Telephones put it into a box of its own behind the picture."""
    data = encode_frame(Frame(samples(3)), "heif")[0]
    assert read_frame(data).warnings == ()
    film = boxes.make_box(b"mpvd", boxes.make_box(b"ftyp", b"mp42"))
    assert read_frame(data + film).warnings == ("the film of a motion photo was left out",)


def test_bigtiff_pages_keep_exif(monkeypatch):
    from deconv_cli.images import tiff as tiff_module

    monkeypatch.setattr(tiff_module, "_BIG", 10)
    data = encode_frame(Frame(samples(3, dtype=np.uint16), exif=exif()), "tiff")[0]
    assert data[2] == 43
    result = read_frame(data)
    np.testing.assert_array_equal(result.pixels, samples(3, dtype=np.uint16))


def test_a_file_read_from_disk_equals_its_bytes(tmp_path):
    path = Path(tmp_path) / "a.tif"
    path.write_bytes(document(samples(3)))
    assert_same(read_frame(path), read_frame(path.read_bytes()))


@pytest.mark.parametrize("size", [(8, 8), (64, 48), (37, 24), (300, 400), (160, 90)])
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(size):
    width, height = size
    data = encode_frame(Frame(np.zeros((height, width, 3), np.uint8), exif=exif()), "jxl")[0]
    with open_picture(data) as picture:
        assert (picture.width, picture.height) == size
    with pytest.raises(DeconvError, match="raise --max-pixels"):
        read_frame(data, max_pixels=width * height - 1)


def test_a_raw_file_that_passes_for_a_tiff_is_not_taken_for_its_thumbnail():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.zeros((32, 48, 3), np.uint8), photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        writer.write(np.zeros((64, 96), np.uint16), photometric="minisblack", metadata=None)
    with pytest.raises(DeconvError, match=r"standard input: .*raw files; give it the suffix of one"):
        read_frame(file.getvalue(), name="standard input")
