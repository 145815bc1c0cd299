"""Encoded image -> network input, for training and for serving, as the pretrained networks expect it.

Three kinds, named by a network's `preprocessing`: `inception` (random crop of 5-100 % of the image, values in [-1, 1]),
`vgg` (short side scaled, random crop, mean colour subtracted) and `unit` (resized only, values in [-1, 1]). Source of
the first two: the preprocessing with which slim's weights were trained. Resizing is TensorFlow 1's bilinear (corners
not aligned, no half-pixel centres), as those weights saw it.

Random choices come from stateless ops on a seed per image, so that a training can be repeated and continued bit for
bit.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

DecodeFn = Callable[[tf.Tensor, int, int, tf.Tensor], tf.Tensor]
PreprocFn = Callable[..., tf.Tensor]

VGG_MEAN_RGB = (123.68, 116.78, 103.94)
_VGG_SIDE, _VGG_SIDE_MAX, _VGG_CROP = 256, 512, 224
_INCEPTION_EVAL_CROP = 0.875
# A crop that is at least twice, four or eight times as large as the network's input is decoded at that fraction of its
# size.
_JPEG_RATIOS = (1, 2, 4, 8)


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG or PNG (also BMP and the first frame of a GIF).

    Args:
        encoded: string [].

    Returns:
        uint8 [h, w, 3].
    """
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return image


def decode_whole(encoded: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
    """A decode function that keeps the whole image: the default of an EstimatorSpec."""
    del width, height, seed
    return decode(encoded)


def decode_random_crop(encoded: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
    """Decodes only a random part of the image: 5-100 % of its area, aspect ratio 3/4 to 4/3.

    Of a JPEG, only the blocks under the part are transformed, at 1/2, 1/4 or 1/8 of the size where the part is that
    much larger than what the network takes.

    Args:
        encoded: string [], JPEG or PNG.
        width, height: what the part will be resized to, in pixels.
        seed: int64 [2].

    Returns:
        uint8 [h, w, 3], the part.
    """

    def jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(encoded)
        begin, size = _random_box(shape, seed)

        def at_ratio(ratio: int) -> Callable[[], tf.Tensor]:
            window = tf.concat([begin[:2] // ratio, size[:2] // ratio], axis=0)
            return lambda: tf.io.decode_and_crop_jpeg(
                encoded, window, channels=3, ratio=ratio, fancy_upscaling=False, dct_method="INTEGER_FAST"
            )

        scale = tf.minimum(size[0] // height, size[1] // width)
        branch = tf.reduce_sum(tf.cast(scale >= tf.constant(_JPEG_RATIOS[1:]), tf.int32))
        return tf.switch_case(branch, [at_ratio(ratio) for ratio in _JPEG_RATIOS])

    def other() -> tf.Tensor:
        image = decode(encoded)
        begin, size = _random_box(tf.shape(image), seed)
        return tf.slice(image, begin, size)

    part = tf.cond(tf.io.is_jpeg(encoded), jpeg, other)
    part.set_shape([None, None, 3])
    return part


def _random_box(shape: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.1,
        aspect_ratio_range=(0.75, 1.33),
        area_range=(0.05, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    # The op leaves the third entry of `size` at -1 for "all channels", which tf.slice takes as well.
    return begin, size


def resize(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """TensorFlow 1's bilinear resize.

    Args:
        image: uint8 or float [h, w, 3].

    Returns:
        float32 [height, width, 3], in the units of `image`.
    """
    resized = tf.raw_ops.ResizeBilinear(
        images=image[tf.newaxis], size=[height, width], align_corners=False, half_pixel_centers=False
    )
    return tf.ensure_shape(resized[0], [height, width, 3])


def unit(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """uint8 [h, w, 3] -> float32 [height, width, 3] in [-1, 1]."""
    return resize(image, width, height) / 127.5 - 1.0


def inception_training(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
    """Random flip, brightness (by up to 32/255) and saturation (0.5 to 1.5 times) of what `decode_random_crop`
    returned.

    Args:
        image: uint8 [h, w, 3].
        seed: int64 [2].

    Returns:
        float32 [height, width, 3] in [-1, 1].
    """
    draw = tf.random.stateless_uniform([4], _fold(seed, 1))
    return _flip_and_distort(resize(image, width, height), draw)


# One pass over the pixels instead of twenty: compiled, it takes a quarter of the time.
@tf.function(jit_compile=True, autograph=False)
def _flip_and_distort(image: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    """float32 [h, w, 3] in 0 to 255, and four random numbers in [0, 1) -> float32 [h, w, 3] in [-1, 1]."""
    image = tf.where(draw[0] < 0.5, tf.reverse(image, [1]), image)
    brightness = (draw[1] * 2.0 - 1.0) * 32.0
    brighten_first = tf.cast(draw[3] < 0.5, tf.float32)
    image = _saturate(image + brightness * brighten_first, 0.5 + draw[2]) + brightness * (1.0 - brighten_first)
    return tf.clip_by_value(image / 127.5 - 1.0, -1.0, 1.0)


def inception_evaluation(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """The central 87.5 % of each side, resized: uint8 [h, w, 3] -> float32 [height, width, 3] in [-1, 1]."""
    return unit(tf.image.central_crop(image, _INCEPTION_EVAL_CROP), width, height)


def vgg_training(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
    """Short side scaled to a random length, a random crop of it, a random flip, mean colour subtracted.

    Args:
        image: uint8 [h, w, 3].
        seed: int64 [2].

    Returns:
        float32 [height, width, 3], RGB, in units of 1/255 about the mean colour.
    """
    draw = tf.random.stateless_uniform([4], _fold(seed, 1))
    side = tf.cast(_VGG_SIDE + draw[0] * (_VGG_SIDE_MAX - _VGG_SIDE + 1), tf.int32)
    image = _crop_after_scaling(image, width, height, side, draw[1], draw[2])
    image = tf.cond(draw[3] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    return image - tf.constant(VGG_MEAN_RGB)


def vgg_evaluation(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """Short side scaled to 256 (for a 224-pixel input), the centre of it, mean colour subtracted.

    Args:
        image: uint8 [h, w, 3].

    Returns:
        float32 [height, width, 3], RGB, in units of 1/255 about the mean colour.
    """
    half = tf.constant(0.5)
    return _crop_after_scaling(image, width, height, tf.constant(_VGG_SIDE), half, half) - tf.constant(VGG_MEAN_RGB)


def _crop_after_scaling(
    image: tf.Tensor, width: int, height: int, side: tf.Tensor, x: tf.Tensor, y: tf.Tensor
) -> tf.Tensor:
    """The window at (x, y), each 0 to 1, of the image scaled to a short side of `side` (given for a 224-pixel
    input)."""
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    short = tf.cast(side, tf.float32) * (max(width, height) / _VGG_CROP)
    scaled = tf.maximum(tf.cast(tf.round(shape * short / tf.reduce_min(shape)), tf.int32), [height, width])
    image = tf.raw_ops.ResizeBilinear(
        images=image[tf.newaxis], size=scaled, align_corners=False, half_pixel_centers=False
    )[0]
    room = tf.cast(scaled - [height, width] + 1, tf.float32)
    begin = tf.minimum(tf.cast(tf.stack([y, x]) * room, tf.int32), scaled - [height, width])
    return tf.ensure_shape(tf.slice(image, [begin[0], begin[1], 0], [height, width, 3]), [height, width, 3])


def _saturate(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies HSV saturation, like tf.image.adjust_saturation, without going through hue.

    With hue and value v kept, a channel c becomes v - f * (v - c); f is limited to what makes the smallest channel
    zero.
    """
    red, green, blue = tf.unstack(image, axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    limited = tf.minimum(factor, tf.math.divide_no_nan(value, chroma))
    return tf.stack([value - limited * (value - channel) for channel in (red, green, blue)], axis=-1)


def _fold(seed: tf.Tensor, number: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, number)


TRAINING: dict[str, tuple[DecodeFn, PreprocFn]] = {
    "inception": (decode_random_crop, inception_training),
    "vgg": (decode_whole, vgg_training),
    "unit": (decode_whole, unit),
}
EVALUATION: dict[str, PreprocFn] = {"inception": inception_evaluation, "vgg": vgg_evaluation, "unit": unit}
