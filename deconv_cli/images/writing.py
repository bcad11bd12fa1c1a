"""Encoding pictures as files, and saying what the format could not hold."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import IO, Any, Literal

import numpy as np
from PIL import Image

from deconv_cli.errors import DeconvError, unknown_name
from deconv_cli.images import boxes, colour, optional, png, tiff
from deconv_cli.images import exif as exif_block
from deconv_cli.images.alpha import flatten_onto_white
from deconv_cli.images.frame import Frame, Samples
from deconv_cli.images.samples import from_float, narrow
from deconv_cli.images.stamp import stamp

DEFAULT_QUALITY = 95
GIF_COLOURS = 256

_METADATA = {
    "icc": "ICC profile",
    "exif": "EXIF",
    "xmp": "XMP",
    "iptc": "IPTC",
    "dpi": "resolution",
    "comment": "comment",
    "chunks": "PNG text",
    "tags": "TIFF tags",
}
_ALL_BUT_TAGS = frozenset(_METADATA) - {"tags"}


@dataclass(frozen=True)
class _Format:
    """What a file format can hold."""

    label: str
    holds: frozenset[str]
    bits: tuple[int, ...] = (8,)
    gray: bool = True
    alpha: bool = True
    black: bool = False
    palette: bool = False
    animation: bool = False
    pages: bool = False
    lossless: bool = False


_FORMATS = {
    "png": _Format("PNG", _ALL_BUT_TAGS, (8, 16), palette=True, animation=True, lossless=True),
    "jpg": _Format("JPEG", _ALL_BUT_TAGS - {"chunks"}, alpha=False, black=True),
    "webp": _Format("WebP", frozenset({"icc", "exif", "xmp"}), gray=False, animation=True),
    "bmp": _Format("BMP", frozenset({"dpi"}), alpha=False, palette=True, lossless=True),
    "tiff": _Format(
        "TIFF",
        frozenset({"icc", "exif", "xmp", "iptc", "dpi", "tags"}),
        (8, 16, 32),
        black=True,
        pages=True,
        lossless=True,
    ),
    "gif": _Format("GIF", frozenset({"comment"}), palette=True, animation=True, lossless=True),
    "avif": _Format("AVIF", frozenset({"icc", "exif", "xmp"}), (8, 10, 12), gray=False, animation=True),
    "jp2": _Format("JPEG 2000", frozenset({"icc", "exif", "xmp"}), tuple(range(8, 17))),
    "jxl": _Format("JPEG XL", frozenset({"icc", "exif", "xmp"}), (8, 16, 32)),
    "heif": _Format("HEIF", frozenset({"icc", "exif", "xmp"}), (8, 10, 12), gray=False),
}
FORMATS = tuple(_FORMATS)
"""The formats that can be written."""
LOSSLESS = frozenset(name for name, what in _FORMATS.items() if what.lossless)
"""Those that have no quality."""

_LONGEST = {("jpg", "exif"): 65_533, ("jpg", "xmp"): 65_504, ("jpg", "iptc"): 65_500, ("jpg", "comment"): 65_533}
"""Bytes that fit into one JPEG segment."""


@dataclass(frozen=True)
class Encoding:
    """How to write a picture.

    Attributes
    ----------
    quality
        1 to 100 for the lossy formats, no matter to the others. By default a JPEG gets 95, or the quality that the
        picture had as a JPEG if that was higher; WebP, AVIF, JPEG 2000 and JPEG XL are lossless if the picture's file
        was, else they get 95. An AVIF of 8 bits is not quite: at 100, the conversion to luma and chroma rounds.
    metadata
        ``strip`` leaves out EXIF, XMP, IPTC, resolution, text, tags and the ICC profile; the colours are converted to
        sRGB first, so that they stay what they were.
    palette
        Write a picture that was stored by a palette with one of 256 colours again, where the format has palettes.
    subsampling
        Of the colour in a JPEG.
    """

    quality: int | None = None
    metadata: Literal["keep", "strip"] = "keep"
    palette: bool = False
    subsampling: Literal["4:4:4", "4:2:0"] = "4:4:4"


def encode_frame(
    frame: Frame,
    format: str,  # noqa: A002 - the name that everyone expects
    *,
    quality: int | None = None,
    subsampling: Literal["4:4:4", "4:2:0"] = "4:4:4",
    metadata: Literal["keep", "strip"] = "keep",
    palette: bool = False,
) -> tuple[bytes, tuple[str, ...]]:
    """Encode one picture as a file of the given format; see `write_frames`.

    Returns
    -------
    tuple[bytes, tuple[str, ...]]
        The file, and what the format could not hold, a phrase each.
    """
    file = io.BytesIO()
    warnings = write_frames(file, [frame], format, Encoding(quality, metadata, palette, subsampling))
    return file.getvalue(), warnings


def check_pages(name: str, target: str, count: int, *, animated: bool) -> None:
    """Refuse to write several pages or frames into a format that holds one, or pages as an animation.

    Raises
    ------
    DeconvError
        If it is so.
    UsageError
        If there is no such format.
    """
    what = _find_format(target)
    if count <= 1 or what.pages or (animated and what.animation):
        return
    kind, wanted = ("frames", "png, gif or webp") if animated else ("pages", "tiff")
    raise DeconvError(f"{name}: holds {count} {kind}, which {what.label} cannot; choose {wanted}")


def write_frames(
    file: IO[bytes],
    frames: Iterable[Frame],
    format: str,  # noqa: A002
    encoding: Encoding = Encoding(),
    *,
    count: int = 1,
    loop: int | None = None,
    still_first: bool = False,
) -> tuple[str, ...]:
    """Write a picture, the pages of a document or the frames of an animation to a file.

    PNG, BMP and TIFF are lossless. Pages are written as they come; the frames of an animation are
    gathered first.

    Parameters
    ----------
    file
        Empty, open for reading and writing.
    frames
        What to write; transparency that the format cannot hold is flattened onto white.
    format
        A name in `FORMATS`.
    encoding
        How to write it.
    count
        How many frames there will be.
    loop
        How often an animation plays; 0 for ever.
    still_first
        Whether the first frame stands outside the animation (APNG).

    Returns
    -------
    tuple[str, ...]
        What the format could not hold, a phrase each, once for all frames.

    Raises
    ------
    DeconvError
        If the picture cannot be written in this format.
    UsageError
        If there is no such format.
    """
    what = _find_format(format)
    if count > 1 and format != "gif":
        what = replace(what, palette=False)  # Pillow writes the frames of other animations in full colour.
    warnings: dict[str, None] = {}

    name = "picture"

    def fitted() -> Iterator[Frame]:
        nonlocal name
        for frame in frames:
            name = frame.name
            fit, lost = _fit(frame, format, what, encoding)
            warnings.update(dict.fromkeys(lost))
            yield fit

    try:
        if format == "tiff":
            tiff.write_pages(file, fitted(), count=count)
        elif count > 1:
            _write_animation(file, list(fitted()), format, encoding, loop=loop, still_first=still_first)
        else:
            (frame,) = fitted()
            _WRITERS[format](file, frame, encoding)
    except MemoryError as error:
        raise DeconvError(f"{name}: memory does not suffice to write it as {what.label}") from error
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # The disk, not the picture.
        reason = " ".join(str(error).split())
        raise DeconvError(f"{name}: cannot be written as {what.label} ({reason})") from error
    return tuple(warnings)


def _find_format(name: str) -> _Format:
    if name not in _FORMATS:
        raise unknown_name("format", name, _FORMATS)
    return _FORMATS[name]


def _fit(frame: Frame, target: str, what: _Format, encoding: Encoding) -> tuple[Frame, list[str]]:
    """Take from the picture what the format cannot hold, and say what that was."""
    warnings: list[str] = []
    if frame.black is not None and not what.black:
        frame, converted = colour.without_black(frame)
        warnings += [converted] if converted else []
    if _loses_colours(frame, target, encoding):
        warnings.append("what gAMA, cHRM or cICP say of the colours was left out: they will be taken for sRGB's")
    if encoding.metadata == "strip":
        frame = replace(frame, exif=None, xmp=None, iptc=None, dpi=None, comment=None, chunks=(), tags=())
    # Of floats, which go beyond what profiles are about, colours are converted only if they become integers.
    conversions = [_fit_profile, _fit_depth] if frame.pixels.dtype != np.float32 else [_fit_depth, _fit_profile]
    for convert in conversions:
        frame, problem = convert(frame, target, encoding)
        warnings += [problem] if problem else []
    if frame.alpha is not None and not what.alpha:
        frame = replace(frame, pixels=flatten_onto_white(frame.pixels, frame.alpha), alpha=None)
        warnings.append(f"{what.label} holds no transparency: it was flattened onto white")
    if target == "gif" or (encoding.palette and frame.palette and what.palette):
        warnings += _lost_to_palette(frame, what.label)
    elif encoding.palette and frame.palette:
        warnings.append(f"{what.label} is written without a palette: the colours stay what they are")
    if frame.stamp:
        stamped = stamp(frame, dict(frame.stamp), as_text=target == "png")
        warnings += ["the XMP could not be stamped"] if stamped is frame else []
        frame = stamped
    frame, problem = _fit_metadata(frame, target)
    return frame, warnings + ([problem] if problem else [])


def _fit_metadata(frame: Frame, target: str) -> tuple[Frame, str | None]:
    """Take out what the format cannot hold, and let EXIF and XMP say the size that is written."""
    height, width = frame.pixels.shape[:2]
    if frame.exif:
        frame = replace(frame, exif=exif_block.with_size(frame.exif, width, height))
    if frame.xmp:
        frame = replace(frame, xmp=exif_block.xmp_with_size(frame.xmp, width, height))
    lost = [field for field in _METADATA if _is_lost(frame, field, target)]
    if not lost:
        return frame, None
    nothing: dict[str, Any] = {field: () if field in ("chunks", "tags") else None for field in lost}
    names = ", ".join(_METADATA[field] for field in lost)
    return replace(frame, **nothing), f"{_FORMATS[target].label} cannot hold: {names}"


def _fit_profile(frame: Frame, target: str, encoding: Encoding) -> tuple[Frame, str | None]:
    """Convert to sRGB what goes without its profile."""
    if encoding.metadata == "strip":
        return colour.to_srgb(frame)
    if not _is_lost(frame, "icc", target):
        return frame, None
    frame, problem = colour.to_srgb(frame)
    label = _FORMATS[target].label
    return frame, problem or f"{label} cannot hold the ICC profile: the colours were converted to sRGB by it"


def _fit_depth(frame: Frame, target: str, _encoding: Encoding) -> tuple[Frame, str | None]:
    """Bring the samples to the least depth of the format that holds them, or to its largest."""
    what = _FORMATS[target]
    before = frame.bits_per_sample
    bits = min((held for held in what.bits if held >= before), default=max(what.bits))
    if bits == before:
        return frame, None
    dtype = np.uint8 if bits == 8 else np.uint16
    frame = replace(frame.map_layers(lambda layer: _to_integers(layer, dtype)), bits=None if bits in (8, 16) else bits)
    if bits > before:
        return frame, f"{before}-bit samples are written with {bits}"
    how = "float samples were clipped to 0..1 and rounded" if before == 32 else f"{before} were rounded"
    return frame, f"{what.label} holds {bits} bits a sample: {how} to {bits}"


def _to_integers(samples: Samples, dtype: type[np.generic]) -> Samples:
    if samples.dtype == np.float32:
        return from_float(samples, dtype)
    return samples if samples.dtype == dtype else _to_8_bits(samples)


def _loses_colours(frame: Frame, target: str, encoding: Encoding) -> bool:
    """Tell whether chunks of a PNG define the colours, and are not kept."""
    kept = target == "png" and encoding.metadata == "keep"
    return not kept and png.define_other_colours(frame.chunks, has_profile=bool(frame.icc))


def _is_lost(frame: Frame, field: str, target: str) -> bool:
    """Tell whether the picture has this field and the format cannot hold it."""
    value = getattr(frame, field)
    # What TIFF tags say about a picture goes to other formats by way of EXIF.
    if not value or field == "tags":
        return False
    if field == "chunks":
        return target != "png" and any(png.is_text(chunk) for chunk in value)
    if field not in _FORMATS[target].holds or len(value) > _LONGEST.get((target, field), len(value)):
        return True
    if field == "exif" and target == "tiff":
        return tiff.load_exif(value) is None
    if field == "icc" and target == "jxl":
        return frame.pixels.ndim == 2 or frame.pixels.dtype == np.float32
    return field == "icc" and not _FORMATS[target].gray and colour.is_gray_profile(value)


def _to_8_bits(samples: Samples) -> Samples:
    """Round 16 bits to 8, some rows at a time."""
    out = np.empty(samples.shape, np.uint8)
    rows = max(1, (1 << 24) // max(1, samples[:1].size))
    for top in range(0, len(samples), rows):
        out[top : top + rows] = (samples[top : top + rows].astype(np.uint32) + 128) // 257
    return out


def _layers(frame: Frame) -> Samples:
    return frame.pixels if frame.alpha is None else np.dstack([frame.pixels, frame.alpha])


def _coloured(frame: Frame) -> Samples:
    """Return three or four channels, also of a gray picture."""
    colours = [frame.pixels] * (3 if frame.pixels.ndim == 2 else 1)
    return np.dstack(colours if frame.alpha is None else [*colours, frame.alpha])


def _is_lossless(frame: Frame, encoding: Encoding) -> bool:
    return frame.lossless and encoding.quality is None


def _metadata(frame: Frame, *fields: str) -> dict[str, Any]:
    names = {"icc": "icc_profile"}
    return {names.get(field, field): value for field in fields if (value := getattr(frame, field)) is not None}


def _described(frame: Frame) -> dict[str, Any]:
    """Return what the encoders of other packages take beside the samples."""
    return {"icc": frame.icc, "exif": frame.exif, "xmp": frame.xmp, "name": frame.name}


def _write_png(file: IO[bytes], frame: Frame, encoding: Encoding) -> None:
    if encoding.palette and frame.palette and frame.pixels.dtype == np.uint8:
        encoded = io.BytesIO()
        _quantize(frame).save(encoded, "PNG")
        data = encoded.getvalue()
    else:
        import imagecodecs

        data = bytes(imagecodecs.png_encode(np.ascontiguousarray(_layers(frame)), level=4))
    file.writelines(png.with_chunks(data, _png_chunks(frame)))


def _png_chunks(frame: Frame) -> list[tuple[bytes, bytes]]:
    chunks = [chunk for chunk in frame.chunks if not (png.yields_to_profile(chunk) and frame.icc)]
    if frame.icc:
        chunks.append(png.profile_chunk(frame.icc))
    if frame.dpi:
        chunks.append(png.physical_chunk(frame.dpi))
    if frame.exif:
        chunks.append((b"eXIf", frame.exif.removeprefix(b"Exif\0\0")))
    if frame.xmp:
        chunks.append(png.xmp_chunk(frame.xmp))
    if frame.iptc:
        chunks.append(png.iptc_chunk(frame.iptc))
    if frame.comment:
        chunks.append((b"tEXt", b"Comment\0" + frame.comment.replace(b"\0", b" ")))
    return chunks


def _write_jpeg(file: IO[bytes], frame: Frame, encoding: Encoding) -> None:
    if frame.black is None:
        image = Image.fromarray(frame.pixels)
    else:
        image = Image.fromarray(np.dstack([~frame.pixels, ~frame.black]), "CMYK")
    quality = encoding.quality or max(DEFAULT_QUALITY, frame.jpeg_quality or 0)
    coding = {"quality": quality, "subsampling": encoding.subsampling, "extra": _photoshop_segment(frame.iptc)}
    image.save(file, "JPEG", **coding, **_metadata(frame, "icc", "exif", "xmp", "dpi", "comment"))


def _photoshop_segment(iptc: bytes | None) -> bytes:
    """Return the JPEG segment that holds IPTC records."""
    if not iptc:
        return b""
    resource = b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4) + iptc + b"\0" * (len(iptc) % 2)
    content = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + (len(content) + 2).to_bytes(2) + content


def _write_webp(file: IO[bytes], frame: Frame, encoding: Encoding) -> None:
    options = _webp_options(frame, encoding)
    Image.fromarray(_layers(frame)).save(file, "WEBP", **_metadata(frame, "icc", "exif", "xmp"), **options)


def _webp_options(frame: Frame, encoding: Encoding) -> dict[str, Any]:
    if _is_lossless(frame, encoding):
        return {"lossless": True, "exact": True}
    return {"quality": encoding.quality or DEFAULT_QUALITY, "exact": True}


def _write_bmp(file: IO[bytes], frame: Frame, encoding: Encoding) -> None:
    image = _quantize(frame) if encoding.palette and frame.palette else Image.fromarray(frame.pixels)
    image.save(file, "BMP", dpi=frame.dpi or (0, 0))


def _write_gif(file: IO[bytes], frame: Frame, encoding: Encoding) -> None:
    _write_animation(file, [frame], "gif", encoding, loop=None, still_first=False)


def _write_avif(file: IO[bytes], frame: Frame, encoding: Encoding) -> None:
    options = _avif_options(frame, encoding)
    if frame.bits:
        quality = None if _is_lossless(frame, encoding) else options["quality"]
        file.write(optional.encode_deep_avif(_coloured(frame), frame.bits, quality=quality, **_described(frame)))
    else:
        Image.fromarray(_layers(frame)).save(file, "AVIF", **options, **_metadata(frame, "icc", "exif", "xmp"))


def _avif_options(frame: Frame, encoding: Encoding) -> dict[str, Any]:
    quality = 100 if _is_lossless(frame, encoding) else encoding.quality or DEFAULT_QUALITY
    return {"quality": quality, "subsampling": "4:4:4"}


def _write_jp2(file: IO[bytes], frame: Frame, encoding: Encoding) -> None:
    import imagecodecs

    lossless = _is_lossless(frame, encoding)
    # OpenJPEG's level is a PSNR in dB; 0 is lossless.
    level = 0 if lossless else 25 + (encoding.quality or DEFAULT_QUALITY) // 4
    layers = narrow(_layers(frame), frame.bits) if frame.bits else _layers(frame)
    options: dict[str, Any] = {"level": level, "reversible": lossless, "bitspersample": frame.bits}
    data = imagecodecs.jpeg2k_encode(np.ascontiguousarray(layers), codecformat="jp2", **options)
    file.write(boxes.jp2_with_metadata(bytes(data), icc=frame.icc, exif=frame.exif, xmp=frame.xmp))


def _write_jxl(file: IO[bytes], frame: Frame, encoding: Encoding) -> None:
    quality = encoding.quality or DEFAULT_QUALITY
    # The distance of libjxl's own quality scale.
    distance = 0.1 + (100 - quality) * 0.09 if quality >= 30 else 53 / 3000 * quality**2 - 23 / 20 * quality + 25
    layers = np.ascontiguousarray(_layers(frame))
    lossless = _is_lossless(frame, encoding)
    data = optional.encode_jxl(layers, distance=0 if lossless else distance, icc=frame.icc, name=frame.name)
    file.write(boxes.jxl_with_metadata(boxes.jxl_codestream(data), exif=frame.exif, xmp=frame.xmp))


def _write_heif(file: IO[bytes], frame: Frame, encoding: Encoding) -> None:
    quality = encoding.quality or DEFAULT_QUALITY
    bits = frame.bits_per_sample
    file.write(optional.encode_heif(_coloured(frame), bits, quality=quality, **_described(frame)))


_WRITERS: dict[str, Callable[[IO[bytes], Frame, Encoding], None]] = {
    "png": _write_png,
    "jpg": _write_jpeg,
    "webp": _write_webp,
    "bmp": _write_bmp,
    "gif": _write_gif,
    "avif": _write_avif,
    "jp2": _write_jp2,
    "jxl": _write_jxl,
    "heif": _write_heif,
}


def _write_animation(
    file: IO[bytes], frames: list[Frame], target: str, encoding: Encoding, *, loop: int | None, still_first: bool
) -> None:
    """Write the frames of an animation, each a full canvas, with their times."""
    first = frames[0]
    images = [_quantize(frame) if target == "gif" else _canvas(frame, frames) for frame in frames]
    timed = frames[1:] if still_first else frames
    options: dict[str, Any] = {"save_all": True, "append_images": images[1:]}
    if len(frames) > 1:
        options["duration"] = [
            round(frame.duration or 0) if target != "png" else frame.duration or 0 for frame in timed
        ]
        options["loop"] = loop
    match target:
        case "png":
            from PIL.PngImagePlugin import Blend, Disposal

            options |= {"blend": Blend.OP_SOURCE, "disposal": Disposal.OP_NONE, "default_image": still_first}
        case "gif":
            # Where a frame is transparent, the one before must not shine through.
            options |= {"disposal": 2 if any(frame.alpha is not None for frame in frames) else 1}
            options |= {"optimize": False} | _metadata(first, "comment")
        case "webp":
            options |= _webp_options(first, encoding) | _metadata(first, "icc", "exif", "xmp")
        case _:
            options |= _avif_options(first, encoding) | _metadata(first, "icc", "exif", "xmp")
    names = {"png": "PNG", "gif": "GIF", "webp": "WEBP", "avif": "AVIF"}
    given = {key: value for key, value in options.items() if value is not None}
    if target != "png":
        images[0].save(file, names[target], **given)
        return
    encoded = io.BytesIO()  # Pillow leaves most chunks out of animations.
    images[0].save(encoded, names[target], **given)
    file.writelines(png.with_chunks(encoded.getvalue(), _png_chunks(first)))


def _canvas(frame: Frame, frames: list[Frame]) -> Image.Image:
    """Return a frame in the mode that fits all of them."""
    coloured = any(other.pixels.ndim == 3 for other in frames)
    transparent = any(other.alpha is not None for other in frames)
    image = Image.fromarray(_layers(frame))
    return image.convert("RGBA" if transparent else "RGB" if coloured else "L")


def _packed(pixels: Samples) -> Samples:
    """Return a number for every colour."""
    numbers: Samples = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    return numbers


def _lost_to_palette(frame: Frame, label: str) -> list[str]:
    """Say what a palette cannot hold of a picture."""
    visible = np.ones(frame.pixels.shape[:2], bool) if frame.alpha is None else frame.alpha >= 128
    most = GIF_COLOURS - (frame.alpha is not None)
    lost = []
    if frame.pixels.ndim == 3 and len(np.unique(_packed(frame.pixels[visible]))) > most:
        lost.append(f"{label} holds {most} colours here: they were reduced")
    if frame.alpha is not None and not np.isin(frame.alpha, (0, 255)).all():
        lost.append(f"{label} holds no half transparency here: it was made full or none")
    return lost


def _quantize(frame: Frame) -> Image.Image:
    """Return the picture with a palette of 256 colours: exactly its own if it has no more."""
    pixels = frame.pixels if frame.pixels.ndim == 3 else np.dstack([frame.pixels] * 3)
    hidden = None if frame.alpha is None else frame.alpha < 128
    most = GIF_COLOURS - (hidden is not None)
    if hidden is not None and not hidden.all():
        # Colours that nobody sees take no place in the palette.
        pixels = np.where(hidden[..., None], pixels[~hidden][0], pixels)
    packed = _packed(pixels)
    colours, indices = np.unique(packed, return_inverse=True)
    if len(colours) <= most:
        image = Image.fromarray(indices.reshape(packed.shape).astype(np.uint8), "P")
        image.putpalette((colours[:, None] >> np.array([16, 8, 0]) & 255).astype(np.uint8).tobytes())
    else:
        image = Image.fromarray(pixels).quantize(most, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    if hidden is None:
        return image
    indices = np.asarray(image).copy()
    indices[hidden] = most
    palette = (image.getpalette() or []) + [0] * 768
    masked = Image.fromarray(indices, "P")
    masked.putpalette(palette[:768])
    masked.info["transparency"] = most
    return masked
