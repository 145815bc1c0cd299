"""Reads the weights of any checkpoint by name, one array at a time."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_image_classification import storage
from tf_image_classification.checkpoints import locate
from tf_image_classification.checkpoints.training import WEIGHTS
from tf_image_classification.errors import CheckpointError

OBJECT_CHECKPOINT = "TF2 object checkpoint"
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_KERAS_WEIGHTS = "model.weights.h5"


class Weights(Mapping[str, np.ndarray]):
    """Name -> array, read when it is asked for.

    Names are slim's in slim's checkpoints and in training's own; Keras's variable paths in other TF2 checkpoints;
    `<layer name>/vars/<index>` in Keras's files, which hold no names of variables.

    Attributes:
        kind: what it was read from, in words.
        path: where it lies.
        shapes: name -> shape.
        places: name -> where it is in the file, which follows from the model's structure in Keras's files and TF2
            checkpoints.
    """

    def __init__(
        self,
        kind: str,
        path: str,
        shapes: dict[str, tuple[int, ...]],
        places: dict[str, str],
        get: Callable[[str], np.ndarray],
    ) -> None:
        self.kind, self.path, self.shapes, self.places, self._get = kind, path, shapes, places, get

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        try:
            return np.asarray(self._get(self.places[name]))
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
        CheckpointError: there is no checkpoint, it is not complete, or it is damaged.
    """
    found = locate.locate(path)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(storage.temporary_dir())
        local = locate.fetch(found, folder)
        try:
            if found.kind == locate.TENSORFLOW:
                weights = _tensorflow(local)
            else:
                weights = stack.enter_context(
                    _h5(found.kind, _unzipped(local, folder) if found.kind == locate.KERAS else local)
                )
        except _read_errors() as error:
            raise _damaged(found.path, error) from error
        weights.path = found.path
        yield weights


def _tensorflow(prefix: str) -> Weights:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    if _OBJECT_GRAPH not in shapes:
        kind = "V2 checkpoint" if os.path.exists(prefix + ".index") else "V1 checkpoint"
        return Weights(kind, prefix, shapes, {name: name for name in shapes}, reader.get_tensor)
    kind, keys = _names_in_object_graph(reader.get_tensor(_OBJECT_GRAPH))
    return Weights(
        kind, prefix, {name: shapes[key] for name, key in keys.items() if key in shapes}, keys, reader.get_tensor
    )


def _names_in_object_graph(serialized: bytes) -> tuple[str, dict[str, str]]:
    """Kind, and variable name -> key in the checkpoint, of a `tf.train.Checkpoint`."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    nodes = TrackableObjectGraph.FromString(serialized).nodes
    children = {child.local_name: child.node_id for child in nodes[0].children}
    if {WEIGHTS, "global_step"} <= set(children):
        weights = nodes[children[WEIGHTS]].children
        return "training checkpoint", {
            child.local_name: nodes[child.node_id].attributes[0].checkpoint_key for child in weights
        }
    slots = {slot.slot_variable_node_id for node in nodes for slot in node.slot_variables}
    keys: dict[str, list[str]] = {}
    for index, node in enumerate(nodes):
        for attribute in node.attributes:
            if attribute.full_name and index not in slots:
                keys.setdefault(attribute.full_name, []).append(attribute.checkpoint_key)
    return OBJECT_CHECKPOINT, _unique(keys)


def _unzipped(path: str, folder: str) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.extract(_KERAS_WEIGHTS, folder)


@contextlib.contextmanager
def _h5(kind: str, path: str) -> Iterator[Weights]:
    import h5py

    with h5py.File(path, "r") as file:
        datasets: dict[str, list[str]] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.shape is not None:
                datasets.setdefault(_h5_name(name, item), []).append(name)

        file.visititems(visit)
        places = _unique(datasets)
        yield Weights(
            kind, path, {name: tuple(file[place].shape) for name, place in places.items()}, places, file.__getitem__
        )


def _h5_name(name: str, dataset: Any) -> str:
    if name.endswith(":0"):  # Keras 2: [model_weights/]<layer>/<variable path>:0
        return name.removeprefix("model_weights/").partition("/")[2].removesuffix(":0")
    layer = dataset.parent.attrs.get("name")  # Keras 3: .../vars/<index>, with the layer's name on `vars`
    return f"{layer}/vars/{name.rpartition('/')[2]}" if layer else name


def _unique(places: dict[str, list[str]]) -> dict[str, str]:
    # A name that several variables share names none of them.
    return {name if len(found) == 1 else place: place for name, found in places.items() for place in found}


def _read_errors() -> tuple[type[Exception], ...]:
    import tensorflow as tf

    # TensorFlow's reader answers a data file that was cut short with an IndexError.
    return OSError, RuntimeError, ValueError, LookupError, zipfile.BadZipFile, tf.errors.OpError


def _damaged(path: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint {path} cannot be read: it is damaged, or no checkpoint at all",
        received=next(iter(str(error).splitlines()), type(error).__name__),
        hint="Copy or download it again.",
    )
