"""Classes without a training example: a model would have outputs that are never trained. One rule for images and for
TFRecords: they are an error that names them, unless --allow_missing_classes accepts them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tf_image_classification.build_tfrecords.worker_messages import Contents
from tf_image_classification.data.manifest import EVAL, TRAIN, Split, Task
from tf_image_classification.data.tasks import MAX_NAMED_CLASSES
from tf_image_classification.errors import DataError, abridged

Counts = Mapping[str, int]  # class name -> number of examples
Splits = Mapping[str, Split]

_log = logging.getLogger(__name__)


def check(task: Task, counts: Counts, *, kind: str, hint: str, allowed: bool) -> None:
    """Checks that a task's classes all have a training example.

    Args:
        counts: of the training split.
        kind: what an example is called: `image` or `example`.
        hint: the likely cause and what to do.
        allowed: warn only.

    Raises:
        DataError: some have none.
    """
    missing = [label for label in task.labels if not counts.get(label)]
    if not missing:
        return
    problem = f"{len(missing):,} of {len(task.labels):,} classes have no training {kind}"
    if allowed:
        _log.warning("%s: %s. The model cannot learn them", problem, abridged(missing, MAX_NAMED_CLASSES))
        return
    raise DataError(
        problem,
        received=abridged(missing, MAX_NAMED_CLASSES),
        expected=f"at least one readable training {kind} of every class",
        hint=f"{hint} --allow_missing_classes accepts classes without a training example.",
    )


def check_records(files: Sequence[Contents], tasks: Sequence[Task], splits: Splits, *, allowed: bool) -> None:
    """Checks that every class has an example in the TFRecords of the training split. Where a manifest records the
    classes, that was decided when the data set was built.

    Args:
        files: of the training split.
        splits: with their class counts.
        allowed: warn only.

    Raises:
        DataError: some classes have none.
    """
    train, evaluation = splits[TRAIN].class_counts, splits[EVAL].class_counts if EVAL in splits else {}
    for task in tasks:
        named = any(file.labels[task.feature].texts for file in files if file.examples)
        counts = train[task.name], evaluation.get(task.name, {})
        check(
            task,
            counts[0],
            kind="example",
            hint=_likely_cause(task, *counts, listed=not (named or task.holds_numbers)),
            allowed=allowed or all(file.in_manifest for file in files),
        )


def _likely_cause(task: Task, train: Counts, evaluation: Counts, *, listed: bool) -> str:
    """Why class ids of TFRecords have no training example, in words.

    Args:
        train, evaluation: examples of each split.
        listed: the names come from a labels file or another list, not from the records.
    """
    labels = task.labels
    missing = [class_id for class_id, label in enumerate(labels) if not train.get(label)]
    if not missing:
        return ""
    present = [str(class_id) for class_id, label in enumerate(labels) if train.get(label)]
    if all(evaluation.get(labels[class_id]) for class_id in missing):
        return "They are on the evaluation side only: add training examples of them."
    if missing[0] == 0 and present and (missing == [0] or missing == [0, len(labels) - 1]):
        cause = (
            "Labels start at 1: class 0 has no example, as where ids are off by one or 0 is slim's background class. "
            "Subtract 1 from the ids, and take a background line out of the labels file."
        )
        return cause + (f" Every name may be off by one: id 1 is now called {labels[1]}." if listed else "")
    if listed and missing == [len(labels) - 1]:
        return (
            "The labels file has one line more than there are classes: if its first line is a background line, every "
            "name is off by one; take the line that is too many out."
        )
    cause = f"The ids have a gap: {abridged(present, MAX_NAMED_CLASSES)} have examples. Number the classes from 0."
    return cause + (" If they are numbers to predict and no class ids, accept this." if task.holds_numbers else "")
