"""Which layers compute in training mode, --batch_norm, and how they compute in several replicas.

In training mode, batch normalisation normalises by the batch and updates its moving statistics, and dropout drops. In
inference mode the one uses its moving statistics, and the other passes its inputs on. Keras has one mode per call of a
model; here each layer has its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

AUTO, ORIGINAL, FROZEN = "auto", "original", "frozen"
_APART = 1_000_003  # between the constants of two replicas


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The model's layers of batch normalisation, also those in nested models."""
    return [layer for layer in _leaves(model) if isinstance(layer, keras.layers.BatchNormalization)]


def inference_layers(
    model: keras.Model, trained: Sequence[keras.Variable], batch_norm: str
) -> list[keras.layers.Layer]:
    """The layers that compute in inference mode while `trained` are trained.

    Under `original` there are none. Else they are the layers that have trainable variables, none of which is trained. A
    layer without any follows its neighbour in the model's order: dropout the next layer that has some (so that
    dropout before a trained head drops), batch normalisation without scale and offset the one before it, whose outputs
    it normalises. What stands before all variables stays in training mode: it augments images. So do dropout and its
    like in models that are not of Keras's functional API, whose order is not known. Under `frozen` all batch
    normalisation is among them.

    Args:
        model: the network.
        trained: the variables that are updated.
        batch_norm: value of --batch_norm.
    """
    if batch_norm == ORIGINAL:
        return []
    ids = {id(variable) for variable in trained}
    layers = _leaves(model)
    is_ordered = all(isinstance(part, keras.Sequential) or hasattr(part, "operations") for part in _models(model))
    first = next((index for index, layer in enumerate(layers) if layer._trainable_variables), 0)
    is_trained = [_is_trained(layer, ids) for layer in layers]  # None of a layer without trainable variables
    chosen = []
    for index, layer in enumerate(layers):
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        neighbours = [index, *(range(index - 1, -1, -1) if is_norm else range(index + 1, len(layers)))]
        known = [value for position in neighbours if (value := is_trained[position]) is not None]
        # What follows the last layer with variables is a part of the head.
        in_training_mode = known[0] if known else True
        if is_trained[index] is None and not is_norm and (index < first or not is_ordered):
            in_training_mode = True
        if not in_training_mode or (is_norm and batch_norm == FROZEN):
            chosen.append(layer)
    return chosen


def _leaves(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers without layers of their own, those of nested models in their place, each once."""
    leaves: dict[int, keras.layers.Layer] = {}
    for layer in model.layers if isinstance(model, keras.Model) else model._layers:
        parts = _leaves(layer) if layer._layers else [layer]
        leaves |= {id(part): part for part in parts if id(part) not in leaves}
    return list(leaves.values())


def _models(model: keras.Model) -> list[keras.Model]:
    """The model and the models in it."""
    return [part for part in model._flatten_layers() if isinstance(part, keras.Model)]


def _is_trained(layer: keras.layers.Layer, trained_ids: set[int]) -> bool | None:
    own = layer._trainable_variables
    return any(id(variable) in trained_ids for variable in own) if own else None


@contextlib.contextmanager
def calling(layers: Sequence[keras.layers.Layer], *, training: bool) -> Iterator[None]:
    """Makes layers compute in one mode in the block, whatever the mode of the model's call.

    Replaces the layers' `call` for the block: a tf.function that is traced in it keeps the mode. Not within a replica:
    TensorFlow traces several by turns.
    """
    replaced = [layer for layer in layers if layer._call_has_training_arg]
    for layer in replaced:
        layer.__dict__["call"] = _in_mode(layer.call, training)  # not by setattr, which Keras's tracking intercepts
    try:
        yield
    finally:
        for layer in replaced:
            del layer.__dict__["call"]


@contextlib.contextmanager
def synchronizing(layers: Sequence[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Makes batch normalisation compute its statistics over all replicas in the block.

    For the block only: an exported model that says so of itself loads nowhere but with Keras's TensorFlow backend.
    """
    layers = [layer for layer in layers if not layer.synchronized]
    for layer in layers:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer in layers:
            layer.synchronized = False


class ReplicaSeeds:
    """Lets layers with random numbers, such as dropout, draw others in each replica.

    Keras keeps the state of a generator in each replica, and the same one: all replicas would drop the same features.

    Args:
        model: the network.
        replicas: their number; with one, nothing changes.
    """

    def __init__(self, model: keras.Model, replicas: int) -> None:
        layers = model._flatten_layers() if replicas > 1 else ()
        self._generators = list({id(one): one for layer in layers for one in layer._seed_generators}.values())
        self._replica = threading.local()  # TensorFlow traces each replica in a thread of its own, by turns

    @contextlib.contextmanager
    def varying(self) -> Iterator[None]:
        """Makes the seeds of generators depend on the replica in the block, which is not within a replica."""
        for generator in self._generators:
            generator.next = self._of_replica(generator.next)
        try:
            yield
        finally:
            for generator in self._generators:
                del generator.next

    @contextlib.contextmanager
    def of(self, replica: tf.Tensor) -> Iterator[None]:
        """Within a replica and `varying`: says which one it is.

        Args:
            replica: int64 []. The first, 0, draws what it draws without `varying`.
        """
        self._replica.number = replica
        try:
            yield
        finally:
            del self._replica.number

    def _of_replica(self, draw: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        def next_seed(*args: Any, **kwargs: Any) -> tf.Tensor:
            # int64 [2]: a generator's constant, and its counter. Keras takes them modulo 2**31 - 2.
            return draw(*args, **kwargs) + tf.stack([self._replica.number * _APART, 0])

        return next_seed


@contextlib.contextmanager
def tracing(
    model: keras.Model, inference: Sequence[keras.layers.Layer], seeds: ReplicaSeeds, *, synchronize: bool
) -> Iterator[None]:
    """All of the above, for the block in which a training step is traced.

    Args:
        model: the network.
        inference: its layers that compute in inference mode.
        seeds: of its replicas.
        synchronize: whether its batch normalisation computes statistics over all replicas.
    """
    synchronized = batch_norms(model) if synchronize else []
    with calling(inference, training=False), synchronizing(synchronized), seeds.varying():
        yield


def _in_mode(call: Callable[..., Any], mode: bool) -> Callable[..., Any]:
    def in_mode(*args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        del training
        return call(*args, training=mode, **kwargs)

    return in_mode
