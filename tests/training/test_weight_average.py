"""The moving average of the weights: --ema_decay."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.support import equal, train, weights_at
from tf_image_classification import checkpoints
from tf_image_classification.errors import CheckpointError
from tf_image_classification.training.weight_average import WeightAverage


def test_it_is_tensorflows_moving_average_with_the_number_of_updates() -> None:
    variable = keras.Variable(np.zeros(3, np.float32))
    average = WeightAverage([variable], 0.9)
    theirs = tf.Variable(np.zeros(3, np.float32))
    count = tf.Variable(0)
    reference = tf.train.ExponentialMovingAverage(0.9, num_updates=count)
    reference.apply([theirs])
    for step in range(1, 120):
        value = np.sin(np.arange(3) + step).astype(np.float32)
        variable.assign(value)
        theirs.assign(value)
        count.assign(step)
        average.update(tf.constant(step, tf.int64))
        reference.apply([theirs])
    assert np.allclose(average.averages[0].numpy(), reference.average(theirs).numpy(), atol=1e-6)


@pytest.mark.slow
def test_the_average_is_evaluated_and_exported_and_training_goes_on_without_it(built_data, training_flags, tmp_path):
    plain = train(built_data, training_flags(model_dir=str(tmp_path / "plain"), num_evals=2))
    averaged = train(built_data, training_flags(model_dir=str(tmp_path / "averaged"), num_evals=2, ema_decay=0.99))
    assert equal(weights_at(plain.model_dir), weights_at(averaged.model_dir))
    assert averaged.metrics["loss"] != plain.metrics["loss"]
    with checkpoints.read(averaged.export_dir) as exported, checkpoints.read(plain.export_dir) as last:
        kernel = "Small.Logits/vars/0"
        assert not np.allclose(exported[kernel], last[kernel])


def test_a_training_is_not_continued_with_another_kind_of_state(built_data, training_flags):
    train(built_data, training_flags(ema_decay=0.99))
    with pytest.raises(CheckpointError, match="another --ema_decay"):
        train(built_data, training_flags(train_steps=8))
    with pytest.raises(CheckpointError, match="another --head_fraction"):
        train(built_data, training_flags(train_steps=8, ema_decay=0.99, head_fraction=0.9))
