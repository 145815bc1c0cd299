from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.test_preprocessing import gradient, seed
from tf_image_classification import slim_preprocessing


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.3, 1.5])
def test_saturation_equals_tensorflows_own(factor):
    image = tf.constant(np.random.default_rng(0).uniform(0, 1, (20, 20, 3)).astype("float32"))
    ours = slim_preprocessing._saturate(image, tf.constant(factor))
    np.testing.assert_allclose(ours, tf.image.adjust_saturation(image, factor), atol=2e-6)


def test_inception_training_stays_in_range_varies_with_the_seed_and_repeats():
    image = tf.constant(gradient(50, 70))
    results = [slim_preprocessing.inception_training(image, 32, 32, seed(number)).numpy() for number in range(12)]
    for result in results:
        assert result.dtype == np.float32
        assert result.min() >= -1.0
        assert result.max() <= 1.0
    assert len({result.tobytes() for result in results}) == 12
    assert np.array_equal(results[5], slim_preprocessing.inception_training(image, 32, 32, seed(5)))
    flipped = [result[:, 0, 1].mean() > result[:, -1, 1].mean() for result in results]
    assert any(flipped) and not all(flipped)


def test_inception_evaluation_is_slims_formula():
    image = gradient(64, 96)
    cropped = tf.image.central_crop(tf.image.convert_image_dtype(image, tf.float32), 0.875)
    expected = (tf.compat.v1.image.resize_bilinear(cropped[None], [40, 40], align_corners=False)[0] - 0.5) * 2
    np.testing.assert_allclose(slim_preprocessing.inception_evaluation(tf.constant(image), 40, 40), expected, atol=1e-5)


def test_vgg_evaluation_is_the_centre_of_the_image_scaled_to_a_short_side_of_256():
    image = gradient(300, 400)
    scaled = tf.compat.v1.image.resize_bilinear(tf.cast(image, tf.float32)[None], [256, 341], align_corners=False)[0]
    expected = scaled[16:240, 58:282] - np.array(slim_preprocessing.VGG_MEAN_RGB, "float32")
    np.testing.assert_allclose(slim_preprocessing.vgg_evaluation(tf.constant(image), 224, 224), expected, atol=2.0)


def test_vgg_training_crops_and_repeats():
    image = tf.constant(gradient(300, 400))
    first, second = (slim_preprocessing.vgg_training(image, 96, 96, seed(number)).numpy() for number in (1, 2))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, slim_preprocessing.vgg_training(image, 96, 96, seed(1)))


def test_unit_spans_minus_one_to_one():
    result = slim_preprocessing.unit(tf.constant([[[0, 0, 0], [255, 255, 255]]], tf.uint8), 2, 1).numpy()
    np.testing.assert_allclose(result, [[[-1, -1, -1], [1, 1, 1]]])
