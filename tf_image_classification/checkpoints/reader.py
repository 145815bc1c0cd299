"""Reads the weights of any checkpoint by name, one array at a time."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_image_classification import storage
from tf_image_classification.checkpoints import class_names, locate
from tf_image_classification.checkpoints.class_names import ClassNames, StoredClassNames
from tf_image_classification.checkpoints.own_checkpoint import WEIGHTS
from tf_image_classification.errors import CheckpointError

OBJECT_CHECKPOINT = "TF2 object checkpoint"
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_KERAS_WEIGHTS = "model.weights.h5"


class Weights(Mapping[str, np.ndarray]):
    """The variables of an open checkpoint: name -> array, which is read from the file on access.

    Names are slim's in slim's checkpoints and in training's own; Keras's variable paths in other TF2 checkpoints;
    `<layer name>/vars/<index>` in Keras's files, which hold no names of variables. A name that several variables of the
    file share stands for none of them: each of these is listed under its storage key.

    Attributes:
        kind: of the checkpoint, for people: "V1 checkpoint", "V2 checkpoint", "training checkpoint",
            `OBJECT_CHECKPOINT`, `locate.KERAS` or `locate.H5`.
        path: the checkpoint's path as `locate.CheckpointLocation` has it.
        shapes: name -> shape.
        storage_keys: name -> the key under which the file stores the variable: the name itself in slim's checkpoints; a
            path through the object graph (`model/_operations/1/bias/.ATTRIBUTES/VARIABLE_VALUE`) in TF2's; an HDF5 path
            (`layers/dense/vars/0`) in Keras's files. The last two follow from the model's structure alone, not from
            the names of its layers.
        class_names: task -> class names by class id, of this project's trainings and model folders; None where the
            checkpoint does not say.
        layers: of a file in Keras 2's layout, the layers that have variables, in the file's order: (name, names of its
            variables). Other checkpoints have none.
    """

    def __init__(
        self,
        kind: str,
        path: str,
        shapes: dict[str, tuple[int, ...]],
        storage_keys: dict[str, str],
        read_key: Callable[[str], np.ndarray],
        layers: Sequence[tuple[str, Sequence[str]]] = (),
        class_names: ClassNames | None = None,
    ) -> None:
        """See the class for the attributes; `read_key` reads the array of a storage key."""
        self.kind, self.path, self.shapes, self.storage_keys = kind, path, shapes, storage_keys
        self.layers = tuple(layers)
        self.class_names = class_names
        self._read_key = read_key

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads a variable.

        Raises:
            KeyError: the checkpoint has no variable of this name.
            CheckpointError: the file is damaged.
        """
        if name not in self.shapes:
            raise KeyError(name)
        try:
            return np.asarray(self._read_key(self.storage_keys[name]))
        except _read_errors() as error:
            raise _damaged(self.path, error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@contextlib.contextmanager
def read(path: str) -> Iterator[Weights]:
    """Opens a checkpoint of any kind; see `locate.locate` for what `path` may be.

    Nothing in a checkpoint is executed: Keras's files are read as HDF5, not deserialised.

    Yields:
        Its weights, readable until the block ends.

    Raises:
        CheckpointError: no checkpoint is found, or it is not complete or damaged.
    """
    location = locate.locate(path)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(storage.temporary_dir())
        local_path = locate.fetch(location, folder)
        try:
            if location.kind == locate.TENSORFLOW:
                weights = _open_tensorflow(local_path)
            else:
                h5_path = _extract_weights(local_path, folder) if location.kind == locate.KERAS else local_path
                weights = stack.enter_context(_open_h5(location.kind, h5_path))
        except _read_errors() as error:
            raise _damaged(location.path, error) from error
        weights.path = location.path
        if location.kind == locate.KERAS:
            weights.class_names = class_names.of_model_file(location.path)
        yield weights


def _open_tensorflow(prefix: str) -> Weights:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    if _OBJECT_GRAPH not in shapes:
        kind = "V2 checkpoint" if os.path.exists(prefix + ".index") else "V1 checkpoint"
        return Weights(kind, prefix, shapes, {name: name for name in shapes}, reader.get_tensor)
    kind, keys = _names_in_object_graph(reader.get_tensor(_OBJECT_GRAPH))
    by_name = {name: shapes[key] for name, key in keys.items() if key in shapes}
    is_own = kind == "training checkpoint" and reader.has_tensor(StoredClassNames.KEY)
    names = class_names.parse(reader.get_tensor(StoredClassNames.KEY)) if is_own else None
    return Weights(kind, prefix, by_name, keys, reader.get_tensor, class_names=names)


def _names_in_object_graph(serialized: bytes) -> tuple[str, dict[str, str]]:
    """The variables of a `tf.train.Checkpoint`.

    Args:
        serialized: a TrackableObjectGraph message (tensorflow/core/protobuf/trackable_object_graph.proto), as a TF2
            checkpoint holds it.

    Returns:
        Kind of the checkpoint, and variable name -> checkpoint key, without the optimizer's slots.
    """
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    nodes = TrackableObjectGraph.FromString(serialized).nodes
    children = {child.local_name: child.node_id for child in nodes[0].children}
    if {WEIGHTS, "global_step"} <= set(children):
        weights = nodes[children[WEIGHTS]].children
        own_keys = {child.local_name: nodes[child.node_id].attributes[0].checkpoint_key for child in weights}
        return "training checkpoint", own_keys
    slots = {slot.slot_variable_node_id for node in nodes for slot in node.slot_variables}
    keys: dict[str, list[str]] = {}
    for index, node in enumerate(nodes):
        for attribute in node.attributes:
            if attribute.full_name and index not in slots:
                keys.setdefault(attribute.full_name, []).append(attribute.checkpoint_key)
    return OBJECT_CHECKPOINT, _unique(keys)


def _extract_weights(path: str, folder: str) -> str:
    """Extracts the weights of a .keras file into `folder`; returns the path of the HDF5 file."""
    with zipfile.ZipFile(path) as archive:
        return archive.extract(_KERAS_WEIGHTS, folder)


@contextlib.contextmanager
def _open_h5(kind: str, path: str) -> Iterator[Weights]:
    import h5py

    with h5py.File(path, "r") as file:
        by_layer = _keras_2_layers(file)
        keys: dict[str, list[str]] = {}

        def visit(key: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.shape is not None:
                keys.setdefault(_name_in_h5(key, item), []).append(key)

        if by_layer is None:
            file.visititems(visit)
        else:
            for name, key in (weight for _, weights in by_layer for weight in weights):
                keys.setdefault(name, []).append(key)
        storage_keys = _unique(keys)
        names = {key: name for name, key in storage_keys.items()}
        layers = [(layer, [names[key] for _, key in weights]) for layer, weights in by_layer or () if weights]
        shapes = {name: tuple(file[key].shape) for name, key in storage_keys.items()}
        yield Weights(kind, path, shapes, storage_keys, file.__getitem__, layers)


def _keras_2_layers(file: Any) -> list[tuple[str, list[tuple[str, str]]]] | None:
    """The layers of a file in Keras 2's layout, which the published weights of keras.applications have.

    A group (of a whole-model file: `model_weights`) lists its layers in the attribute `layer_names`, and each layer's
    group its variables in `weight_names`: trainable ones first (keras/src/legacy/saving/legacy_h5_format.py).

    Returns:
        (name of the layer, [(name of a variable without ":0", its HDF5 path), ...]) in the file's order; None for
        another layout.
    """
    root = file.get("model_weights", file)
    layer_names = _names_in_attributes(root, "layer_names")
    if layer_names is None:
        return None
    return [
        (
            layer,
            [
                (weight.removesuffix(":0"), f"{root.name}/{layer}/{weight}".lstrip("/"))
                for weight in _names_in_attributes(root[layer], "weight_names") or ()
            ],
        )
        for layer in layer_names
    ]


def _names_in_attributes(group: Any, attribute: str) -> list[str] | None:
    """A list of names in an attribute, or, of a long one, in several that are numbered from 0; None without any."""
    parts = [group.attrs[attribute]] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{attribute}{len(parts)}"])
    if not parts:
        return None
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in part]


def _name_in_h5(key: str, dataset: Any) -> str:
    """Name of a variable in a Keras file: its path in Keras 2's files, `<layer name>/vars/<index>` in Keras 3's."""
    if key.endswith(":0"):  # Keras 2: [model_weights/]<layer>/<variable path>:0
        return key.removeprefix("model_weights/").partition("/")[2].removesuffix(":0")
    layer = dataset.parent.attrs.get("name")  # Keras 3: .../vars/<index>, with the layer's name on `vars`
    return f"{layer}/vars/{key.rpartition('/')[2]}" if layer else key


def _unique(keys: dict[str, list[str]]) -> dict[str, str]:
    """Turns name -> keys of all variables of that name into name -> key; keys stand in for a name that is shared."""
    unique = {}
    for name, sharing in keys.items():
        for key in sharing:
            unique[name if len(sharing) == 1 else key] = key
    return unique


def _read_errors() -> tuple[type[Exception], ...]:
    import tensorflow as tf

    # IndexError, a LookupError: TensorFlow's reader raises it for a truncated data file.
    return OSError, RuntimeError, ValueError, LookupError, zipfile.BadZipFile, tf.errors.OpError


def _damaged(path: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint {path} cannot be read: it is damaged or not a checkpoint",
        received=next(iter(str(error).splitlines()), type(error).__name__),
        hint="Copy or download it again.",
    )
