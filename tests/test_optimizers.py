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


def after_one_step(flags: Flags, gradients: tuple[float, ...] = (1.0,)) -> float:
    variable = keras.Variable(np.zeros(1, np.float32))
    optimizer = make_optimizer(flags, make_schedule(flags, num_examples=100))
    for gradient in gradients:
        optimizer.apply_gradients([(keras.ops.convert_to_tensor([gradient]), variable)])
    return float(variable.numpy()[0])


@pytest.mark.parametrize(
    ("num_examples", "values", "decay_steps"),
    [
        (418, {"batch_size": 32}, 26),
        (418, {"batch_size": 1}, 836),
        (790, {"batch_size": 3, "num_epochs_per_decay": 0.3}, 78),
        (600, {"batch_size": 32}, 37),
        (600, {"batch_size": 32, "replicas_to_aggregate": 3}, 37),
        (600, {"batch_size": 32, "sync_replicas": True, "replicas_to_aggregate": 3}, 37 / 3),
    ],
)
@pytest.mark.parametrize("decay_type", ["exponential", "polynomial"])
def test_decay_steps_follow_from_examples_batch_size_epochs_and_replicas(
    decay_type: str, num_examples: int, values: dict[str, object], decay_steps: float
) -> None:
    schedule = make_schedule(make_flags(learning_rate_decay_type=decay_type, **values), num_examples)
    assert schedule.get_config()["decay_steps"] == decay_steps  # type: ignore[union-attr]


def test_exponential_decay_goes_down_in_steps() -> None:
    schedule = make_schedule(make_flags(batch_size=32), 418)
    rates = [float(schedule(step)) for step in (0, 25, 26, 51, 52)]  # type: ignore[operator]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.0094, 0.0094, 0.008836], rtol=1e-6)


def test_polynomial_decay_is_a_line_that_ends_at_the_end_learning_rate() -> None:
    schedule = make_schedule(make_flags(batch_size=32, learning_rate_decay_type="polynomial"), 418)
    rates = [float(schedule(step)) for step in (0, 13, 26, 1000)]  # type: ignore[operator]
    np.testing.assert_allclose(rates, [0.01, 0.00505, 1e-4, 1e-4], rtol=1e-6)


def test_a_fixed_learning_rate_is_a_number_whatever_the_data_set() -> None:
    assert make_schedule(make_flags(batch_size=32, learning_rate_decay_type="fixed"), 10) == 0.01


@pytest.mark.parametrize("decay_type", ["exponential", "polynomial"])
def test_a_decay_of_less_than_one_step_is_refused_with_what_to_change(decay_type: str) -> None:
    with pytest.raises(FlagError, match=r"10 training examples / --batch_size 32 .*smaller --batch_size"):
        make_schedule(make_flags(batch_size=32, learning_rate_decay_type=decay_type), 10)


def test_replicas_that_divide_the_decay_below_one_step_are_named() -> None:
    with pytest.raises(FlagError, match="replicas_to_aggregate 50"):
        make_schedule(make_flags(batch_size=32, sync_replicas=True, replicas_to_aggregate=50), 600)


def test_rmsprop_listens_to_its_own_momentum_flag_alone() -> None:
    gradients = (1.0, 1.0)
    default = after_one_step(make_flags(), gradients)
    assert after_one_step(make_flags(momentum=0.0), gradients) == default
    assert after_one_step(make_flags(rmsprop_momentum=0.0), gradients) != default


def test_the_momentum_optimizer_listens_to_its_own_momentum_flag_alone() -> None:
    gradients = (1.0, 1.0)
    default = after_one_step(make_flags(optimizer="momentum"), gradients)
    assert after_one_step(make_flags(optimizer="momentum", rmsprop_momentum=0.0), gradients) == default
    assert after_one_step(make_flags(optimizer="momentum", momentum=0.0), gradients) != default


@pytest.mark.parametrize("optimizer", ["adagrad", "ftrl", "momentum", "sgd"])
def test_opt_epsilon_does_not_touch_optimizers_without_an_epsilon(optimizer: str) -> None:
    assert after_one_step(make_flags(optimizer=optimizer)) == after_one_step(make_flags(optimizer=optimizer, opt_epsilon=1e-8))


@pytest.mark.parametrize("optimizer", ["adadelta", "adam", "rmsprop"])
def test_opt_epsilon_reaches_the_optimizers_that_have_one(optimizer: str) -> None:
    assert after_one_step(make_flags(optimizer=optimizer)) != after_one_step(make_flags(optimizer=optimizer, opt_epsilon=1e-8))


@pytest.mark.parametrize("optimizer", ["adadelta", "adagrad", "adam", "ftrl", "momentum", "rmsprop", "sgd"])
def test_weight_decay_is_left_to_the_network(optimizer: str) -> None:
    assert make_optimizer(make_flags(optimizer=optimizer, weight_decay=0.5), 0.1).weight_decay is None


def test_an_optimizer_name_is_matched_exactly() -> None:
    with pytest.raises(FlagError, match=r"'Adam'.*adadelta, adagrad, adam"):
        make_optimizer(Flags(optimizer="Adam"), 0.1)


@pytest.mark.parametrize("optimizer", ["momentum", "rmsprop"])
def test_our_optimizers_survive_serialisation(optimizer: str) -> None:
    made = make_optimizer(make_flags(optimizer=optimizer, momentum=0.3, rmsprop_momentum=0.3, rmsprop_decay=0.7), 0.25)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    assert again.get_config() == made.get_config()
