"""--augmentation: what happens to one training image between decoding and normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tf_image_classification.augmentation import operations
from tf_image_classification.augmentation.operations import OPERATIONS, Ranges
from tf_image_classification.flag_types import parse_range
from tf_image_classification.flags import Flags
from tf_image_classification.preprocessing import Crop, resize_and_flip

# (image uint8 [h, w, 3], width, height, seed int64 [2]) -> float32 [height, width, 3] in 0-255
PixelsFn = Callable[[tf.Tensor, int, int, tf.Tensor], tf.Tensor]

ORIGINAL, NONE = "original", "none"  # the network's own training and evaluation preprocessing
LIGHT = "light"

# Added to an example's seed, so that the operations do not repeat the random numbers of the crop or of the flip.
_OPERATIONS_STREAM = 2


@dataclass(frozen=True, slots=True)
class _Policy:
    """A policy of random operations behind crop and flip.

    Attributes:
        words: for the page of samples.
        count: operations per image; each is drawn from all of them.
        ranges: of the operations.
        random_strength: the strength of each is uniform from 0 to that of `ranges`, else always that of `ranges`.
    """

    words: str
    count: int
    ranges: Ranges
    random_strength: bool


_POLICIES = {
    LIGHT: _Policy("a random crop and flip", 0, Ranges(0, 0, 0, (1, 1), 8, 256), random_strength=False),
    # AutoAugment's ranges (arXiv:1805.09501, appendix A) at magnitude 9 of 10, as RandAugment's ResNet-50 on ImageNet.
    # As in its code, a higher magnitude is a higher threshold of solarize, and enhancements have no second direction.
    "randaugment": _Policy(
        "a random crop and flip, then two of 14 operations at magnitude 9 of 10",
        2,
        Ranges(degrees=27, shear=0.27, shift=0.405, factors=(1.72, 1.72), bits=4, threshold=230.4),
        random_strength=False,
    ),
    # The wide search space of TrivialAugment; its shift of 32 pixels is of a 224-pixel image.
    "trivialaugment": _Policy(
        "a random crop and flip, then one of 14 operations at a random strength",
        1,
        Ranges(degrees=135, shear=0.99, shift=32 / 224, factors=(0.01, 1.99), bits=2, threshold=0),
        random_strength=True,
    ),
}


def pixels_fn(augmentation: str) -> PixelsFn:
    """The function that makes a training image of the network's size out of a random crop.

    Args:
        augmentation: light, randaugment or trivialaugment.
    """
    policy = _POLICIES[augmentation]

    @tf.autograph.experimental.do_not_convert  # no condition depends on a tensor, and the conversion takes seconds
    def pixels(image: tf.Tensor, width: int, height: int, seed: tf.Tensor) -> tf.Tensor:
        image = resize_and_flip(image, width, height, seed)
        stream = tf.random.experimental.stateless_fold_in(seed, _OPERATIONS_STREAM)
        draws = tf.random.stateless_uniform([policy.count, 3], stream)
        for draw in tf.unstack(draws):
            index = tf.cast(draw[0] * len(OPERATIONS), tf.int32)
            strength = draw[1] if policy.random_strength else 1.0
            amount = tf.where(draw[2] < 0.5, -strength, strength)
            image = operations.apply(image, index, amount, policy.ranges)
        return image

    return pixels


def crop_with(crop: Crop, flags: Flags) -> Crop:
    """`crop` with the ranges that --crop_area and --crop_aspect give."""
    if flags.crop_area is not None:
        crop = crop._replace(area=parse_range(flags.crop_area), min_area=0.0)
    return crop if flags.crop_aspect is None else crop._replace(aspect=parse_range(flags.crop_aspect))


def in_words(flags: Flags, crop: Crop | None) -> str:
    """What the flags do to training images, as a sentence for people.

    Args:
        crop: the random crop in effect; None: none.
    """
    if flags.augmentation == NONE:
        parts = ["as in an evaluation, without random changes"]
    elif flags.augmentation == ORIGINAL:
        parts = ["the estimator's own training preprocessing"]
    else:
        parts = [_POLICIES[flags.augmentation].words]
    if crop is not None:
        area = " to ".join(f"{math.ceil(100 * max(share, crop.min_area)):.3g} %" for share in crop.area)
        parts.append(f"crops of {area} of the area, width to height {crop.aspect[0]:g} to {crop.aspect[1]:g}")
    if flags.mixup:
        parts.append(f"mixup with alpha {flags.mixup:g}")
    if flags.cutmix:
        parts.append(f"CutMix with alpha {flags.cutmix:g}")
    sentence = f"{flags.augmentation}: {'; '.join(parts)}"
    return sentence + (", each on half of the batches." if flags.mixup and flags.cutmix else ".")
