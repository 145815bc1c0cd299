"""A model folder, loaded to be evaluated: its serving signature, class names and model.json."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tf_image_classification import model_folder, storage
from tf_image_classification.data import model_tasks
from tf_image_classification.data.manifest import Task
from tf_image_classification.errors import DataError, FlagError
from tf_image_classification.model_folder import (
    CLASSES,
    EXPECTED,
    FACTS,
    INPUT,
    SAVED_MODEL,
    SCORES,
    SIGNATURE,
    output_prefix,
)

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded SavedModel.

    Attributes:
        folder: the model folder, as given.
        sha256: see `model_folder.ModelFolder`.
        facts: the content of model.json.
        tasks: in the order of model.json, with the class names by the model's class ids.
        signature: what a server calls: image_bytes string [B] -> dict of outputs, for each task `<prefix>scores`
            float32 [B, K] ([B, 1] for a regression) and `<prefix>classes` string [B, K] (none for a regression). The
            prefix is `model_folder.output_prefix`'s.
    """

    folder: str
    sha256: str
    facts: dict[str, Any]
    tasks: tuple[Task, ...]
    signature: Callable[..., dict[str, tf.Tensor]]


def read_tasks(folder: str) -> tuple[Task, ...]:
    """Reads tasks and class names of a model folder, without importing TensorFlow.

    Raises:
        FlagError: the folder does not exist.
        DataError: it is not a model folder of this project.
    """
    _check_exists(folder)
    return model_tasks.tasks_of(storage.join(folder, FACTS), model_folder.read_facts(folder))


@contextlib.contextmanager
def load(folder: str) -> Iterator[ServedModel]:
    """Loads the SavedModel of a model folder, after its files were verified, from a copy for the time of the block.

    Raises:
        FlagError: the folder does not exist.
        DataError: it is not a model folder or not as it was exported, or its SavedModel cannot be loaded or lacks the
            serving signature.
    """
    _check_exists(folder)
    with storage.temporary_dir() as temporary:
        # What is loaded is the private copy that was verified, so that nobody can exchange a file in between.
        model = model_folder.verify(folder, os.path.join(temporary, "model"), accept_unlisted=True)
        tasks = model_tasks.tasks_of(os.path.join(model.local, FACTS), model.facts)
        path = os.path.join(model.local, SAVED_MODEL)
        if not os.path.isdir(path):
            raise DataError("The model folder has no SavedModel", received=folder, expected=EXPECTED)
        import tensorflow as tf

        try:
            loaded = tf.saved_model.load(path)
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise DataError(
                "The SavedModel cannot be loaded", received=f"{folder}: {error}", expected=EXPECTED
            ) from error
        signature = _checked_signature(loaded.signatures, tasks)
        # `loaded` stays referenced by this frame, and keeps the signature's variables alive.
        yield ServedModel(folder, model.sha256, model.facts, tasks, signature)


def _check_exists(folder: str) -> None:
    if not storage.is_dir(folder):
        raise FlagError("The model folder does not exist", received=folder, expected=EXPECTED)


def _checked_signature(signatures: Mapping[str, Any], tasks: Sequence[Task]) -> Callable[..., dict[str, tf.Tensor]]:
    """The serving signature, which has the input and at least the outputs that the tasks need."""
    outputs = set()
    for task in tasks:
        prefix = output_prefix(task.name, len(tasks))
        outputs.add(prefix + SCORES)
        if task.labels:
            outputs.add(prefix + CLASSES)
    signature = signatures.get(SIGNATURE)
    if signature is None:
        received = f"signatures {', '.join(signatures) or '(none)'}"
    else:
        inputs = signature.structured_input_signature[1]
        if INPUT in inputs and outputs <= set(signature.structured_outputs):
            return signature
        received = f"{', '.join(inputs)} -> {', '.join(signature.structured_outputs)}"
    raise DataError(
        "The SavedModel lacks the serving signature that is evaluated",
        received=received,
        expected=f"{SIGNATURE}: {INPUT} -> {', '.join(sorted(outputs))}",
        hint="Export the model again.",
    )
