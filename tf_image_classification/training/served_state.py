"""The state of an asynchronous training on the parameter servers, and its copy in the chief."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from tf_image_classification.flags import Flags
from tf_image_classification.training import precision, stages
from tf_image_classification.training.parameter_servers import Servers
from tf_image_classification.training.stages import Stage
from tf_image_classification.training.weight_average import WeightAverage

if TYPE_CHECKING:
    from tf_image_classification.estimator_specs import EstimatorSpec
    from tf_image_classification.training.build import TrainingState


class ServedState:
    """The state of a training on the parameter servers, built as the chief's.

    Attributes:
        stages, model, average, global_step: as of `build.TrainingState`.
        started: the number of the next update, int64 [].
        streams: the number of the next worker that begins to read, int64 [].
    """

    def __init__(
        self, servers: Servers, spec: EstimatorSpec, state: TrainingState, flags: Flags, examples: int
    ) -> None:
        self._state = state
        keras.utils.clear_session()  # layers without a name get those of the chief's
        with servers.strategy.scope(), precision.policy(precision.of(flags)):
            self.model = spec.get_model_fn(flags.checkpoint_path)(state.params)
            self.stages = stages.make_stages(self.model, flags, examples)
            self.average = WeightAverage(self.stages[-1].variables, flags.ema_decay) if flags.ema_decay else None
            self.global_step, self.started, self.streams = (
                tf.Variable(0, dtype=tf.int64, trainable=False, name=name)
                for name in ("global_step", "started", "streams")
            )
        own = _variables(state.model, state.stages, state.average, state.global_step)
        self._pairs = list(zip(own, _variables(self.model, self.stages, self.average, self.global_step), strict=True))

    @property
    def step(self) -> int:
        """The number of updates that were made."""
        return int(self.global_step)

    def push(self) -> None:
        """Copies the chief's state to the parameter servers."""
        for own, served in self._pairs:
            served.assign(own.numpy())

    def pull(self) -> None:
        """Copies the state on the parameter servers to the chief, while no update is computed."""
        for own, served in self._pairs:
            own.assign(served.numpy())
        step = int(self._state.global_step)
        stage = stages.stage_at(self._state.stages, max(step, 1))
        for counter in counters(stage.optimizer):
            counter.assign(step - stage.start)


def counters(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The iterations of an optimizer, and of the one inside it that scales the loss."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return [optimizer.iterations] if inner is optimizer else [optimizer.iterations, inner.iterations]


def next_number(counter: tf.Variable) -> tf.Tensor:
    """Adds one to an int64 variable, and returns its value before: one operation, so that no number is given twice."""
    return tf.raw_ops.ResourceCountUpTo(resource=counter.handle, limit=tf.int64.max, T=tf.int64)


def _variables(
    model: keras.Model, made: Sequence[Stage], average: WeightAverage | None, global_step: tf.Variable
) -> list[tf.Variable]:
    optimizers = [variable for stage in made for variable in stage.optimizer.variables]
    averages = [] if average is None else average.averages
    return [*(variable.value for variable in (*model.variables, *optimizers)), *averages, global_step]
