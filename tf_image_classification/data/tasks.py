"""Tasks: what their features in TFRecords are called, and which task of a model is which of the data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from tf_image_classification.data.manifest import DEFAULT_TASK, SLIM, Task
from tf_image_classification.errors import DataError, abridged

MAX_NAMED_CLASSES = 10  # in a message

# slim's names, https://github.com/tensorflow/models/blob/master/research/slim/datasets/dataset_utils.py; a task's name
# in them is ours.
_SLIM_LABEL = re.compile(r"image/class/(?:(?P<task>.+)/)?label")


def label_feature(task: str, num_tasks: int) -> str:
    """Name of a task's label feature in the slim schema, in records of so many tasks."""
    return "image/class/label" if num_tasks == 1 else f"image/class/{task}/label"


def text_feature(task: str, num_tasks: int) -> str:
    """Name of the feature that holds the class name beside a task's label."""
    return text_beside(label_feature(task, num_tasks))


def text_beside(label: str) -> str:
    """Name of the feature that holds the class name beside a slim label feature, `image/class/text` for example."""
    return label.removesuffix("label") + "text"


def is_slim_label(feature: str) -> bool:
    """Whether a feature is a label of the slim schema."""
    return _SLIM_LABEL.fullmatch(feature) is not None


def task_name(label: str, schema: str, num_tasks: int) -> str:
    """The task of a label feature: the inverse of `label_feature`, for both schemas."""
    if num_tasks == 1:
        return DEFAULT_TASK
    match = _SLIM_LABEL.fullmatch(label) if schema == SLIM else None
    return (match["task"] or DEFAULT_TASK) if match else label


def named_as_in_data(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """A model's tasks under the names that data gives them: a data set's only task is always called `label`."""
    if len(tasks) == 1:
        return (dataclasses.replace(tasks[0], name=DEFAULT_TASK),)
    return tuple(tasks)


def pair_tasks(names: Sequence[str], data_tasks: Sequence[Task], *, owner: str) -> dict[str, Task]:
    """The data's task for each task of an estimator or a model. They are matched by name; of one task each the names
    do not matter.

    Args:
        names: of the tasks that are predicted.
        owner: who predicts them, for the message: `estimator` or `model`.

    Returns:
        Each of `names` -> the data's task, under its own name.

    Raises:
        DataError: the data has no labels for a task.
    """
    if len(names) == len(data_tasks) == 1:
        return {names[0]: data_tasks[0]}
    by_name = {task.name: task for task in data_tasks}
    if missing := [name for name in names if name not in by_name]:
        raise DataError(
            f"The {owner} predicts {', '.join(missing)}, for which the data has no labels",
            received=", ".join(by_name),
            expected=", ".join(names),
        )
    return {name: by_name[name] for name in names}


def check_some_known(known: Sequence[str], found: Sequence[str]) -> None:
    """Checks that a model knows some class of the data.

    Args:
        known: classes of the model.
        found: those of the data.

    Raises:
        DataError: it knows none.
    """
    if not set(known).intersection(found):
        raise DataError(
            "The model knows none of the data's classes",
            received=abridged(found, MAX_NAMED_CLASSES),
            expected=abridged(known, MAX_NAMED_CLASSES),
            hint="Check --labels_file, or evaluate on data of the classes that the model was trained on.",
        )


def check_holds_numbers(name: str, data_task: Task, *, owner: str) -> None:
    """Checks that the data has numbers for a task that is predicted as one.

    Args:
        name, owner: see `pair_tasks`.

    Raises:
        DataError: it has classes.
    """
    if not data_task.holds_numbers:
        raise DataError(
            f"The {owner} predicts {name} as a number, but the data has classes",
            received=abridged(data_task.labels, MAX_NAMED_CLASSES),
            expected="TFRecords that hold a float per image, image_bytes beside it",
        )
