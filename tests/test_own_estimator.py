"""Trainings of a user's EstimatorSpec, and specs that break its contract."""

from __future__ import annotations

import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.support import train, weights_at
from tf_image_classification import estimator_loading, estimator_specs, evaluate
from tf_image_classification.errors import DataError, EstimatorError, FlagError
from tf_image_classification.training import history


class Counting(estimator_specs.EstimatorSpec):
    """A linear model on mean colour, with metrics of both kinds, that counts the examples that it was called with."""

    def __init__(self):
        self.examples = keras.metrics.Sum()

    def get_preproc_fn(self, is_training):
        return lambda image, width, height: tf.image.resize(tf.cast(image, tf.float32) / 255.0, (height, width))

    def get_model_fn(self, checkpoint_path):
        def model_fn(params):
            images = keras.Input((params.image_size, params.image_size, 3))
            pooled = keras.layers.GlobalAveragePooling2D()(images)
            return keras.Model(images, keras.layers.Dense(params.num_classes, name="head")(pooled), name="mean_colour")

        return model_fn

    def metric_ops(self, labels, predictions):
        self.examples.update_state(tf.ones_like(predictions["label"]["class_id"], tf.float32))
        right = tf.argmax(labels["label"], -1) == predictions["label"]["class_id"]
        return {"examples": self.examples, "right": tf.cast(right, tf.float32)}


def test_an_own_estimator_trains_exports_and_keeps_keras_names(built_data, training_flags):
    outcome = train(built_data, training_flags(train_steps=3, trainable_scopes="head"), Counting())
    assert set(weights_at(outcome.model_dir)) == {"head/kernel", "head/bias"}
    served = tf.saved_model.load(os.path.join(outcome.export_dir, "saved_model"))
    image = tf.io.encode_png(tf.fill([5, 5, 3], tf.constant(200, tf.uint8)))
    answer = served.signatures["serving_default"](image_bytes=tf.stack([image]))
    assert answer["classes"].numpy().tolist() == [[b"bright", b"dark"]]


def test_unnamed_layers_have_the_same_names_in_every_training_of_a_process(built_data, training_flags):
    class Unnamed(Counting):
        def get_model_fn(self, checkpoint_path):
            def model_fn(params):
                images = keras.Input((params.image_size, params.image_size, 3))
                return keras.Model(
                    images, keras.layers.Dense(params.num_classes)(keras.layers.GlobalAveragePooling2D()(images))
                )

            return model_fn

    for steps in (2, 4):
        outcome = train(built_data, training_flags(train_steps=steps), Unnamed())
    assert outcome.steps_made == 2


def test_a_metric_of_several_numbers_is_left_to_the_evaluation_of_the_finished_model(
    built_data, training_flags, tmp_path
):
    class PerClass(Counting):
        def __init__(self):
            super().__init__()
            self.f1 = keras.metrics.F1Score(name="f1")

        def metric_ops(self, labels, predictions):
            self.f1.update_state(labels["label"], predictions["label"]["probabilities"])
            return super().metric_ops(labels, predictions) | {"f1": self.f1}

    outcome = train(built_data, training_flags(train_steps=1), PerClass())
    assert set(outcome.metrics) == {"loss", "loss_without_regularization", "global_step", "examples", "right"}
    found = evaluate.evaluate(
        outcome.export_dir, built_data, str(tmp_path / "evaluation"), batch_size=8, spec=PerClass()
    )
    assert found["model"]["digest"] == json.loads(Path(outcome.export_dir, "model.json").read_text())["digest"]
    assert len(found["user_metrics"]["f1"]) == 2


def test_an_own_input_fn_is_what_training_and_its_evaluations_read(built_data, training_flags):
    class OwnInput(Counting):
        def input_fn(self, data, *, is_training, batch_size, image_size, steps, **options):
            images, labels = (
                tf.ones([batch_size, image_size, image_size, 3]),
                {"label": tf.one_hot([0] * batch_size, 2)},
            )
            return lambda: tf.data.Dataset.from_tensors((images, labels)).repeat(steps if is_training else 3)

    outcome = train(built_data, training_flags(train_steps=5), OwnInput())
    assert outcome.metrics["examples"] == 3 * 8
    assert outcome.metrics["right"] == 1.0


def test_a_class_dict_that_does_not_fit_the_data_is_refused(built_data, training_flags):
    spec = Counting()
    spec.class_dict = [{"name": "label", "depth": 5, "one-hot": True}]
    with pytest.raises(DataError, match="2 classes in the data"):
        train(built_data, training_flags(), spec)


def changed(**methods) -> estimator_specs.EstimatorSpec:
    """A `Counting` with some of its methods replaced."""
    return type("Changed", (Counting,), methods)()


def wrong_depth(self, checkpoint_path):
    images = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    return lambda params: keras.Model(images, keras.layers.Dense(params.num_classes + 1)(pooled))


def wrong_name(self, checkpoint_path):
    images = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    return lambda params: keras.Model(images, {"other": keras.layers.Dense(params.num_classes)(pooled)})


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"get_model_fn": lambda self, checkpoint_path: lambda params: None}, "model_fn does not return a model"),
        ({"get_model_fn": wrong_depth}, r"Received: label \[B, 3\]. Expected: label \[B, 2\]"),
        ({"get_model_fn": wrong_name}, r"Received: other \[B, 2\]"),
        ({"metric_ops": lambda self, labels, predictions: None}, "metric_ops does not return a dict"),
        ({"metric_ops": lambda self, labels, predictions: {"a": (1, 2)}}, "value, update_op"),
        (
            {"metric_ops": lambda self, labels, predictions: {"a": 1.0}},
            "metric_ops returns neither a tensor nor a metric for a",
        ),
        (
            {"metric_ops": lambda self, labels, predictions: {"a": keras.metrics.Mean()(labels["label"])}},
            "creates a Keras metric",
        ),
    ],
)
def test_a_method_that_breaks_its_contract_is_named_before_training(built_data, training_flags, methods, message):
    flags = training_flags()
    with pytest.raises(EstimatorError, match=message):
        train(built_data, flags, changed(**methods))
    assert not history.read_history(flags.model_dir)


def test_a_spec_that_needs_arguments_or_has_an_incomplete_class_dict_is_named():
    with pytest.raises(FlagError, match="cannot be created without arguments"):
        estimator_loading.instantiate(type("Needy", (Counting,), {"__init__": lambda self, needed: None}))
    with pytest.raises(EstimatorError, match=r"Short\.class_dict has an invalid entry"):
        estimator_loading.instantiate(type("Short", (Counting,), {"class_dict": [{"name": "label", "depth": 2}]}))


def test_preprocessing_that_returns_other_numbers_than_float32_is_cast(built_data, training_flags):
    def whole_numbers(image, width, height):
        return tf.cast(tf.image.resize(image, (height, width)), tf.uint8)

    spec = changed(get_preproc_fn=lambda self, is_training: whole_numbers)
    assert np.isfinite(train(built_data, training_flags(train_steps=1, learning_rate=1e-6), spec).metrics["loss"])
