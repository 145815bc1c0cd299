"""The tasks and class names of a model folder, as training exported them."""

from __future__ import annotations

import os
from typing import Any

from tf_image_classification import model_folder
from tf_image_classification.data import manifest
from tf_image_classification.data.manifest import Task
from tf_image_classification.errors import DataError


def tasks_of(path: str, facts: dict[str, Any]) -> tuple[Task, ...]:
    """The tasks of a model folder, in the order of its model.json, with the class names by the model's class ids.

    Args:
        path: of its model.json, beside which the labels files are; local, mounted or gs://.
        facts: the content of model.json.

    Raises:
        DataError: model.json lists no tasks, or a labels file is missing, cannot be read, or is outside
            of the folder.
    """
    try:
        entries = [(str(task["name"]), task["labels_file"]) for task in facts["tasks"]]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read",
            received=f"`tasks`: {facts.get('tasks')!r:.200}",
            expected="a list of objects with `name` and `labels_file`, as training writes it",
            hint="Export the model again.",
        ) from error
    if not entries:
        raise DataError(f"{path} lists no tasks", expected="at least one", hint="Export the model again.")
    tasks = []
    for name, labels_file in entries:
        labels = manifest.read_labels(model_folder.inside(os.path.dirname(path), labels_file)) if labels_file else ()
        tasks.append(Task(name, labels))
    return tuple(tasks)
