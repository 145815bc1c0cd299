"""Flags -> learning-rate schedule and optimizer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags
from tf_image_classification.optimizers import make_optimizer, make_schedule


def make_flags(**values: object) -> Flags:
    return flag_table.validate(values, [flag.name for flag in flag_table.of_command(flag_table.TRAIN)])


def after_one_step(flags: Flags) -> float:
    variable = keras.Variable(np.zeros(1, np.float32))
    optimizer = make_optimizer(flags, make_schedule(flags, num_examples=100))
    optimizer.apply_gradients([(keras.ops.convert_to_tensor([1.0]), variable)])
    return float(variable.numpy()[0])


def test_replicas_that_divide_the_decay_below_one_step_are_named() -> None:
    with pytest.raises(FlagError, match="replicas_to_aggregate 50"):
        make_schedule(make_flags(batch_size=32, sync_replicas=True, replicas_to_aggregate=50), 600)


@pytest.mark.parametrize("optimizer", ["ftrl", "momentum", "sgd"])
def test_opt_epsilon_does_not_touch_optimizers_without_an_epsilon(optimizer: str) -> None:
    assert after_one_step(make_flags(optimizer=optimizer)) == after_one_step(
        make_flags(optimizer=optimizer, opt_epsilon=1e-8)
    )


@pytest.mark.parametrize("optimizer", ["adadelta", "rmsprop"])
def test_opt_epsilon_reaches_the_optimizers_that_have_one(optimizer: str) -> None:
    assert after_one_step(make_flags(optimizer=optimizer)) != after_one_step(
        make_flags(optimizer=optimizer, opt_epsilon=1e-8)
    )


@pytest.mark.parametrize("optimizer", ["adadelta", "adagrad", "adam", "ftrl", "momentum", "rmsprop", "sgd"])
def test_weight_decay_is_left_to_the_network(optimizer: str) -> None:
    assert make_optimizer(make_flags(optimizer=optimizer, weight_decay=0.5), 0.1).weight_decay is None


@pytest.mark.parametrize("optimizer", ["momentum", "rmsprop"])
def test_our_optimizers_survive_serialisation(optimizer: str) -> None:
    created = make_optimizer(
        make_flags(optimizer=optimizer, momentum=0.3, rmsprop_momentum=0.3, rmsprop_decay=0.7), 0.25
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(created))
    assert again.get_config() == created.get_config()
