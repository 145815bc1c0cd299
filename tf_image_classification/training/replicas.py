"""What the replicas of a training exchange at a step: the sums of their gradients, and means of what they measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    import keras

    from tf_image_classification.estimator_specs import Tensors

Gradients = list["tf.Tensor | None"]  # None: the loss does not depend on the variable


class Exchange:
    """Sums gradients over the replicas, and averages values and the moving statistics of layers, in one all-reduce.

    Keras sums gradients itself, but after it has clipped each replica's and looked for overflows in the first
    replica's alone. So `optimizer` is told not to: it gets the sums, clips those and sees an overflow in any replica.

    Keras also leaves the moving statistics of batch normalisation to each replica, and saves the first one's. Their
    mean over the replicas is a moving average of the mean of the replicas' statistics.

    Args:
        model: the network.
        optimizer: whose gradients are exchanged.
        inference_layers: those whose statistics do not change.
        replicas: their number; with one, nothing changes.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        inference_layers: Sequence[keras.layers.Layer],
        replicas: int,
    ) -> None:
        self._replicas = replicas
        self._statistics = moving_statistics(model, inference_layers)
        if replicas > 1:
            getattr(optimizer, "inner_optimizer", optimizer)._all_reduce_sum_gradients = list

    def __call__(self, gradients: Gradients, values: Tensors) -> tuple[Gradients, Tensors]:
        """Exchanges what a replica has computed; called in each replica.

        Args:
            gradients: of each variable.
            values: name -> float32 [].

        Returns:
            The sums of the gradients and the means of the values, the same in all replicas.
        """
        if self._replicas == 1:
            return gradients, values
        statistics = [variable.value for variable in self._statistics]
        measured = tf.concat([tf.reshape(value, [-1]) for value in (*statistics, *values.values())], axis=0)
        own = [gradient for gradient in gradients if gradient is not None]
        context = tf.distribute.get_replica_context()
        *sums, measured = context.all_reduce(tf.distribute.ReduceOp.SUM, [*own, measured])
        sizes = [math.prod(value.shape) for value in statistics] + [1] * len(values)
        parts = tf.split(measured / self._replicas, sizes)
        for variable, mean in zip(statistics, parts, strict=False):
            variable.assign(tf.reshape(mean, variable.shape))
        means = [tf.reshape(mean, []) for mean in parts[len(statistics) :]]
        remaining = iter(sums)
        return (
            [None if gradient is None else next(remaining) for gradient in gradients],
            dict(zip(values, means, strict=True)),
        )


def moving_statistics(model: keras.Model, inference_layers: Sequence[keras.layers.Layer]) -> list[keras.Variable]:
    """The variables that layers in training mode may assign in each replica: those of batch normalisation, or of a
    user's layer that does the like. Variables with an aggregation of their own are not among them."""
    inference = {id(layer) for layer in inference_layers}
    return [
        variable
        for layer in model._flatten_layers()
        if id(layer) not in inference and layer.trainable
        for variable in layer._non_trainable_variables
        if variable.aggregation == "none" and variable.dtype == "float32"
    ]
