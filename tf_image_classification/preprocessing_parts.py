"""The preprocessing of training images in two parts: of each image on the host, of whole batches where the network is.

The host decodes, crops, resizes and rounds. A batch leaves it as uint8, a quarter of the bytes, and the compiled
training step flips it, changes its colours and normalises it in one pass. The random numbers that this takes are drawn
on the host from each image's seed, and travel with the batch: under XLA, the same operation may draw others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Unfinished(NamedTuple):
    """Training images of the network's size, neither flipped nor normalised: of one image, or of a batch [B].

    Attributes:
        pixels: uint8 [height, width, 3] or [B, height, width, 3].
        draws: random numbers in [0, 1) for the device's part, float32 [n] or [B, n].
    """

    pixels: tf.Tensor
    draws: tf.Tensor


# (image uint8 [h, w, 3], width, height, seed int64 [2]) -> one image
HostFn = Callable[[tf.Tensor, int, int, tf.Tensor], Unfinished]
# (pixels uint8 [B, height, width, 3], draws float32 [B, n]) -> float32 [B, height, width, 3], as a network takes it
DeviceFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# float32 [..., height, width, 3] in 0-255 -> float32 of the same shape, as a network takes it
NormalizeFn = Callable[[tf.Tensor], tf.Tensor]


class InParts:
    """A `preprocessing.PreprocFn` for training that can be left to be finished.

    Args:
        host_fn: what happens to each image on the host.
        device_fn: what happens to a batch behind it, compiled by XLA.
    """

    def __init__(self, host_fn: HostFn, device_fn: DeviceFn) -> None:
        self.host_fn = host_fn
        # One pass over the pixels instead of twenty.
        self._device_fn = tf.function(device_fn, jit_compile=True, autograph=False)

    def __call__(self, image: tf.Tensor, width: int, height: int, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Both parts: uint8 [h, w, 3], and int64 [2] if it is random -> float32 [height, width, 3]."""
        pixels, draws = self.host_fn(image, width, height, seed)
        return self._device_fn(pixels[tf.newaxis], draws[tf.newaxis])[0]

    def finish(self, images: Unfinished) -> tf.Tensor:
        """The rest, of a batch of static shape -> float32 [B, height, width, 3]."""
        return self._device_fn(*images)


def rounded(pixels: tf.Tensor) -> tf.Tensor:
    """float32 in 0-255 -> the nearest uint8."""
    return tf.cast(tf.round(pixels), tf.uint8)


def flipped(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Mirrors horizontally those images of a batch [B, h, w, 3] whose draw, float32 [B], is below a half."""
    return tf.where(draws[:, tf.newaxis, tf.newaxis, tf.newaxis] < 0.5, tf.reverse(images, [2]), images)


def normalized(pixels_fn: Callable[[tf.Tensor, int, int, tf.Tensor], tf.Tensor], normalize_fn: NormalizeFn) -> InParts:
    """What makes pixels of each image on the host, and normalises them on the device.

    Args:
        pixels_fn: (image uint8 [h, w, 3], width, height, seed int64 [2]) -> float32 [height, width, 3] in 0-255.
        normalize_fn: of a batch.
    """

    def host(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> Unfinished:
        return Unfinished(rounded(pixels_fn(image, width, height, seed)), tf.zeros([0]))

    return InParts(host, lambda pixels, draws: normalize_fn(tf.cast(pixels, tf.float32)))
