"""The head of a network: its last layers with variables, whose shapes depend on the classes."""

from __future__ import annotations

from typing import Any

import keras

from tf_image_classification.errors import EstimatorError
from tf_image_classification.nets import scoped_names


def head_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables of the last layer with variables before each output, by the names of `nets.scoped_names`.

    Args:
        model: built with Keras's functional API; layers between that layer and the output (activation, flattening)
            have no variables.

    Raises:
        EstimatorError: the model has no graph of layers (a subclass of keras.Model with a `call` of its own), or no
            variables.
    """
    head: list[keras.layers.Layer] = []
    for output in _outputs(model):
        _collect(output, head)
    own = {id(variable) for layer in head for variable in layer.variables}
    names = {name: variable for name, variable in scoped_names(model).items() if id(variable) in own}
    if not names:
        raise EstimatorError(
            "The head of the model cannot be found",
            received=f"{type(model).__name__}, whose last layers are not known",
            expected="a model of Keras's functional API, keras.Model(inputs, outputs)",
            hint="Give --head_fraction 0, name the head's scopes with --checkpoint_exclude_scopes instead of auto, and "
            "train it first with --trainable_scopes in a run of its own.",
        )
    return names


def _outputs(model: keras.Model) -> list[Any]:
    try:
        return list(keras.tree.flatten(model.outputs))
    except (AttributeError, ValueError):
        return []


def _collect(tensor: Any, head: list[keras.layers.Layer]) -> None:
    """Adds the last layers with variables on every way back from a KerasTensor to the inputs."""
    operation, node_index, _ = tensor._keras_history
    if isinstance(operation, keras.Model) and _outputs(operation):  # a model as the last layer: its own last layers
        for output in _outputs(operation):
            _collect(output, head)
    elif getattr(operation, "weights", ()):
        if all(operation is not layer for layer in head):
            head.append(operation)
    elif operation._inbound_nodes:
        for argument in operation._inbound_nodes[node_index].arguments.keras_tensors:
            _collect(argument, head)
