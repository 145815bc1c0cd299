"""What near duplicates are recognised by: a picture of 16 x 16 pixels, and a hash of it.

A worker makes the signature from the pixels that it decodes anyway, in some 20 microseconds. Distances were measured on
photographs: a copy that was encoded again, resized or made brighter is up to 0.01 away, one that lost 2 % at each
edge 0.012 (median), and of a million pairs of different photographs the closest is 0.1.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from operator import itemgetter, mul, sub
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c
from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SIDE = 16  # pixels of a signature's height and width
MIN_DECODED_SIDE = SIDE  # pixels that a signature needs of a picture that is decoded scaled down
SMALL_SIDE = 64  # pixels of the shorter side; smaller pictures show little, so that two of them are easily alike
HASH_BYTES = SIDE * SIDE // 8

_PIXELS = SIDE * SIDE
_CHROMA_STEP = 5  # chroma of every fifth pixel: five and 16 have no common divisor, so all columns occur
_NO_CHROMA = 128
_GREY_CHROMA = 4  # levels of Cb and Cr; JPEG's rounding stays below
_MIN_BITS = 8  # of a hash that are set; a picture of fewer is uniform, and its hash noise
_MIN_DEVIATION = 2.0  # grey levels; below, rounding makes up much of what two pictures have in common
_MAX_GAIN = 2.0  # of contrast, between a picture and its near duplicate
_MAX_SHIFT = 64.0  # grey levels of mean brightness
_ROUGH_STEP, _ROUGHLY_FAR = 5, 0.15  # coprime with the side, so that all columns occur
_FAR = 0.1  # beyond, colours do not matter
_SAME_GAIN, _SAME_SHIFT = 1.1, 8.0
_MAX_CHROMA_DISTANCE = 20.0  # root of the mean square
_PLAIN_LEVELS, _PLAIN_SHARE = (
    3,
    0.35,
)  # this share of the pixels in one of the levels of 8 grey values: a plain background
_LITTLE_DETAIL = 0.15  # mean square of the Laplacian by the variance; of photographs 0.24 and more

# A byte per pixel, in one integer: all pixels are compared with others in one subtraction.
_ONES = int.from_bytes(b"\x01" * _PIXELS)
_LOW_BITS, _HIGH_BITS = _ONES * 0x7F, _ONES << 7
_APART = 8 * (5 * SIDE + 6)  # bits between two pixels that are compared: 5 rows and 6 columns
_BLOCK_BITS = 8 * HASH_BYTES
_spread = itemgetter(*(index * 11 % HASH_BYTES for index in range(HASH_BYTES)))  # neighbouring bytes to far columns
_ALL = (1 << 8 * _PIXELS) - 1


class Look(NamedTuple):
    """What pictures are compared by.

    Attributes:
        content: the same for the same bytes.
        is_small: whether the picture is below SMALL_SIDE.
        signature: see `of`.
        hash: see `hash_of`; None for a uniform picture.
    """

    content: bytes
    is_small: bool
    signature: bytes
    hash: bytes | None


def look_of(data: bytes, signature: bytes, shorter_side: int) -> Look:
    """What a picture is compared by.

    Args:
        data: the encoded picture.
        signature: of its pixels.
        shorter_side: in pixels.
    """
    # Two checksums and the length: 96 bits, at a tenth of the time of a cryptographic hash.
    checksums = google_crc32c.value(data), zlib.crc32(signature), len(data) & 0xFFFFFFFF
    content = b"".join(value.to_bytes(4) for value in checksums)
    return Look(content, shorter_side < SMALL_SIDE, signature, hash_of(signature))


def of(picture: Image.Image) -> bytes:
    """The signature of a picture.

    Args:
        picture: of mode L or RGB.

    Returns:
        256 bytes of luma by rows, then Cb and Cr of some of the pixels, none if the picture is grey.
    """
    return _of_small(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0))


def of_pixels(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The signature of a picture that is decoded scaled down already: uint8 of the shape (height, width, 1 or 3)."""
    height, width, channels = pixels.shape
    mode = "L" if channels == 1 else "RGB"
    picture = Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)
    return _of_small(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _of_small(small: Image.Image) -> bytes:
    if small.mode == "L":
        return small.tobytes()
    pixels = small.convert("YCbCr").tobytes()
    return pixels[::3] + pixels[1 :: 3 * _CHROMA_STEP] + pixels[2 :: 3 * _CHROMA_STEP]


def hash_of(signature: bytes) -> bytes | None:
    """The hash of a signature: 256 bits, each of which says whether a pixel is brighter than one far from it.

    Its bits are ordered such that those of any few bytes are of pixels all over the picture.

    Returns:
        None for a picture that is uniform, or nearly so.
    """
    halved = int.from_bytes(signature[:_PIXELS]) >> 1 & _LOW_BITS
    other = (halved >> _APART | halved << 8 * _PIXELS - _APART) & _ALL
    # Brighter by two grey levels at least: equal areas give zeros, not noise.
    brighter = ((halved | _HIGH_BITS) - other - _ONES) & _HIGH_BITS
    if brighter.bit_count() < _MIN_BITS:
        return None
    packed = 0
    for bit in range(8):
        packed |= (brighter >> bit * _BLOCK_BITS & (1 << _BLOCK_BITS) - 1) >> bit
    return bytes(_spread(packed.to_bytes(HASH_BYTES)))


def distance(one: bytes, other: bytes) -> float:
    """How far two pictures are apart: 0 for the same one, about 1 for two that have nothing in common.

    It is 1 - the correlation of luma, so that brightness and contrast do not matter within limits; infinite beyond
    these, or if the colours differ and neither picture is grey.
    """
    a, b = one[:_PIXELS], other[:_PIXELS]
    if _decorrelation(a[::_ROUGH_STEP], b[::_ROUGH_STEP]) > _ROUGHLY_FAR:  # most pairs, at a fifth of the time
        return math.inf
    apart = luma_distance(one, other)
    if apart < _FAR and _chroma_distance(one[_PIXELS:], other[_PIXELS:]) > _MAX_CHROMA_DISTANCE:
        return math.inf
    return apart


def luma_distance(one: bytes, other: bytes) -> float:
    """The distance of two pictures without regard to colour, also where they are far apart."""
    return _decorrelation(one[:_PIXELS], other[:_PIXELS])


def same_brightness(one: bytes, other: bytes) -> bool:
    """Whether two pictures do not differ in brightness and contrast, but for JPEG's losses."""
    a, b = one[:_PIXELS], other[:_PIXELS]
    low, high = sorted((_deviation(a), _deviation(b)))
    return abs(sum(a) - sum(b)) <= _SAME_SHIFT * _PIXELS and high <= _SAME_GAIN * low


def is_simple(signature: bytes) -> bool:
    """Whether a picture has a plain background or hardly any detail: a drawing, a digit, a product on white, a
    gradient. Such pictures are alike without being the same."""
    luma = signature[:_PIXELS]
    levels = Counter(value >> _PLAIN_LEVELS for value in luma)
    if max(levels.values()) > _PLAIN_SHARE * _PIXELS:
        return True
    inner = [row * SIDE + column for row in range(1, SIDE - 1) for column in range(1, SIDE - 1)]
    detail = sum(
        (4 * luma[at] - luma[at - 1] - luma[at + 1] - luma[at - SIDE] - luma[at + SIDE]) ** 2 for at in inner
    ) / len(inner)
    return detail < _LITTLE_DETAIL * _deviation(luma) ** 2


def _decorrelation(a: bytes, b: bytes) -> float:
    count = len(a)
    mean_a, mean_b = sum(a) / count, sum(b) / count
    low, high = sorted((_deviation(a), _deviation(b)))
    if low < _MIN_DEVIATION or high > _MAX_GAIN * low or abs(mean_a - mean_b) > _MAX_SHIFT:
        return math.inf
    return max(0.0, 1.0 - (sum(map(mul, a, b)) / count - mean_a * mean_b) / (low * high))


def _deviation(values: bytes) -> float:
    count = len(values)
    return math.sqrt(max(0.0, sum(map(mul, values, values)) / count - (sum(values) / count) ** 2))


def _chroma_distance(one: bytes, other: bytes) -> float:
    """The root of the mean square of the difference; 0 if one of the pictures is grey."""
    if _is_grey(one) or _is_grey(other):
        return 0.0
    difference = list(map(sub, one, other))
    return math.sqrt(sum(map(mul, difference, difference)) / len(difference))


def _is_grey(chroma: bytes) -> bool:
    return not chroma or max(max(chroma) - _NO_CHROMA, _NO_CHROMA - min(chroma)) <= _GREY_CHROMA
