"""Encoded image -> network input, for training and for serving, as the pretrained networks expect it.

`PREPROCESSINGS` holds the kinds that a network's `preprocessing` can name:

* `inception`: a random crop of 10-100 % of the area, flipped, brightness and saturation changed; values in [-1, 1].
  Evaluation takes the central 87.5 % of each side.
* `vgg`: the short side scaled to 256-512 pixels, a random 224x224 window, flipped, mean colour subtracted. Evaluation
  scales to 256 and takes the centre.
* `unit`: resized only, values in [-1, 1].
* `caffe`, `torch`, `tf`, `raw`: resized (when training, a random crop of 35-100 %, flipped) and normalised as
  keras.applications does for the network. Source: Keras's applications/imagenet_utils.py; `raw` is for networks that
  scale pixels in the model.

The first three are slim's (`slim_preprocessing`). A kind that is only a normalisation is `resized(normalize_fn)`.

What they do to a training image is --augmentation original; the others are in `augmentation`.

Randomness is stateless. Example number `index` of a training, counted from the first example of step 1 through all
epochs, has the seed [data seed, index] (`dataset.training_batches`; the data seed is --seed, or random and kept in the
checkpoints), and every random op of its augmentation is a function of that seed alone, whichever thread computes it and
in whatever order. So a training can be repeated, and one that was interrupted continues with the same crops, bit for
bit. Stateful ops would make the result depend on the order of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from tf_image_classification import jpeg_decoding
from tf_image_classification import slim_preprocessing as slim
from tf_image_classification.data.stored_images import StoredImages
from tf_image_classification.preprocessing_parts import InParts, NormalizeFn, Unfinished, flipped, rounded

# (encoded string [], width, height, seed int64 [2]) -> uint8 [h, w, 3]
DecodeFn = Callable[[tf.Tensor, int, int, tf.Tensor], tf.Tensor]
# (image uint8 [h, w, 3], width, height) or (image, width, height, seed int64 [2]) -> float32 [height, width, 3]
PreprocFn = Callable[..., tf.Tensor]

# Means and standard deviations of keras.applications.imagenet_utils.preprocess_input, of values in 0-255 and in 0-1.
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
_TORCH_MEAN_RGB, _TORCH_STDDEV_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# A colour type with alpha, or a tRNS chunk. RE2 takes text for UTF-8, but \C for any byte, as the first one, 0x89.
_TRANSPARENT_PNG = r"\CPNG\r\n\x1a\n\x00\x00\x00\rIHDR\C{9}(?:[\x04-\x07]|\C*tRNS)\C*"
_PNG_BEGINNING = 2**14  # bytes; a tRNS chunk is behind a palette and a colour profile, whose size is its writer's
_STRIP_PIXELS = 2**20  # put on white at a time
# Added to an example's seed for the flip, so that it does not repeat the random numbers of the crop.
_FLIP_STREAM = 1
# Of a function for rare images: it stays one op of the graph that calls it. Inlined, its ops would be optimised again
# whenever an iterator is created, and take their time for every image, also where the branch is not taken.
_OUT_OF_LINE = {"_noinline": True}


class Crop(NamedTuple):
    """The ranges of a random crop.

    Attributes:
        area: smallest and largest share of the image's area.
        aspect: smallest and largest ratio of width to height, in pixels.
        min_area: smaller crops are drawn again.
    """

    area: tuple[float, float] = (0.35, 1.0)
    aspect: tuple[float, float] = (0.75, 1.33)
    min_area: float = 0.0


# As slim's inception_preprocessing.preprocess_for_train calls distorted_bounding_box_crop. Its `min_object_covered` is
# the share of an object that the crop covers, and without boxes the object is the whole image.
INCEPTION_CROP = Crop(area=(0.05, 1.0), min_area=0.1)


@dataclass(frozen=True)
class Preprocessing:
    """How an encoded image becomes a network's input.

    Attributes:
        train_fn: (image uint8 [h, w, 3], width, height[, seed int64 [2]]) -> float32 [height, width, 3], for training
            with --augmentation original; `InParts`, all but the resizing happens in the compiled training step.
        eval_fn: (image uint8 [h, w, 3], width, height) -> float32 [height, width, 3], for evaluation and serving.
        normalize_fn: float32 [..., height, width, 3] in 0-255, of the network's size -> float32 of the same shape: what
            every augmentation but `original` and `none` ends with, in the compiled training step.
        crop: the random crop that `train_fn` gets; None: the whole image. Evaluation and serving decode the whole one.
    """

    train_fn: PreprocFn
    eval_fn: PreprocFn
    normalize_fn: NormalizeFn
    crop: Crop | None = None

    @property
    def decode_fn(self) -> Decoder:
        """Decodes the part of an image that `train_fn` gets."""
        return Decoder(self.crop)


@tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
def decode(encoded: tf.Tensor, stored: StoredImages | None = None) -> tf.Tensor:
    """Decodes a JPEG or PNG to what a viewer shows and build_tfrecords stores: on white where it is transparent.

    Args:
        encoded: string [].
        stored: what all images are, so that the graph need not be ready for others; None: any JPEG or PNG.

    Returns:
        uint8 [h, w, 3].

    Raises:
        InvalidArgumentError: it cannot be decoded, or is none of `stored`.
    """
    if stored and stored.are_jpegs:
        return jpeg_decoding.decode_checked(encoded)
    # One branch per image: nested ones would take longer than decoding a small image.
    branch = tf.where(tf.io.is_jpeg(encoded), 0, tf.where(_has_transparency(encoded), 1, 2))
    image = tf.switch_case(
        branch,
        [
            lambda: _decode_jpeg(encoded),
            lambda: _decode_transparent(encoded),
            lambda: _decode_opaque(encoded),
        ],
    )
    image.set_shape([None, None, 3])
    return image


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    inverted = jpeg_decoding.marked_as_inverted(encoded, tf.io.extract_jpeg_shape(encoded))
    return tf.io.decode_jpeg(inverted, channels=3)


def _decode_transparent(encoded: tf.Tensor) -> tf.Tensor:
    return _on_white(tf.io.decode_png(encoded, channels=4))


def _decode_opaque(encoded: tf.Tensor) -> tf.Tensor:
    # Without transparency: asked for four channels, TensorFlow makes up a wrong alpha below 8 bits. This takes BMP and
    # GIF as well, which no shard of build_tfrecords holds.
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _has_transparency(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a PNG has an alpha channel, or a tRNS chunk, which stands before the pixels: bool []."""
    # Two operations: with a dozen they would take as long as decoding a small picture does.
    return tf.strings.regex_full_match(tf.strings.substr(encoded, 0, _PNG_BEGINNING), _TRANSPARENT_PNG)


@tf.function(
    autograph=False, input_signature=[tf.TensorSpec([None, None, 4], tf.uint8)], experimental_attributes=_OUT_OF_LINE
)
def _on_white(image: tf.Tensor) -> tf.Tensor:
    """uint8 [h, w, 4], the last channel alpha -> uint8 [h, w, 3]. In strips: in int32 a pixel takes some 40 bytes."""
    height, width, rows = tf.shape(image)[0], tf.shape(image)[1], tf.maximum(1, _STRIP_PIXELS // tf.shape(image)[1])
    strips = tf.TensorArray(tf.uint8, 0, dynamic_size=True, infer_shape=False, element_shape=[None, None, 3])

    def add(index: tf.Tensor, strips: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        strip = tf.cast(image[index * rows : (index + 1) * rows], tf.int32)
        colour, alpha = strip[..., :3], strip[..., 3:]
        return index + 1, strips.write(index, tf.cast((colour * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8))

    visible = tf.Assert(tf.reduce_max(image[..., 3]) > 0, ["the image is fully transparent"])
    with tf.control_dependencies([visible]):
        _, strips = tf.while_loop(
            lambda index, _: index * rows < height, add, (tf.constant(0), strips), parallel_iterations=1
        )
    return tf.reshape(strips.concat(), [height, width, 3])


@dataclass(frozen=True)
class Decoder:
    """Decodes a random crop or the whole image: a `DecodeFn`.

    Attributes:
        crop: the crop's ranges; None: the whole image.
        stored: as `decode` takes it.
    """

    crop: Crop | None
    stored: StoredImages | None = None

    @tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
    def __call__(self, encoded: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
        """Encoded string [] and seed int64 [2] -> uint8 [h, w, 3], as `decode_random_crop` or `decode`."""
        if self.crop is None:
            return decode(encoded, self.stored)
        return decode_random_crop(encoded, width, height, seed, self.crop, self.stored)


# The whole image: the default of an EstimatorSpec.
decode_whole = Decoder(None)


@tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
def decode_random_crop(
    encoded: tf.Tensor,
    width: int,
    height: int,
    seed: tf.Tensor,
    crop: Crop = INCEPTION_CROP,
    stored: StoredImages | None = None,
) -> tf.Tensor:
    """Decodes only a random crop of the image: by default 10-100 % of its area, aspect ratio 0.75 to 1.33.

    Of a JPEG, libjpeg decodes only the blocks under the crop, at 1/2, 1/4 or 1/8 of the size where the crop is at least
    that much larger than the network's input.

    Args:
        encoded: string [], JPEG or PNG.
        width, height: size in pixels that the crop will be resized to.
        seed: int64 [2]; decides the crop.
        crop: its ranges. An image in which no such crop is found in 100 attempts is decoded as a whole.
        stored: as `decode` takes it.

    Returns:
        uint8 [h, w, 3], the crop.

    Raises:
        InvalidArgumentError: the image cannot be decoded, or is none of `stored`.
    """

    def jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(encoded)
        inverted = jpeg_decoding.marked_as_inverted(encoded, shape)
        return jpeg_decoding.decode_window(inverted, *_sample_crop(shape, seed, crop), width, height)

    @tf.function(autograph=False, experimental_attributes=_OUT_OF_LINE)
    def other_format(encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        is_transparent = _has_transparency(encoded)
        image = tf.cond(is_transparent, lambda: _decode_transparent(encoded), lambda: _decode_opaque(encoded))
        image.set_shape([None, None, 3])
        begin, size = _sample_crop(tf.shape(image), seed, crop)
        return tf.slice(image, begin, size)

    if stored and stored.are_jpegs:
        window = _sample_crop(jpeg_decoding.checked_shape(encoded), seed, crop)
        part = jpeg_decoding.decode_window(encoded, *window, width, height, largest=stored)
    else:
        part = tf.cond(tf.io.is_jpeg(encoded), jpeg, lambda: other_format(encoded, seed))
    part.set_shape([None, None, 3])
    return part


def _sample_crop(shape: tf.Tensor, seed: tf.Tensor, crop: Crop) -> tuple[tf.Tensor, tf.Tensor]:
    """Image shape int32 [3] -> begin int32 [3] and size int32 [3] of a random crop, for tf.slice."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=crop.min_area,
        aspect_ratio_range=crop.aspect,
        area_range=crop.area,
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    # The third entry of `size` is -1, "all channels", which tf.slice takes as well.
    return begin, size


def resize(image: tf.Tensor, width: int, height: int) -> tf.Tensor:
    """Bilinear resize with half-pixel centres: uint8 or float [h, w, 3] -> float32 [height, width, 3], same units."""
    return tf.ensure_shape(tf.image.resize(image, [height, width]), [height, width, 3])


@tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
def resize_and_flip(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
    """Resizes, and mirrors every second image horizontally, behind `decode_random_crop`: --augmentation light.

    Args:
        image: uint8 [h, w, 3].
        width, height: of the result, in pixels.
        seed: int64 [2]; decides whether the image is mirrored.

    Returns:
        float32 [height, width, 3] in 0-255.
    """
    image = resize(image, width, height)
    return tf.cond(_flip_draw(seed) < 0.5, lambda: tf.reverse(image, [1]), lambda: image)


def _flip_draw(seed: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform([], tf.random.experimental.stateless_fold_in(seed, _FLIP_STREAM))


def resized(normalize_fn: NormalizeFn) -> Preprocessing:
    """The preprocessing of a network that only needs images of its size, normalised.

    Training crops at random, resizes and flips, as --augmentation light; evaluation resizes the whole image.

    Args:
        normalize_fn: float32 [..., height, width, 3] in 0-255 -> float32 of the same shape.
    """

    def host(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> Unfinished:
        return Unfinished(rounded(resize(image, width, height)), _flip_draw(seed)[tf.newaxis])

    return Preprocessing(
        train_fn=InParts(host, lambda pixels, draws: normalize_fn(tf.cast(flipped(pixels, draws[:, 0]), tf.float32))),
        eval_fn=lambda image, width, height: normalize_fn(resize(image, width, height)),
        normalize_fn=normalize_fn,
        crop=Crop(),
    )


def caffe(image: tf.Tensor) -> tf.Tensor:
    """RGB in 0-255 -> BGR minus ImageNet's mean, as keras.applications' mode "caffe": float32 [h, w, 3]."""
    return tf.reverse(image, [-1]) - tf.constant(_CAFFE_MEAN_BGR)


def torch(image: tf.Tensor) -> tf.Tensor:
    """0-255 -> ImageNet's mean 0 and standard deviation 1, as keras.applications' mode "torch": float32 [h, w, 3]."""
    return (image / 255.0 - tf.constant(_TORCH_MEAN_RGB)) / tf.constant(_TORCH_STDDEV_RGB)


def raw(image: tf.Tensor) -> tf.Tensor:
    """0-255 as it is, for the networks of keras.applications that scale in the model: float32 [h, w, 3]."""
    return image


PREPROCESSINGS: dict[str, Preprocessing] = {
    "inception": Preprocessing(
        slim.inception_training, slim.inception_evaluation, slim.scale_to_unit, crop=INCEPTION_CROP
    ),
    "vgg": Preprocessing(slim.vgg_training, slim.vgg_evaluation, slim.subtract_mean_rgb),
    "unit": Preprocessing(slim.unit_training, slim.unit, slim.scale_to_unit),
    "caffe": resized(caffe),
    "torch": resized(torch),
    "tf": resized(slim.scale_to_unit),
    "raw": resized(raw),
}
