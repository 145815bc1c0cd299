"""A training step of several micro-batches: --sync_replicas and --replicas_to_aggregate."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training import replicas
from tests.training.support import train, weights_at
from tf_image_classification.built_in_estimator import BuiltInEstimator


class Plain(BuiltInEstimator):
    """A network without batch normalisation, and with a variable that the loss does not depend on."""

    def get_model_fn(self, checkpoint_path):
        def model_fn(params):
            images = keras.Input((params.image_size, params.image_size, 3))
            regularizer = keras.regularizers.L2(0.01)
            x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", kernel_regularizer=regularizer)(images)
            model = keras.Model(images, keras.layers.Dense(params.num_classes)(keras.layers.Flatten()(x)))
            model.unused = keras.layers.Dense(1)
            model.unused.build((None, 1))
            return model

        return model_fn


def losses(model_dir: str) -> list[float]:
    lines = map(json.loads, (Path(model_dir) / "history.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.fixture
def flags(training_flags, tmp_path):
    def make(name, **values):
        options = {"batch_size": 2, "learning_rate": 0.05, "optimizer": "momentum", "clip_norm": 0.5, "ema_decay": 0.5}
        return training_flags(model_dir=str(tmp_path / name), **options | values)

    return make


@pytest.mark.slow
def test_four_micro_batches_train_as_a_fourfold_batch_also_when_resumed(built_data, flags):
    aggregated = {"sync_replicas": True, "replicas_to_aggregate": 4}
    train(built_data, flags("whole", batch_size=8), Plain())
    train(built_data, flags("parts", train_steps=3, **aggregated), Plain())
    train(built_data, flags("parts", **aggregated), Plain())
    whole, parts = weights_at(flags("whole").model_dir), weights_at(flags("parts").model_dir)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=0, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(losses(flags("parts").model_dir), losses(flags("whole").model_dir), rtol=0, atol=1e-5)


def test_an_overflow_in_any_micro_batch_skips_the_update():
    training = replicas.Training("plain", tf.distribute.get_strategy(), 2, mixed_precision=True)
    images, labels = next(iter(replicas.batches(4)))
    before = training.weights()
    images = tf.concat([images[:3], images[3:] * np.inf], axis=0)
    training.run(tf.data.Dataset.from_tensors((images, labels)).unbatch().batch(2), 1)
    assert training.weights() == before
    assert float(training.stage.optimizer.dynamic_scale) == training.stage.optimizer.initial_scale / 2
