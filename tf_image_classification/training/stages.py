"""The stages of a training: the head alone for --head_fraction of the steps, then everything that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from tf_image_classification import checkpoints, nets, optimizers
from tf_image_classification.errors import FlagError
from tf_image_classification.flags import Flags
from tf_image_classification.training import layer_modes, precision


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps that train the same variables with the same optimizer.

    Attributes:
        start, end: the global steps before the first and after the last update.
        variables: those that are trained.
        optimizer: built for `variables`; its iterations count from the start of the stage.
        learning_rate: of an iteration, or constant.
        inference_layers: compute in inference mode, see `layer_modes`.
    """

    start: int
    end: int
    variables: list[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    learning_rate: optimizers.LearningRate
    inference_layers: list[keras.layers.Layer]

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of the update that follows `step` updates of the training."""
        if callable(self.learning_rate):
            with tf.device("CPU"):  # which does not have to wait for another device
                return float(self.learning_rate(step - self.start))
        return self.learning_rate


def head_steps(flags: Flags) -> int:
    """The number of steps that train the head alone: of a fraction, at least one, and one less than all."""
    if flags.head_fraction in (0.0, 1.0):
        return int(flags.head_fraction) * int(flags.train_steps)
    return min(max(1, round(flags.head_fraction * flags.train_steps)), max(1, flags.train_steps - 1))


def make_stages(model: keras.Model, flags: Flags, num_examples: int) -> list[Stage]:
    """The stages of a training, in their order; at least one. Call it under the training's strategy.

    Args:
        model: the network.
        flags: of the training.
        num_examples: size of the training split.

    Raises:
        FlagError: --trainable_scopes selects nothing, or nothing of the head with --head_fraction.
        EstimatorError: the head is not known, with --head_fraction.
    """
    variables = checkpoints.trainable_variables(model, flags.trainable_scopes)
    optimizers.check_learning_rate_scales(_names(model, variables), flags.learning_rate_scales)
    end_of_head = head_steps(flags)
    stages = []
    if end_of_head:
        head = _head(model, variables, flags)
        rate = float(flags.head_learning_rate or flags.learning_rate)
        stages.append(_stage(0, end_of_head, model, head, flags, rate))
    if end_of_head < flags.train_steps:
        schedule = optimizers.make_schedule(flags, num_examples, flags.train_steps - end_of_head)
        stages.append(_stage(end_of_head, flags.train_steps, model, variables, flags, schedule))
    return stages


def stage_at(stages: Sequence[Stage], step: int) -> Stage:
    """The stage of the update that leads to global step `step`; the last one for later steps."""
    return next((stage for stage in stages if step <= stage.end), stages[-1])


def batch_norm_start(model: keras.Model, stages: Sequence[Stage]) -> tuple[list[keras.layers.BatchNormalization], int]:
    """The layers of batch normalisation whose statistics the training changes, and the global step from which it does.

    Those of the first stage that has any; a head has none, as a rule.
    """
    for stage in stages:
        inference = {id(layer) for layer in stage.inference_layers}
        layers = [layer for layer in layer_modes.batch_norms(model) if layer.trainable and id(layer) not in inference]
        if layers:
            return layers, stage.start
    return [], 0


def _head(model: keras.Model, variables: Sequence[keras.Variable], flags: Flags) -> list[keras.Variable]:
    trained = {id(variable) for variable in variables}
    head = checkpoints.head_variables(model)
    selected = [variable for variable in head.values() if id(variable) in trained]
    if not selected:
        raise FlagError(
            "--head_fraction trains the head first, and --trainable_scopes leaves it out",
            received=flags.trainable_scopes,
            expected=f"scopes that select some of {', '.join(head)}",
        )
    return selected


def _names(model: keras.Model, variables: Sequence[keras.Variable]) -> list[str]:
    names = {id(variable): name for name, variable in nets.scoped_names(model).items()}
    return [names[id(variable)] for variable in variables]


def _stage(
    start: int,
    end: int,
    model: keras.Model,
    variables: list[keras.Variable],
    flags: Flags,
    learning_rate: optimizers.LearningRate,
) -> Stage:
    optimizer = optimizers.make_optimizer(flags, learning_rate)
    optimizers.scale_learning_rates(optimizer, _names(model, variables), flags.learning_rate_scales)
    if precision.of(flags) == precision.MIXED_FLOAT16:  # bfloat16 has the range of float32
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    inference = layer_modes.inference_layers(model, variables, flags.batch_norm)
    return Stage(start, end, variables, optimizer, learning_rate, inference)
