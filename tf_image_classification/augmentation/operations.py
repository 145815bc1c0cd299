"""The 14 operations of RandAugment (arXiv:1909.13719) and TrivialAugment (arXiv:2103.10158) on the pixels of an image.

They are those of AutoAugment (arXiv:1805.09501, appendix A), which names functions of the Python Imaging Library. Each
takes an image float32 [h, w, 3] in 0-255, `amount` float32 [] from -1 to 1 and `ranges`, and returns an image of the
same shape and range. With an amount of 0 those that depend on it return the image as it is; its sign decides the
direction, where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

_FILL = 128.0  # grey, where a moved image leaves pixels empty: as in AutoAugment
_LUMA = (0.299, 0.587, 0.114)  # of ITU-R 601, as PIL's conversion to grey
_SMOOTH_CENTRE, _SMOOTH_SUM = 5.0, 13.0  # PIL's ImageFilter.SMOOTH: 1 around a 5, divided by their sum
_BITS = 8


class Ranges(NamedTuple):
    """What the operations do at the amounts -1 and 1.

    Attributes:
        degrees: of a rotation.
        shear: pixels of shift per pixel of distance from the centre.
        shift: of a translation, as a share of the side.
        factors: of contrast, colour, brightness and sharpness; 1 at the amount 0.
        bits: of a channel that posterize leaves.
        threshold: from which on solarize inverts a value of 0-255.
    """

    degrees: float
    shear: float
    shift: float
    factors: tuple[float, float]
    bits: int
    threshold: float


Operation = Callable[[tf.Tensor, tf.Tensor, Ranges], tf.Tensor]

# One pass over the pixels instead of several: compiled, an operation takes a quarter to a half of the time.
_compiled = tf.function(jit_compile=True, autograph=False)


def identity(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """The image as it is."""
    del amount, ranges
    return image


@_compiled
def auto_contrast(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Stretches each channel to 0-255; a constant one stays as it is."""
    del amount, ranges
    low, high = tf.reduce_min(image, axis=[0, 1]), tf.reduce_max(image, axis=[0, 1])
    scale = tf.where(high > low, 255.0 / tf.maximum(high - low, 1e-3), 1.0)
    return tf.clip_by_value((image - low) * scale + tf.where(high > low, 0.0, low), 0.0, 255.0)


def equalize(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Makes the histogram of each channel flat: PIL's ImageOps.equalize."""
    del amount, ranges
    levels = _levels(image)
    counts = tf.reshape(tf.math.bincount(tf.reshape(levels, [-1]), minlength=768, maxlength=768), [3, 256])
    brightest = 255 - tf.argmax(tf.reverse(counts > 0, [1]), axis=1, output_type=tf.int32)
    step = (tf.reduce_sum(counts, axis=1) - tf.gather(counts, brightest, batch_dims=1)) // 255
    step = step[:, tf.newaxis]
    below = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    table = tf.where(step > 0, table, tf.range(256))
    return _look_up(tf.cast(tf.reshape(table, [-1]), tf.float32), levels)


def rotate(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Turns the image about its centre, counter-clockwise for positive amounts."""
    angle = amount * math.radians(ranges.degrees)
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _transform(image, [cos, -sin, 0.0, sin, cos, 0.0])


def shear_x(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Shifts each row by its distance from the middle row."""
    return _transform(image, [1.0, amount * ranges.shear, 0.0, 0.0, 1.0, 0.0])


def shear_y(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Shifts each column by its distance from the middle column."""
    return _transform(image, [1.0, 0.0, 0.0, amount * ranges.shear, 1.0, 0.0])


def translate_x(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Moves the image to the left or right."""
    return _transform(image, [1.0, 0.0, amount * ranges.shift, 0.0, 1.0, 0.0])


def translate_y(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Moves the image up or down."""
    return _transform(image, [1.0, 0.0, 0.0, 0.0, 1.0, amount * ranges.shift])


@_compiled
def brightness(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Multiplies all values: PIL's ImageEnhance.Brightness."""
    return tf.clip_by_value(image * (1.0 + _change(amount, ranges)), 0.0, 255.0)


@_compiled
def color(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Away from the grey image, or towards it: PIL's ImageEnhance.Color."""
    return _away_from(_grey(image), image, _change(amount, ranges))


@_compiled
def contrast(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Away from the mean grey, or towards it: PIL's ImageEnhance.Contrast."""
    return _away_from(tf.reduce_mean(_grey(image)), image, _change(amount, ranges))


@_compiled
def sharpness(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Away from the smoothed image, or towards it: PIL's ImageEnhance.Sharpness, which leaves the border as it is."""
    if min(image.shape[:2]) < 3:
        return image
    rows = image[:-2] + image[1:-1] + image[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    inner = image[1:-1, 1:-1]
    smooth = (box + (_SMOOTH_CENTRE - 1.0) * inner) / _SMOOTH_SUM
    sharpened = tf.pad((inner - smooth) * _change(amount, ranges), [[1, 1], [1, 1], [0, 0]])
    return tf.clip_by_value(image + tf.ensure_shape(sharpened, image.shape), 0.0, 255.0)


@_compiled
def posterize(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Clears the lower bits of all values."""
    cleared = tf.round(tf.abs(amount) * (_BITS - ranges.bits))
    step = tf.pow(2.0, cleared)
    return tf.where(cleared > 0.0, tf.floor(image / step) * step, image)


@_compiled
def solarize(image: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """Inverts the values from a threshold on."""
    threshold = 256.0 - tf.abs(amount) * (256.0 - ranges.threshold)
    return tf.where(image >= threshold, 255.0 - image, image)


OPERATIONS: tuple[Operation, ...] = (
    identity,
    auto_contrast,
    equalize,
    rotate,
    solarize,
    color,
    posterize,
    contrast,
    brightness,
    sharpness,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
)


def apply(image: tf.Tensor, index: tf.Tensor, amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """One of `OPERATIONS`; in a graph, no other is computed.

    Args:
        image: float32 [h, w, 3] in 0-255.
        index: int32 [], of the operation.
        amount: float32 [], -1 to 1.

    Returns:
        float32 [h, w, 3] in 0-255.
    """

    def branch(operation: Operation) -> Callable[[], tf.Tensor]:
        return lambda: tf.ensure_shape(operation(image, amount, ranges), image.shape)

    return tf.switch_case(index, [branch(operation) for operation in OPERATIONS])


def _change(amount: tf.Tensor, ranges: Ranges) -> tf.Tensor:
    """The factor of an enhancement, minus 1."""
    least, most = ranges.factors
    return tf.abs(amount) * tf.where(amount < 0.0, least - 1.0, most - 1.0)


# The two passes over the pixels of equalize; what is between them takes seconds to compile.
@_compiled
def _levels(image: tf.Tensor) -> tf.Tensor:
    """Values as indices of a table of 3 x 256, channel by channel: int32 [h, w, 3]."""
    return tf.cast(tf.round(image), tf.int32) + tf.constant([0, 256, 512])


@_compiled
def _look_up(table: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    return tf.gather(table, levels)


def _grey(image: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(image * tf.constant(_LUMA), axis=-1, keepdims=True)


def _away_from(start: tf.Tensor, image: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(image + (image - start) * share, 0.0, 255.0)


def _transform(image: tf.Tensor, matrix: Sequence[tf.Tensor | float]) -> tf.Tensor:
    """Output pixel (x, y), counted from the centre, is input pixel (a x + b y + c width, d x + e y + f height).

    Between pixels it is bilinear, outside of the image grey.

    Args:
        matrix: a, b, c, d, e, f.
    """
    return _sample(image, tf.stack(matrix))


@_compiled
def _sample(image: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    xx, xy, shift_x, yx, yy, shift_y = tf.unstack(matrix)
    height, width, channels = image.shape
    columns = tf.range(width, dtype=tf.float32)[tf.newaxis] - (width - 1) / 2
    rows = tf.range(height, dtype=tf.float32)[:, tf.newaxis] - (height - 1) / 2
    x = xx * columns + xy * rows + shift_x * width + (width - 1) / 2
    y = yx * columns + yy * rows + shift_y * height + (height - 1) / 2
    # Outside there is one colour, so that what is farther away than its first pixel is as good as this.
    x, y = tf.clip_by_value(x, -1.0, float(width)), tf.clip_by_value(y, -1.0, float(height))
    left, top = tf.floor(x), tf.floor(y)
    right_share, bottom_share = (x - left)[..., tf.newaxis], (y - top)[..., tf.newaxis]
    padded = tf.pad(image, [[1, 2], [1, 2], [0, 0]], constant_values=_FILL)
    pixels = tf.reshape(padded, [(height + 3) * (width + 3), channels])

    def at(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.gather(pixels, (tf.cast(y, tf.int32) + 1) * (width + 3) + tf.cast(x, tf.int32) + 1)

    upper = at(left, top) * (1.0 - right_share) + at(left + 1.0, top) * right_share
    lower = at(left, top + 1.0) * (1.0 - right_share) + at(left + 1.0, top + 1.0) * right_share
    return upper * (1.0 - bottom_share) + lower * bottom_share
