from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from tests.augmentation.test_operations import photo
from tf_image_classification import augmentation, preprocessing
from tf_image_classification.augmentation import operations
from tf_image_classification.flags import Flags

POLICIES = ["light", "randaugment", "trivialaugment"]


def seed(number: int) -> tf.Tensor:
    return tf.constant([7, number], tf.int64)


def flags(**values) -> Flags:
    return Flags(
        **{"augmentation": "light", "crop_area": None, "crop_aspect": None, "mixup": 0.0, "cutmix": 0.0} | values
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_is_a_function_of_the_seed_alone(policy):
    image = tf.constant(photo())
    pixels_fn = augmentation.pixels_fn(policy)
    compiled = tf.function(lambda image, seed: pixels_fn(image, 32, 32, seed))
    results = [compiled(image, seed(number)).numpy() for number in range(20)]
    again = [compiled(image, seed(number)).numpy() for number in reversed(range(20))]
    assert all(np.array_equal(one, other) for one, other in zip(results, reversed(again), strict=True))
    number = len({result.tobytes() for result in results})
    assert number == 2 if policy == "light" else number > 10
    for result in results:
        assert result.shape == (32, 32, 3) and result.dtype == np.float32
        assert 0.0 <= result.min() <= result.max() <= 255.0


def test_light_is_a_resize_and_a_flip_of_every_second_image():
    image = photo()
    resized = preprocessing.resize(tf.constant(image), 32, 32).numpy()
    results = [augmentation.pixels_fn("light")(tf.constant(image), 32, 32, seed(number)) for number in range(200)]
    flipped = sum(np.array_equal(result, resized[:, ::-1]) for result in results)
    assert sum(np.array_equal(result, resized) for result in results) + flipped == 200
    assert 70 < flipped < 130


@pytest.mark.parametrize(("policy", "count"), [("randaugment", 2), ("trivialaugment", 1)])
def test_operations_are_drawn_evenly_with_signs_and_the_strength_of_the_policy(policy, count, monkeypatch):
    drawn = []

    def record(image, index, amount, ranges):
        drawn.append((int(index), float(amount)))
        return image

    monkeypatch.setattr(operations, "apply", record)
    for number in range(700):
        augmentation.pixels_fn(policy)(tf.zeros([2, 2, 3], tf.uint8), 2, 2, seed(number))
    amounts = np.array([amount for _, amount in drawn])
    assert len(drawn) == 700 * count
    occurrences = Counter(index for index, _ in drawn)
    assert sorted(occurrences) == list(range(14))
    assert min(occurrences.values()) > 25 * count and max(occurrences.values()) < 80 * count
    assert 0.4 < (amounts > 0).mean() < 0.6
    if policy == "randaugment":
        assert set(np.abs(amounts)) == {1.0}
    else:
        assert np.histogram(np.abs(amounts), 4, (0, 1))[0].min() > 130


def test_crop_flags_replace_the_ranges_that_they_name():
    light = preprocessing.Crop()
    assert augmentation.crop_with(light, flags()) == light
    assert augmentation.crop_with(light, flags(crop_area="0.2,0.5")) == preprocessing.Crop((0.2, 0.5), (0.75, 1.33))
    assert augmentation.crop_with(light, flags(crop_aspect="1,2")) == preprocessing.Crop((0.35, 1.0), (1.0, 2.0))
    # A small crop that is asked for is not drawn again, as slim's is.
    assert augmentation.crop_with(preprocessing.INCEPTION_CROP, flags(crop_area="0.05,0.08")).min_area == 0.0


def test_the_flags_are_told_in_words():
    words = augmentation.in_words(flags(mixup=0.2, cutmix=1.0), preprocessing.Crop())
    assert "crops of 35 % to 100 % of the area, width to height 0.75 to 1.33" in words
    assert words.endswith("mixup with alpha 0.2; CutMix with alpha 1, each on half of the batches.")
    assert augmentation.in_words(flags(augmentation="none"), None) == (
        "none: as in an evaluation, without random changes."
    )
