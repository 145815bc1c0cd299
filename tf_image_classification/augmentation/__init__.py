"""Random changes of training images, as --augmentation, --crop_*, --mixup and --cutmix name them.

`policies` is what happens to one image, with the `operations` on its pixels; `mixing` blends the images of a batch.
Everything is a function of an example's seed alone, see `preprocessing`.
"""

from __future__ import annotations

from tf_image_classification.augmentation.mixing import MixFn, mixer
from tf_image_classification.augmentation.policies import LIGHT, NONE, ORIGINAL, crop_with, in_words, pixels_fn

__all__ = ["LIGHT", "NONE", "ORIGINAL", "MixFn", "crop_with", "in_words", "mixer", "pixels_fn"]
