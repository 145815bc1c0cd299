"""A task of the model and the same task of the data, brought together: class names decide, not class ids."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tf_image_classification.data.manifest import Task
from tf_image_classification.errors import DataError
from tf_image_classification.evaluate.metrics import (
    LEAST_SCORE,
    ClassificationMetrics,
    Labels,
    RegressionMetrics,
    judge,
)
from tf_image_classification.evaluate.mistakes import Mistake, SurestMistakes
from tf_image_classification.evaluate.model import output_prefix

if TYPE_CHECKING:
    import tensorflow as tf

_NAMED = 5  # file or class names in a message

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples.

    Attributes:
        images: string [B], encoded.
        filenames: of length B.
        labels: task of the data -> int64 [B] class ids of the data (-1: not labelled), or float32 [B].
    """

    images: tf.Tensor
    filenames: list[str]
    labels: dict[str, NDArray[Any]]


class Scorer(Protocol):
    """Scores one task, batch by batch.

    Attributes:
        name: the model's name of the task.
        columns: names of what `update` returns.
    """

    name: str
    columns: tuple[str, ...]

    def update(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> Sequence[Iterable[object]]:
        """Counts one batch; returns columns of length B for predictions.csv."""

    def for_spec(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Labels and logits of one batch as an EstimatorSpec sees them."""

    def result(self) -> dict[str, Any]:
        """The metrics."""

    def mistakes(self) -> list[Mistake]:
        """The mistakes that the model was surest of."""


def pair(model_tasks: Sequence[Task], data_tasks: Sequence[Task]) -> list[Scorer]:
    """A scorer for each task of the model. Tasks go by their names; of a model and data with one task each the names do
    not matter.

    Raises:
        DataError: the data has no labels for a task, no class in common with it, or classes where the model predicts a
            number.
    """
    by_name = {task.name: task for task in data_tasks}
    if len(model_tasks) == len(data_tasks) == 1:
        by_name = {model_tasks[0].name: data_tasks[0]}
    if missing := [task.name for task in model_tasks if task.name not in by_name]:
        raise DataError(
            "The data has no labels for what the model predicts",
            received=", ".join(by_name),
            expected=", ".join(missing),
        )
    for task in model_tasks:
        if not (task.labels or by_name[task.name].holds_numbers):
            raise DataError(
                f"The model predicts {task.name} as a number, but the data has classes",
                received=", ".join(by_name[task.name].labels[:_NAMED]),
                expected="TFRecords that hold a float per image",
            )
    return [
        (ClassificationScorer if task.labels else RegressionScorer)(
            task, by_name[task.name], output_prefix(task, model_tasks)
        )
        for task in model_tasks
    ]


class ClassificationScorer:
    """Scorer of a classification."""

    def __init__(self, task: Task, data: Task, prefix: str) -> None:
        self.name = task.name
        self.columns: tuple[str, ...] = tuple(
            prefix + column for column in ("label", "predicted", "score", "label_score")
        )
        self._task, self._data, self._prefix = task, data, prefix
        self._labels = [*task.labels, *sorted(set(data.labels) - set(task.labels))]
        self._report_unknown(self._labels[len(task.labels) :])
        ids = {label: index for index, label in enumerate(self._labels)}
        self._ids_of_data = np.array([ids[label] for label in data.labels or task.labels] + [-1], np.int64)
        self._metrics = ClassificationMetrics(self._labels, len(task.labels))
        self._mistakes = SurestMistakes(self._labels)
        self._classes_checked = False

    def update(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> Sequence[Iterable[object]]:
        if not self._classes_checked:
            self._check_classes(outputs)
        ids, scores = self._ids(batch), _finite(outputs[self._prefix + "scores"].numpy(), batch)
        outcome = judge(ids, scores)
        self._metrics.update(ids, scores, outcome)
        self._mistakes.offer(ids, outcome, batch.filenames, batch.images)
        return [
            [self._labels[index] if index >= 0 else "" for index in ids.tolist()],
            [self._labels[index] for index in outcome.predicted.tolist()],
            map(str, outcome.score),
            map(str, outcome.label_score),
        ]

    def for_spec(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        import tensorflow as tf

        return tf.one_hot(self._ids(batch), len(self._task.labels)), tf.math.log(
            tf.maximum(outputs[self._prefix + "scores"], LEAST_SCORE)
        )

    def result(self) -> dict[str, Any]:
        return self._metrics.result()

    def mistakes(self) -> list[Mistake]:
        return self._mistakes.result()

    def _ids(self, batch: Batch) -> Labels:
        """Class ids of the data -> indices into our labels; -1 stays -1, for it takes the last entry of the table."""
        ids = batch.labels[self._data.name].astype(np.int64)
        known = len(self._ids_of_data) - 1
        if (bad := (ids < -1) | (ids >= known)).any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"An example has a class id that the labels do not name: {batch.filenames[row]}",
                received=int(ids[row]),
                expected=f"0 to {known - 1}",
            )
        return self._ids_of_data[ids]

    def _report_unknown(self, unknown: Sequence[str]) -> None:
        if not unknown:
            return
        some = ", ".join(unknown[:_NAMED]) + (", ..." if len(unknown) > _NAMED else "")
        if len(unknown) == len(self._data.labels):
            raise DataError(
                "The model knows none of the data's classes",
                received=some,
                expected=", ".join(self._task.labels[:_NAMED]) + (", ..." if len(self._task.labels) > _NAMED else ""),
                hint="Check --labels_file, or evaluate on data of the classes that the model was trained on.",
            )
        _log.warning(
            "The model does not know %d of the data's %d classes (%s): their examples count as mistakes",
            len(unknown),
            len(self._data.labels),
            some,
        )

    def _check_classes(self, outputs: dict[str, tf.Tensor]) -> None:
        named = tuple(name.decode(errors="replace") for name in outputs[self._prefix + "classes"][0].numpy())
        if named != self._task.labels or outputs[self._prefix + "scores"].shape[-1] != len(named):
            raise DataError(
                "The SavedModel names other classes than the labels file beside it",
                received=", ".join(named[:_NAMED]),
                expected=", ".join(self._task.labels[:_NAMED]),
                hint="Export the model again.",
            )
        self._classes_checked = True


class RegressionScorer:
    """Scorer of a task whose label is a number."""

    def __init__(self, task: Task, data: Task, prefix: str) -> None:
        self.name = task.name
        self.columns: tuple[str, ...] = (prefix + "label", prefix + "predicted")
        self._task, self._data, self._prefix = task, data, prefix
        self._metrics = RegressionMetrics()

    def update(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> Sequence[Iterable[object]]:
        labels, predicted = (
            batch.labels[self._data.name].astype(np.float32),
            _finite(outputs[self._prefix + "scores"].numpy(), batch).reshape(-1),
        )
        self._metrics.update(labels, predicted)
        return [map(str, labels), map(str, predicted)]

    def for_spec(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        import tensorflow as tf

        return tf.constant(batch.labels[self._data.name], tf.float32), outputs[self._prefix + "scores"]

    def result(self) -> dict[str, Any]:
        return self._metrics.result()

    def mistakes(self) -> list[Mistake]:
        return []


def _finite(scores: NDArray[np.float32], batch: Batch) -> NDArray[np.float32]:
    if not np.isfinite(scores).all():
        rows = np.flatnonzero(~np.isfinite(scores).all(axis=tuple(range(1, scores.ndim))))
        raise DataError(
            "The model's scores are not finite numbers",
            received=", ".join(batch.filenames[row] for row in rows[:_NAMED].tolist()),
            expected="a score for each class",
            hint="The training has probably diverged: lower --learning_rate.",
        )
    return scores
