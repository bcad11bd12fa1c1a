"""Damage files of every format, at random and where it hurts, and read them.

    python tests/fuzz_readers.py --seconds 600

Whatever comes must be a picture or a `DeconvError` in one line, within bounded time and memory. Every file is read in a
process that is restarted if it dies, so that a crash in a decoder's native code is seen too.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import resource
import time
import warnings
from collections import Counter
from collections.abc import Iterator

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from deconv_cli.errors import DeconvError
from deconv_cli.images import Frame, encode_frame, open_picture

MAX_PIXELS, MAX_SECONDS, MAX_MEMORY = 2_000_000, 10.0, 3 << 30


def samples() -> dict[str, bytes]:
    """Return a small file of every format and kind that is read in a way of its own."""
    rng = np.random.default_rng(0)
    rgb, gray = rng.integers(0, 255, (24, 31, 3), np.uint8), rng.integers(0, 255, (24, 31), np.uint8)
    deep = rng.integers(0, 65535, (24, 31, 3), np.uint16)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    exif[0x8769] = {0x9003: "1931:05:01 12:00:00"}
    described = Frame(rgb, exif=exif.tobytes(), xmp=b"<x:xmpmeta/>", iptc=b"\x1c\x02\x78\0\1a", dpi=(300.0, 300.0))
    made = {f"{kind} 8": encode_frame(described, kind)[0] for kind in ("png", "jpg", "webp", "bmp", "tiff", "gif")}
    made |= {f"{kind} 8": encode_frame(described, kind)[0] for kind in ("avif", "jp2", "jxl")}
    made |= {f"{kind} 16": encode_frame(Frame(deep, deep[..., 0]), kind)[0] for kind in ("png", "tiff", "jp2", "jxl")}
    made["tiff float"] = encode_frame(Frame(deep.astype(np.float32) / 65535), "tiff")[0]
    made["tiff gray"] = encode_frame(Frame(gray), "tiff")[0]
    made["jxl profile"] = encode_frame(Frame(rgb, icc=bytes(imagecodecs.cms_profile("adobergb"))), "jxl")[0]
    made["jxl film"] = imagecodecs.jpegxl_encode(np.stack([rgb, 255 - rgb]), lossless=True)
    made["heif 10"] = encode_frame(Frame(deep, bits=10, lossless=False), "heif")[0]
    made["heif 8"] = encode_frame(described, "heif")[0]
    made["avif 10"] = imagecodecs.avif_encode(deep >> 6, bitspersample=10)
    for kind in ("GIF", "PNG", "WEBP", "AVIF"):
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, kind, save_all=True, append_images=[Image.fromarray(255 - rgb)], duration=50)
        made[f"{kind.lower()} animated"] = file.getvalue()
    for compression in ("lzw", "packbits", "jpeg", "zlib", "ccitt"):
        file = io.BytesIO()
        if compression == "ccitt":
            Image.fromarray(gray > 128).save(file, "TIFF", compression="group4")
        else:
            tifffile.imwrite(file, rgb, compression=compression, tile=(16, 16), photometric="rgb")
        made[f"tiff {compression}"] = file.getvalue()
    file = io.BytesIO()
    Image.fromarray(np.dstack([rgb, gray]), "CMYK").save(file, "JPEG")
    made["jpg cmyk"] = file.getvalue()
    return made


def damage(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes, mostly near the start, cut, repeat or insert a part."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(damaged), rng.choice((64, 256, len(damaged)))))
        match rng.randrange(6):
            case 0:
                damaged[at] = rng.randrange(256)
            case 1:
                damaged[at] ^= 1 << rng.randrange(8)
            case 2:
                damaged[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\0\1\0\0"))
            case 3:
                del damaged[at : at + rng.choice((1, 2, 16, 400))]
            case 4:
                damaged[at:at] = damaged[at : at + rng.choice((1, 8, 64))]
            case _:
                del damaged[rng.randrange(len(damaged)) :]
        if not damaged:
            break
    return bytes(damaged)


def read(data: bytes) -> str:
    """Read all pages and say how that ended: ``picture``, ``error``, or what is wrong."""
    try:
        with open_picture(data, name="damaged", max_pixels=MAX_PIXELS) as picture:
            for _, frame in zip(range(50), picture.frames, strict=False):
                if frame.pixels.dtype not in (np.uint8, np.uint16, np.float32) or frame.pixels.ndim not in (2, 3):
                    return f"odd pixels: {frame.pixels.dtype} {frame.pixels.shape}"
    except DeconvError as error:
        text = str(error)
        return "error" if text.startswith("damaged: ") and "\n" not in text else f"odd message: {text!r}"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"{type(error).__name__}: {error}"
    return "picture"


def cases(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and damaged files for ever, the formats in turn."""
    rng = random.Random(seed)
    originals = list(samples().items())
    while True:
        for name, data in originals:
            yield name, damage(data, rng)


def _serve(pipe: multiprocessing.connection.Connection) -> None:
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    while True:
        pipe.send(read(pipe.recv()))


class Reader:
    """A process that reads, started again when it dies or takes too long."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pipe, other = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def read(self, data: bytes) -> str:
        """Return how reading ended."""
        try:
            self._pipe.send(data)
            if self._pipe.poll(MAX_SECONDS):
                return str(self._pipe.recv())
            problem = f"takes more than {MAX_SECONDS:g} seconds"
        except (EOFError, OSError):
            self._process.join()
            problem = f"crash, exit code {self._process.exitcode}"
        self._process.kill()
        self._start()
        return problem


def main() -> None:
    """Fuzz for so many seconds; say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    reader, tally, problems, slowest = Reader(), Counter(), [], 0.0
    end = time.monotonic() + arguments.seconds
    for number, (name, data) in enumerate(cases(arguments.seed)):
        if time.monotonic() > end:
            break
        began = time.monotonic()
        found = reader.read(data)
        slowest = max(slowest, time.monotonic() - began)
        tally[found if found in ("picture", "error") else "problem"] += 1
        if found not in ("picture", "error"):
            problems.append(f"{number} {name}: {found}")
            print(problems[-1], flush=True)
    print(f"{sum(tally.values())} files: {dict(tally)}; the slowest took {slowest:.2f} s")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
