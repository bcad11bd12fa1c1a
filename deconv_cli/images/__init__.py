"""Pictures on disk: reading them whole, writing them safely, finding them in folders."""

from deconv_cli.images.alpha import bleed_alpha, without_hidden
from deconv_cli.images.atomic import atomic_file, remove_leftovers, write_atomically
from deconv_cli.images.colour import without_black
from deconv_cli.images.frame import Frame, Picture
from deconv_cli.images.paths import SUFFIXES, find_pictures, format_of, is_picture
from deconv_cli.images.reading import MAX_PIXELS, open_picture, read_frame, read_size
from deconv_cli.images.resampling import crop_to_multiple, downscale, upscale
from deconv_cli.images.samples import excess, from_float, is_gray, to_float
from deconv_cli.images.writing import FORMATS, LOSSLESS, Encoding, check_pages, encode_frame, write_frames

__all__ = [
    "FORMATS",
    "LOSSLESS",
    "MAX_PIXELS",
    "SUFFIXES",
    "Encoding",
    "Frame",
    "Picture",
    "atomic_file",
    "bleed_alpha",
    "check_pages",
    "crop_to_multiple",
    "downscale",
    "encode_frame",
    "excess",
    "find_pictures",
    "format_of",
    "from_float",
    "is_gray",
    "is_picture",
    "open_picture",
    "read_frame",
    "read_size",
    "remove_leftovers",
    "to_float",
    "upscale",
    "without_black",
    "without_hidden",
    "write_atomically",
    "write_frames",
]
