"""Flags -> Keras optimizer and learning-rate schedule, with the numerics of `tf.compat.v1.train`.

Two of Keras's optimizers compute something else than TensorFlow 1's and are written out here, after the kernels in
tensorflow/core/kernels/training_ops.cc: Keras's SGD with momentum has the learning rate inside its accumulator, so that
a decaying rate gives other weights, and Keras's RMSProp starts its mean square at zero instead of one. The other five
agree when they get the right arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from tf_image_classification.errors import FlagError, abridged
from tf_image_classification.flags import BY_NAME, Flags

LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


def make_schedule(flags: Flags, num_examples: int, steps: int | None = None) -> LearningRate:
    """The learning rate as a function of the optimizer's iterations n; n = 0 at the first update.

        fixed        learning_rate
        exponential  learning_rate * learning_rate_decay_factor ^ floor(n / decay_steps)
        polynomial   end + (learning_rate - end) * (1 - min(n, decay_steps) / decay_steps), end = end_learning_rate
        cosine       end + (learning_rate - end) * (1 + cos(pi * min(n, steps) / steps)) / 2       (arXiv:1608.03983)

    with decay_steps = int(num_examples / batch_size * num_epochs_per_decay), divided (and not rounded) by
    replicas_to_aggregate when sync_replicas is set: `_configure_learning_rate` of slim's train_image_classifier.py.

    With warmup_fraction, the first w = round(warmup_fraction * steps) rates are multiplied by (n + 1) / w.

    Args:
        flags: the learning-rate flags, `batch_size` and `train_steps`.
        num_examples: size of the training set.
        steps: of the schedule; default `train_steps`.

    Returns:
        A float for fixed without warm-up, else a Keras schedule.

    Raises:
        FlagError: decay_steps is less than 1, or --learning_rate_decay_type is unknown.
    """
    steps = flags.train_steps if steps is None else steps
    schedule = _without_warmup(flags, num_examples, steps)
    warmup_steps = round(flags.warmup_fraction * steps)
    return WarmUp(schedule, warmup_steps) if warmup_steps else schedule


def _without_warmup(flags: Flags, num_examples: int, steps: int) -> LearningRate:
    if flags.learning_rate_decay_type == "fixed":
        return float(flags.learning_rate)
    if flags.learning_rate_decay_type == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            flags.learning_rate, steps, alpha=flags.end_learning_rate / flags.learning_rate
        )
    decay_steps = _decay_steps(flags, num_examples)
    if flags.learning_rate_decay_type == "exponential":
        return keras.optimizers.schedules.ExponentialDecay(
            flags.learning_rate, decay_steps, decay_rate=flags.learning_rate_decay_factor, staircase=True
        )
    if flags.learning_rate_decay_type == "polynomial":
        return keras.optimizers.schedules.PolynomialDecay(
            flags.learning_rate, decay_steps, end_learning_rate=flags.end_learning_rate, power=1.0, cycle=False
        )
    raise _invalid_choice("learning_rate_decay_type", flags.learning_rate_decay_type)


def micro_batches(flags: Flags) -> int:
    """The batches of --batch_size examples whose gradients a training step averages."""
    return int(flags.replicas_to_aggregate) if flags.sync_replicas else 1


def make_optimizer(flags: Flags, learning_rate: LearningRate) -> keras.optimizers.Optimizer:
    """The optimizer that `flags.optimizer` names, with the flags that it uses.

    `opt_epsilon` goes to adadelta, adam, adamw and rmsprop alone: TensorFlow 1's adagrad has no epsilon. `weight_decay`
    goes to adamw alone: with the others it is the network's L2 regularisation.

    Args:
        flags: `optimizer`, the flags of the optimizers, and `clip_norm`.
        learning_rate: as `make_schedule` returns it.

    Returns:
        An optimizer that is not built yet.

    Raises:
        FlagError: the optimizer is unknown.
    """
    factories: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
        "adadelta": lambda: keras.optimizers.Adadelta(learning_rate, rho=flags.adadelta_rho, epsilon=flags.opt_epsilon),
        "adagrad": lambda: keras.optimizers.Adagrad(
            learning_rate, initial_accumulator_value=flags.adagrad_initial_accumulator_value, epsilon=0.0
        ),
        "adam": lambda: keras.optimizers.Adam(
            learning_rate, beta_1=flags.adam_beta1, beta_2=flags.adam_beta2, epsilon=flags.opt_epsilon
        ),
        "adamw": lambda: AdamW(
            learning_rate,
            decay=flags.weight_decay,
            beta_1=flags.adam_beta1,
            beta_2=flags.adam_beta2,
            epsilon=flags.opt_epsilon,
        ),
        "ftrl": lambda: keras.optimizers.Ftrl(
            learning_rate,
            learning_rate_power=flags.ftrl_learning_rate_power,
            initial_accumulator_value=flags.ftrl_initial_accumulator_value,
            l1_regularization_strength=flags.ftrl_l1,
            l2_regularization_strength=flags.ftrl_l2,
        ),
        "momentum": lambda: Momentum(learning_rate, momentum=flags.momentum),
        "rmsprop": lambda: RMSProp(
            learning_rate, decay=flags.rmsprop_decay, momentum=flags.rmsprop_momentum, epsilon=flags.opt_epsilon
        ),
        "sgd": lambda: keras.optimizers.SGD(learning_rate),
    }
    if flags.optimizer not in factories:
        raise _invalid_choice("optimizer", flags.optimizer)
    optimizer = factories[flags.optimizer]()
    optimizer.global_clipnorm = flags.clip_norm
    return optimizer


def network_weight_decay(flags: Flags) -> float:
    """The L2 regularisation that the network gets: --weight_decay, unless the optimizer decays the weights itself."""
    return 0.0 if flags.optimizer == "adamw" else float(flags.weight_decay)


def scale_learning_rates(optimizer: keras.optimizers.Optimizer, names: Sequence[str], scales: str | None) -> None:
    """Makes an optimizer multiply its learning rate by a factor for each variable; changes `optimizer`.

    Args:
        optimizer: not wrapped for loss scaling yet.
        names: of the variables that the optimizer is built for, in that order, as the scope flags use them.
        scales: value of --learning_rate_scales.

    Raises:
        FlagError: an item is not SCOPE=FACTOR.
    """
    items = _learning_rate_scales(scales)
    factors = [next((factor for scope, factor in items if re.match(scope, name)), 1.0) for name in names]
    if all(factor == 1.0 for factor in factors):
        return
    update_step = optimizer.update_step

    def scaled_update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = factors[optimizer._get_variable_index(variable)]  # `variable` may be a replica's
        update_step(gradient, variable, learning_rate * factor)

    optimizer.update_step = scaled_update_step


def check_learning_rate_scales(names: Sequence[str], scales: str | None) -> None:
    """Checks that each scope of --learning_rate_scales matches a trained variable.

    Raises:
        FlagError: one does not, or an item is not SCOPE=FACTOR.
    """
    for scope, _ in _learning_rate_scales(scales):
        if not any(re.match(scope, name) for name in names):
            raise FlagError(
                "A scope of --learning_rate_scales matches the start of no trained variable's name",
                received=scope,
                expected=f"scopes of {abridged(names)}",
            )


def _learning_rate_scales(scales: str | None) -> list[tuple[str, float]]:
    """The pairs of scope and factor of --learning_rate_scales, in their order."""
    items = []
    for item in filter(None, (part.strip() for part in (scales or "").split(","))):
        scope, _, factor = item.rpartition("=")
        try:
            re.compile(scope)
            value = float(factor)
        except (re.error, ValueError):
            value = -1.0
        if not scope or not 0 <= value < float("inf"):
            raise FlagError(
                "An item of --learning_rate_scales is not a scope and a factor",
                received=item,
                expected="SCOPE=FACTOR, a regular expression and a number >= 0, such as MobilenetV1/Logits=10",
            )
        items.append((scope, value))
    return items


@keras.saving.register_keras_serializable(package="tf_image_classification")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """`schedule`, its first `warmup_steps` rates multiplied by (n + 1) / warmup_steps."""

    def __init__(self, schedule: LearningRate, warmup_steps: int) -> None:
        super().__init__()
        self.schedule, self.warmup_steps = schedule, warmup_steps

    def __call__(self, step: Any) -> Any:
        rate = self.schedule(step) if callable(self.schedule) else self.schedule
        share = (ops.cast(step, "float32") + 1.0) / self.warmup_steps
        return rate * ops.minimum(share, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self.schedule, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable(package="tf_image_classification")
class AdamW(keras.optimizers.Adam):
    """Adam with decoupled weight decay (arXiv:1711.05101): kernels also lose learning_rate * decay * kernel.

    Biases and the scales and offsets of normalisation are not decayed. Keras's AdamW takes the optimizer's learning
    rate for the decay; here it is the one of the variable, see `scale_learning_rates`.
    """

    def __init__(self, learning_rate: LearningRate = 0.001, decay: float = 0.004, **kwargs: Any) -> None:
        super().__init__(learning_rate, name=kwargs.pop("name", "adamw"), **kwargs)
        self.decay = decay

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if len(variable.shape) > 1:
            self.assign_sub(variable, variable * ops.cast(learning_rate * self.decay, variable.dtype))
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decay": self.decay}


@keras.saving.register_keras_serializable(package="tf_image_classification")
class Momentum(keras.optimizers.Optimizer):
    """tf.compat.v1.train.MomentumOptimizer (kernel ApplyMomentum, no Nesterov).

    accumulator = momentum * accumulator + gradient        (0 at the start)
    variable = variable - learning_rate * accumulator
    """

    def __init__(
        self, learning_rate: LearningRate = 0.01, momentum: float = 0.9, name: str = "momentum", **kwargs: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._accumulators = self.add_optimizer_variables(variables, "accumulator")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        accumulator = self._accumulators[self._get_variable_index(variable)]
        gradient = ops.cast(gradient, variable.dtype)
        self.assign(accumulator, accumulator * self.momentum + gradient)
        self.assign_sub(variable, accumulator * ops.cast(learning_rate, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum}


@keras.saving.register_keras_serializable(package="tf_image_classification")
class RMSProp(keras.optimizers.Optimizer):
    """tf.compat.v1.train.RMSPropOptimizer (kernel ApplyRMSProp, not centered).

    mean_square = mean_square + (1 - decay) * (gradient^2 - mean_square)                      (1 at the start)
    momentum_slot = momentum * momentum_slot + learning_rate * gradient / sqrt(mean_square + epsilon)      (0)
    variable = variable - momentum_slot
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        decay: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-10,
        name: str = "rmsprop",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.decay, self.momentum, self.epsilon = decay, momentum, epsilon

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._mean_squares = self.add_optimizer_variables(variables, "mean_square", initializer="ones")
        self._momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        mean_square, momentum = self._mean_squares[index], self._momentums[index]
        gradient = ops.cast(gradient, variable.dtype)
        self.assign_add(mean_square, (ops.square(gradient) - mean_square) * (1.0 - self.decay))
        step = ops.cast(learning_rate, variable.dtype) * gradient * ops.rsqrt(mean_square + self.epsilon)
        self.assign(momentum, momentum * self.momentum + step)
        self.assign_sub(variable, momentum)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decay": self.decay, "momentum": self.momentum, "epsilon": self.epsilon}


def _decay_steps(flags: Flags, num_examples: int) -> float:
    """Steps per decay, at least 1; not an integer when it is divided by --replicas_to_aggregate."""
    decay_steps: float = int(num_examples / flags.batch_size * flags.num_epochs_per_decay)
    divisor = ""
    if flags.sync_replicas:
        decay_steps /= flags.replicas_to_aggregate
        divisor = f" / --replicas_to_aggregate {flags.replicas_to_aggregate}"
    if decay_steps < 1:
        raise FlagError(
            f"The {flags.learning_rate_decay_type} decay of the learning rate would take less than one step",
            received=f"{num_examples} training examples / --batch_size {flags.batch_size}"
            f" * --num_epochs_per_decay {flags.num_epochs_per_decay:g}{divisor} = {decay_steps:g} steps",
            expected="at least 1 step",
            hint="Give a smaller --batch_size, a larger --num_epochs_per_decay, or --learning_rate_decay_type fixed.",
        )
    return decay_steps


def _invalid_choice(name: str, value: object) -> FlagError:
    return FlagError(f"Invalid value for --{name}", received=repr(value), expected=BY_NAME[name].allowed)
