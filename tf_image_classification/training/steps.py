"""The compiled update of a training, and the loss of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification.errors import EstimatorError
from tf_image_classification.preprocessing_parts import InParts, Unfinished
from tf_image_classification.training import compilation, layer_modes
from tf_image_classification.training.micro_batches import accumulate
from tf_image_classification.training.replicas import Exchange, Gradients

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
    sync_batch_norm: bool = False,
    micro_batches: int = 1,
    jit_compile: bool = False,
) -> Callable[..., Tensors]:
    """Compiles the function that takes the next batches of an iterator and updates `variables`.

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
        sync_batch_norm: whether batch normalisation in training mode normalises by the batch of all replicas; else each
            replica normalises by its own part.
        micro_batches: batches of an update, which gets the mean of their gradients.
        jit_compile: whether XLA compiles the computation of a batch; if it cannot, the step raises EstimatorError.

    Returns:
        step(iterator) -> the values of the batches, each float32 [] and the mean over replicas and batches: `loss`,
        regularisation included, `loss_without_regularization`, and for each classification `accuracy` or, with several
        tasks, `accuracy/<task>`. step(iterator, wishes) adds those of `workers.Wishes`, likewise, on the host.
    """
    replicas = strategy.num_replicas_in_sync
    exchange = Exchange(model, optimizer, inference_layers, replicas)
    seeds = layer_modes.ReplicaSeeds(model, replicas)
    compute = _gradients_fn(spec, model, optimizer, variables, seeds, replicas * micro_batches, jit_compile=jit_compile)

    def update(gradients: Gradients, values: Tensors, sent: Tensors) -> Tensors:
        gradients, values = exchange(gradients, values | sent)
        optimizer.apply(gradients, variables)
        return values

    @tf.function(autograph=False)
    def step(iterator: Any, wishes: Tensors | None = None) -> Tensors:
        with layer_modes.tracing(model, inference_layers, seeds, synchronize=sync_batch_norm and replicas > 1):
            computed = accumulate(strategy, compute, iterator, micro_batches, variables, _value_names(spec))
            values = strategy.run(update, args=(*computed, wishes or {}))
        # Not optimizer.iterations: optimizers differ in counting skipped updates.
        global_step.assign_add(1)
        if average is not None:
            average.update(global_step)
        means = {name: _number(strategy.experimental_local_results(value)[0]) for name, value in values.items()}
        with tf.device("CPU"):  # so that reading them waits for this step alone, not for those after it
            return means | {name: tf.identity(means[name]) for name in wishes or {}}

    return compilation.explaining(step) if jit_compile else step


def _number(value: tf.Tensor) -> tf.Tensor:
    """float32 [] of a loss that an estimator may have computed in another type, or as [1]."""
    return tf.reshape(tf.cast(value, tf.float32), [])


def _gradients_fn(
    spec: EstimatorSpec,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    seeds: layer_modes.ReplicaSeeds,
    parts: int,
    *,
    jit_compile: bool,
) -> Callable[[tf.Tensor | Unfinished, Tensors], tuple[Gradients, Tensors]]:
    """What a replica computes of its part of a batch: the gradients that it adds to an update of so many `parts`, and
    the values of the part."""
    trained = [variable.value for variable in variables]

    def gradients(images: tf.Tensor | Unfinished, labels: Tensors, replica: tf.Tensor) -> tuple[Gradients, Tensors]:
        images = _network_input(spec, images)
        # Watching only the trained variables saves the backward pass through a frozen backbone.
        with seeds.of(replica), tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            losses, logits = total_loss(spec, model, images, labels, training=True)
            scaled = optimizer.scale_loss(losses[LOSS] / parts)
        return tape.gradient(scaled, trained), losses | _accuracies(spec, labels, logits)

    # Not the whole step, whose input and exchange between replicas XLA has no operations for.
    computed = tf.function(gradients, autograph=False, jit_compile=True) if jit_compile else gradients

    # Not `computed` itself: of a tf.function, MirroredStrategy.run makes one function of all replicas, unless all are
    # on GPUs, and XLA compiles for one device.
    def compute(images: tf.Tensor | Unfinished, labels: Tensors) -> tuple[Gradients, Tensors]:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return computed(images, labels, tf.cast(replica, tf.int64))

    return compute


def _network_input(spec: EstimatorSpec, images: tf.Tensor | Unfinished) -> tf.Tensor:
    """What the network gets of the images of `spec.step_input`: float32 [B, H, W, 3]."""
    if not isinstance(images, Unfinished):
        return images
    _, preproc_fn = spec.training_image_fns(spec.flags.augmentation)
    assert isinstance(preproc_fn, InParts)  # which made them
    return preproc_fn.finish(images)


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
    for task, name in _accuracy_names(spec).items():
        right = tf.equal(tf.argmax(labels[task], axis=-1), tf.argmax(logits[task], axis=-1))
        accuracies[name] = tf.reduce_mean(tf.cast(right, tf.float32))
    return accuracies


def _value_names(spec: EstimatorSpec) -> list[str]:
    return [LOSS, DATA_LOSS, *_accuracy_names(spec).values()]


def _accuracy_names(spec: EstimatorSpec) -> dict[str, str]:
    """The name of the accuracy of each task that is a classification."""
    tasks = [entry["name"] for entry in spec.class_dict if entry["one-hot"]]
    return {task: "accuracy" if len(spec.class_dict) == 1 else f"accuracy/{task}" for task in tasks}


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
