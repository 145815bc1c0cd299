"""Every optimizer and schedule gives the weights that tf.compat.v1.train gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.parity.support import make_flags
from tf_image_classification.flags import Flags
from tf_image_classification.optimizers import make_optimizer, make_schedule

STEPS = 300
NUM_EXAMPLES = 700  # with batches of 32 and two epochs: 43 steps per decay
tf1 = tf.compat.v1.train

TF1_OPTIMIZERS: dict[str, Callable[[Any, Flags], Any]] = {
    "adadelta": lambda rate, flags: tf1.AdadeltaOptimizer(rate, rho=flags.adadelta_rho, epsilon=flags.opt_epsilon),
    "adagrad": lambda rate, flags: tf1.AdagradOptimizer(rate, flags.adagrad_initial_accumulator_value),
    "adam": lambda rate, flags: tf1.AdamOptimizer(rate, flags.adam_beta1, flags.adam_beta2, flags.opt_epsilon),
    "ftrl": lambda rate, flags: tf1.FtrlOptimizer(
        rate,
        flags.ftrl_learning_rate_power,
        flags.ftrl_initial_accumulator_value,
        l1_regularization_strength=flags.ftrl_l1,
        l2_regularization_strength=flags.ftrl_l2,
    ),
    "momentum": lambda rate, flags: tf1.MomentumOptimizer(rate, flags.momentum),
    "rmsprop": lambda rate, flags: tf1.RMSPropOptimizer(
        rate, flags.rmsprop_decay, flags.rmsprop_momentum, flags.opt_epsilon
    ),
    "sgd": lambda rate, flags: tf1.GradientDescentOptimizer(rate),
}


def tf1_rate(flags: Flags, global_step: tf.Variable) -> Any:
    decay_steps = int(NUM_EXAMPLES / flags.batch_size * flags.num_epochs_per_decay)
    if flags.learning_rate_decay_type == "exponential":
        return tf1.exponential_decay(
            flags.learning_rate, global_step, decay_steps, flags.learning_rate_decay_factor, staircase=True
        )
    if flags.learning_rate_decay_type == "polynomial":
        return tf1.polynomial_decay(
            flags.learning_rate, global_step, decay_steps, flags.end_learning_rate, power=1.0, cycle=False
        )
    return tf.constant(flags.learning_rate)


def tf1_weights(flags: Flags, start: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weight = tf.compat.v1.get_variable("weight", initializer=start)
        global_step = tf1.get_or_create_global_step()
        gradient = tf.compat.v1.placeholder(tf.float32, start.shape)
        optimizer = TF1_OPTIMIZERS[flags.optimizer](tf1_rate(flags, global_step), flags)
        step = optimizer.apply_gradients([(gradient, weight)], global_step)
        session.run(tf.compat.v1.global_variables_initializer())
        history = []
        for value in gradients:
            session.run(step, {gradient: value})
            history.append(session.run(weight))
    return np.array(history)


def our_weights(flags: Flags, start: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    weight = keras.Variable(start, name="weight")
    optimizer = make_optimizer(flags, make_schedule(flags, NUM_EXAMPLES))
    optimizer.build([weight])

    @tf.function
    def step(gradient: tf.Tensor) -> None:
        optimizer.apply([gradient])

    history = []
    for value in gradients:
        step(tf.constant(value))
        history.append(weight.numpy())
    return np.array(history)


def assert_same_weights(flags: Flags) -> None:
    random = np.random.default_rng(0)
    start = random.normal(size=(4, 3)).astype(np.float32)
    gradients = random.normal(size=(STEPS, 4, 3)).astype(np.float32)
    ours, theirs = our_weights(flags, start, gradients), tf1_weights(flags, start, gradients)
    differences = np.abs(ours - theirs).max(axis=(1, 2)) / np.abs(theirs).max(axis=(1, 2))
    assert differences.max() < 2e-5


@pytest.mark.parametrize("decay_type", ["fixed", "exponential", "polynomial"])
@pytest.mark.parametrize("optimizer", sorted(TF1_OPTIMIZERS))
def test_07_random_gradients_of_300_steps_give_the_weights_of_tensorflow_1(optimizer: str, decay_type: str) -> None:
    assert_same_weights(make_flags(optimizer=optimizer, learning_rate_decay_type=decay_type, batch_size=32))


@pytest.mark.parametrize(
    "flags",
    [
        {"optimizer": "rmsprop", "opt_epsilon": 1e-3, "rmsprop_momentum": 0.0},
        {"optimizer": "adam", "opt_epsilon": 1e-3, "adam_beta1": 0.5},
        {"optimizer": "ftrl", "ftrl_l1": 0.01, "ftrl_l2": 0.1, "ftrl_learning_rate_power": -0.3},
        {"optimizer": "momentum", "momentum": 0.0},
        {"optimizer": "momentum", "momentum": 0.5, "learning_rate": 0.1},
        {"optimizer": "adagrad", "adagrad_initial_accumulator_value": 1e-6},
        {"optimizer": "adadelta", "opt_epsilon": 1e-8, "adadelta_rho": 0.5, "learning_rate": 1.0},
    ],
    ids=str,
)
def test_07_random_gradients_with_flag_values_other_than_the_defaults_give_the_weights_of_tensorflow_1(
    flags: dict[str, object],
) -> None:
    assert_same_weights(make_flags(batch_size=32, **flags))


# The number of the parity statement, the first weight, and the weights after gradients 1, 1, -0.5, 0.
GOLDEN = {
    "rmsprop": (0.0, [-0.00707107, -0.0205061, -0.0289939, -0.0366329]),
    "adam": (0.0, [-3.06532e-4, -7.34496e-4, -9.67863e-4, -1.158933e-3]),
    "adagrad": (0.0, [-0.0095346, -0.0164353, -0.0131736, -0.0131736]),
    "adadelta": (0.0, [-0.009759, -0.0195291, -0.0145567, -0.0145567]),
    "ftrl": (0.5, [0.3397097, 0.3328090, 0.3360707, 0.3360707]),
}
GRADIENTS = np.array([[1], [1], [-0.5], [0]], np.float32)


def weights_after(flags: Flags, start: float = 0.0) -> list[float]:
    """The weight after each of the four gradients."""
    weights: list[float] = our_weights(flags, np.array([start], np.float32), GRADIENTS)[:, 0].tolist()
    return weights


def assert_golden(optimizer: str) -> None:
    start, golden = GOLDEN[optimizer]
    np.testing.assert_allclose(
        weights_after(make_flags(optimizer=optimizer, learning_rate_decay_type="fixed"), start), golden, atol=1e-7
    )


def test_02_rmsprop_starts_its_mean_square_at_one() -> None:
    assert_golden("rmsprop")


def test_03_momentum_keeps_the_learning_rate_out_of_its_accumulator() -> None:
    flags = make_flags(
        optimizer="momentum",
        learning_rate=0.1,
        learning_rate_decay_factor=0.5,
        batch_size=NUM_EXAMPLES,
        num_epochs_per_decay=1,
    )
    np.testing.assert_allclose(weights_after(flags), [-0.1, -0.195, -0.22525, -0.2388625], atol=1e-7)


def test_04_adam_gets_opt_epsilon() -> None:
    assert_golden("adam")
    assert weights_after(make_flags(optimizer="adam", opt_epsilon=1e-8)) != weights_after(make_flags(optimizer="adam"))


def test_05_adagrad_ignores_opt_epsilon() -> None:
    assert_golden("adagrad")
    assert weights_after(make_flags(optimizer="adagrad", opt_epsilon=1e-8)) == weights_after(
        make_flags(optimizer="adagrad")
    )


@pytest.mark.parametrize("optimizer", ["adadelta", "ftrl"])
def test_06_adadelta_and_ftrl_give_known_weights(optimizer: str) -> None:
    assert_golden(optimizer)


def test_06_ftrl_zeroes_a_weight_without_a_gradient() -> None:
    flags = make_flags(optimizer="ftrl", learning_rate_decay_type="fixed")
    assert our_weights(flags, np.array([0.5], np.float32), np.zeros((1, 1), np.float32)) == 0.0


@pytest.mark.parametrize(
    ("optimizer", "own", "other"),
    [("rmsprop", "rmsprop_momentum", "momentum"), ("momentum", "momentum", "rmsprop_momentum")],
)
def test_08_momentum_flags_reach_their_own_optimizer_alone(optimizer: str, own: str, other: str) -> None:
    default = weights_after(make_flags(optimizer=optimizer))
    assert weights_after(make_flags(optimizer=optimizer, **{other: 0.0})) == default
    assert weights_after(make_flags(optimizer=optimizer, **{own: 0.0})) != default
