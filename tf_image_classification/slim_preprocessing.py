"""The preprocessing of slim, with which its networks were trained: resizing, random changes, normalisation.

Sources: slim's preprocessing/inception_preprocessing.py with its default `fast_mode=True`, after arXiv:1409.4842, and
its preprocessing/vgg_preprocessing.py, after arXiv:1409.1556.

Resizing is TensorFlow 1's bilinear (corners not aligned, no half-pixel centres): slim's weights were trained with it.
"""

from __future__ import annotations

import tensorflow as tf

from tf_image_classification.preprocessing_parts import InParts, Unfinished, flipped, normalized, rounded

# Mean of ImageNet's training images in 0-255: _R_MEAN, _G_MEAN and _B_MEAN of slim's vgg_preprocessing.py.
VGG_MEAN_RGB = (123.68, 116.78, 103.94)
# Short side in pixels: slim's _RESIZE_SIDE_MIN and _RESIZE_SIDE_MAX, for the 224-pixel input of its VGG and ResNet v1.
_VGG_SIDE_MIN, _VGG_SIDE_MAX, _VGG_CROP = 256, 512, 224
# central_fraction of slim's inception_preprocessing.preprocess_for_eval.
_INCEPTION_EVAL_CROP = 0.875
# max_delta of slim's random_brightness is 32 / 255, of values in [0, 1]; here values are in [0, 255].
_MAX_BRIGHTNESS_DELTA = 32.0
# lower and upper (exclusive) of slim's random_saturation.
_SATURATION_MIN, _SATURATION_MAX = 0.5, 1.5
# Added to an example's seed for the augmentation, so that it does not repeat the random numbers of the crop.
_AUGMENTATION_STREAM = 1


def resize(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """TensorFlow 1's bilinear resize: output pixel i samples the input at i * h / height, not at its centre.

    Args:
        image: uint8 or float [h, w, 3].
        width, height: of the result, in pixels.

    Returns:
        float32 [height, width, 3], in the units of `image`.
    """
    resized = tf.raw_ops.ResizeBilinear(
        images=image[tf.newaxis], size=[height, width], align_corners=False, half_pixel_centers=False
    )
    return tf.ensure_shape(resized[0], [height, width, 3])


def scale_to_unit(image: tf.Tensor) -> tf.Tensor:
    """Scales values of 0 to 255 to -1 to 1, in any shape."""
    return image / 127.5 - 1.0


def subtract_mean_rgb(image: tf.Tensor) -> tf.Tensor:
    """Subtracts ImageNet's mean colour: float32 [..., 3] in 0-255 -> float32 [..., 3], -123.68 to 151.06."""
    return image - tf.constant(VGG_MEAN_RGB)


@tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
def unit(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """Resizes and scales to [-1, 1]: uint8 [h, w, 3] -> float32 [height, width, 3]."""
    return scale_to_unit(resize(image, width, height))


@tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
def _resized_for_inception(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> Unfinished:
    return Unfinished(rounded(resize(image, width, height)), _augmentation_draws(seed))


def _flip_and_distort(pixels: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """uint8 [B, h, w, 3] and four random numbers each, float32 [B, 4] -> float32 [B, h, w, 3] in [-1, 1]."""
    image = tf.cast(flipped(pixels, draws[:, 0]), tf.float32)
    shift, change, order = tf.unstack(draws[:, 1:, tf.newaxis, tf.newaxis, tf.newaxis], axis=1)
    delta = (shift * 2.0 - 1.0) * _MAX_BRIGHTNESS_DELTA
    factor = _SATURATION_MIN + change * (_SATURATION_MAX - _SATURATION_MIN)
    brightness_first = tf.cast(order < 0.5, tf.float32)
    image = _saturate(image + delta * brightness_first, factor) + delta * (1.0 - brightness_first)
    return tf.clip_by_value(image / 127.5 - 1.0, -1.0, 1.0)


@tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
def inception_evaluation(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """The central 87.5 % of each side (inception_preprocessing.preprocess_for_eval), resized and scaled to [-1, 1].

    Args:
        image: uint8 [h, w, 3].
        width, height: of the result, in pixels.

    Returns:
        float32 [height, width, 3].
    """
    return unit(tf.image.central_crop(image, _INCEPTION_EVAL_CROP), width, height)


@tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
def _window_for_vgg(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> Unfinished:
    """A random window, after the short side was scaled to a random length: slim's 256 to 512 pixels for a 224-pixel
    input, and in proportion for others."""
    draws = _augmentation_draws(seed)
    short_side = tf.cast(_VGG_SIDE_MIN + draws[0] * (_VGG_SIDE_MAX - _VGG_SIDE_MIN + 1), tf.int32)
    return Unfinished(rounded(_crop_after_scaling(image, width, height, short_side, draws[1], draws[2])), draws[3:])


def _flip_and_subtract_mean(pixels: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    return subtract_mean_rgb(tf.cast(flipped(pixels, draws[:, 0]), tf.float32))


@tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
def vgg_evaluation(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """Short side scaled to 256 (for a 224-pixel input), the central window, mean colour subtracted.

    Args:
        image: uint8 [h, w, 3].
        width, height: of the result, in pixels.

    Returns:
        float32 [height, width, 3], RGB minus `VGG_MEAN_RGB`: -123.68 to 151.06.
    """
    half = tf.constant(0.5)
    return subtract_mean_rgb(_crop_after_scaling(image, width, height, tf.constant(_VGG_SIDE_MIN), half, half))


def _crop_after_scaling(
    image: tf.Tensor, width: int, height: int, short_side: tf.Tensor, x: tf.Tensor, y: tf.Tensor
) -> tf.Tensor:
    """A window of `width` x `height` pixels out of the image after scaling.

    Args:
        image: uint8 [h, w, 3].
        short_side: int32 [], short side of the scaled image in pixels, for a 224-pixel window.
        x, y: float32 [] in [0, 1]: where the window is, from the left or upper border (0) to the other one (1).

    Returns:
        float32 [height, width, 3] in [0, 255].
    """
    extent = tf.cast(tf.shape(image)[:2], tf.float64)
    target = tf.cast(short_side, tf.float64) * (max(width, height) / _VGG_CROP)
    size = tf.constant([height, width], tf.float64)
    scaled = tf.maximum(tf.round(extent * target / tf.reduce_min(extent)), size)
    begin = tf.minimum(tf.floor(tf.cast(tf.stack([y, x]), tf.float64) * (scaled - size + 1)), scaled - size)
    # The scaled image of a narrow one would take gigabytes: only the window's part of the source is scaled.
    first = begin * (extent / scaled)
    last = (begin + size - 1) * (extent / scaled)
    corner = tf.floor(first)
    part = tf.slice(
        image,
        tf.concat([tf.cast(corner, tf.int32), [0]], 0),
        tf.concat([tf.cast(tf.minimum(tf.floor(last) + 2, extent) - corner, tf.int32), [3]], 0),
    )
    part = tf.pad(part, [[0, 1], [0, 1], [0, 0]], "SYMMETRIC")  # behind the last pixel, `resize` repeats it
    box = tf.concat([first - corner, last - corner], 0) / tf.cast(tf.tile(tf.shape(part)[:2], [2]) - 1, tf.float64)
    window = tf.image.crop_and_resize(part[tf.newaxis], tf.cast(box, tf.float32)[tf.newaxis], [0], [height, width])
    return tf.ensure_shape(window[0], [height, width, 3])


def _saturate(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies HSV saturation, as tf.image.adjust_saturation does, without computing hue.

    HSV has value v = max(r, g, b) and saturation s = (v - min(r, g, b)) / v. With hue and value kept and s' = f * s,
    a channel c becomes v - f * (v - c). Saturation ends at s' = 1, where the smallest channel is 0: f is at most 1 / s.

    Args:
        image: float32 [B, h, w, 3].
        factor: float32 [B, 1, 1, 1], f.
    """
    red, green, blue = tf.split(image, 3, axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    limited = tf.minimum(factor, tf.math.divide_no_nan(value, chroma))
    return tf.concat([value - limited * (value - channel) for channel in (red, green, blue)], axis=-1)


def _augmentation_draws(seed: tf.Tensor) -> tf.Tensor:
    """The random numbers of one image's augmentation: an example's seed int64 [2] -> float32 [4] in [0, 1)."""
    return tf.random.stateless_uniform([4], tf.random.experimental.stateless_fold_in(seed, _AUGMENTATION_STREAM))


# Random flip, brightness (by up to 32/255) and saturation (0.5 to 1.5 times), in a random order of these two: slim's
# inception_preprocessing.distort_color with `fast_mode=True`. The crop is `preprocessing.decode_random_crop`'s. Values
# are in [-1, 1].
inception_training = InParts(_resized_for_inception, _flip_and_distort)
# Short side scaled to a random length, a random window, a random flip; RGB minus `VGG_MEAN_RGB`: -123.68 to 151.06.
vgg_training = InParts(_window_for_vgg, _flip_and_subtract_mean)
# Resized only, in [-1, 1].
unit_training = normalized(lambda image, width, height, seed: resize(image, width, height), scale_to_unit)
