"""A training step that XLA compiles: --jit_compile."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training import replicas
from tests.training.support import train, weights_at
from tf_image_classification.built_in_estimator import BuiltInEstimator
from tf_image_classification.errors import EstimatorError, FlagError
from tf_image_classification.training import flag_checks

ALONE = tf.distribute.get_strategy()


@pytest.mark.slow
def test_a_compiled_step_of_micro_batches_makes_the_same_updates():
    plain = replicas.Training("normalised", ALONE, 2).run(replicas.batches(4), 3)
    compiled = replicas.Training("normalised", ALONE, 2, jit_compile=True).run(replicas.batches(4), 3)
    np.testing.assert_allclose(compiled["losses"], plain["losses"], rtol=1e-5)
    for left, right in zip(compiled["weights"], plain["weights"], strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_a_model_that_xla_cannot_compile_is_refused_with_the_operation(monkeypatch):
    def network(kind):
        images = keras.Input((replicas.SIZE, replicas.SIZE, 3))
        length = keras.layers.Lambda(lambda x: x + tf.cast(tf.strings.length(tf.as_string(x)), x.dtype))
        return keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(length(images))))

    monkeypatch.setattr(replicas, "network", network)
    training = replicas.Training("", ALONE, jit_compile=True)
    with pytest.raises(EstimatorError, match=r"AsString.* train without --jit_compile") as caught:
        training.run(replicas.batches(4), 1)
    assert len(str(caught.value)) < 600


def test_another_error_of_a_compiled_step_stays_what_it_is():
    def images(number):
        return tf.debugging.check_numerics(tf.zeros([replicas.SIZE, replicas.SIZE, 3]) / 0.0, "bad image")

    dataset = tf.data.Dataset.range(4).map(lambda number: (images(number), {"label": [0.0, 1.0]})).batch(4, True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="bad image"):
        replicas.Training("plain", ALONE, jit_compile=True).run(dataset, 1)


def test_compiled_replicas_that_communicate_are_refused(training_flags):
    flags = training_flags(jit_compile=True, sync_batch_norm=True)
    flag_checks.check_replicas(flags, 1)
    with pytest.raises(FlagError, match="one of the two, or one device"):
        flag_checks.check_replicas(flags, 2)


@pytest.mark.slow
@pytest.mark.parametrize("values", [{}, {"precision": "mixed_float16"}])
def test_a_training_is_compiled_and_exported(built_data, training_flags, tmp_path, values):
    losses = {}
    for compiled in (False, True):
        flags = training_flags(model_dir=str(tmp_path / str(compiled)), jit_compile=compiled, **values)
        outcome = train(built_data, flags, BuiltInEstimator())
        losses[compiled] = outcome.metrics["loss"]
    assert all(np.isfinite(value).all() for value in weights_at(flags.model_dir).values())
    assert losses[True] == pytest.approx(losses[False], rel=1e-3 if not values else 0.2)
