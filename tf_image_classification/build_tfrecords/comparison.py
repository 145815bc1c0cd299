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

    def of(self, pictures: npt.NDArray[np.int64]) -> Luma:
        """That of some of the pictures."""
        return Luma(self.levels[pictures], self.means[pictures], self.deviations[pictures])


def luma_of(signatures: npt.NDArray[np.uint8]) -> Luma:
    """The luma of pictures, by their signatures (pictures, BYTES)."""
    import numpy as np  # which --help need not wait for

    levels = signatures[:, :PIXELS].astype(np.float32)
    means = levels.sum(1).astype(np.float64) / PIXELS
    squares = np.einsum("ij,ij->i", levels, levels).astype(np.float64) / PIXELS
    return Luma(levels, means, np.sqrt(np.maximum(0.0, squares - means * means)))


def luma_distances(some: Luma, others: Luma) -> npt.NDArray[np.float64]:
    """How far pictures are apart without regard to colour: 0 for the same one, about 1 for two with nothing in common.

    It is 1 - the correlation, so that brightness and contrast do not matter within limits; infinite beyond these.

    Returns:
        (pairs,).
    """
    import numpy as np

    low, high = np.minimum(some.deviations, others.deviations), np.maximum(some.deviations, others.deviations)
    comparable = (low >= _MIN_DEVIATION) & (high <= _MAX_GAIN * low) & (np.abs(some.means - others.means) <= _MAX_SHIFT)
    products = np.einsum("ij,ij->i", some.levels, others.levels).astype(np.float64) / PIXELS
    covariance = products - some.means * others.means
    apart = 1.0 - np.divide(covariance, low * high, out=np.zeros_like(low), where=comparable)
    return np.where(comparable, np.maximum(0.0, apart), np.inf)


def same_colours(some: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Whether the colours of pairs do not differ much, or one of the two is grey.

    Args:
        some, others: signatures, both (pairs, BYTES).
    """
    import numpy as np

    a, b = some[:, PIXELS:].astype(np.int32), others[:, PIXELS:].astype(np.int32)
    differing = np.sqrt(np.square(a - b).sum(1) / a.shape[1]) > _MAX_CHROMA_DISTANCE
    grey = [np.abs(chroma - _NO_CHROMA).max(1) <= _GREY_CHROMA for chroma in (a, b)]
    same: npt.NDArray[np.bool_] = ~differing | grey[0] | grey[1]
    return same


def same_brightness(some: Luma, others: Luma) -> npt.NDArray[np.bool_]:
    """Whether pairs do not differ in brightness and contrast, but for JPEG's losses."""
    import numpy as np

    low, high = np.minimum(some.deviations, others.deviations), np.maximum(some.deviations, others.deviations)
    same: npt.NDArray[np.bool_] = (np.abs(some.means - others.means) <= _SAME_SHIFT) & (high <= _SAME_GAIN * low)
    return same


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
