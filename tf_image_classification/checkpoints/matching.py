"""Which variable of a checkpoint belongs to which of a model: by name, by structure, or by the order of layers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set

import keras
import tensorflow as tf

from tf_image_classification import storage
from tf_image_classification.checkpoints import locate
from tf_image_classification.checkpoints.reader import OBJECT_CHECKPOINT, Weights, read

# Layers before the head that Keras's files without top lack: fc1 and fc2 of VGG, conv_2 of MobileNetV3.
_MAX_TOP_LAYERS = 2
# A name that Keras gave: that of a class in snake case, counted through the process.
_NUMBERED = re.compile(
    r"(?:(?:separable_|depthwise_)?conv2d|convolution2d|batch_?normalization|layer_normalization|normalization|dense)"
    r"(?:_\d+)?"
)

_Layer = tuple[str, Sequence[str]]  # its name, the names of its variables
_Pair = tuple[_Layer, _Layer]  # of the model and of the file


def match(
    model: keras.Model, variables: Mapping[str, keras.Variable], weights: Weights, head: Set[str]
) -> dict[str, str]:
    """Name of a model's variable -> name of its value in the checkpoint, for those that are in it.

    In Keras 2's files, layers are matched by their order, as Keras does, if the model has them with equal shapes, else
    by their names. In other checkpoints variables are matched by name: slim's, Keras's path, or layer name and index in
    a Keras file; and by the model's structure where Keras numbered layers, since the same model can have other numbers.

    Args:
        variables: the model's, by the names of `nets.scoped_names`.
        head: names of variables whose shapes may differ: the model's head, if it is known.
    """
    if weights.layers:
        return _by_order(model, variables, weights, head) or _by_layer_name(model, variables, weights)
    named = _by_name(model, variables, weights)
    fits = len(named) == len(variables) and all(
        weights.shapes[source] == tuple(variables[name].shape) for name, source in named.items() if name not in head
    )
    if fits or (named and not any(_NUMBERED.fullmatch(layer.name) for layer in model._flatten_layers())):
        return named
    return _by_structure(model, variables, weights) or named


def _by_name(model: keras.Model, variables: Mapping[str, keras.Variable], weights: Weights) -> dict[str, str]:
    names_in_keras_file = {}
    for layer in model._flatten_layers():
        own = layer._trainable_variables + layer._non_trainable_variables
        prefix = f"{layer.name}/vars"
        # Keras's files number a layer's variables: if their number differs, the same index may be another variable.
        if f"{prefix}/{len(own)}" not in weights.shapes and f"{prefix}/{len(own) - 1}" in weights.shapes:
            for index, variable in enumerate(own):
                names_in_keras_file[id(variable)] = f"{prefix}/{index}"
    sources = {}
    for name, variable in variables.items():
        for candidate in (name, variable.path, names_in_keras_file.get(id(variable))):
            if candidate in weights.shapes:
                sources[name] = candidate
                break
    return sources


def _by_structure(model: keras.Model, variables: Mapping[str, keras.Variable], weights: Weights) -> dict[str, str]:
    """As `match`, for a checkpoint of the same model with other layer names; empty when it is another model.

    The model is saved in the checkpoint's format: a variable of the same structure has the same storage key in both.
    """
    with storage.temporary_dir() as folder:
        if weights.kind == OBJECT_CHECKPOINT:
            own_path = tf.train.Checkpoint(model=model).write(os.path.join(folder, "own"))
        elif weights.kind in (locate.KERAS, locate.H5):
            own_path = os.path.join(folder, "own.weights.h5")
            model.save_weights(own_path)
        else:
            return {}
        by_storage_key = {key: name for name, key in weights.storage_keys.items()}
        with read(own_path) as own:
            sources = {}
            for name, own_name in _by_name(model, variables, own).items():
                sources[name] = by_storage_key.get(own.storage_keys[own_name], "")
    return sources if len(sources) == len(variables) and all(sources.values()) else {}


def _by_order(
    model: keras.Model, variables: Mapping[str, keras.Variable], weights: Weights, head: Set[str]
) -> dict[str, str]:
    """Matches layers in order, as keras.Model.load_weights does, with or without the last ones; empty if that fails."""
    in_file = {layer for layer, _ in weights.layers}

    def differ(pair: _Pair) -> bool:
        (_, own), (_, theirs) = pair
        return [tuple(variables[name].shape) for name in own] != [weights.shapes[name] for name in theirs]

    for layers in _layer_lists(model, variables):
        body = [(layer, own) for layer, own in layers if head.isdisjoint(own)]
        heads = [(layer, own) for layer, own in layers if not head.isdisjoint(own)]
        pairs: list[_Pair] = list(zip(body, weights.layers, strict=False))
        # Layers that the model has put between Keras's features and its own head.
        while pairs and differ(pairs[-1]) and pairs[-1][0][0] not in in_file:
            pairs.pop()
        is_complete = pairs and len(pairs) >= len(body) - _MAX_TOP_LAYERS
        if not is_complete or any(map(differ, pairs)) or _contradicts(pairs, in_file):
            continue
        rest = weights.layers[len(pairs) :]
        if len(heads) == len(rest) == 1 and len(heads[0][1]) == len(rest[0][1]):
            pairs.append((heads[0], rest[0]))
        return {name: source for (_, own), (_, theirs) in pairs for name, source in zip(own, theirs, strict=True)}
    return {}


def _contradicts(pairs: Sequence[_Pair], in_file: Set[str]) -> bool:
    """Whether a layer is paired with one of another name, although the file has one of its own name.

    Names that Keras numbered say nothing.
    """
    return any(own != theirs and own in in_file and not _NUMBERED.fullmatch(own) for (own, _), (theirs, _) in pairs)


def _by_layer_name(model: keras.Model, variables: Mapping[str, keras.Variable], weights: Weights) -> dict[str, str]:
    """Matches layers by name, but for those that Keras numbered: the same number may be another layer."""
    in_file = dict(weights.layers)
    sources: dict[str, str] = {}
    for layers in _layer_lists(model, variables):
        for layer, own in layers:
            theirs = in_file.get(layer, ())
            if len(theirs) == len(own) and not _NUMBERED.fullmatch(layer):
                sources |= zip(own, theirs, strict=True)
    return sources


def _layer_lists(model: keras.Model, variables: Mapping[str, keras.Variable]) -> Iterator[list[_Layer]]:
    """The layers with variables, in order: first those of the model, then with nested models replaced by theirs."""
    names = {id(variable): name for name, variable in variables.items()}
    layers = list(model.layers)
    while True:
        named = [(layer.name, [names[id(variable)] for variable in _keras_2_order(layer)]) for layer in layers]
        yield [(layer, own) for layer, own in named if own]
        if not any(isinstance(layer, keras.Model) for layer in layers):
            return
        layers = [inner for layer in layers for inner in (layer.layers if isinstance(layer, keras.Model) else [layer])]


def _keras_2_order(layer: keras.layers.Layer) -> list[keras.Variable]:
    """A layer's variables in the order of Keras 2's files: those that are trainable by nature, then the others."""
    parts = list(layer._flatten_layers())
    trainable = [variable for part in parts for variable in part._trainable_variables]
    return trainable + [variable for part in parts for variable in part._non_trainable_variables]
