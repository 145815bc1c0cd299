"""Reads the weights of any checkpoint by name, one array at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tf_image_classification import storage
from tf_image_classification.checkpoints import archives, class_names, hdf5, locate, refusal, table
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
            array = np.asarray(self._read_key(self.storage_keys[name]))
        except CheckpointError:
            raise
        except refusal.read_errors() as error:
            raise refusal.damaged(self.path, refusal.first_line(error)) from error
        if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
            raise refusal.unsafe(self.path, f"values of dtype {array.dtype} of {name}", "numbers")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@contextlib.contextmanager
def read(path: str) -> Iterator[Weights]:
    """Opens a checkpoint of any kind; see `locate.locate` for what `path` may be.

    A checkpoint is data: nothing in it is executed, and no file but its own is read. Keras's files are read as HDF5,
    not deserialised.

    Yields:
        Its weights, readable until the block ends.

    Raises:
        CheckpointError: no checkpoint is found, it is not complete or damaged, or asks for more than a checkpoint's
            values: see `hdf5`, `archives` and `table`.
    """
    location = locate.locate(path)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(storage.temporary_dir())
        local_path = locate.fetch(location, folder)
        if not any(os.path.isfile(file) for file in (local_path, f"{local_path}.index")):
            raise refusal.damaged(location.path, "no regular file")  # a pipe would be waited for
        try:
            if location.kind == locate.TENSORFLOW:
                weights = _open_tensorflow(local_path, location.path)
            else:
                if location.kind == locate.KERAS:
                    local_path = archives.extract(local_path, _KERAS_WEIGHTS, folder, location.path)
                file = stack.enter_context(hdf5.open_hdf5(local_path, location.path))
                weights = _open_hdf5(location.kind, file, location.path)
        except CheckpointError:
            raise
        except refusal.read_errors() as error:
            raise refusal.damaged(location.path, refusal.first_line(error)) from error
        if location.kind == locate.KERAS:
            weights.class_names = class_names.of_model_file(location.path)
        yield weights


def _open_tensorflow(prefix: str, path: str) -> Weights:
    reader = table.open_checked(prefix, path)
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    if _OBJECT_GRAPH not in shapes:
        kind = "V2 checkpoint" if os.path.exists(prefix + ".index") else "V1 checkpoint"
        return Weights(kind, path, shapes, {name: name for name in shapes}, reader.get_tensor)
    kind, keys = _names_in_object_graph(reader.get_tensor(_OBJECT_GRAPH))
    by_name = {name: shapes[key] for name, key in keys.items() if key in shapes}
    is_own = kind == "training checkpoint" and reader.has_tensor(StoredClassNames.KEY)
    names = class_names.parse(reader.get_tensor(StoredClassNames.KEY)) if is_own else None
    return Weights(kind, path, by_name, keys, reader.get_tensor, class_names=names)


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


def _open_hdf5(kind: str, file: hdf5.Hdf5File, path: str) -> Weights:
    keys: dict[str, list[str]] = {}
    for dataset in file.datasets:
        keys.setdefault(dataset.name, []).append(dataset.key)
    storage_keys = _unique(keys)
    by_key = {dataset.key: dataset.shape for dataset in file.datasets}
    names = {key: name for name, key in storage_keys.items()}
    layers = [(layer, [names[key] for key in weights]) for layer, weights in file.layers or () if weights]
    shapes = {name: by_key[key] for name, key in storage_keys.items()}
    return Weights(kind, path, shapes, storage_keys, file.read, layers)


def _unique(keys: dict[str, list[str]]) -> dict[str, str]:
    """Turns name -> keys of all variables of that name into name -> key; keys stand in for a name that is shared."""
    unique = {}
    for name, sharing in keys.items():
        for key in sharing:
            unique[name if len(sharing) == 1 else key] = key
    return unique
