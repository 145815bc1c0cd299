"""Which axis of a head's variables runs over the classes: kernels and biases have a column for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras

from tf_image_classification.nets import scoped_names

# Each output is computed from all inputs: the class axis begins here, as the last one of kernel and bias.
_MIXING = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
# Each output is computed from the input in its place: the layer before them has the class axis, too.
_ELEMENTWISE = (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.PReLU)


class ClassAxis(NamedTuple):
    """Where the classes of a task are in a variable.

    Attributes:
        task: whose classes they are; '' if that is not known, or the outputs of several tasks depend on the variable.
        axis: index of the axis; None if it is not known.
    """

    task: str
    axis: int | None


def class_axes(model: keras.Model, depths: Mapping[str, int]) -> dict[str, ClassAxis]:
    """The variables that have a column for each class, by the names of `nets.scoped_names`.

    Follows the model's graph back from its outputs to the layers that compute the logits. Of Keras's dense layers and
    convolutions the class axis is the last one; of other layers the only one of this size.

    Args:
        model: of Keras's functional API; any other has no graph, and the result is empty.
        depths: task -> number of logits. An output under another name, such as an auxiliary head, is of the task with
            its number of logits.
    """
    found: dict[int, ClassAxis] = {}
    for task, depth, output in _task_outputs(model, depths):
        axes: dict[int, int | None] = {}
        _collect(output, depth, axes)
        for variable, axis in axes.items():
            is_shared = variable in found and found[variable] != (task, axis)
            found[variable] = ClassAxis("", None) if is_shared or not task else ClassAxis(task, axis)
    return {name: found[id(variable)] for name, variable in scoped_names(model).items() if id(variable) in found}


def _task_outputs(model: keras.Model, depths: Mapping[str, int]) -> Iterator[tuple[str, int, Any]]:
    """(task, its number of logits, KerasTensor) of each output that is of a task; '' for one that may be of several."""
    try:
        outputs = keras.tree.flatten_with_path(model.output)
    except (AttributeError, ValueError):
        return
    for path, output in outputs:
        task = str(path[0]) if path else ""
        if task not in depths:
            tasks = list(depths) if len(outputs) == 1 else [name for name in depths if depths[name] == output.shape[-1]]
            if not tasks:
                continue
            task = tasks[0] if len(tasks) == 1 else ""
        yield task, depths.get(task, output.shape[-1]), output


def _collect(tensor: Any, depth: int, axes: dict[int, int | None]) -> bool:
    """Adds the variables with a class axis on every way back from a KerasTensor: id -> axis.

    Returns:
        Whether a way leads to the inputs of the model that the tensor is in.
    """
    operation, node_index, tensor_index = tensor._keras_history
    if isinstance(operation, keras.layers.InputLayer):
        return True
    inputs = operation._inbound_nodes[node_index].arguments.keras_tensors
    variables = getattr(operation, "weights", ())
    sizes = {id(variable): tuple(variable.shape) for variable in variables}
    if isinstance(operation, keras.Model) and variables:
        if not _collect(keras.tree.flatten(operation.outputs)[tensor_index], depth, axes):
            return False
    elif isinstance(operation, _MIXING):
        axes |= {variable: len(shape) - 1 if shape[-1:] == (depth,) else None for variable, shape in sizes.items()}
        return False
    elif isinstance(operation, _ELEMENTWISE) and all(shape[-1] == depth for shape in sizes.values()):
        axes |= {variable: len(shape) - 1 for variable, shape in sizes.items()}
    elif variables:
        axes |= _by_size(sizes, depth, has_classes_before=any(value.shape[-1] == depth for value in inputs))
        return False
    reached = [_collect(value, depth, axes) for value in inputs]  # all of them, not only up to the first
    return any(reached)


def _by_size(shapes: Mapping[int, tuple[int, ...]], depth: int, *, has_classes_before: bool) -> dict[int, int | None]:
    """The axes of the size `depth` in the variables of a layer; None for all of them unless each has at most one."""
    found = {variable: [axis for axis, size in enumerate(shape) if size == depth] for variable, shape in shapes.items()}
    if has_classes_before or max(map(len, found.values())) != 1:
        return dict.fromkeys(shapes)
    return {variable: axes[0] for variable, axes in found.items() if axes}
