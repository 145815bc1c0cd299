"""What a training changes, built under the distribution strategy: network, optimizer and counters."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import tensorflow as tf

from tf_image_classification import checkpoints, nets, optimizers
from tf_image_classification.built_in_estimator import BuiltInEstimator
from tf_image_classification.checkpoints.class_names import ClassNames
from tf_image_classification.data.manifest import EVAL, TRAIN, Manifest
from tf_image_classification.errors import EstimatorError, FlagError
from tf_image_classification.estimator_specs import EstimatorSpec
from tf_image_classification.flags import Flags
from tf_image_classification.training import distribution, layer_modes, precision, stages
from tf_image_classification.training.stages import Stage
from tf_image_classification.training.training_folder import CHECKPOINT_NAME, CHECKPOINTS_KEPT
from tf_image_classification.training.weight_average import WeightAverage

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The state of a training, and what it was built with.

    Attributes:
        strategy: under which everything here was created.
        params: the flags with `outputs` (task -> depth), `num_classes` and `num_samples_per_epoch`: what the
            spec's model_fn was called with.
        model: the network; float images [B, H, W, 3] -> logits.
        stages: what is trained when, and by which optimizer.
        average: of the variables of the last stage; None without --ema_decay.
        global_step: number of updates, int64 [].
        data_seed: decides the order of the examples, int64 []. Saved with the checkpoint, so that a training without
            --seed, too, resumes in its own order.
    """

    strategy: tf.distribute.Strategy
    params: Flags
    model: keras.Model
    stages: list[Stage]
    average: WeightAverage | None
    global_step: tf.Variable
    data_seed: tf.Variable

    @property
    def variables(self) -> list[tf.Variable]:
        """All that decides how the training goes on: weights, optimizers, averages, counters, random states."""
        optimizers = [variable for stage in self.stages for variable in stage.optimizer.variables]
        averages = [] if self.average is None else self.average.averages
        own = [variable.value for variable in (*self.model.variables, *optimizers)]
        return [*own, *averages, self.global_step, self.data_seed]

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of the update that follows `step` updates."""
        return stages.stage_at(self.stages, step + 1).learning_rate_at(step)

    def begin(self) -> int:
        """Prepares the state for its first update, once its variables have been loaded; returns the global step.

        A constant learning rate is the flag's, not the one that the checkpoint has. The optimizer's iterations follow
        from the step, also where --train_steps and so the end of the head's stage have changed since the checkpoint.

        Raises:
            FlagError: the checkpoint has trained all variables, and with this --train_steps it would train the head.
        """
        start = int(self.global_step.numpy())
        if start == 0 and self.average is not None:
            self.average.reset()
        for stage in self.stages:
            if not callable(stage.learning_rate):
                stage.optimizer.learning_rate = stage.learning_rate
        last = self.stages[-1]
        if last.start and start <= last.start and int(last.optimizer.iterations.numpy()):
            raise FlagError(
                f"With this --train_steps, --head_fraction trains the head up to step {last.start}, and the checkpoint "
                f"of step {start} has trained all variables already",
                hint="Give the --train_steps of before, or another --model_dir.",
            )
        # A loss-scaling optimizer counts no steps that it has skipped.
        if last.start and start > last.start and not isinstance(last.optimizer, keras.optimizers.LossScaleOptimizer):
            last.optimizer.iterations.assign(start - last.start)
        return start

    def checkpoint_manager(self, folder: str, class_names: ClassNames) -> tf.train.CheckpointManager:
        """Saves and restores this state in a local folder, with the class names that the model is trained on."""
        averages = {}
        if self.average is not None:
            names = {id(variable): name for name, variable in nets.scoped_names(self.model).items()}
            averages = {
                names[id(variable)]: average
                for variable, average in zip(self.stages[-1].variables, self.average.averages, strict=True)
            }
        checkpoint = checkpoints.training_checkpoint(
            self.model,
            self.stages[-1].optimizer,
            self.global_step,
            {"data_seed": self.data_seed},
            head_optimizer=self.stages[0].optimizer if len(self.stages) > 1 else None,
            averages=averages,
            class_names=class_names,
        )
        return tf.train.CheckpointManager(
            checkpoint, folder, max_to_keep=CHECKPOINTS_KEPT, checkpoint_name=CHECKPOINT_NAME
        )


def build(spec: EstimatorSpec, data: Manifest, flags: Flags) -> TrainingState:
    """Builds the spec's network and the optimizers on the devices that will train them.

    With --seed, it sets the random seeds of Python, NumPy and TensorFlow. Nothing may come between that and the
    network: an upload to a bucket, too, draws from Python's generator.

    Raises:
        FlagError: --batch_size is no multiple of the number of replicas, or as `stages.make_stages`.
        EstimatorError: the spec's model_fn returns no keras.Model, or as `stages.make_stages`.
    """
    strategy = distribution.strategy()
    if flags.batch_size % strategy.num_replicas_in_sync:
        raise FlagError(
            "--batch_size cannot be divided evenly among the replicas",
            received=flags.batch_size,
            expected=f"a multiple of {strategy.num_replicas_in_sync}",
        )
    outputs = {entry["name"]: entry["depth"] for entry in spec.class_dict}
    examples = data.splits[TRAIN].examples
    first_depth = next(iter(outputs.values()))
    params = Flags(**vars(flags), outputs=outputs, num_classes=first_depth, num_samples_per_epoch=examples)
    params.weight_decay = optimizers.network_weight_decay(flags)
    if flags.seed is not None:
        keras.utils.set_random_seed(flags.seed)
    with strategy.scope(), precision.policy(precision.of(flags)):
        model = spec.get_model_fn(flags.checkpoint_path)(params)
        if not isinstance(model, keras.Model):
            raise EstimatorError(
                "model_fn does not return a model", received=type(model).__name__, expected="a keras.Model"
            )
        made = stages.make_stages(model, flags, examples)
        variables = made[-1].variables
        average = WeightAverage(variables, flags.ema_decay) if flags.ema_decay else None
        global_step = tf.Variable(0, dtype=tf.int64, trainable=False, name="global_step")
        # 31 bits: a seed as --seed allows them.
        seed = int.from_bytes(os.urandom(4), "big") >> 1 if flags.seed is None else flags.seed
        data_seed = tf.Variable(seed, dtype=tf.int64, trainable=False, name="data_seed")
    _log.info(
        "%s: %s parameters, %s of them trained; %s training and %s evaluation examples",
        model_name(spec, flags) or type(spec).__name__,
        f"{model.count_params():,}",
        f"{sum(math.prod(variable.shape) for variable in variables):,}",
        f"{examples:,}",
        f"{data.splits[EVAL].examples:,}",
    )
    _log_stages(model, made)
    return TrainingState(strategy, params, model, made, average, global_step, data_seed)


def _log_stages(model: keras.Model, made: Sequence[Stage]) -> None:
    norms = {id(layer) for layer in layer_modes.batch_norms(model)}
    for stage in made:
        if len(made) > 1:
            values = sum(math.prod(variable.shape) for variable in stage.variables)
            _log.info("Steps %d to %d train %s parameters", stage.start + 1, stage.end, f"{values:,}")
        if count := sum(id(layer) in norms for layer in stage.inference_layers):
            _log.info("Batch normalisation: %d of %d layers use their moving statistics", count, len(norms))


def model_name(spec: EstimatorSpec, flags: Flags) -> str | None:
    """The built-in network's name; None for a user's estimator."""
    return flags.model_name if isinstance(spec, BuiltInEstimator) else None
