"""What a served model refuses before it decodes it: the image would exhaust its memory or its time."""

from __future__ import annotations

import tensorflow as tf

from tf_image_classification.image_limits import MAX_JPEG_SCANS, MAX_PIXELS, MAX_SCANNED_PIXELS

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_SIZE = slice(16, 24)  # width and height in its header, of 4 bytes each
_START_OF_SCAN = b"\xff\xda\0"  # the third byte is the first of the header's length, which is at most 14
_ALSO_BEHIND = 2  # times the scans of a build's limits: those of thumbnails and of pictures behind the first count too


@tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
def check(encoded: tf.Tensor) -> tf.Tensor:
    """Refuses, before it is decoded, what a served model cannot read or what would exhaust its memory.

    Args:
        encoded: string [], what a client sent.

    Returns:
        float64 [], the number of pixels of a JPEG or PNG, at most `image_limits.MAX_PIXELS`. Anything else, and a JPEG
        of far more scans than a build accepts, raises tf.errors.InvalidArgumentError.
    """
    is_jpeg = tf.io.is_jpeg(encoded)
    padded = tf.strings.join([tf.strings.substr(encoded, 0, _PNG_SIZE.stop), bytes(_PNG_SIZE.stop)])
    beginning = tf.cast(tf.io.decode_raw(padded, tf.uint8), tf.int64)
    is_png = tf.reduce_all(beginning[: len(_PNG_SIGNATURE)] == list(_PNG_SIGNATURE))
    text = "image_bytes holds neither a JPEG nor a PNG: convert it. In JSON it is {'b64': <base64>}. First bytes:"
    with tf.control_dependencies([tf.Assert(tf.logical_or(is_jpeg, is_png), [text, beginning[:4]], summarize=4)]):
        sides = tf.cond(
            is_jpeg,
            lambda: tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64),
            lambda: tf.reduce_sum(tf.reshape(beginning[_PNG_SIZE], [2, 4]) * [2**24, 2**16, 2**8, 1], 1),
        )
    text = f"image_bytes holds an image of more than {MAX_PIXELS:,} pixels: scale it down. Its sides:"
    pixels = tf.reduce_prod(tf.cast(sides, tf.float64))
    few = tf.Assert(pixels <= MAX_PIXELS, [text, sides])
    scans = tf.cond(is_jpeg, lambda: _count_scans(encoded), lambda: tf.constant(1, tf.int64))
    text = "image_bytes holds a JPEG of too many scans, each of which takes the time of a picture: save it anew. Scans:"
    most = tf.minimum(MAX_SCANNED_PIXELS / pixels, MAX_JPEG_SCANS) * _ALSO_BEHIND
    quick = tf.Assert(tf.cast(scans, tf.float64) <= most, [text, scans])
    with tf.control_dependencies([few, quick]):
        return tf.identity(pixels)


def _count_scans(jpeg: tf.Tensor) -> tf.Tensor:
    """How often a JPEG's bytes start a scan, up to what is too often: int64 []. Coded data hold no such bytes."""
    parts = tf.raw_ops.StringSplitV2(input=[jpeg], sep=_START_OF_SCAN, maxsplit=_ALSO_BEHIND * MAX_JPEG_SCANS + 1)
    return parts.shape[1] - 1  # `shape` is of the sparse tensor [1, parts]
