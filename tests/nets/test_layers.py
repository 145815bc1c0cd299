"""Batch normalisation as slim's."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification.nets.layers import BatchNorm

IMAGES = np.random.default_rng(0).normal(3.0, 2.0, size=(2, 3, 3, 4)).astype(np.float32)


def test_inference_uses_the_moving_statistics_and_leaves_them() -> None:
    layer = BatchNorm(momentum=0.9, epsilon=1e-3, scale=True)
    layer.build(IMAGES.shape)
    layer.gamma.assign([1, 2, 3, 4])
    layer.beta.assign([4, 3, 2, 1])
    layer.moving_mean.assign([1, 1, 2, 2])
    layer.moving_variance.assign([1, 2, 3, 4])
    before = [variable.numpy() for variable in layer.variables]
    expected = (IMAGES - [1, 1, 2, 2]) / np.sqrt(np.array([1, 2, 3, 4]) + 1e-3) * [1, 2, 3, 4] + [4, 3, 2, 1]
    np.testing.assert_allclose(layer(IMAGES), expected, rtol=1e-5, atol=1e-5)
    assert all(np.array_equal(value, variable.numpy()) for value, variable in zip(before, layer.variables, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_the_formula(training: bool) -> None:
    ours, plain = BatchNorm(epsilon=1e-3), keras.layers.BatchNormalization(epsilon=1e-3)
    images, gradients = tf.constant(IMAGES), []
    for layer in (ours, plain):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.sin(layer(images, training=training)))
        gradients.append(tape.gradient(loss, [images, layer.gamma.value, layer.beta.value]))
    for mine, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


def test_it_survives_serialisation_without_custom_objects() -> None:
    layer = BatchNorm(momentum=0.9997, epsilon=1e-3, scale=False, name="Net.BatchNorm")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is BatchNorm
    assert again.get_config() == layer.get_config()


def test_its_registered_name_is_the_one_in_model_files_that_exist() -> None:
    assert keras.saving.get_registered_name(BatchNorm) == "tf_image_classification>BatchNorm"
    assert BatchNorm.__module__ == "tf_image_classification.nets.layers"
