"""An image file -> what a shard stores: the file byte for byte, or re-encoded; or it is rejected with a reason.

Shards hold 8-bit RGB or grey JPEG or PNG. Whatever passes here, tf.io.decode_jpeg, decode_png and decode_image read
too. A JPEG or PNG that lacks nothing but its end marker counts as truncated, because TensorFlow rejects it as well.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import struct
import warnings
from typing import NamedTuple

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import signature

JPEG, PNG = "jpeg", "png"

FILE_NOT_FOUND = "file not found"
PERMISSION_DENIED = "permission denied"
NOT_A_FILE = "not a file"
TOO_LARGE = "file larger than 1 GiB"
EMPTY = "empty file"
NOT_AN_IMAGE = "not an image"
TRUNCATED = "truncated image"
CORRUPT = "corrupt image"
TOO_MANY_PIXELS = "too many pixels"
FLOATING_POINT = "floating-point pixels"
WIDE_INTEGERS = "32-bit pixels"

_LARGEST_FILE = 2**30
# Importing a plugin registers it (JPEG's knows MPO too). Not all of Pillow's are wanted: some start other programs.
_FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        GifImagePlugin.GifImageFile,
        BmpImagePlugin.BmpImageFile,
        WebPImagePlugin.WebPImageFile,
        TiffImagePlugin.TiffImageFile,
        AvifImagePlugin.AvifImageFile,
        PpmImagePlugin.PpmImageFile,
    )
)
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\x00", b"MM\x00*", b"RIFF")
_AVIF_SIGNATURE = b"ftypavif"
_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"
_NEXT_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # not a coded 0xff, a restart marker, or filling
_END_OF_IMAGE = 0xD9
# Frames and tables, scans, tables, number of lines, application data, comments
_SEGMENTS = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xDE), *range(0xE0, 0xF0), 0xFE})
_UNTURNED, _ORIENTATION = 1, 0x0112
_QUALITY, _FULL_CHROMA = 95, 0
_SCALED_DOWN = 8  # libjpeg's coarsest: it still decodes every row's Huffman codes, and skips most of the remaining work
_TO_8_BITS = 1 / 257  # 65535 -> 255
_THUMBNAIL = 96
_LOSSY_TIFF = frozenset({"jpeg", "tiff_jpeg", "webp"})


class RejectedImage(Exception):
    """An image that cannot be used. Its text is the reason: short, and the same for the same defect."""


class Encoded(NamedTuple):
    """An image as it goes into a shard.

    Attributes:
        data: the JPEG or PNG.
        format: `jpeg` or `png`.
        height, width: pixels.
        reencoded: False when `data` is the file, byte for byte.
        signature: of the picture, see signature.of.
    """

    data: bytes
    format: str
    height: int
    width: int
    reencoded: bool
    signature: bytes


def read(path: str) -> bytes:
    """The content of an image file.

    Raises:
        RejectedImage: the file is missing, may not be read, is empty, far too large, or no regular file.
        OSError: the disk or the network fails, which is not the image's fault.
    """
    try:
        local = storage.mounted(path)
        data = storage.read_bytes(path) if storage.is_gcs(local) else _read_local(local)
    except PermissionError:
        raise RejectedImage(PERMISSION_DENIED) from None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        raise RejectedImage(FILE_NOT_FOUND) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise RejectedImage(FILE_NOT_FOUND) from None
        raise
    if not data:
        raise RejectedImage(EMPTY)
    return data


def _read_local(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would block
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device could block, or never end
            raise RejectedImage(NOT_A_FILE)
        if status.st_size > _LARGEST_FILE:
            raise RejectedImage(TOO_LARGE)
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            return file.readall()
    finally:
        os.close(descriptor)


def prepare(data: bytes) -> Encoded:
    """The image as it goes into a shard, proved decodable to its last row.

    Args:
        data: content of an image file. Its first bytes decide the format.

    Raises:
        RejectedImage: it cannot be decoded, or its pixels have no 8-bit form.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is dropped here or does no harm
        try:
            return _prepare(data)
        except RejectedImage:
            raise
        except (Image.DecompressionBombError, MemoryError):
            raise RejectedImage(TOO_MANY_PIXELS) from None
        except UnidentifiedImageError:
            damaged = data.startswith(_SIGNATURES) or data[4:12] == _AVIF_SIGNATURE
            raise RejectedImage(CORRUPT if damaged else NOT_AN_IMAGE) from None
        except Exception as error:  # on damaged files decoders raise anything: OSError, SyntaxError, struct.error, ...
            truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
            raise RejectedImage(TRUNCATED if truncated else CORRUPT) from None


def _prepare(data: bytes) -> Encoded:
    image = _open(data)
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        _check_segments(data)
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L") and _orientation(image) == _UNTURNED:
        # An MPO is a JPEG with further pictures behind it, which decoders of JPEG do not read.
        drafted = image.draft("YCbCr", (_scaled_down(width), _scaled_down(height)))
        image.load()
        return Encoded(data, JPEG, height, width, False, signature.of(image, drafted and drafted[1][2:]))
    if image.format == "PNG":
        image.verify()  # the CRCs of the chunks, which load() does not check, but libpng does
        if _END_OF_PNG not in data:
            raise RejectedImage(TRUNCATED)
        image = _open(data)
        image.load()
        if _is_plain_png(data, image):
            return Encoded(data, PNG, height, width, False, signature.of(image))
    image.load()
    lossy = _is_lossy(data, image)
    upright = ImageOps.exif_transpose(image) if _orientation(image) != _UNTURNED else image
    picture = _to_8_bits(upright)
    picture.info.clear()  # metadata describes the file that the picture came from
    buffer = io.BytesIO()
    if lossy:
        picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=_FULL_CHROMA)
    else:
        picture.save(buffer, "PNG")
    image_format = JPEG if lossy else PNG
    return Encoded(buffer.getvalue(), image_format, picture.height, picture.width, True, signature.of(picture))


def _scaled_down(side: int) -> int:
    return max(1, side // _SCALED_DOWN, min(side, signature.MIN_DECODED_SIDE))


def _check_segments(data: bytes) -> None:
    """Checks that a JPEG's segments follow each other up to the end marker (ITU-T T.81, annex B).

    A decoder stops at a marker that damage put between the coded rows and makes up the rest: Pillow is content with
    that.
    """
    position = 2
    while marker := _NEXT_MARKER.search(data, position):
        code = data[marker.end() - 1]
        if code == _END_OF_IMAGE:
            return
        if code not in _SEGMENTS:
            raise RejectedImage(CORRUPT)
        (length,) = struct.unpack_from(">H", data, marker.end())
        position = marker.end() + length
    raise RejectedImage(TRUNCATED)


def _open(data: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(data), formats=_FORMATS)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, _UNTURNED)
    except Exception:  # broken metadata does not make a picture unusable, and is not read by TensorFlow
        return _UNTURNED
    return value if isinstance(value, int) and 1 <= value <= 8 else _UNTURNED


def _is_plain_png(data: bytes, image: Image.Image) -> bool:
    depth, colour_type = struct.unpack_from("BB", data, 24)  # of the header chunk, which comes first
    return (
        depth == 8 and colour_type in (0, 2) and "transparency" not in image.info and _orientation(image) == _UNTURNED
    )


def _is_lossy(data: bytes, image: Image.Image) -> bool:
    if image.format == "WEBP":
        return not _is_lossless_webp(data)
    if image.format == "TIFF":
        return image.info.get("compression") in _LOSSY_TIFF
    return image.format in ("JPEG", "MPO", "AVIF")


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


def _to_8_bits(image: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB or grey, on white where it is transparent."""
    if image.mode == "F":
        raise RejectedImage(FLOATING_POINT)
    if image.mode == "I" and image.format != "PPM":  # PPM: 16 bits, which Pillow widens
        raise RejectedImage(WIDE_INTEGERS)
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value * _TO_8_BITS + 0.5).convert("L")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("L" if image.mode in ("L", "LA", "La") else "RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def thumbnail(data: bytes) -> bytes:
    """A small JPEG of a JPEG or PNG from `prepare`, at most 96 pixels wide and high."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _open(data)
        image.draft("RGB", (_THUMBNAIL, _THUMBNAIL))
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
