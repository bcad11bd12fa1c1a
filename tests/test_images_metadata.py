"""Orientation, EXIF, ICC, XMP and resolution: what a file says about its picture survives, and stays true."""

from __future__ import annotations

import dataclasses
import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps

from deconv_cli.images import Frame, colour, encode_frame, open_picture, read_frame, read_size, write_frames, writing
from deconv_cli.images.exif import make_upright, with_size
from deconv_cli.images.png import with_chunks

HEIGHT, WIDTH = 16, 24
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_ICC = ICC[:16] + b"GRAY" + ICC[20:]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="%d"/>\xc3\xa9</x:xmpmeta>'
ORIENTATIONS = range(1, 9)
HOLDING_EXIF = ["png", "jpg", "webp", "tiff"]
PILLOW = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tiff": "TIFF"}


def picture():
    """Make a picture without symmetry, of blocks that even JPEG keeps apart."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x // 8 * 100, y // 8 * 200, np.where((x < 8) & (y < 8), 250, 0)], axis=-1).astype(np.uint8)


def exif_block(orientation=1, **more):
    tags = Image.Exif()
    tags[ExifTags.Base.ImageDescription] = "a scan"
    tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "1931:05:01 12:00:00"}
    tags[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    for name, value in more.items():
        tags[ExifTags.Base[name]] = value
    return tags.tobytes()


def tags_of(data):
    with Image.open(io.BytesIO(data)) as image:
        tags = image.getexif()
        return dict(tags), dict(tags.get_ifd(ExifTags.IFD.Exif)), dict(tags.get_ifd(ExifTags.IFD.GPSInfo))


def saved(kind, **options):
    file = io.BytesIO()
    lossless = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(picture()).save(file, PILLOW[kind], **lossless, **options)
    return file.getvalue()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", HOLDING_EXIF)
def test_orientation_is_applied_once(kind, orientation, tmp_path):
    data = saved(kind, exif=exif_block(orientation))
    path = tmp_path / "picture"
    path.write_bytes(data)
    frame = read_frame(path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(frame.pixels, np.array(ImageOps.exif_transpose(image)))
    assert read_size(path) == (frame.pixels.shape[1], frame.pixels.shape[0])

    again, warnings = encode_frame(frame, kind)
    assert warnings == ()
    assert tags_of(again)[0].get(ExifTags.Base.Orientation, 1) == 1
    assert read_frame(again).pixels.shape == frame.pixels.shape


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bit_gray_is_turned_too(kind, orientation):
    pixels = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 100
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, PILLOW[kind], exif=exif_block(orientation))
    small = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH))
    small.getexif()[ExifTags.Base.Orientation] = orientation
    np.testing.assert_array_equal(
        read_frame(file.getvalue()).pixels, np.array(ImageOps.exif_transpose(small)).astype(np.uint16) * 100
    )


@pytest.mark.parametrize("target", HOLDING_EXIF)
@pytest.mark.parametrize("source", HOLDING_EXIF)
def test_everything_survives_between_formats(source, target):
    # JPEG and TIFF take XMP as an option, PNG as a text chunk; all are written by the encoder under test.
    data, warnings = encode_frame(Frame(picture(), icc=ICC, exif=exif_block(), xmp=XMP % 1, dpi=(300.0, 300.0)), source)
    assert warnings == (("WebP cannot hold: resolution",) if source == "webp" else ())
    frame = read_frame(data)
    again, _ = encode_frame(frame, target)
    result = read_frame(again)
    assert result.icc == ICC
    assert result.xmp == XMP % 1
    if "webp" not in {source, target}:
        assert result.dpi == pytest.approx((300, 300), abs=0.01)
    tags, exif, gps = tags_of(again)
    assert tags[ExifTags.Base.ImageDescription] == "a scan"
    assert exif[ExifTags.Base.DateTimeOriginal] == "1931:05:01 12:00:00"
    assert gps[ExifTags.GPS.GPSLatitudeRef] == "N"


@pytest.mark.parametrize("kind", HOLDING_EXIF)
def test_metadata_is_read_from_what_others_wrote(kind):
    xmp = {} if kind in {"png", "tiff"} else {"xmp": XMP % 1}
    frame = read_frame(saved(kind, exif=exif_block(), icc_profile=ICC, **xmp))
    assert frame.icc == ICC
    assert frame.exif.startswith(b"Exif\0\0")
    assert frame.xmp == xmp.get("xmp")


def test_bmp_says_once_what_it_cannot_hold():
    frame = Frame(picture(), icc=ICC, exif=exif_block(), xmp=XMP % 1, dpi=(200.0, 100.0))
    data, warnings = encode_frame(frame, "bmp")
    assert warnings == (
        "BMP cannot hold the ICC profile: the colours were converted to sRGB by it",
        "BMP cannot hold: EXIF, XMP",
    )
    assert read_frame(data).dpi == pytest.approx((200, 100), abs=0.1)
    assert read_frame(encode_frame(Frame(picture()), "bmp")[0]).dpi is None


def test_a_profile_that_does_not_work_is_dropped_with_a_warning_where_it_cannot_stay():
    gray = Frame(picture()[..., 0], icc=GRAY_ICC)
    assert encode_frame(gray, "webp")[1] == ("the ICC profile was dropped; the colours could not be converted by it",)
    assert encode_frame(gray, "tiff")[1] == ()


def test_strip_drops_everything():
    frame = Frame(picture(), icc=ICC, exif=exif_block(), xmp=XMP % 1, dpi=(300.0, 300.0))
    for kind in HOLDING_EXIF:
        data, warnings = encode_frame(frame, kind, metadata="strip")
        result = read_frame(data)
        assert warnings == ()
        assert (result.icc, result.exif, result.xmp, result.dpi) == (None, None, None, None)


def test_orientation_in_xmp_is_reset_with_that_in_exif():
    frame = read_frame(saved("jpg", exif=exif_block(6), xmp=XMP % 6))
    assert frame.xmp == XMP % 1
    assert frame.pixels.shape == (WIDTH, HEIGHT, 3)
    only_xmp = read_frame(saved("jpg", xmp=XMP % 8))
    assert only_xmp.xmp == XMP % 1
    assert only_xmp.pixels.shape == (WIDTH, HEIGHT, 3)


def with_segments(*segments):
    """Put segments, of marker and contents, at the start of a JPEG."""
    jpeg = saved("jpg")
    added = (bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content for marker, content in segments)
    return jpeg[:2] + b"".join(added) + jpeg[2:]


@pytest.mark.parametrize(
    "pointer", [b' xmpNote:HasExtendedXMP="%s"', b"<xmpNote:HasExtendedXMP>%s</xmpNote:HasExtendedXMP>"]
)
def test_a_second_part_of_the_xmp_is_left_out_with_what_points_to_it(pointer):
    packet = b"<x:xmpmeta><rdf:Description%s>%s</rdf:Description></x:xmpmeta>"
    places = (b"%s", b"") if pointer.startswith(b" ") else (b"", b"%s")
    main = packet % tuple(place and pointer % (b"A" * 32) for place in places)
    extension = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">II", 4, 0) + b"<a/>"
    frame = read_frame(with_segments((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + main), (0xE1, extension)))
    assert frame.xmp == packet % (b"", b"")
    assert frame.warnings == ("the second part of the XMP was left out",)


def resource(code, content, name=b"\0\0"):
    return b"8BIM" + struct.pack(">H", code) + name + struct.pack(">I", len(content)) + content


def test_clipping_paths_are_left_out_with_a_warning_and_iptc_is_kept():
    settings = resource(1011, bytes(8)) + resource(0x0404, b"\x1c\x02\x78\x00\x04word")
    paths = resource(2000, bytes(26 * 10), b"\x06Path 1\0")
    for resources, expected in ((settings, ()), (paths + settings, ("clipping paths were left out",))):
        tagged = io.BytesIO()
        tifffile.imwrite(tagged, picture(), photometric="rgb", extratags=[(34377, 1, len(resources), resources, True)])
        for file in (with_segments((0xED, b"Photoshop 3.0\0" + resources)), tagged.getvalue()):
            frame = read_frame(file)
            assert frame.warnings == expected
            assert frame.iptc == b"\x1c\x02\x78\x00\x04word"


def test_a_transfer_function_is_left_out_with_a_warning():
    file = io.BytesIO()
    tifffile.imwrite(file, picture(), photometric="rgb", extratags=[(301, 3, 256, list(range(256)), True)])
    assert read_frame(file.getvalue()).warnings == ("the transfer function was left out",)


def test_all_comments_of_a_jpeg_are_kept():
    frame = read_frame(with_segments((0xFE, b"first"), (0xFE, b"second")))
    assert read_frame(encode_frame(frame, "jpg")[0]).comment == b"first\nsecond"


@pytest.mark.parametrize(
    ("x", "y", "unit", "left_out"),
    [(10**7, 10**7, 1, True), (2, 1, 0, True), (1, 1, 0, False), (0, 0, 1, False), (3937, 3937, 1, False)],
)
def test_a_resolution_of_a_png_that_cannot_be_kept_is_said_to_be_left_out(x, y, unit, left_out):
    file = b"".join(with_chunks(saved("png"), [(b"pHYs", struct.pack(">IIB", x, y, unit))]))
    frame = read_frame(file)
    assert frame.warnings == (("the resolution was left out",) if left_out else ())
    assert (frame.dpi is not None) == (x == 3937)


def test_pixels_of_a_jpeg_that_are_not_square_are_warned_of():
    jpeg = bytearray(saved("jpg"))
    jpeg[13:18] = struct.pack(">BHH", 0, 2, 1)
    assert read_frame(bytes(jpeg)).warnings == ("the resolution was left out",)


@pytest.mark.parametrize("exif", [exif_block(), exif_block()[:40]], ids=["whole", "cut"])
def test_a_jpeg_that_tells_no_resolution_gets_none(exif):
    """Pillow makes 72 dots per inch of EXIF without any."""
    source = saved("jpg", exif=exif)
    assert read_frame(source).dpi is None
    told = exif_block(XResolution=300, ResolutionUnit=2)
    assert read_frame(saved("jpg", exif=told)).dpi == (300, 300)
    wide = bytearray(source)
    wide[13:18] = struct.pack(">BHH", 0, 2, 1)
    assert "the resolution was left out" in read_frame(bytes(wide)).warnings


def test_resolution_turns_with_the_picture():
    assert read_frame(saved("jpg", exif=exif_block(6), dpi=(300, 150))).dpi == pytest.approx((150, 300))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", HOLDING_EXIF)
def test_exif_tells_the_size_that_is_written(kind, order):
    tags = Image.Exif()
    tags.endian = order
    tags[ExifTags.Base.Orientation] = 6
    sides = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
    tags[ExifTags.IFD.Exif] = dict(zip(sides, (WIDTH, HEIGHT), strict=True))
    turned = read_frame(saved(kind, exif=tags.tobytes()))
    for pixels in (turned.pixels, turned.pixels[:5, :7], np.zeros((3, 66000, 3), np.uint8)):
        if kind in ("png", "tiff") or pixels.shape[1] < 16000:
            again = tags_of(encode_frame(dataclasses.replace(turned, pixels=pixels), kind)[0])[1]
            assert tuple(again[side] for side in sides) == pixels.shape[1::-1]


@pytest.mark.parametrize("tag", [b' %s="%d"', b"<%s>%d</%s>"])
def test_xmp_tells_the_size_that_is_written(tag):
    sides = {b"tiff:ImageWidth": 0, b"exif:PixelXDimension": 0, b"tiff:ImageLength": 1, b"exif:PixelYDimension": 1}

    def packet(size):
        tags = b"".join((tag % ((name, size[axis], name)[: tag.count(b"%")])) for name, axis in sides.items())
        place = (tags, b"") if tag.startswith(b" ") else (b"", tags)
        return b"<x:xmpmeta><rdf:Description%s tiff:XResolution='720/10'>%s</rdf:Description></x:xmpmeta>" % place

    for kind in HOLDING_EXIF:
        enlarged = Frame(np.zeros((70, 130, 3), np.uint8), xmp=packet((65, 35)))
        assert read_frame(encode_frame(enlarged, kind)[0]).xmp == packet((130, 70))


def test_exif_that_tells_no_size_or_the_right_one_stays_as_it_is():
    tags = Image.Exif()
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.ExifImageWidth: WIDTH, ExifTags.Base.ExifImageHeight: HEIGHT}
    for block in (exif_block(), tags.tobytes(), b"Exif\0\0MM\0*\0\0"):
        assert with_size(block, WIDTH, HEIGHT) == block


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_malformed_exif_costs_only_itself(kind):
    frame = read_frame(saved(kind, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
    assert frame.exif is None
    assert frame.pixels.shape == (HEIGHT, WIDTH, 3)
    assert any("EXIF" in warning for warning in frame.warnings)


def test_exif_about_storage_does_not_reach_a_tiff():
    exif = exif_block(ImageWidth=5, ImageLength=5, BitsPerSample=16, Compression=6, StripOffsets=8)
    data, _ = encode_frame(Frame(picture(), exif=exif), "tiff")
    np.testing.assert_array_equal(read_frame(data).pixels, picture())


def test_storage_tags_of_a_tiff_do_not_reach_a_jpeg():
    tags, _, _ = tags_of(encode_frame(read_frame(saved("tiff", exif=exif_block())), "jpg")[0])
    assert ExifTags.Base.StripOffsets not in tags
    assert tags[ExifTags.Base.ImageDescription] == "a scan"


def test_exif_too_long_for_jpeg_is_reported():
    frame = Frame(picture(), exif=exif_block(UserComment=b"x" * 70_000), xmp=b" " * 70_000)
    data, warnings = encode_frame(frame, "jpg")
    assert warnings == ("JPEG cannot hold: EXIF, XMP",)
    assert read_frame(data).exif is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_thumbnail_goes_and_all_else_stays_where_it_was(order):
    """Lay a block out by hand: directory with orientation and a maker's note, then directory and thumbnail."""
    note, thumbnail = b"offsets in here count from the start", b"\xff\xd8 old pixels \xff\xd9"

    def entry(tag, kind, count, value):
        packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        return struct.pack(order + "HHI", tag, kind, count) + packed

    start = 8 + 2 + 2 * 12 + 4
    second = start + len(note)
    end = second + 2 + 2 * 12 + 4
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    block += struct.pack(order + "H", 2) + entry(0x0112, 3, 1, 6) + entry(0x927C, 7, len(note), start)
    block += struct.pack(order + "I", second) + note
    block += struct.pack(order + "H", 2) + entry(0x0201, 4, 1, end) + entry(0x0202, 4, 1, len(thumbnail))
    block += struct.pack(order + "I", 0) + thumbnail

    cleaned, orientation = make_upright(b"Exif\0\0" + block)
    assert orientation == 6
    assert thumbnail not in cleaned
    assert cleaned[6 + start : 6 + second] == note
    tags = Image.Exif()
    tags.load(cleaned)
    assert tags[ExifTags.Base.Orientation] == 1
    assert tags.get_ifd(ExifTags.IFD.IFD1) == {}
    assert make_upright(cleaned) == (cleaned, 1)


def test_a_block_that_ends_without_a_link_is_turned_all_the_same():
    block = b"II*\0" + struct.pack("<IHHHIHH", 8, 1, 0x0112, 3, 1, 6, 0)
    cleaned, orientation = make_upright(b"Exif\0\0" + block)
    assert orientation == 6
    assert make_upright(cleaned) == (cleaned, 1)


def test_an_animated_png_keeps_what_a_still_one_does():
    described = Frame(
        np.zeros((8, 8, 3), np.uint8),
        icc=ICC,
        exif=exif_block(),
        xmp=XMP % 1,
        dpi=(300, 300),
        duration=40,
    )
    file = io.BytesIO()
    frames = [described, dataclasses.replace(described, pixels=described.pixels + 9)]
    assert write_frames(file, frames, "png", count=2, loop=0) == ()
    with open_picture(file.getvalue(), name="film") as film:
        first = next(film.frames)
    for field in ("icc", "exif", "xmp"):
        assert getattr(first, field) == getattr(described, field)
    assert first.dpi == pytest.approx(described.dpi, rel=1e-3)


@pytest.mark.parametrize("metadata", ["keep", "strip"])
def test_inks_become_colours_by_their_profile_also_where_it_is_dropped(monkeypatch, metadata):
    seen = []
    monkeypatch.setattr(colour, "_transform", lambda inks, icc, kind: seen.append((icc, kind)) or inks[..., :3])
    frame = Frame(np.zeros((4, 4, 3), np.uint8), black=np.zeros((4, 4), np.uint8), icc=b"inks")
    encode_frame(frame, "png", metadata=metadata)
    assert seen == [(b"inks", "cmyk")]


def test_what_a_png_says_of_its_colours_is_kept_or_missed():
    linear, wide = (b"gAMA", struct.pack(">I", 100000)), (b"cICP", bytes((9, 16, 0, 1)))
    usual = (b"gAMA", struct.pack(">I", 45454))
    primaries = (b"cHRM", struct.pack(">8I", 31269, 32899, 63999, 33001, 30000, 60000, 15000, 5999))
    frame = Frame(np.zeros((4, 4, 3), np.uint8))
    for chunks, expected in (
        ((linear,), True),
        ((wide,), True),
        ((usual, primaries), False),
        ((linear, (b"sRGB", b"\0")), False),
    ):
        coloured = dataclasses.replace(frame, chunks=chunks)
        assert encode_frame(coloured, "png")[1] == ()
        for kind, metadata in (("jpg", "keep"), ("tiff", "keep"), ("png", "strip")):
            warnings = encode_frame(coloured, kind, metadata=metadata)[1]
            assert any("cICP" in warning for warning in warnings) is expected
    both = dataclasses.replace(frame, chunks=(linear, wide), icc=b"profile")
    assert [chunk for chunk in writing._png_chunks(both) if chunk in both.chunks] == [wide]


def test_a_png_holds_a_profile_of_large_tables():
    profile = ICC + np.random.default_rng(0).bytes(3 << 20)
    data, warnings = encode_frame(Frame(np.zeros((4, 4, 3), np.uint8), icc=profile), "png")
    assert warnings == ()
    assert read_frame(data).icc == profile
