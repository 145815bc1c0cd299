"""The evaluations of a training, on the weights that would be exported, recorded in history and summaries."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification import optimizers
from tf_image_classification.data.manifest import EVAL, TRAIN, Manifest
from tf_image_classification.flags import Flags
from tf_image_classification.training import batch_norm, distribution, stages
from tf_image_classification.training.evaluation import Evaluation
from tf_image_classification.training.history import History
from tf_image_classification.training.model_selection import ModelSelection
from tf_image_classification.training.training_folder import TrainingFolder

if TYPE_CHECKING:
    from tf_image_classification.estimator_specs import EstimatorSpec
    from tf_image_classification.training.build import TrainingState

_log = logging.getLogger(__name__)

_REESTIMATION_SEED = 0  # not the training's: the statistics are not of the very crops that it begins with


class Evaluator:
    """The evaluations of a training.

    Args:
        spec: its input_fn and metric_ops.
        state: of the training.
        data: its evaluation split is evaluated; of its training split, a part.
        flags: --eval_freq, --batch_size, --batch_norm and those of the model selection.
        folder: gets summaries, history and the best model.
        history: of the training, up to the step from which it continues.

    Attributes:
        history: see above.
        selection: of the model to export.

    Raises:
        EstimatorError, FlagError: as `Evaluation` and `ModelSelection.start`.
    """

    def __init__(
        self,
        spec: EstimatorSpec,
        state: TrainingState,
        data: Manifest,
        flags: Flags,
        folder: TrainingFolder,
        history: History,
    ) -> None:
        self._spec, self._state, self._data, self._flags = spec, state, data, flags
        self._folder, self.history = folder, history
        self._examples = data.splits[EVAL].examples
        self._evaluation = Evaluation(spec, state.model, self._input_fn(data, flags.batch_size, flags.eval_freq))
        self._writer = tf.summary.create_file_writer(os.path.join(folder.local, "eval"))
        layers, start = stages.batch_norm_start(state.model, state.stages)
        normalised_apart = 1 if flags.sync_batch_norm else state.strategy.num_replicas_in_sync
        batch_norm.warn_of_small_batches(layers, flags.batch_size // normalised_apart)
        self._batch_norm = batch_norm.BatchNormPolicy(
            flags.batch_norm,
            layers,
            start,
            optimizers.micro_batches(flags),
            state.average is not None,
            lambda: self._reestimation(layers),
        )
        self._last: tuple[int, dict[str, float], int] | None = None  # step, metrics, number of examples
        self.selection = ModelSelection(state.model, folder, flags, patient_until=state.stages[-1].start)
        self.selection.start(self._evaluation.names, history.entries)

    def __call__(self, step: int) -> dict[str, float]:
        """Evaluates the model as it would be exported at global step `step`.

        Returns:
            `loss` (regularisation included), `loss_without_regularization`, `global_step` and the spec's metrics.
        """
        with self.exported_weights(step):
            return self.evaluate(step)

    def has_evaluated(self, step: int) -> bool:
        """Whether the training's history up to its start has an evaluation at global step `step`."""
        return self.history.has_evaluation(step)

    @contextlib.contextmanager
    def exported_weights(self, step: int) -> Iterator[None]:
        """The model has the weights to evaluate and export in the block, those of the training after it."""
        average = self._state.average
        with contextlib.nullcontext() if average is None else average.applied(), self._batch_norm.applied(step):
            yield

    def evaluate(self, step: int) -> dict[str, float]:
        """As a call, with the weights that the model has."""
        if self._last is not None and self._last[0] == step:  # an evaluation that ended the training early
            return self._last[1]
        values, examples = self._evaluation()
        metrics = {**values, "global_step": float(step)}
        self._last = (step, metrics, examples)
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()
        self.selection.update(step, values)
        self.history.add("eval", step, values)
        self._folder.publish_logs()
        _log.info("Evaluation at step %d on %d of %d examples: %s", step, examples, self._examples, _shown(values))
        return metrics

    def compare_splits(self, step: int) -> dict[str, dict[str, float]]:
        """The evaluation of the model as it is, and one of as many batches of the training split.

        Images are preprocessed as in evaluations, and all layers compute in inference mode: the difference is what the
        model does better on images that it was trained on.

        Args:
            step: the global step of the model's weights.

        Returns:
            `metrics` and `train_metrics`, with the same names, and `scored_examples`: their number by split. Of a spec
            with its own input_fn the evaluation split alone.
        """
        if self._last is None or self._last[0] != step:
            values, examples = self._evaluation()
            self._last = (step, {**values, "global_step": float(step)}, examples)
        _, metrics, examples = self._last
        if self._spec.has_own_input:  # which decides itself what it reads
            return {"metrics": metrics, "scored_examples": {EVAL: examples}}
        batches = min(self._flags.eval_freq, -(-self._examples // self._flags.batch_size))
        seen = self._input_fn(self._training_split(), self._flags.batch_size, batches)
        values, train_examples = self._evaluation(seen)
        _log.info("The same on %d examples of the training split: %s", train_examples, _shown(values))
        return {
            "metrics": metrics,
            "train_metrics": {**values, "global_step": float(step)},
            "scored_examples": {TRAIN: train_examples, EVAL: examples},
        }

    def _training_split(self) -> Manifest:
        """The data with its training split as the one that evaluations read."""
        return dataclasses.replace(self._data, splits={**self._data.splits, EVAL: self._data.splits[TRAIN]})

    def _reestimation(self, layers: list[Any]) -> batch_norm.Reestimation:
        examples = self._data.splits[TRAIN].examples
        replicas = self._state.strategy.num_replicas_in_sync
        batch_size = max(self._flags.batch_size, min(batch_norm.MIN_BATCH, examples // replicas * replicas))
        batches = max(1, min(batch_norm.MAX_EXAMPLES, examples) // batch_size)
        if self._flags.mixup or self._flags.cutmix:
            # Mixed images have statistics of their own.
            input_fn = self._input_fn(self._training_split(), batch_size, batches)
        else:
            # Augmented as in training: on photographs, models were more accurate with these statistics than with those
            # of images that are preprocessed as in evaluations.
            input_fn = self._spec.input_fn(
                self._data,
                is_training=True,
                batch_size=batch_size,
                image_size=self._flags.image_size,
                steps=batches,
                seed=_REESTIMATION_SEED,
                shuffle=not self._flags.debug,
            )
        # A spec's own data set may repeat for ever.
        return batch_norm.Reestimation(
            self._state.model, layers, lambda: input_fn().take(batches), distribution.local(self._state.strategy)
        )

    def _input_fn(self, data: Manifest, batch_size: int, batches: int) -> Callable[[], tf.data.Dataset]:
        return self._spec.input_fn(
            data,
            is_training=False,
            batch_size=batch_size,
            image_size=self._flags.image_size,
            steps=batches,
            shuffle=not self._flags.debug,
        )


def _shown(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
