"""The `metric_ops` of an EstimatorSpec, over a whole data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tf_image_classification.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

    from tf_image_classification.estimator_specs import EstimatorSpec


class UserMetrics:
    """Streaming metrics of a spec: tensors are averaged over the examples, Keras metrics keep their own state.

    Args:
        spec: its `metric_ops` is called for each batch, and updates the spec's Keras metrics.
    """

    def __init__(self, spec: EstimatorSpec) -> None:
        self._spec = spec
        self._sums: dict[str, float] = {}
        self._metrics: dict[str, Any] = {}
        self._examples = 0

    def update(self, labels: dict[str, tf.Tensor], logits: dict[str, tf.Tensor], examples: int) -> None:
        """Counts one batch.

        Args:
            labels: task name -> one-hot labels, float32 [B, K], or true values, float32 [B], of a regression.
            logits: task name -> float32 [B, K], or [B, 1] of a regression.
            examples: B.

        Raises:
            UserError: a value is neither a tensor with a row per example nor a Keras metric.
        """
        import keras

        self._examples += examples
        for name, value in self._spec.metric_ops(labels, self._spec.predictions(logits)).items():
            if isinstance(value, keras.metrics.Metric):
                self._metrics[name] = value
                continue
            array = np.asarray(value)
            if array.ndim == 0 or len(array) != examples or array.dtype.kind not in "biuf":
                raise UserError(
                    f"metric_ops of {type(self._spec).__name__} returned an invalid value for {name}",
                    received=f"{array.dtype} {list(array.shape)}",
                    expected=f"one number per example, [{examples}], or a Keras metric that was updated with the batch",
                )
            per_example = array.reshape(examples, -1).mean(axis=1, dtype=np.float64)
            self._sums[name] = self._sums.get(name, 0.0) + float(per_example.sum())

    def result(self) -> dict[str, Any]:
        """Metric name -> number, or nested lists of numbers for a Keras metric of several; None where not finite.

        Resets the spec's Keras metrics, so that the spec is ready for another evaluation.
        """
        values: dict[str, Any] = {name: total / max(self._examples, 1) for name, total in self._sums.items()}
        for name, metric in self._metrics.items():
            values[name] = np.asarray(metric.result(), np.float64).tolist()
            metric.reset_state()
        return {name: _none_if_not_finite(value) for name, value in values.items()}


def _none_if_not_finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_none_if_not_finite(item) for item in value]
    return value if np.isfinite(value) else None
