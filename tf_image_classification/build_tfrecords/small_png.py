"""Small PNGs, many at a time: what Pillow does around the decoding of one takes several times as long as its pixels.

The rows of pictures of one size are decoded as one tall picture. Between two pictures lies a row of zeros, which is
what the filters of a first row look back at (https://www.w3.org/TR/png-3/#9Filters). Scaling goes along rows and then
along columns, so that it does the same to pictures that lie side by side.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from tf_image_classification.build_tfrecords import png_file, signature
from tf_image_classification.build_tfrecords.rejection import RejectedImage
from tf_image_classification.image_limits import ImageLimits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MAX_BYTES, _MAX_PIXELS = 2**16, 2**14  # of a file and of its picture
_MODES = {0: "L", 2: "RGB"}  # colour type -> mode of Pillow


class SmallPng(NamedTuple):
    """A PNG whose header and rows are all that decides its look.

    Attributes:
        mode: L or RGB.
        width, height: pixels.
        rows: bytes of all rows, each with its filter type.
    """

    mode: str
    width: int
    height: int
    rows: bytes


def read(data: bytes, limits: ImageLimits, max_side: int) -> SmallPng | None:
    """The rows of a small PNG that goes into a shard byte for byte.

    Args:
        data: of any file.
        limits: of the image; it takes less memory than there is a limit for.
        max_side: see images.prepare.

    Returns:
        None for any other file, and for one that is damaged, for whatever reason.
    """
    if len(data) > _MAX_BYTES or not data.startswith(png_file.SIGNATURE):
        return None
    try:
        chunks = png_file.read(data)
        width, height = chunks.width, chunks.height
        is_small = chunks.is_bare and 0 < width * height <= min(_MAX_PIXELS, limits.max_pixels)
        if not is_small or 0 < max_side < min(width, height):
            return None
        coded = chunks.coded[0] if len(chunks.coded) == 1 else b"".join(chunks.coded)
        rows = zlib.decompressobj().decompress(coded, chunks.row_bytes)
    except (RejectedImage, zlib.error):
        return None
    return SmallPng(_MODES[chunks.colour_type], width, height, rows) if len(rows) == chunks.row_bytes else None


def scaled(pictures: Sequence[SmallPng]) -> list[npt.NDArray[np.uint8]] | None:
    """The pictures as signature.scaled_picture scales them; None if the rows of some are none."""
    positions = defaultdict(list)
    for position, picture in enumerate(pictures):
        positions[picture[:3]].append(position)
    found: dict[int, npt.NDArray[np.uint8]] = {}
    try:
        for (mode, width, height), of_size in positions.items():
            levels = _decoded(mode, width, height, [pictures[position].rows for position in of_size])
            found |= zip(of_size, _scaled(levels), strict=True)
    except ValueError:  # an unknown filter type
        return None
    return [found[position] for position in range(len(pictures))]


def _decoded(mode: str, width: int, height: int, rows: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """Pictures (pictures, height, width, 1 or 3) of their rows."""
    import numpy as np  # which --help need not wait for

    stored = zlib.compress(bytes(1 + width * len(mode)).join([*rows, b""]), 0)
    tall = Image.frombytes(mode, (width, len(rows) * (height + 1)), stored, "zip", mode, 0)
    return np.asarray(tall).reshape(len(rows), height + 1, width, len(mode))[:, :height]


def _scaled(levels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Pictures (pictures, height, width, channels) -> (pictures, SIDE, SIDE, channels)."""
    import numpy as np

    count, height, width, channels = levels.shape
    side = signature.SIDE
    if max(height, width) >= signature.REDUCED_SIDE:  # scaled_picture has other steps
        return [signature.scaled_picture(_picture(of_one)) for of_one in levels]
    narrow = _resized(levels.reshape(count * height, width, channels), side, count * height)
    beside = narrow.reshape(count, height, side, channels).swapaxes(0, 1)
    small = _resized(beside.reshape(height, count * side, channels), count * side, side)
    return list(np.ascontiguousarray(small.reshape(side, count, side, channels).swapaxes(0, 1)))


def _resized(levels: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    import numpy as np

    resized = _picture(levels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(height, width, -1)


def _picture(levels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(levels.squeeze(2) if levels.shape[2] == 1 else levels)
