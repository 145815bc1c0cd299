"""The evaluation during training: one compiled batch, and its mean over many."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tf_image_classification.errors import EstimatorError, FlagError
from tf_image_classification.training import steps

if TYPE_CHECKING:
    import keras

    from tf_image_classification.estimator_specs import EstimatorSpec, Tensors


class Evaluation:
    """The evaluation during training: the total loss and the spec's metrics over batches of the evaluation split.

    Updates and resets the Keras metrics that the spec holds.

    Args:
        input_fn: returns the data set of (images, labels) that each evaluation reads from its beginning.

    Raises:
        EstimatorError: metric_ops or model_fn break their contract.
        FlagError: metric_ops returns a metric with a reserved name.
    """

    def __init__(self, spec: EstimatorSpec, model: keras.Model, input_fn: Callable[[], tf.data.Dataset]) -> None:
        self._spec, self._model, self._input_fn = spec, model, input_fn
        self._keras_metrics: dict[str, keras.metrics.Metric] = {}
        # Traced now, so that a mistake in a user's metric_ops is found before hours of training, not after.
        function = tf.function(self._evaluate_batch, input_signature=input_fn().element_spec, autograph=False)
        try:
            self._step = function.get_concrete_function()
        except ValueError as error:
            if "singleton tf.Variable" in str(error):
                raise EstimatorError(
                    "metric_ops creates a Keras metric", expected="metrics created in __init__, which it updates"
                ) from error
            raise

    @property
    def names(self) -> list[str]:
        """The names of the values of an evaluation."""
        numbers = [name for name, metric in self._keras_metrics.items() if np.ndim(metric.result()) == 0]
        return [*self._step.structured_outputs, *numbers]

    def __call__(self, input_fn: Callable[[], tf.data.Dataset] | None = None) -> tuple[dict[str, float], int]:
        """Evaluates the model as it is now.

        Args:
            input_fn: returns other batches of the same form; default the evaluation's own.

        Returns:
            `loss` and `loss_without_regularization` (unweighted means over the batches, as in tf.estimator) and each
            metric of `metric_ops`: the mean over examples, or the value of a Keras metric. A Keras metric of several
            numbers (a confusion matrix) is left to the evaluation of the finished model. And the number of examples.
        """
        for metric in self._keras_metrics.values():
            metric.reset_state()
        losses: dict[str, list[float]] = {}
        values: dict[str, list[np.ndarray]] = {}
        examples = 0
        for images, labels in (input_fn or self._input_fn)():
            examples += images.shape[0]
            for name, value in self._step(images, labels).items():
                if name in steps.RESERVED_METRICS:
                    losses.setdefault(name, []).append(float(value))
                else:
                    values.setdefault(name, []).append(np.ravel(value.numpy()))
        result = {name: float(np.mean(parts)) for name, parts in losses.items()}
        result |= {name: float(np.mean(np.concatenate(parts))) for name, parts in values.items()}
        results = {name: np.asarray(metric.result()) for name, metric in self._keras_metrics.items()}
        return result | {name: float(value) for name, value in results.items() if value.ndim == 0}, examples

    def _evaluate_batch(self, images: tf.Tensor, labels: Tensors) -> dict[str, tf.Tensor]:
        import keras

        losses, logits = steps.total_loss(self._spec, self._model, images, labels, training=False)
        metrics = self._spec.metric_ops(labels, self._spec.predictions(logits))
        self._check_metrics(metrics)
        if reserved := [name for name in steps.RESERVED_METRICS if name in metrics]:
            raise FlagError(
                f"metric_ops returns a metric named {reserved[0]}",
                expected=f"names other than {' and '.join(steps.RESERVED_METRICS)}",
            )
        self._keras_metrics = {
            name: metric for name, metric in metrics.items() if isinstance(metric, keras.metrics.Metric)
        }
        return losses | {name: value for name, value in metrics.items() if name not in self._keras_metrics}

    @staticmethod
    def _check_metrics(metrics: Any) -> None:
        import keras

        expected = "a dict of name -> a tensor with a value per example, or a Keras metric"
        if not isinstance(metrics, dict):
            raise EstimatorError(
                "metric_ops does not return a dict", received=type(metrics).__name__, expected=expected
            )
        for name, value in metrics.items():
            if isinstance(value, tuple):
                hint = "A pair (value, update_op) of TensorFlow 1 is one tensor with a value per example now."
                raise EstimatorError(f"metric_ops returns a tuple for {name}", expected=expected, hint=hint)
            if not isinstance(value, keras.metrics.Metric) and not tf.is_tensor(value):
                raise EstimatorError(
                    f"metric_ops returns neither a tensor nor a metric for {name}",
                    received=type(value).__name__,
                    expected=expected,
                )
