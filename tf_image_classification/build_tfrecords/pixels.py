"""A decoded picture -> 8-bit RGB or grey, as a viewer shows it; and whether its file was lossy."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from PIL import Image, ImageChops, ImageFile

from tf_image_classification.build_tfrecords import rejection, tiff_file
from tf_image_classification.build_tfrecords.rejection import RejectedImage

_LOSSY_TIFF = frozenset({"jpeg", "tiff_jpeg", "webp"})
_STRIP_PIXELS = 2**20  # converted at a time
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


def to_8_bits(image: ImageFile.ImageFile) -> Image.Image:
    """The picture as 8-bit RGB or grey, on white where it is transparent, without metadata: these describe the file.

    Args:
        image: what Pillow opened and loaded, upright. It may be the result.

    Raises:
        RejectedImage: the pixels have no 8-bit form, or none is visible.
    """
    if image.mode == "F":
        raise RejectedImage(rejection.FLOATING_POINT)
    if image.mode == "I" and image.format != "PPM":  # PPM: 16 bits, which Pillow widens
        raise RejectedImage(rejection.WIDE_INTEGERS)
    if image.mode.startswith("I"):
        tags = getattr(image, "tag_v2", {})
        picture = _in_strips(image, "L", functools.partial(_deep_grey, tags=tags))
    elif image.has_transparency_data:
        picture = _on_white(image)
    else:
        mode = "L" if image.mode in ("1", "L") else "RGB"
        picture = image if image.mode == mode else image.convert(mode)
    picture.info.clear()
    return picture


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The picture in strips from top to bottom, each with its first row."""
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _in_strips(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Converts a picture strip by strip: beside it and the result, only strips take memory."""
    picture = Image.new(mode, image.size)
    for top, strip in _strips(image):
        picture.paste(convert(strip), (0, top))
    return picture


def _deep_grey(strip: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """9 to 16 bits of grey -> 8. Pillow inverts a TIFF whose 0 is white only if it has at most 8 bits."""
    to_8_bits = 255 / (2 ** tags.get(tiff_file.BITS, (16,))[0] - 1)
    grey = strip.convert("I").point(lambda value: value * to_8_bits + 0.5).convert("L")
    return ImageChops.invert(grey) if tags.get(tiff_file.PHOTOMETRIC) == tiff_file.WHITE_IS_ZERO else grey


def _on_white(image: ImageFile.ImageFile) -> Image.Image:
    mode = "L" if image.mode in ("L", "LA", "La") else "RGB"
    if any(_rgba(strip).getchannel("A").getextrema()[1] for _, strip in _strips(image)):
        return _in_strips(image, mode, lambda strip: _composed(_rgba(strip)).convert(mode))
    if image.format == "BMP":  # the fourth byte of a BMP's pixel is padding, for most who write one
        return _in_strips(image, "RGB", lambda strip: _rgba(strip).convert("RGB"))
    raise RejectedImage(rejection.FULLY_TRANSPARENT)


def _rgba(strip: Image.Image) -> Image.Image:
    return (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")


def _composed(strip: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
