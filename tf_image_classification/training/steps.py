"""The two compiled functions of a training: one update, and one batch of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tf_image_classification.errors import EstimatorError, FlagError

if TYPE_CHECKING:
    import keras

    from tf_image_classification.estimator_specs import EstimatorSpec, Tensors

RESERVED_METRICS = ("loss", "global_step")  # in the metrics of every evaluation, as in tf.estimator


def train_step(
    spec: EstimatorSpec,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    global_step: tf.Variable,
    strategy: tf.distribute.Strategy,
) -> Callable[[Any], tf.Tensor]:
    """Compiles the function that takes the next batch of an iterator and updates `variables`.

    Variables that are not trained are filtered here and nowhere else: their layers still run in training mode (dropout,
    batch statistics), their moving averages are updated and their regularisation is in the loss, as in the original.

    Args:
        spec: its loss_fn.
        model: float images [B, H, W, 3] -> logits.
        optimizer: built for `variables`.
        variables: those to train.
        global_step: int64 []; each update adds one.
        strategy: created all of these; gradients are averaged over its replicas.

    Returns:
        step(iterator) -> the total loss, regularisation included, float32 []: the mean over replicas.
    """
    trained = [variable.value for variable in variables]
    replicas = strategy.num_replicas_in_sync

    def replica_step(images: tf.Tensor, labels: Tensors) -> tf.Tensor:
        # Watching only the trained variables saves the backward pass through a frozen backbone.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            loss = total_loss(spec, model, images, labels, training=True)[0]
            # The optimizer sums the gradients of the replicas.
            scaled = optimizer.scale_loss(loss / replicas)
        optimizer.apply(tape.gradient(scaled, trained), variables)
        return loss

    @tf.function(autograph=False)
    def step(iterator: Any) -> tf.Tensor:
        losses = strategy.run(replica_step, args=next(iterator))
        # Not optimizer.iterations: optimizers differ in counting skipped updates.
        global_step.assign_add(1)
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, losses, axis=None)

    return step


def total_loss(
    spec: EstimatorSpec, model: keras.Model, images: tf.Tensor, labels: Tensors, *, training: bool
) -> tuple[tf.Tensor, Tensors]:
    """The loss of a batch, and its logits.

    Args:
        images: float [B, H, W, 3].
        labels: task name -> one-hot float32 [B, depth], or numbers float32 [B].
        training: whether layers run in training mode.

    Returns:
        The spec's loss plus regularisation, float32 [], and task name -> logits, float32.

    Raises:
        EstimatorError: the model's outputs do not match the spec's class_dict.
    """
    outputs = model(images, training=training)
    by_task = outputs if isinstance(outputs, dict) else {spec.class_dict[0]["name"]: outputs}
    _check_logits(spec, by_task)
    logits = {name: tf.cast(value, tf.float32) for name, value in by_task.items()}
    loss = spec.loss_fn(labels, logits)
    if model.losses:
        loss += tf.add_n([tf.cast(term, tf.float32) for term in model.losses])
    return loss, logits


def _check_logits(spec: EstimatorSpec, logits: Tensors) -> None:
    expected = {entry["name"]: entry["depth"] if entry["one-hot"] else 1 for entry in spec.class_dict}
    received = {name: value.shape[-1] if value.shape.rank == 2 else 1 for name, value in logits.items()}
    if received != expected:
        raise EstimatorError(
            "The model's outputs do not match the tasks of class_dict",
            received=", ".join(f"{name} [B, {depth}]" for name, depth in received.items()),
            expected=", ".join(f"{name} [B, {depth}]" for name, depth in expected.items()),
            hint="model_fn returns a keras.Model from images to one tensor, or to a dict of task name -> tensor.",
        )


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

    def __call__(self, step: int) -> dict[str, float]:
        """Evaluates the model as it is now, at global step `step`.

        Returns:
            `loss` (the unweighted mean of the batches' losses, as in tf.estimator), `global_step`, and each metric
            of `metric_ops`: the mean over examples, or the value of a Keras metric. A Keras metric of several numbers
            (a confusion matrix) is left to the evaluation of the finished model.
        """
        for metric in self._keras_metrics.values():
            metric.reset_state()
        losses: list[float] = []
        values: dict[str, list[np.ndarray]] = {}
        for images, labels in self._input_fn():
            for name, value in self._step(images, labels).items():
                if name == "loss":
                    losses.append(float(value))
                else:
                    values.setdefault(name, []).append(np.ravel(value.numpy()))
        result = {"loss": float(np.mean(losses)), "global_step": float(step)}
        result |= {name: float(np.mean(np.concatenate(parts))) for name, parts in values.items()}
        results = {name: np.asarray(metric.result()) for name, metric in self._keras_metrics.items()}
        return result | {name: float(value) for name, value in results.items() if value.ndim == 0}

    def _evaluate_batch(self, images: tf.Tensor, labels: Tensors) -> dict[str, tf.Tensor]:
        import keras

        loss, logits = total_loss(self._spec, self._model, images, labels, training=False)
        metrics = self._spec.metric_ops(labels, self._spec.predictions(logits))
        self._check_metrics(metrics)
        if reserved := [name for name in RESERVED_METRICS if name in metrics]:
            raise FlagError(
                f"metric_ops returns a metric named {reserved[0]}",
                expected=f"names other than {' and '.join(RESERVED_METRICS)}",
            )
        self._keras_metrics = {
            name: metric for name, metric in metrics.items() if isinstance(metric, keras.metrics.Metric)
        }
        return {"loss": loss} | {name: value for name, value in metrics.items() if name not in self._keras_metrics}

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
