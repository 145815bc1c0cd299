"""What near duplicates are recognised by: a picture of 16 x 16 pixels, and a hash of it.

A worker makes the signature from the pixels that it decodes anyway, in some 10 microseconds. Distances were measured on
photographs: a copy that was encoded again, resized or made brighter is up to 0.01 away, one that lost 2 % at each
edge 0.012 (median), and of a million pairs of different photographs the closest is 0.1.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c
from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SIDE = 16  # pixels of a signature's height and width
PIXELS = SIDE * SIDE
_REDUCING_GAP = 2.0
REDUCED_SIDE = int(SIDE * 2 * _REDUCING_GAP)  # pixels from which `scaled_picture` first takes means of pixels
MIN_DECODED_SIDE = SIDE  # pixels that a signature needs of a picture that is decoded scaled down
SMALL_SIDE = 64  # pixels of the shorter side; smaller pictures show little, so that two of them are easily alike
HASH_BYTES = SIDE * SIDE // 8
BYTES = SIDE * SIDE * 3 // 2  # of a signature: luma of all pixels, Cb and Cr of every fourth

_CHROMA_COLUMNS = slice(2, None, 4)  # chroma of every fourth column: the eye and the camera see it coarsely too
_YCBCR_OF_RGB = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF
_ROUNDED_DOWN = ((0.5,), (128.0,), (128.0,))  # added, for levels from 0 to 255
_CACHED_SIZES = 256  # of the scaled pictures of a data set; a size takes 64 bytes per pixel
_MAX_VALUES = 2**15 - 1  # of a picture that is filtered; from 16 times as many products on OpenBLAS uses threads
_MIN_BITS = 8  # of a hash that are set; a picture of fewer is uniform, and its hash noise

_APART = 5 * SIDE + 6  # two pixels that are compared: 5 columns and 6 rows
_CONTENT = struct.Struct("<III")


class Look(NamedTuple):
    """What pictures are compared by.

    Attributes:
        content: the same for the same bytes.
        is_small: whether the picture is below SMALL_SIDE.
        signature: see `of_all`.
    """

    content: bytes
    is_small: bool
    signature: bytes


class Seen(NamedTuple):
    """What is kept of a picture until those of a chunk are looked at together, see `seen` and `looks_of`."""

    scaled: npt.NDArray[np.uint8]
    crc32c: int
    bytes: int
    shorter_side: int


def seen(data: bytes, scaled: npt.NDArray[np.uint8], shorter_side: int) -> Seen:
    """What `looks_of` needs.

    Args:
        data: the encoded picture.
        scaled: its pixels, from `scaled_picture` or `scaled_further`.
        shorter_side: in pixels.
    """
    return Seen(scaled, google_crc32c.value(data), len(data), shorter_side)


def looks_of(pictures: Sequence[Seen]) -> list[Look]:
    """What pictures are compared by. They take a third of the time if they are given together."""
    looks = []
    for picture, signature in zip(pictures, of_all([picture.scaled for picture in pictures]), strict=True):
        # Two checksums and the length: 96 bits, at a tenth of the time of a cryptographic hash.
        content = _CONTENT.pack(picture.crc32c, zlib.crc32(signature), picture.bytes & 0xFFFFFFFF)
        looks.append(Look(content, picture.shorter_side < SMALL_SIDE, signature))
    return looks


def scaled_picture(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """A picture of mode L or RGB, scaled down for `of_all`: (SIDE, SIDE, 1 or 3)."""
    import numpy as np  # which --help need not wait for

    small = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP)
    return np.frombuffer(small.tobytes(), np.uint8).reshape(SIDE, SIDE, -1)


def scaled_further(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture that is decoded scaled down, (height, width, 1 or 3): as it is, or smaller, for `of_all`."""
    return pixels if pixels.size <= _MAX_VALUES else scaled_picture(Image.fromarray(pixels.squeeze()))


def of_all(pictures: Sequence[npt.NDArray[np.uint8]]) -> list[bytes]:
    """The signatures of pictures.

    Args:
        pictures: from `scaled_picture` or `scaled_further`.

    Returns:
        256 bytes of luma by columns, then Cb and Cr of every fourth column.
    """
    import numpy as np

    if not pictures:
        return []
    rgb = _filtered_all(pictures)
    planes = np.array(_YCBCR_OF_RGB, np.float32) @ rgb.reshape(3, -1) + np.array(_ROUNDED_DOWN, np.float32)
    levels = planes.astype(np.uint8).reshape(3, len(pictures), SIDE, SIDE)
    chroma = levels[1:, :, _CHROMA_COLUMNS].swapaxes(0, 1).reshape(len(pictures), -1)
    luma = levels[0].reshape(len(pictures), -1)
    return [row.tobytes() for row in np.concatenate((luma, chroma), axis=1)]


def _filtered_all(pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Scales pictures: R, G and B by columns (3, pictures, SIDE, SIDE)."""
    import numpy as np

    if {pixels.shape for pixels in pictures} == {(SIDE, SIDE, 1)}:  # small grey pictures: the filter changes nothing
        levels = np.stack(pictures)[..., 0].swapaxes(1, 2).astype(np.float32)
        return np.broadcast_to(levels, (3, *levels.shape))
    return np.stack([_filtered(pixels) for pixels in pictures], axis=1)


def _filtered(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Scales a picture: R, G and B by columns (3, SIDE, SIDE)."""
    import numpy as np

    height, width, channels = pixels.shape
    columns = pixels.reshape(height, -1).astype(np.float32).T @ _filter(height).T
    levels = _filter(width) @ columns.reshape(width, channels * SIDE)
    planes = levels.reshape(SIDE, channels, SIDE).swapaxes(0, 1)
    return planes if channels == 3 else np.repeat(planes, 3, axis=0)


@functools.lru_cache(_CACHED_SIZES)
def _filter(size: int) -> npt.NDArray[np.float32]:
    """Weights (SIDE, size) of a triangle filter that scales so many pixels to SIDE: those of Image.resize with
    BILINEAR, which takes longer to make them than to use them."""
    import numpy as np

    scale = size / SIDE
    centres = (np.arange(SIDE) + 0.5)[:, None] * scale
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(size) + 0.5 - centres) / max(scale, 1.0))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def hashes_of(given: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The hashes of signatures (pictures, BYTES): 256 bits, each of which says whether a pixel is brighter than one far
    from it.

    Their bits are ordered such that those of any few bytes are of pixels all over the picture.

    Returns:
        uint8 (signatures, HASH_BYTES); zeros for a picture that is uniform, or nearly so.
    """
    import numpy as np

    halved = given[:, :PIXELS] >> 1  # brighter by two grey levels at least: equal areas give zeros, not noise
    brighter = halved > np.concatenate((halved[:, _APART:], halved[:, :_APART]), axis=1)
    packed = np.packbits(brighter.reshape(-1, 8, HASH_BYTES), axis=1)[:, 0, np.arange(HASH_BYTES) * 11 % HASH_BYTES]
    packed[np.bitwise_count(packed).sum(1) < _MIN_BITS] = 0
    return packed
