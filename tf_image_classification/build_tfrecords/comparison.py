"""How far pairs of pictures are apart, by their signatures: thousands of pairs at a time.

All sums are exact, in float32 as well: 256 products of two levels are below 2 ** 24.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tf_image_classification.build_tfrecords.signature import PIXELS, SIDE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_NO_CHROMA = 128
_GREY_CHROMA = 4  # levels of Cb and Cr; JPEG's rounding stays below
_MIN_DEVIATION = 2.0  # grey levels; below, rounding makes up much of what two pictures have in common
_MAX_GAIN = 2.0  # of contrast, between a picture and its near duplicate
_MAX_SHIFT = 64.0  # grey levels of mean brightness
_SAME_GAIN, _SAME_SHIFT = 1.1, 8.0
_MAX_CHROMA_DISTANCE = 20.0  # root of the mean square
_PLAIN_LEVEL, _PLAIN_SHARE = 8, 0.35  # a background is plain if so many pixels are in one level of so many grey values
_LITTLE_DETAIL = 0.15  # mean square of the Laplacian by the variance; of photographs 0.24 and more


class Luma(NamedTuple):
    """The luma of pictures.

    Attributes:
        levels: (pictures, PIXELS).
        means, deviations: of the levels, (pictures,).
    """

    levels: npt.NDArray[np.float32]
    means: npt.NDArray[np.float64]
    deviations: npt.NDArray[np.float64]


def luma_of(signatures: npt.NDArray[np.uint8]) -> Luma:
    """The luma of pictures, by their signatures (pictures, BYTES)."""
    import numpy as np  # which --help need not wait for

    levels = signatures[:, :PIXELS].astype(np.float32)
    means = levels.sum(1).astype(np.float64) / PIXELS
    squares = np.einsum("ij,ij->i", levels, levels).astype(np.float64) / PIXELS
    return Luma(levels, means, np.sqrt(np.maximum(0.0, squares - means * means)))


def luma_distances(luma: Luma, some: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How far pictures are apart without regard to colour: 0 for the same one, about 1 for two with nothing in common.

    It is 1 - the correlation, so that brightness and contrast do not matter within limits; infinite beyond these.

    Args:
        some, others: of pairs, positions in `luma`, both (pairs,).

    Returns:
        (pairs,).
    """
    import numpy as np

    low, high = _deviations(luma, some, others)
    shifts = np.abs(luma.means[some] - luma.means[others])
    comparable = np.flatnonzero((low >= _MIN_DEVIATION) & (high <= _MAX_GAIN * low) & (shifts <= _MAX_SHIFT))
    some, others = some[comparable], others[comparable]
    products = np.einsum("ij,ij->i", luma.levels[some], luma.levels[others]).astype(np.float64) / PIXELS
    covariance = products - luma.means[some] * luma.means[others]
    apart = np.full(len(low), np.inf)
    apart[comparable] = np.maximum(0.0, 1.0 - covariance / (low * high)[comparable])
    return apart


def same_brightness(luma: Luma, some: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether pairs do not differ in brightness and contrast, but for JPEG's losses.

    Args:
        luma, some, others: as for `luma_distances`.
    """
    import numpy as np

    low, high = _deviations(luma, some, others)
    shifts = np.abs(luma.means[some] - luma.means[others])
    same: npt.NDArray[np.bool_] = (shifts <= _SAME_SHIFT) & (high <= _SAME_GAIN * low)
    return same


def same_colours(
    signatures: npt.NDArray[np.uint8], some: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether the colours of pairs do not differ much, or one of the two is grey.

    Args:
        signatures: (pictures, BYTES).
        some, others: of pairs, positions in `signatures`, both (pairs,).
    """
    import numpy as np

    chroma = signatures[:, PIXELS:]
    differences = chroma[some].astype(np.float32) - chroma[others]
    squares = np.einsum("ij,ij->i", differences, differences).astype(np.float64) / chroma.shape[1]
    same: npt.NDArray[np.bool_] = np.sqrt(squares) <= _MAX_CHROMA_DISTANCE
    asked = np.flatnonzero(~same)
    for pictures in (some, others):
        same[asked] |= np.abs(chroma[pictures[asked]].astype(np.int16) - _NO_CHROMA).max(1, initial=0) <= _GREY_CHROMA
    return same


def _deviations(
    luma: Luma, some: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The lower and the higher deviation of each pair."""
    import numpy as np

    a, b = luma.deviations[some], luma.deviations[others]
    return np.minimum(a, b), np.maximum(a, b)


def are_simple(signatures: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Whether pictures have a plain background or hardly any detail: a drawing, a digit, a product on white, a
    gradient. Such pictures are alike without being the same.

    Args:
        signatures: (pictures, BYTES).
    """
    import numpy as np

    luma = signatures[:, :PIXELS]
    bins = 256 // _PLAIN_LEVEL
    levels = np.arange(len(luma))[:, None] * bins + luma // _PLAIN_LEVEL
    counts = np.bincount(levels.ravel(), minlength=len(luma) * bins).reshape(-1, bins)
    rows = luma.reshape(-1, SIDE, SIDE).astype(np.int32)
    around = rows[:, :-2, 1:-1] + rows[:, 2:, 1:-1] + rows[:, 1:-1, :-2] + rows[:, 1:-1, 2:]
    detail = np.square(4 * rows[:, 1:-1, 1:-1] - around).mean((1, 2))
    variances = luma_of(signatures).deviations ** 2
    simple: npt.NDArray[np.bool_] = (counts.max(1) > _PLAIN_SHARE * PIXELS) | (detail < _LITTLE_DETAIL * variances)
    return simple
