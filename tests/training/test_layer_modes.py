"""Which layers compute in training mode, by --batch_norm and by what is trained."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_image_classification import checkpoints, nets
from tf_image_classification.training import layer_modes


def network() -> keras.Model:
    images = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(4, 3, name="body_conv")(images)
    x = keras.layers.BatchNormalization(name="body_norm")(x)
    x = keras.layers.BatchNormalization(center=False, scale=False, name="body_plain_norm")(x)
    x = keras.layers.SpatialDropout2D(0.5, name="body_dropout")(x)
    x = keras.layers.Conv2D(4, 1, name="top_conv")(x)
    x = keras.layers.BatchNormalization(center=False, scale=False, name="top_norm")(x)
    x = keras.layers.Dropout(0.5, name="head_dropout")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(images, keras.layers.Dense(2, name="head")(x))


def names(model: keras.Model, scopes: str | None, batch_norm: str) -> set[str]:
    layers = layer_modes.inference_layers(model, checkpoints.trainable_variables(model, scopes), batch_norm)
    return {layer.name for layer in layers if layer._call_has_training_arg}


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (None, set()),
        ("head", {"body_norm", "body_plain_norm", "body_dropout", "top_norm"}),
        ("head,top_conv", {"body_norm", "body_plain_norm"}),
        ("head,body_norm", {"body_dropout", "top_norm"}),
    ],
)
def test_what_is_not_trained_computes_in_inference_mode(scopes: str | None, expected: set[str]) -> None:
    assert names(network(), scopes, "auto") == expected


def test_original_leaves_every_layer_in_training_mode() -> None:
    assert names(network(), "head", "original") == set()


def test_frozen_takes_all_batch_normalisation_out_of_training_mode_and_no_dropout() -> None:
    assert names(network(), None, "frozen") == {"body_norm", "body_plain_norm", "top_norm"}


def test_layers_of_a_nested_model_have_modes_of_their_own() -> None:
    body = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()])
    images = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(body(images))
    model = keras.Model(images, keras.layers.Dense(2, name="head")(keras.layers.Dropout(0.5)(x)))
    inference = layer_modes.inference_layers(model, checkpoints.trainable_variables(model, "head"), "auto")
    batch = tf.constant(np.random.default_rng(0).normal(3.0, 2.0, (8, 4, 4, 3)), tf.float32)
    before = body.layers[-1].moving_mean.numpy()
    with layer_modes.calling(inference, training=False):
        model(batch, training=True)
    assert np.array_equal(body.layers[-1].moving_mean.numpy(), before)
    model(batch, training=True)
    assert not np.array_equal(body.layers[-1].moving_mean.numpy(), before)


def test_a_mode_ends_with_its_block_also_after_an_error() -> None:
    model = nets.build("small", image_size=8, outputs={"label": 2})
    norms = layer_modes.batch_norms(model)
    with pytest.raises(RuntimeError), layer_modes.calling(norms, training=False):
        raise RuntimeError
    before = norms[0].moving_mean.numpy()
    model(tf.ones([2, 8, 8, 3]), training=True)
    assert not np.array_equal(norms[0].moving_mean.numpy(), before)
