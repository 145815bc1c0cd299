"""The class names that a model or a checkpoint is bound to: stored with a checkpoint, and compared with the data's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from tf_image_classification import model_folder, storage
from tf_image_classification.data import model_tasks
from tf_image_classification.data.class_names import canonical
from tf_image_classification.data.manifest import Task
from tf_image_classification.data.tasks import MAX_NAMED_CLASSES
from tf_image_classification.errors import CheckpointError, DataError, abridged

ClassNames = Mapping[str, tuple[str, ...]]  # task -> class names by class id; of a regression none


class StoredClassNames(tf.train.experimental.PythonState):
    """Class names as a part of a `tf.train.Checkpoint`: they are in a checkpoint's own files, whole or not at all."""

    KEY = "class_names/.ATTRIBUTES/py_state"  # of a checkpoint that has them as its attribute `class_names`

    def __init__(self, names: ClassNames) -> None:
        self.names = dict(names)

    def serialize(self) -> str:
        """JSON: a list of [task, list of its class names], in the order of the tasks."""
        return json.dumps([[task, list(labels)] for task, labels in self.names.items()])

    def deserialize(self, string_value: bytes) -> None:
        """Sets the names to those of a checkpoint."""
        self.names = dict(parse(string_value))


def of_tasks(tasks: Iterable[Task]) -> ClassNames:
    """The class names of tasks. Two Unicode forms of one name are one name, unless that would be two classes'."""
    return {task.name: _in_one_form(task.labels) for task in tasks}


def parse(text: bytes) -> ClassNames:
    """The class names that a checkpoint stores: the inverse of `StoredClassNames.serialize`.

    Raises:
        CheckpointError: it stores something else.
    """
    try:
        stored = {task: list(labels) for task, labels in json.loads(text)}
        names = {task: _in_one_form(labels) for task, labels in stored.items()}
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            "The checkpoint's class names cannot be read",
            received=f"{text[:100]!r} ({error!r:.200})",
            expected="JSON as training writes it: [[task, [class name, ...]], ...]",
        ) from error
    return names


def of_model_file(path: str) -> ClassNames | None:
    """The class names of a model file, by the model folder that it is in; None if it is in none.

    Args:
        path: of a file, local or gs://.
    """
    folder, name = os.path.split(path)
    if name != model_folder.KERAS_MODEL:
        return None
    try:
        facts = model_folder.read_facts(folder)
        return of_tasks(model_tasks.tasks_of(storage.join(folder, model_folder.FACTS), facts))
    except DataError:  # someone else's model.json, or none
        return None


def are_equal(names: ClassNames, stored: ClassNames) -> bool:
    """Whether two have the same classes under the same ids. Of one task each the names of the tasks do not matter."""
    return list(names.values()) == list(stored.values()) and (list(names) == list(stored) or len(names) == 1)


def check_unchanged(names: ClassNames, stored: ClassNames, checkpoint: str) -> None:
    """Checks that a training which continues from a checkpoint has its classes, under the same ids.

    Args:
        names: of the training.
        stored: in the checkpoint.
        checkpoint: its path, for the message.

    Raises:
        CheckpointError: a class was added, removed or renamed, or has another id; or the tasks are other ones.
    """
    if are_equal(names, stored):
        return
    pairs = paired_tasks(names, stored)
    changes = [f"the task {task}, which is new" for task in names if task not in pairs]
    changes += [f"no task {task}" for task in stored if task not in pairs.values()]
    for task, other in pairs.items():
        if names[task] != stored[other]:
            prefix = f"{task}: " if len(names) > 1 else ""
            changes.append(prefix + _changes(names[task], stored[other]))
    if not changes:
        changes = [f"the tasks in the order {', '.join(names)}"]
    raise CheckpointError(
        f"The checkpoint {checkpoint} was trained on other classes, or on the same under other ids",
        received="; ".join(changes),
        expected="; ".join(
            f"{task}: {abridged(labels, MAX_NAMED_CLASSES)}" if labels else f"{task}: a number"
            for task, labels in stored.items()
        ),
        hint="A training is continued with its own classes only. Give another --model_dir; to keep the weights, also "
        "give this training's exported model as --checkpoint_path: its head is then matched by class name.",
    )


def numbered(labels: Sequence[str]) -> str:
    """Class ids with their names, as part of a message: `0 blue, 1 green`."""
    return abridged([f"{index} {label}" for index, label in enumerate(labels)], MAX_NAMED_CLASSES)


def paired_tasks(names: ClassNames, stored: ClassNames) -> dict[str, str]:
    """A model's tasks -> those of a checkpoint: by name; of one task each the names do not matter.

    A classification and a regression are no pair.
    """
    if len(names) == len(stored) == 1:
        pairs = {next(iter(names)): next(iter(stored))}
    else:
        pairs = {task: task for task in names if task in stored}
    return {task: other for task, other in pairs.items() if bool(names[task]) == bool(stored[other])}


def _changes(labels: Sequence[str], stored: Sequence[str]) -> str:
    """What became of the classes, for example `added sky; removed blue; moved green from 1 to 0`."""
    ids, before = ({label: index for index, label in enumerate(names)} for names in (labels, stored))
    moved = [
        f"{label} from {before[label]} to {index}" for label, index in ids.items() if before.get(label, index) != index
    ]
    parts = {
        "added": [label for label in labels if label not in before],
        "removed": [label for label in stored if label not in ids],
        "moved": moved,
    }
    return "; ".join(f"{what} {abridged(found, MAX_NAMED_CLASSES)}" for what, found in parts.items() if found)


def _in_one_form(labels: Iterable[str]) -> tuple[str, ...]:
    given = tuple(labels)
    composed = tuple(canonical(label) for label in given)
    return composed if len(set(composed)) == len(given) else given
