"""An exponential moving average of the trained variables: --ema_decay."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf


class WeightAverage:
    """Averages variables over the updates of a training.

        average = d * average + (1 - d) * variable        with d = min(decay, (1 + n) / (10 + n)) at update n

    as `tf.train.ExponentialMovingAverage` with `num_updates`, so that a short training is averaged over its end alone.
    Created under the training's strategy.

    Attributes:
        averages: one variable per averaged one, in their order; saved with the checkpoint.
    """

    def __init__(self, variables: Sequence[keras.Variable], decay: float) -> None:
        self._variables, self._decay = list(variables), decay
        self.averages = [
            tf.Variable(variable.numpy(), trainable=False, name=f"average/{variable.path}") for variable in variables
        ]

    def reset(self) -> None:
        """Starts from the variables as they are, such as those of a pretrained checkpoint."""
        for average, variable in zip(self.averages, self._variables, strict=True):
            average.assign(variable.numpy())

    def update(self, global_step: tf.Tensor) -> None:
        """Adds the variables as they are after update number `global_step`, int64 [], to the averages."""
        count = tf.cast(global_step, tf.float32)
        decay = tf.minimum(self._decay, (1.0 + count) / (10.0 + count))
        for average, variable in zip(self.averages, self._variables, strict=True):
            average.assign_sub((average - variable.value) * (1.0 - decay))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The variables have their averages as values in the block, and their own after it."""
        values = [variable.numpy() for variable in self._variables]
        for average, variable in zip(self.averages, self._variables, strict=True):
            variable.assign(average.numpy())
        try:
            yield
        finally:
            for value, variable in zip(values, self._variables, strict=True):
                variable.assign(value)
