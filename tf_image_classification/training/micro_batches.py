"""The gradients of several micro-batches, added up one after the other: --replicas_to_aggregate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_image_classification.training.replicas import Gradients

if TYPE_CHECKING:
    import keras

    from tf_image_classification.estimator_specs import Tensors


def accumulate(
    strategy: tf.distribute.Strategy,
    compute: Callable[[tf.Tensor, Tensors], tuple[Gradients, Tensors]],
    iterator: Any,
    count: int,
    variables: Sequence[keras.Variable],
    names: Sequence[str],
) -> tuple[Gradients, Tensors]:
    """Computes the next `count` batches of an iterator; the activations of one are in memory at a time.

    Called in the cross-replica context of a tf.function.

    Args:
        strategy: of the training.
        compute: (images, labels) of a replica's part of a batch -> the gradients of `variables`, and values.
        iterator: over the batches of all replicas.
        count: number of batches.
        variables: those that are trained, float32.
        names: of the values.

    Returns:
        The sums of the gradients and the means of the values, of each replica.
    """
    if count == 1:
        return strategy.run(compute, args=next(iterator))
    depends: list[bool] = []  # of each variable: whether the loss depends on it, known once `add` is traced

    def zeros() -> tuple[list[tf.Tensor], Tensors]:
        return [tf.zeros_like(variable.value) for variable in variables], {name: tf.zeros([]) for name in names}

    def add(sums: list[tf.Tensor], means: Tensors, images: tf.Tensor, labels: Tensors) -> tuple[Any, Tensors]:
        gradients, values = compute(images, labels)
        depends[:] = [gradient is not None for gradient in gradients]
        added = [
            total if gradient is None else total + tf.convert_to_tensor(gradient)
            for total, gradient in zip(sums, gradients, strict=True)
        ]
        return added, {name: means[name] + values[name] / count for name in names}

    def body(number: tf.Tensor, totals: Any) -> tuple[tf.Tensor, Any]:
        return number + 1, strategy.run(add, args=(*totals, *next(iterator)))

    start = (tf.constant(0), strategy.run(zeros))
    # One at a time: TensorFlow would compute up to ten in parallel, with the memory of ten.
    _, (sums, means) = tf.while_loop(lambda number, _: number < count, body, start, parallel_iterations=1)
    return [total if needed else None for total, needed in zip(sums, depends, strict=True)], means
