"""Names of a Keras model's variables: slim's for layers named by slim's scopes, Keras's paths for others."""

from __future__ import annotations

import keras

_SLIM_NAMES = {
    "kernel": "weights",
    "bias": "biases",
    "depthwise_kernel": "depthwise_weights",
    "pointwise_kernel": "pointwise_weights",
}


def scoped_names(model: keras.Model) -> dict[str, keras.Variable]:
    """The model's variables by the names that the scope flags and checkpoints use, in the order of `model.weights`.

    A layer whose own name holds a '.' is named by slim's scope: layer `Net.Conv2d_1`, variable `kernel` ->
    `Net/Conv2d_1/weights`. Any other variable has Keras's `variable.path`; where two have the same path, the later ones
    get `_1`, `_2`, ... The states of random number generators (of dropout) are not weights and are left out.
    """
    slim = {
        id(variable): f"{layer.name.replace('.', '/')}/{_slim_name(layer, variable)}"
        for layer in model._flatten_layers()
        if "." in layer.name
        for variable in layer._trainable_variables + layer._non_trainable_variables
    }
    names: dict[str, keras.Variable] = {}
    for variable in model.weights:
        name = unique = slim.get(id(variable), variable.path)
        count = 0
        while unique in names:
            count += 1
            unique = f"{name}_{count}"
        names[unique] = variable
    return names


def _slim_name(layer: keras.layers.Layer, variable: keras.Variable) -> str:
    if isinstance(layer, keras.layers.DepthwiseConv2D) and variable.name == "kernel":
        return "depthwise_weights"
    return _SLIM_NAMES.get(str(variable.name), str(variable.name))
