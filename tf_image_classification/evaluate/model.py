"""A model folder as the evaluation sees it: its serving signature, its class names, and what model.json says about
it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tf_image_classification import model_folder, storage
from tf_image_classification.data import manifest
from tf_image_classification.data.manifest import Task
from tf_image_classification.errors import DataError, FlagError
from tf_image_classification.model_folder import EXPECTED, FACTS, SAVED_MODEL

if TYPE_CHECKING:
    import tensorflow as tf

SIGNATURE, INPUT = "serving_default", "image_bytes"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model.

    Attributes:
        folder: as it was given.
        facts: the content of model.json.
        tasks: in the order of model.json, with the class names by the model's class ids.
        signature: what a server would call: image_bytes string [B] -> dict of outputs, for each task `<prefix>scores`
            float32 [B, K] ([B, 1] for a regression) and `<prefix>classes` string [B, K] (none for a regression).
    """

    folder: str
    facts: dict[str, Any]
    tasks: tuple[Task, ...]
    signature: Callable[..., dict[str, tf.Tensor]]


def read_tasks(folder: str) -> tuple[dict[str, Any], tuple[Task, ...]]:
    """What model.json and the labels files of a model folder say, without loading the network.

    Raises:
        FlagError: there is no such folder.
        DataError: it is no model folder of this project.
    """
    if not storage.is_dir(folder):
        raise FlagError("The model folder does not exist", received=folder, expected=EXPECTED)
    facts = model_folder.read_facts(folder)
    path = storage.join(folder, FACTS)
    try:
        entries = [(str(task["name"]), task["labels_file"]) for task in facts["tasks"]]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read",
            received=repr(error),
            expected="what training wrote",
            hint="Export the model again.",
        ) from error
    if not entries:
        raise DataError(f"{path} names no task", expected="at least one", hint="Export the model again.")
    tasks = tuple(
        Task(name, manifest.read_labels(storage.join(folder, labels_file)) if labels_file else ())
        for name, labels_file in entries
    )
    return facts, tasks


def output_prefix(task: Task, tasks: Sequence[Task]) -> str:
    """What the names of a task's outputs begin with: nothing if it is the only task."""
    return f"{task.name}_" if len(tasks) > 1 else ""


@contextlib.contextmanager
def load(folder: str) -> Iterator[ServedModel]:
    """Loads the SavedModel of a model folder; a gs:// one that is not mounted is copied aside meanwhile.

    Raises:
        FlagError: there is no such folder.
        DataError: it is no model folder, or its SavedModel cannot be loaded or has not the signature that is served.
    """
    facts, tasks = read_tasks(folder)
    import tensorflow as tf

    with _local(storage.mounted(storage.join(folder, SAVED_MODEL))) as path:
        try:
            loaded = tf.saved_model.load(path)
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise DataError(
                "The SavedModel cannot be loaded", received=f"{folder}: {error}", expected=EXPECTED
            ) from error
        signature = loaded.signatures.get(SIGNATURE)
        wanted = {
            output_prefix(task, tasks) + output
            for task in tasks
            for output in ("scores", "classes")
            if output == "scores" or task.labels
        }
        if (
            signature is None
            or INPUT not in signature.structured_input_signature[1]
            or not wanted <= set(signature.structured_outputs)
        ):
            received = f"signatures {', '.join(loaded.signatures) or '(none)'}"
            if signature is not None:
                received = (
                    f"{', '.join(signature.structured_input_signature[1])} -> {', '.join(signature.structured_outputs)}"
                )
            raise DataError(
                "The SavedModel has another signature than the one that is served",
                received=received,
                expected=f"{SIGNATURE}: {INPUT} -> {', '.join(sorted(wanted))}",
            )
        yield ServedModel(
            folder, facts, tasks, signature
        )  # this frame keeps `loaded`, and with it the signature's variables, alive


@contextlib.contextmanager
def _local(folder: str) -> Iterator[str]:
    if not storage.is_gcs(folder):
        yield folder
        return
    with storage.temporary_dir() as aside:
        try:
            copy = storage.fetch_dir(folder, os.path.join(aside, SAVED_MODEL))
        except FileNotFoundError:
            raise DataError("The model folder has no SavedModel", received=folder, expected=EXPECTED) from None
        yield copy
