"""JPEG -> pixels in TensorFlow graphs: of any JPEG, or of images that a manifest says are all JPEGs.

Where images may be PNGs too, a graph has branches. TensorFlow optimises them whenever an iterator is created, which
takes longer than what a JPEG needs: so a graph for JPEGs alone has none, and fails on other images.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_image_classification.data.stored_images import StoredImages

_RATIOS = (1, 2, 4, 8)  # denominators of the scales at which libjpeg decodes
# Start of a JPEG, and Adobe's marker (https://www.iana.org/assignments/media-types, Adobe technical note 5116).
_START_OF_JPEG = b"\xff\xd8"
_ADOBE_MARKER = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
_NOT_AS_STORED = (
    "An image is not a grey or RGB JPEG, as all images of this data set are by its manifest. Expected: shards as they "
    "were when the manifest was written. Build the data set again."
)


def marked_as_inverted(encoded: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """A CMYK JPEG with the marker of Adobe; `shape` int32 [3] is the image's.

    Programs write CMYK inverted, as Adobe does, and viewers show it so; TensorFlow does only if the marker is there. A
    file's own comes later and takes precedence.
    """
    marker = tf.where(shape[2] == 4, _ADOBE_MARKER, b"")  # without a branch, which would cost more than the copy
    return tf.strings.join([_START_OF_JPEG, marker, tf.strings.substr(encoded, len(_START_OF_JPEG), -1)])


def checked_shape(encoded: tf.Tensor) -> tf.Tensor:
    """The shape, int32 [3], of an image that should be a grey or RGB JPEG.

    Raises:
        InvalidArgumentError: it is none.
    """
    with tf.control_dependencies([_check(tf.io.is_jpeg(encoded))]):
        shape = tf.io.extract_jpeg_shape(encoded)
    with tf.control_dependencies([_check(shape[2] != 4)]):
        return tf.identity(shape)


def decode_checked(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes what should be a grey or RGB JPEG: string [] -> uint8 [h, w, 3].

    Raises:
        InvalidArgumentError: it is none.
    """
    with tf.control_dependencies([checked_shape(encoded)]):
        image = tf.io.decode_jpeg(encoded, channels=3)
    image.set_shape([None, None, 3])
    return image


def decode_window(
    encoded: tf.Tensor, begin: tf.Tensor, size: tf.Tensor, width: int, height: int, largest: StoredImages | None = None
) -> tf.Tensor:
    """Decodes a window of a JPEG, at 1/2, 1/4 or 1/8 where it is at least that much larger than it will be.

    Args:
        encoded: string [], CMYK as `marked_as_inverted` returns it.
        begin, size: int32 [3]: y, x and channel.
        width, height: size in pixels that the window will be resized to.
        largest: has the largest image's height and width; None: it may have any.

    Returns:
        uint8 [h, w, 3].
    """

    def at_ratio(ratio: int) -> Callable[[], tf.Tensor]:
        def decode() -> tf.Tensor:
            window = tf.concat([begin[:2] // ratio, size[:2] // ratio], axis=0)
            return tf.io.decode_and_crop_jpeg(
                encoded, window, channels=3, ratio=ratio, fancy_upscaling=False, dct_method="INTEGER_FAST"
            )

        return decode

    ratios = [
        ratio
        for ratio in _RATIOS
        if ratio == 1 or not largest or (largest.height >= ratio * height and largest.width >= ratio * width)
    ]
    if len(ratios) == 1:
        return at_ratio(1)()
    scale = tf.minimum(size[0] // height, size[1] // width)
    branch = tf.reduce_sum(tf.cast(scale >= tf.constant(ratios[1:]), tf.int32))
    return tf.switch_case(branch, [at_ratio(ratio) for ratio in ratios])


def _check(is_as_stored: tf.Tensor) -> tf.Operation:
    # The operation alone: tf.debugging.Assert puts it into a branch.
    return tf.raw_ops.Assert(condition=is_as_stored, data=[_NOT_AS_STORED])
