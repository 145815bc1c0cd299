"""Numerics outside the list, in which TensorFlow 2 differs from TensorFlow 1 and this project follows the latter."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification import slim_preprocessing
from tf_image_classification.nets.layers import BatchNorm

IMAGES = np.random.default_rng(0).normal(3.0, 2.0, size=(2, 3, 3, 4)).astype(np.float32)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_training_step_normalises_by_the_batch_and_remembers_its_unbiased_variance(policy: str, scale: bool) -> None:
    layer = BatchNorm(momentum=0.9, epsilon=1e-3, scale=scale, dtype=policy)
    outputs = layer(IMAGES, training=True)
    inputs = IMAGES.astype(np.float16).astype(np.float32) if policy == "mixed_float16" else IMAGES
    mean, variance = inputs.mean((0, 1, 2)), inputs.var((0, 1, 2))
    tolerance = 2e-3 if policy == "mixed_float16" else 1e-5
    np.testing.assert_allclose(outputs, (inputs - mean) / np.sqrt(variance + 1e-3), atol=tolerance)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance * 18 / 17, rtol=1e-5)
    assert outputs.dtype == layer.compute_dtype
    assert layer.moving_variance.dtype == "float32"


@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 299), (300, 200, 64)])
def test_resizing_is_tensorflow_1s_without_half_pixel_centres(height: int, width: int, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype("uint8")
    theirs = tf.compat.v1.image.resize_images(image, [size, size])
    np.testing.assert_allclose(slim_preprocessing.resize(tf.constant(image), size, size), theirs, atol=1e-4)
    assert np.abs(theirs - tf.image.resize(image, [size, size])).max() > 1.0
