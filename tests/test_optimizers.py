"""Flags -> learning-rate schedule and optimizer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tf_image_classification import flags as flag_table
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags
from tf_image_classification.optimizers import (
    check_learning_rate_scales,
    make_optimizer,
    make_schedule,
    network_weight_decay,
    scale_learning_rates,
)


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


def rates(steps: int = 10, **values: object) -> list[float]:
    """The learning rates of a training of so many steps."""
    schedule = make_schedule(make_flags(train_steps=steps, learning_rate=0.5, **values), num_examples=100)
    return [float(schedule(step)) if callable(schedule) else schedule for step in range(steps)]


def test_cosine_falls_by_half_a_wave_to_the_end_learning_rate() -> None:
    by_formula = [0.1 + 0.4 * (1 + np.cos(np.pi * step / 10)) / 2 for step in range(10)]
    assert np.allclose(rates(learning_rate_decay_type="cosine", end_learning_rate=0.1), by_formula, rtol=1e-6)


@pytest.mark.parametrize("decay", ["fixed", "cosine", "exponential", "polynomial"])
def test_warm_up_rises_linearly_to_the_schedule(decay: str) -> None:
    plain = rates(learning_rate_decay_type=decay)
    warm = rates(learning_rate_decay_type=decay, warmup_fraction=0.4)
    assert np.allclose(warm, np.array(plain) * [0.25, 0.5, 0.75, *[1.0] * 7], rtol=1e-6)


def step_of(optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable], gradient: float) -> None:
    optimizer.build(variables)
    optimizer.apply([keras.ops.full(variable.shape, gradient) for variable in variables], variables)


def test_adamw_decays_kernels_alone_and_is_adam_otherwise() -> None:
    def after(**values: object) -> list[float]:
        kernel, bias = keras.Variable(np.full((2, 2), 3.0, np.float32)), keras.Variable(np.full(2, 3.0, np.float32))
        flags = make_flags(opt_epsilon=1e-7, learning_rate=0.1, learning_rate_decay_type="fixed", **values)
        step_of(make_optimizer(flags, 0.1), [kernel, bias], 0.5)
        return [float(variable.numpy().ravel()[0]) for variable in (kernel, bias)]

    adam, adamw = after(optimizer="adam"), after(optimizer="adamw", weight_decay=0.2)
    assert adamw[0] == pytest.approx(adam[0] - 0.1 * 0.2 * 3.0, rel=1e-6)
    assert adamw[1] == pytest.approx(adam[1], rel=1e-6)


def test_with_adamw_the_network_has_no_l2_regularisation_beside_it() -> None:
    assert network_weight_decay(make_flags(optimizer="adamw", weight_decay=0.2)) == 0.0
    assert network_weight_decay(make_flags(optimizer="adam", weight_decay=0.2)) == 0.2


def test_a_gradient_is_scaled_down_to_clip_norm() -> None:
    variables = [keras.Variable(np.zeros(2, np.float32)), keras.Variable(np.zeros(2, np.float32))]
    step_of(make_optimizer(make_flags(optimizer="sgd", clip_norm=1.0), 1.0), variables, 3.0)
    assert np.allclose([variable.numpy() for variable in variables], -0.5)  # norm 6 -> 1
    variables = [keras.Variable(np.zeros(2, np.float32)), keras.Variable(np.zeros(2, np.float32))]
    step_of(make_optimizer(make_flags(optimizer="sgd", clip_norm=7.0), 1.0), variables, 3.0)
    assert np.allclose([variable.numpy() for variable in variables], -3.0)


@pytest.mark.parametrize("optimizer", ["adadelta", "adagrad", "adam", "adamw", "ftrl", "momentum", "rmsprop", "sgd"])
def test_learning_rates_are_scaled_by_scope_and_the_first_match_counts(optimizer: str) -> None:
    def after(learning_rate: float, scales: str | None) -> dict[str, float]:
        variables = {name: keras.Variable(np.ones((2, 2), np.float32)) for name in ("net/a/kernel", "net/b/kernel")}
        made = make_optimizer(make_flags(optimizer=optimizer, weight_decay=0.1), learning_rate)
        scale_learning_rates(made, list(variables), scales)
        step_of(made, list(variables.values()), 0.5)
        return {name: float(variable.numpy()[0, 0]) for name, variable in variables.items()}

    full, tenth = after(0.1, None), after(0.01, None)
    scaled = after(0.1, "net/a=0.1,net=1")
    assert scaled["net/a/kernel"] == pytest.approx(tenth["net/a/kernel"], abs=1e-6)
    assert scaled["net/b/kernel"] == pytest.approx(full["net/b/kernel"], abs=1e-6)
    assert full["net/a/kernel"] != pytest.approx(tenth["net/a/kernel"], abs=1e-4)


@pytest.mark.parametrize("scales", ["net/a", "net/a=fast", "=0.1", "net/(=0.1", "net/a=-1", "net/a=inf"])
def test_a_learning_rate_scale_that_cannot_be_read_is_refused(scales: str) -> None:
    with pytest.raises(FlagError, match="SCOPE=FACTOR"):
        scale_learning_rates(keras.optimizers.SGD(), ["net/a/kernel"], scales)


def test_a_learning_rate_scale_that_matches_nothing_is_refused() -> None:
    with pytest.raises(FlagError, match=r"matches the start of no trained variable's name.*Received: conv"):
        check_learning_rate_scales(["net/a/kernel"], "conv=0.1")
