"""What Pillow does not say about a TIFF: whether it is a camera's raw file, and layouts that it reads wrongly.

Sources: TIFF revision 6.0; the DNG specification 1.7; TIFF/EP (ISO 12234-2), which other raw formats follow.
"""

from __future__ import annotations

import io
import struct

from PIL import TiffImagePlugin

from tf_image_classification.build_tfrecords import rejection
from tf_image_classification.build_tfrecords.rejection import RejectedImage

WHITE_IS_ZERO, PHOTOMETRIC, BITS = 0, 262, 258
_SUBFILE_TYPE, _COMPRESSION, _MAKE, _PLANES, _SUB_IFDS, _SAMPLE_FORMAT, _DNG_VERSION = (
    254,
    259,
    271,
    284,
    330,
    339,
    50706,
)
_REDUCED, _SEPARATE, _SIGNED = 1, 2, 2
_SENSOR = frozenset({32803, 34892})  # colour filter array, and what is interpolated of it
_RAW_COMPRESSIONS = frozenset({32767, 32769, 32770, 34713, 65000, 65535})  # Sony, Epson, Samsung, Nikon, Kodak, Pentax
_CANON = b"CR"
_SIZES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I"}  # type -> format of a value
_MOST_VALUES = 64
SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Pillow lacks this layout, but not its parts: big-endian 16-bit grey, 0 is white.
TiffImagePlugin.OPEN_INFO.setdefault((b"MM", WHITE_IS_ZERO, (1,), 1, (16,), ()), ("I;16B", "I;16B"))


def check(data: bytes) -> None:
    """Checks that what Pillow reads is the picture that viewers show.

    Raises:
        RejectedImage: it is not.
    """
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] not in (b"*\0", b"\0*"):
        return  # BigTIFF: no camera writes it
    tags = _directory(data, order, struct.unpack_from(order + "I", data, 4)[0])
    others = [_directory(data, order, offset) for offset in tags.get(_SUB_IFDS, ())]
    is_preview = bool(tags.get(_SUBFILE_TYPE, (0,))[0] & _REDUCED) and bool(others)
    sensor = any(_SENSOR.intersection(directory.get(PHOTOMETRIC, ())) for directory in (tags, *others))
    coded = _MAKE in tags and bool(_RAW_COMPRESSIONS.intersection(tags.get(_COMPRESSION, ())))
    if _DNG_VERSION in tags or data[8:10] == _CANON or is_preview or sensor or coded:
        raise RejectedImage(rejection.CAMERA_RAW)
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise RejectedImage(rejection.SIGNED_INTEGERS)
    if tags.get(_PLANES) == (_SEPARATE,) and len(tags.get(BITS, ())) > 1 and max(tags[BITS]) > 8:
        raise RejectedImage(rejection.DEEP_PLANES)


def refusal(data: bytes) -> str:
    """Why Pillow does not open a TIFF: its layout, or damage."""
    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(data)).close()
    except SyntaxError as error:
        if str(error).startswith("unknown"):  # pixel mode, data organization
            return rejection.UNSUPPORTED_TIFF
    except Exception:
        return rejection.CORRUPT
    return rejection.CORRUPT


def _directory(data: bytes, order: str, offset: int) -> dict[int, tuple[int, ...]]:
    """An image file directory's integers: tag -> values. What lies outside of the file is left out."""
    try:
        (count,) = struct.unpack_from(order + "H", data, offset)
    except struct.error:
        return {}
    tags: dict[int, tuple[int, ...]] = {}
    for position in range(offset + 2, min(offset + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, position)
        layout = order + _SIZES.get(kind, "B") * min(number, _MOST_VALUES)
        place = position + 8
        if struct.calcsize(layout) > 4:
            (place,) = struct.unpack_from(order + "I", data, place)
        if place + struct.calcsize(layout) <= len(data):
            tags[tag] = struct.unpack_from(layout, data, place)
    return tags
