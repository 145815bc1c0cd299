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


def test_random_layers_before_all_variables_augment_also_on_a_frozen_network() -> None:
    images = keras.Input((4, 4, 3))
    x = keras.layers.GaussianNoise(0.5, name="noise")(keras.layers.RandomFlip(name="flip")(images))
    x = keras.layers.Dropout(0.5, name="inside")(keras.layers.Conv2D(4, 3, name="frozen")(x))
    x = keras.layers.Conv2D(4, 1, name="frozen_too")(x)
    model = keras.Model(images, keras.layers.Dense(2, name="head")(keras.layers.Flatten()(x)))
    assert names(model, "head", "auto") == {"inside"}


def test_the_layers_of_a_nested_model_follow_each_other_as_they_were_added() -> None:
    parts = [keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 3, name="first")]
    parts += [keras.layers.BatchNormalization(center=False, scale=False, name="plain")]
    body = keras.Sequential([*parts, keras.layers.Conv2D(2, 1, name="second")], name="body")
    images = keras.Input((4, 4, 3))
    heads = {}
    for task in ("a", "b"):
        head = [keras.layers.Flatten(), keras.layers.Dropout(0.5, name=f"drop_{task}")]
        heads[task] = keras.Sequential([*head, keras.layers.Dense(2, name=f"dense_{task}")], name=task)(body(images))
    assert names(keras.Model(images, heads), "a/,body/second", "auto") == {"plain", "drop_b", "dense_b"}


def test_dropout_of_a_model_whose_order_is_not_known_stays_in_training_mode() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = keras.layers.Dropout(0.5, name="dropout")
            self.body, self.norm = keras.layers.Dense(3, name="body"), keras.layers.BatchNormalization(name="norm")
            self.head = keras.layers.Dense(2, name="head")

        def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
            x = self.norm(self.body(inputs), training=training)
            return self.head(self.dropout(x, training=training))

    model = Own()
    model(tf.ones([1, 3]))
    assert names(model, ".*head", "auto") == {"body", "norm"}
