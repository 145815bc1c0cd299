"""A decoded picture -> 8-bit RGB or grey, as a viewer shows it; and whether its file was lossy."""

from __future__ import annotations

import struct

from PIL import Image, ImageChops

from tf_image_classification.build_tfrecords import rejection, tiff_file
from tf_image_classification.build_tfrecords.rejection import RejectedImage

_LOSSY_TIFF = frozenset({"jpeg", "tiff_jpeg", "webp"})
_CODING_STYLE, _TRANSFORMATION, _IRREVERSIBLE = b"\xff\x52", 13, 0  # of JPEG 2000: ITU-T T.800, table A.20


def is_lossy(data: bytes, image: Image.Image) -> bool:
    """Whether the picture was compressed with losses, so that storing it without would only take space.

    Args:
        data: the file.
        image: what Pillow opened of it.
    """
    if image.format == "WEBP":
        return not _is_lossless_webp(data)
    if image.format == "TIFF":
        return image.info.get("compression") in _LOSSY_TIFF
    if image.format == "JPEG2000":
        position = data.find(_CODING_STYLE) + _TRANSFORMATION
        return data[position : position + 1] == bytes([_IRREVERSIBLE])
    return image.format in ("JPEG", "MPO", "AVIF", "HEIF")


def _is_lossless_webp(data: bytes) -> bool:
    """Whether the first picture is in a VP8L chunk (https://developers.google.com/speed/webp/docs/riff_container)."""
    position = 12  # behind "RIFF", size, "WEBP"
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name in (b"VP8L", b"VP8 "):
            return bool(name == b"VP8L")
        # a frame of an animation holds its chunks behind 16 bytes of its own
        position += 8 + 16 if name == b"ANMF" else 8 + size + size % 2
    return False


def to_8_bits(image: Image.Image, opened: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB or grey, on white where it is transparent.

    Args:
        image: the picture, upright.
        opened: what Pillow opened, which knows the format and its tags.

    Raises:
        RejectedImage: the pixels have no 8-bit form, or none is visible.
    """
    if image.mode == "F":
        raise RejectedImage(rejection.FLOATING_POINT)
    if image.mode == "I" and opened.format != "PPM":  # PPM: 16 bits, which Pillow widens
        raise RejectedImage(rejection.WIDE_INTEGERS)
    if image.mode.startswith("I"):
        return _deep_grey(image, opened)
    if image.has_transparency_data:
        return _on_white(image, is_bmp=opened.format == "BMP")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _deep_grey(image: Image.Image, opened: Image.Image) -> Image.Image:
    """9 to 16 bits of grey -> 8. Pillow inverts a TIFF whose 0 is white only if it has at most 8 bits."""
    tags = getattr(opened, "tag_v2", {})
    to_8_bits = 255 / (2 ** tags.get(tiff_file.BITS, (16,))[0] - 1)
    grey = image.convert("I").point(lambda value: value * to_8_bits + 0.5).convert("L")
    return ImageChops.invert(grey) if tags.get(tiff_file.PHOTOMETRIC) == tiff_file.WHITE_IS_ZERO else grey


def _on_white(image: Image.Image, is_bmp: bool) -> Image.Image:
    is_grey = image.mode in ("L", "LA", "La")
    opaque = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if opaque.getchannel("A").getextrema()[1] == 0:
        if not is_bmp:
            raise RejectedImage(rejection.FULLY_TRANSPARENT)
        return opaque.convert("RGB")  # the fourth byte of a BMP's pixel is padding, for most who write one
    white = Image.new("RGBA", opaque.size, "white")
    return Image.alpha_composite(white, opaque).convert("L" if is_grey else "RGB")
