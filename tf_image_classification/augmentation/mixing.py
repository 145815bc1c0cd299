"""--mixup and --cutmix: each image of a training batch is blended with the one before it, and so are their labels."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_image_classification.flags import Flags

Tensors = dict[str, tf.Tensor]
Batch = tuple[tf.Tensor, Tensors]
# (images float32 [B, h, w, 3], labels, seed int64 [2]) -> images and labels of the same shapes
MixFn = Callable[[tf.Tensor, Tensors, tf.Tensor], Batch]

# Added to the seed of a batch's first example, so that no random number of that example's own is repeated.
_MIXING_STREAM = 3


def mixer(flags: Flags) -> MixFn | None:
    """What --mixup and --cutmix do to a batch; None: nothing.

    Labels are blended linearly: one-hot float32 [B, depth], or numbers float32 [B]. An example without a label, whose
    row is all zero, gives no label to its pair.
    """
    alphas = [(mixup, flags.mixup), (cutmix, flags.cutmix)]
    given = [(function, alpha) for function, alpha in alphas if alpha > 0]
    if not given:
        return None

    def mix(images: tf.Tensor, labels: Tensors, seed: tf.Tensor) -> Batch:
        stream = tf.random.experimental.stateless_fold_in(seed, _MIXING_STREAM)
        own, choice = tf.unstack(tf.random.split(stream, 2))
        branches = [lambda f=function, a=alpha: f(images, labels, a, own) for function, alpha in given]
        if len(branches) == 1:
            return branches[0]()
        return tf.cond(tf.random.stateless_uniform([], choice) < 0.5, *branches)

    return mix


def mixup(images: tf.Tensor, labels: Tensors, alpha: float, seed: tf.Tensor) -> Batch:
    """Blends each image with the one before it: mixup (arXiv:1710.09412), with one share per batch, as in its code.

    Args:
        images: float32 [B, h, w, 3]; the first one's pair is the last one.
        labels: task name -> float32 [B, depth] or [B].
        alpha: of the beta distribution (alpha, alpha) of an image's own share.
        seed: int64 [2].
    """
    share = _beta(alpha, seed)
    return _blend(images, share), {name: _blend(label, share) for name, label in labels.items()}


def cutmix(images: tf.Tensor, labels: Tensors, alpha: float, seed: tf.Tensor) -> Batch:
    """Replaces a rectangle of each image by that of the one before it: CutMix (arXiv:1905.04899).

    The rectangle has the image's aspect ratio and a centre anywhere; what lies outside is cut off. Labels are blended
    by the share of pixels that are really an image's own.

    Args: as of `mixup`.
    """
    beta_seed, centre_seed = tf.unstack(tf.random.split(seed, 2))
    height, width = images.shape[1], images.shape[2]
    sides = tf.constant([height, width], tf.float32)
    centre = tf.random.stateless_uniform([2], centre_seed) * sides
    half = sides * tf.sqrt(1.0 - _beta(alpha, beta_seed)) / 2.0
    begin = tf.cast(tf.round(tf.maximum(centre - half, 0.0)), tf.int32)
    end = tf.cast(tf.round(tf.minimum(centre + half, sides)), tf.int32)
    rows, columns = tf.range(height)[:, tf.newaxis], tf.range(width)
    inside = (rows >= begin[0]) & (rows < end[0]) & (columns >= begin[1]) & (columns < end[1])
    share = 1.0 - tf.cast(tf.reduce_prod(end - begin), tf.float32) / (height * width)
    images = tf.where(inside[:, :, tf.newaxis], tf.roll(images, 1, axis=0), images)
    return images, {name: _blend(label, share) for name, label in labels.items()}


def _blend(values: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return share * values + (1.0 - share) * tf.roll(values, 1, axis=0)


def _beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """A number from the beta distribution (alpha, alpha): float32 [].

    It is x / (x + y) of two gamma variates, in logarithms: of a small alpha both may be too small for float32. A gamma
    variate of shape alpha is one of shape alpha + 1, times u^(1/alpha) of a uniform u (Marsaglia and Tsang 2000).
    """
    gamma_seed, uniform_seed = tf.unstack(tf.random.split(seed, 2))
    gamma = tf.random.stateless_gamma([2], gamma_seed, alpha + 1.0)
    uniform = 1.0 - tf.random.stateless_uniform([2], uniform_seed)  # in (0, 1]
    log_gamma = tf.math.log(gamma) + tf.math.log(uniform) / alpha
    return tf.sigmoid(log_gamma[0] - log_gamma[1])
