"""Encoded image -> network input, for training and for serving, as the pretrained networks expect it.

`PREPROCESSINGS` holds the kinds that a network's `preprocessing` can name:

* `inception`: a random crop of 5-100 % of the area, flipped, brightness and saturation changed; values in [-1, 1].
  Evaluation takes the central 87.5 % of each side. Source: slim's preprocessing/inception_preprocessing.py with its
  default `fast_mode=True`, after arXiv:1409.4842 (which samples 8-100 % of the area).
* `vgg`: the short side scaled to 256-512 pixels, a random 224x224 window, flipped, mean colour subtracted. Evaluation
  scales to 256 and takes the centre. Source: slim's preprocessing/vgg_preprocessing.py, after arXiv:1409.1556.
* `unit`: resized only, values in [-1, 1].
* `caffe`, `torch`, `tf`, `raw`: resized (and flipped when training) and normalised as keras.applications does for the
  network. Source: Keras's applications/imagenet_utils.py; `raw` is for networks that scale pixels in the model.

Resizing for slim's networks is TensorFlow 1's bilinear (corners not aligned, no half-pixel centres): their weights were
trained with it.

Randomness is stateless. Example number `index` of a training, counted from the first example of step 1 through all
epochs, has the seed [data seed, index] (`dataset.training_batches`; the data seed is --seed, or random and kept in the
checkpoints), and every random op of its augmentation is a function of that seed alone, whichever thread computes it and
in whatever order. So a training can be repeated, and one that was interrupted continues with the same crops, bit for
bit. Stateful ops would make the result depend on the order of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

# (encoded string [], width, height, seed int64 [2]) -> uint8 [h, w, 3]
DecodeFn = Callable[[tf.Tensor, int, int, tf.Tensor], tf.Tensor]
# (image uint8 [h, w, 3], width, height) or (image, width, height, seed int64 [2]) -> float32 [height, width, 3]
PreprocFn = Callable[..., tf.Tensor]

# Mean of ImageNet's training images in 0-255: _R_MEAN, _G_MEAN and _B_MEAN of slim's vgg_preprocessing.py.
VGG_MEAN_RGB = (123.68, 116.78, 103.94)
# Means and standard deviations of keras.applications.imagenet_utils.preprocess_input, of values in 0-255 and in 0-1.
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
_TORCH_MEAN_RGB, _TORCH_STDDEV_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Short side in pixels: slim's _RESIZE_SIDE_MIN and _RESIZE_SIDE_MAX, for the 224-pixel input of its VGG and ResNet v1.
_VGG_SIDE_MIN, _VGG_SIDE_MAX, _VGG_CROP = 256, 512, 224
# central_fraction of slim's inception_preprocessing.preprocess_for_eval.
_INCEPTION_EVAL_CROP = 0.875
# max_delta of slim's random_brightness is 32 / 255, of values in [0, 1]; here values are in [0, 255].
_MAX_BRIGHTNESS_DELTA = 32.0
# lower and upper (exclusive) of slim's random_saturation.
_SATURATION_MIN, _SATURATION_MAX = 0.5, 1.5
# Denominators of the scales at which libjpeg decodes.
_JPEG_RATIOS = (1, 2, 4, 8)
# Added to an example's seed for the augmentation, so that it does not repeat the random numbers of the crop.
_AUGMENTATION_STREAM = 1


@dataclass(frozen=True)
class Preprocessing:
    """How an encoded image becomes a network's input.

    Attributes:
        decode_fn: decodes an image for training: (encoded string [], width, height, seed int64 [2]) ->
            uint8 [h, w, 3]. It may decode a random part only. Evaluation and serving decode the whole image.
        train_fn: (image uint8 [h, w, 3], width, height[, seed int64 [2]]) -> float32 [height, width, 3], for training.
        eval_fn: (image uint8 [h, w, 3], width, height) -> float32 [height, width, 3], for evaluation and serving.
    """

    decode_fn: DecodeFn
    train_fn: PreprocFn
    eval_fn: PreprocFn


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
    """Decodes the whole image, as a `DecodeFn`: the default of an EstimatorSpec.

    Args:
        encoded: string [], JPEG or PNG.
        width, height, seed: not used.

    Returns:
        uint8 [h, w, 3].
    """
    del width, height, seed
    return decode(encoded)


def decode_random_crop(encoded: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
    """Decodes only a random crop of the image: 5-100 % of its area, aspect ratio 0.75 to 1.33.

    Of a JPEG, libjpeg decodes only the blocks under the crop, at 1/2, 1/4 or 1/8 of the size where the crop is at least
    that much larger than the network's input.

    Args:
        encoded: string [], JPEG or PNG.
        width, height: size in pixels that the crop will be resized to.
        seed: int64 [2]; decides the crop.

    Returns:
        uint8 [h, w, 3], the crop.
    """

    def jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(encoded)
        begin, size = _sample_crop(shape, seed)

        def at_ratio(ratio: int) -> Callable[[], tf.Tensor]:
            window = tf.concat([begin[:2] // ratio, size[:2] // ratio], axis=0)
            return lambda: tf.io.decode_and_crop_jpeg(
                encoded, window, channels=3, ratio=ratio, fancy_upscaling=False, dct_method="INTEGER_FAST"
            )

        scale = tf.minimum(size[0] // height, size[1] // width)
        branch = tf.reduce_sum(tf.cast(scale >= tf.constant(_JPEG_RATIOS[1:]), tf.int32))
        return tf.switch_case(branch, [at_ratio(ratio) for ratio in _JPEG_RATIOS])

    def other_format() -> tf.Tensor:
        image = decode(encoded)
        begin, size = _sample_crop(tf.shape(image), seed)
        return tf.slice(image, begin, size)

    crop = tf.cond(tf.io.is_jpeg(encoded), jpeg, other_format)
    crop.set_shape([None, None, 3])
    return crop


def _sample_crop(shape: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Image shape int32 [3] -> begin int32 [3] and size int32 [3] of a random crop, for tf.slice.

    The ranges are those of slim's inception_preprocessing.distorted_bounding_box_crop as preprocess_for_train calls it.
    """
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
    # The third entry of `size` is -1, "all channels", which tf.slice takes as well.
    return begin, size


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


def unit(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """Resizes and scales to [-1, 1]: uint8 [h, w, 3] -> float32 [height, width, 3]."""
    return resize(image, width, height) / 127.5 - 1.0


def inception_training(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
    """Random flip, brightness (by up to 32/255) and saturation (0.5 to 1.5 times), in a random order of these two.

    These are slim's inception_preprocessing.distort_color with `fast_mode=True`; the crop is `decode_random_crop`'s.

    Args:
        image: uint8 [h, w, 3], a random crop.
        width, height: of the result, in pixels.
        seed: int64 [2]; decides the augmentation.

    Returns:
        float32 [height, width, 3] in [-1, 1].
    """
    return _flip_and_distort(resize(image, width, height), _augmentation_draws(seed))


# One pass over the pixels instead of twenty: compiled, it takes a quarter of the time.
@tf.function(jit_compile=True, autograph=False)
def _flip_and_distort(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """float32 [h, w, 3] in [0, 255] and four random numbers, float32 [4] in [0, 1) -> float32 [h, w, 3] in [-1, 1]."""
    image = tf.where(draws[0] < 0.5, tf.reverse(image, [1]), image)
    delta = (draws[1] * 2.0 - 1.0) * _MAX_BRIGHTNESS_DELTA
    factor = _SATURATION_MIN + draws[2] * (_SATURATION_MAX - _SATURATION_MIN)
    brightness_first = tf.cast(draws[3] < 0.5, tf.float32)
    image = _saturate(image + delta * brightness_first, factor) + delta * (1.0 - brightness_first)
    return tf.clip_by_value(image / 127.5 - 1.0, -1.0, 1.0)


def inception_evaluation(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """The central 87.5 % of each side (inception_preprocessing.preprocess_for_eval), resized and scaled to [-1, 1].

    Args:
        image: uint8 [h, w, 3].
        width, height: of the result, in pixels.

    Returns:
        float32 [height, width, 3].
    """
    return unit(tf.image.central_crop(image, _INCEPTION_EVAL_CROP), width, height)


def vgg_training(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
    """Short side scaled to a random length, a random window, a random flip, mean colour subtracted.

    The lengths are slim's 256 to 512 pixels for a 224-pixel input, and in proportion for others.

    Args:
        image: uint8 [h, w, 3].
        width, height: of the result, in pixels.
        seed: int64 [2]; decides the augmentation.

    Returns:
        float32 [height, width, 3], RGB minus `VGG_MEAN_RGB`: -123.68 to 151.06.
    """
    draws = _augmentation_draws(seed)
    short_side = tf.cast(_VGG_SIDE_MIN + draws[0] * (_VGG_SIDE_MAX - _VGG_SIDE_MIN + 1), tf.int32)
    image = _crop_after_scaling(image, width, height, short_side, draws[1], draws[2])
    image = tf.cond(draws[3] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    return image - tf.constant(VGG_MEAN_RGB)


def vgg_evaluation(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """Short side scaled to 256 (for a 224-pixel input), the central window, mean colour subtracted.

    Args:
        image: uint8 [h, w, 3].
        width, height: of the result, in pixels.

    Returns:
        float32 [height, width, 3], RGB minus `VGG_MEAN_RGB`: -123.68 to 151.06.
    """
    half = tf.constant(0.5)
    return _crop_after_scaling(image, width, height, tf.constant(_VGG_SIDE_MIN), half, half) - tf.constant(VGG_MEAN_RGB)


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
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    target = tf.cast(short_side, tf.float32) * (max(width, height) / _VGG_CROP)
    scaled = tf.maximum(tf.cast(tf.round(shape * target / tf.reduce_min(shape)), tf.int32), [height, width])
    image = tf.raw_ops.ResizeBilinear(
        images=image[tf.newaxis], size=scaled, align_corners=False, half_pixel_centers=False
    )[0]
    num_positions = tf.cast(scaled - [height, width] + 1, tf.float32)
    begin = tf.minimum(tf.cast(tf.stack([y, x]) * num_positions, tf.int32), scaled - [height, width])
    return tf.ensure_shape(tf.slice(image, [begin[0], begin[1], 0], [height, width, 3]), [height, width, 3])


def _saturate(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies HSV saturation, as tf.image.adjust_saturation does, without computing hue.

    HSV has value v = max(r, g, b) and saturation s = (v - min(r, g, b)) / v. With hue and value kept and s' = f * s,
    a channel c becomes v - f * (v - c). Saturation ends at s' = 1, where the smallest channel is 0: f is at most 1 / s.

    Args:
        image: float32 [h, w, 3].
        factor: float32 [], f.
    """
    red, green, blue = tf.unstack(image, axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    limited = tf.minimum(factor, tf.math.divide_no_nan(value, chroma))
    return tf.stack([value - limited * (value - channel) for channel in (red, green, blue)], axis=-1)


def _augmentation_draws(seed: tf.Tensor) -> tf.Tensor:
    """The random numbers of one image's augmentation: an example's seed int64 [2] -> float32 [4] in [0, 1)."""
    return tf.random.stateless_uniform([4], tf.random.experimental.stateless_fold_in(seed, _AUGMENTATION_STREAM))


def caffe(image: tf.Tensor) -> tf.Tensor:
    """RGB in 0-255 -> BGR minus ImageNet's mean, as keras.applications' mode "caffe": float32 [h, w, 3]."""
    return tf.reverse(image, [-1]) - tf.constant(_CAFFE_MEAN_BGR)


def torch(image: tf.Tensor) -> tf.Tensor:
    """0-255 -> ImageNet's mean 0 and standard deviation 1, as keras.applications' mode "torch": float32 [h, w, 3]."""
    return (image / 255.0 - tf.constant(_TORCH_MEAN_RGB)) / tf.constant(_TORCH_STDDEV_RGB)


def tf_range(image: tf.Tensor) -> tf.Tensor:
    """0-255 -> [-1, 1], as keras.applications' mode "tf": float32 [h, w, 3]."""
    return image / 127.5 - 1.0


def raw(image: tf.Tensor) -> tf.Tensor:
    """0-255 as it is, for the networks of keras.applications that scale in the model: float32 [h, w, 3]."""
    return image


def keras_preprocessing(normalize_fn: Callable[[tf.Tensor], tf.Tensor]) -> Preprocessing:
    """Resized with half-pixel centres, as Keras does, then normalised; training also flips at random.

    Args:
        normalize_fn: float32 [h, w, 3] in 0-255 -> float32 [h, w, 3].
    """

    def evaluation(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
        return normalize_fn(tf.ensure_shape(tf.image.resize(image, (height, width)), [height, width, 3]))

    def training(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
        return evaluation(tf.image.stateless_random_flip_left_right(image, seed), width, height)

    return Preprocessing(decode_whole, training, evaluation)


PREPROCESSINGS: dict[str, Preprocessing] = {
    "inception": Preprocessing(decode_random_crop, inception_training, inception_evaluation),
    "vgg": Preprocessing(decode_whole, vgg_training, vgg_evaluation),
    "unit": Preprocessing(decode_whole, unit, unit),
    "caffe": keras_preprocessing(caffe),
    "torch": keras_preprocessing(torch),
    "tf": keras_preprocessing(tf_range),
    "raw": keras_preprocessing(raw),
}
