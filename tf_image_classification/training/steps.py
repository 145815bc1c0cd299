"""The compiled update of a training, and the loss of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification.errors import EstimatorError
from tf_image_classification.training import layer_modes

if TYPE_CHECKING:
    import keras

    from tf_image_classification.estimator_specs import EstimatorSpec, Tensors
    from tf_image_classification.training.weight_average import WeightAverage

LOSS, DATA_LOSS = "loss", "loss_without_regularization"
RESERVED_METRICS = (LOSS, DATA_LOSS, "global_step")  # in the metrics of every evaluation


def train_step(
    spec: EstimatorSpec,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    global_step: tf.Variable,
    strategy: tf.distribute.Strategy,
    *,
    inference_layers: Sequence[keras.layers.Layer] = (),
    average: WeightAverage | None = None,
) -> Callable[..., Tensors]:
    """Compiles the function that takes the next batch of an iterator and updates `variables`.

    Args:
        spec: its loss_fn.
        model: float images [B, H, W, 3] -> logits.
        optimizer: built for `variables`.
        variables: those to train.
        global_step: int64 []; each update adds one.
        strategy: created all of these; gradients are averaged over its replicas.
        inference_layers: compute in inference mode, all others in training mode (dropout, batch statistics), whether
            their variables are trained or not. Regularisation of all is in the loss.
        average: of the trained variables, updated with them.

    Returns:
        step(iterator) -> the values of the batch, each float32 [] and the mean over replicas: `loss`, regularisation
        included, `loss_without_regularization`, and for each classification `accuracy` or, with several tasks,
        `accuracy/<task>`. step(iterator, wishes) adds those of `workers.Wishes`, name -> float32 [], likewise reduced,
        in the host's memory.
    """
    trained = [variable.value for variable in variables]
    replicas = strategy.num_replicas_in_sync

    def replica_step(images: tf.Tensor, labels: Tensors) -> Tensors:
        # Watching only the trained variables saves the backward pass through a frozen backbone.
        with (
            tf.GradientTape(watch_accessed_variables=False) as tape,
            layer_modes.calling(inference_layers, training=False),
        ):
            tape.watch(trained)
            losses, logits = total_loss(spec, model, images, labels, training=True)
            # The optimizer sums the gradients of the replicas.
            scaled = optimizer.scale_loss(losses[LOSS] / replicas)
        optimizer.apply(_clippable(optimizer, tape.gradient(scaled, trained), replicas), variables)
        return losses | _accuracies(spec, labels, logits)

    @tf.function(autograph=False)
    def step(iterator: Any, wishes: Mapping[str, tf.Tensor] | None = None) -> Tensors:
        sent = dict(wishes or {})
        values = strategy.run(lambda *batch: replica_step(*batch) | sent, args=next(iterator))
        # Not optimizer.iterations: optimizers differ in counting skipped updates.
        global_step.assign_add(1)
        if average is not None:
            average.update(global_step)
        means = {name: strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None) for name, value in values.items()}
        with tf.device("CPU"):  # so that reading them waits for this step alone, not for those after it
            return means | {name: tf.identity(means[name]) for name in sent}

    return step


def _clippable(
    optimizer: keras.optimizers.Optimizer, gradients: list[tf.Tensor | None], replicas: int
) -> list[tf.Tensor | None]:
    """The gradients to apply in one replica, so that --clip_norm limits the norm of the sum over the replicas.

    Keras clips each replica's gradients before it sums them. So each replica gets the sum, divided by their number, and
    its optimizer clips to --clip_norm divided by that number.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if inner.global_clipnorm is None or replicas == 1:
        return gradients
    context = tf.distribute.get_replica_context()
    sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, [value for value in gradients if value is not None]))
    return [None if value is None else next(sums) / replicas for value in gradients]


def total_loss(
    spec: EstimatorSpec, model: keras.Model, images: tf.Tensor, labels: Tensors, *, training: bool
) -> tuple[Tensors, Tensors]:
    """The loss of a batch, and its logits.

    Args:
        images: float [B, H, W, 3].
        labels: task name -> one-hot float32 [B, depth], or numbers float32 [B].
        training: whether layers run in training mode.

    Returns:
        `loss`, the spec's loss plus regularisation, and `loss_without_regularization`, each float32 []; and task
        name -> logits, float32.

    Raises:
        EstimatorError: the model's outputs do not match the spec's class_dict.
    """
    outputs = model(images, training=training)
    by_task = outputs if isinstance(outputs, dict) else {spec.class_dict[0]["name"]: outputs}
    _check_logits(spec, by_task)
    logits = {name: tf.cast(value, tf.float32) for name, value in by_task.items()}
    data_loss = loss = spec.loss_fn(labels, logits)
    if model.losses:
        loss += tf.add_n([tf.cast(term, tf.float32) for term in model.losses])
    return {LOSS: loss, DATA_LOSS: data_loss}, logits


def _accuracies(spec: EstimatorSpec, labels: Tensors, logits: Tensors) -> Tensors:
    """The share of a batch that each classification gets right, float32 []; of mixed labels the largest one counts."""
    accuracies = {}
    for entry in spec.class_dict:
        name = entry["name"]
        if entry["one-hot"]:
            right = tf.equal(tf.argmax(labels[name], axis=-1), tf.argmax(logits[name], axis=-1))
            suffix = "" if len(spec.class_dict) == 1 else f"/{name}"
            accuracies[f"accuracy{suffix}"] = tf.reduce_mean(tf.cast(right, tf.float32))
    return accuracies


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
