"""Regularisation and label smoothing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.parity.support import make_flags
from tf_image_classification import nets
from tf_image_classification.built_in_estimator import BuiltInEstimator
from tf_image_classification.nets.layers import Layers, Norm
from tf_image_classification.training import steps


def one_convolution(weight_decay: float) -> keras.Model:
    images = keras.Input((3, 3, 2))
    layers = Layers(
        scope="Net", weight_decay=weight_decay, norm=Norm(0.9, 1e-3, True), initializer=keras.initializers.Ones()
    )
    return keras.Model(images, layers.conv(images, "Conv", 4, kernel=3))


def test_14_weight_decay_is_half_the_squared_kernel_and_leaves_batch_normalisation_alone() -> None:
    model = one_convolution(4e-5)
    with tf.GradientTape() as tape:
        loss = tf.add_n(model.losses)
    assert float(loss) == pytest.approx(4e-5 * 3 * 3 * 2 * 4 / 2, rel=1e-6)  # 0.00144
    gradients = dict(
        zip(
            (variable.path for variable in model.weights),
            tape.gradient(loss, [v.value for v in model.weights]),
            strict=True,
        )
    )
    np.testing.assert_allclose(gradients.pop("Net.Conv/kernel"), np.full((3, 3, 2, 4), 4e-5), rtol=1e-6)
    assert set(gradients.values()) == {None}
    assert one_convolution(0.0).losses == []


def test_14_weight_decay_adds_half_its_share_of_the_squared_kernels_of_a_network_to_the_loss() -> None:
    model = nets.build("small", image_size=16, outputs={"label": 2}, weight_decay=0.5)
    kernels = [variable.numpy() for name, variable in nets.scoped_names(model).items() if name.endswith("/weights")]
    assert len(model.losses) == len(kernels)
    np.testing.assert_allclose(sum(model.losses), 0.5 * sum((kernel**2).sum() for kernel in kernels) / 2, rtol=1e-6)


LOGITS = tf.constant(np.random.default_rng(0).normal(size=(6, 5)), tf.float32)
LABELS = tf.one_hot([0, 1, 2, 3, 4, -1], 5)  # the last one has no label


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_15_label_smoothing_is_part_of_the_default_loss(smoothing: float) -> None:
    spec = BuiltInEstimator()
    spec.flags = make_flags(label_smoothing=smoothing)
    spec.class_dict = [{"name": "label", "depth": 5, "one-hot": True}]
    loss = float(spec.loss_fn({"label": LABELS}, {"label": LOGITS}))
    smooth = LABELS.numpy() * (1 - smoothing) + smoothing / 5
    by_hand = -(smooth * np.log(tf.nn.softmax(LOGITS))).sum(axis=1).mean()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        theirs = session.run(
            tf.compat.v1.losses.softmax_cross_entropy(
                LABELS.numpy(), tf.constant(LOGITS.numpy()), label_smoothing=smoothing
            )
        )
    assert loss == pytest.approx(by_hand, abs=1e-6)
    assert loss == pytest.approx(float(theirs), abs=1e-6)


def test_15_label_smoothing_and_regularisation_are_in_the_evaluation_of_a_training_too() -> None:
    spec = BuiltInEstimator()
    spec.flags = make_flags(label_smoothing=0.1)
    spec.class_dict = [{"name": "label", "depth": 5, "one-hot": True}]
    images = keras.Input((4,))
    regularised = keras.layers.Dense(5, kernel_regularizer=keras.regularizers.L2(0.1))
    model = keras.Model(images, regularised(images))
    batch = tf.constant(np.random.default_rng(1).normal(size=(6, 4)), tf.float32)
    losses = [
        float(steps.total_loss(spec, model, batch, {"label": LABELS}, training=training)[0]["loss"])
        for training in (True, False)
    ]
    assert losses[0] == losses[1] > float(spec.loss_fn({"label": LABELS}, {"label": model(batch)}))
