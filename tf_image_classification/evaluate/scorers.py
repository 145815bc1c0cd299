"""Scorers: a task of the model with the same task of the data; class names decide which classes are equal, not ids."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tf_image_classification.data.manifest import Task
from tf_image_classification.data.tasks import MAX_NAMED_CLASSES, check_holds_numbers, check_some_known, pair_tasks
from tf_image_classification.errors import DataError, abridged
from tf_image_classification.evaluate.metrics import (
    MIN_SCORE,
    ClassificationMetrics,
    Labels,
    RegressionMetrics,
    rank_predictions,
)
from tf_image_classification.evaluate.mistakes import Mistake, MostConfidentMistakes
from tf_image_classification.model_folder import CLASSES, SCORES, output_prefix

if TYPE_CHECKING:
    import tensorflow as tf

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of the evaluation split.

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
        columns: names of the columns of predictions.csv that `update` returns.
    """

    name: str
    columns: tuple[str, ...]

    def update(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> Sequence[Iterable[object]]:
        """Counts one batch; returns the values of `columns`, each of length B."""

    def labels_and_logits(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Labels and logits of one batch in the form in which EstimatorSpec.metric_ops takes them."""

    def result(self) -> dict[str, Any]:
        """The metrics of all batches, as JSON values."""

    def mistakes(self) -> list[Mistake]:
        """The most confident mistakes of all batches, the most confident first."""


def create_scorers(model_tasks: Sequence[Task], data_tasks: Sequence[Task]) -> list[Scorer]:
    """A scorer for each task of the model.

    Matches the tasks that a SavedModel serves with those that a built data set is labelled with, as `pair_tasks` does.
    Their classes are matched by each scorer.

    Raises:
        DataError: the data has no labels for a task, no class in common with it, or classes where the model predicts a
            number.
    """
    paired = pair_tasks([task.name for task in model_tasks], data_tasks, owner="model")
    scorers: list[Scorer] = []
    for task in model_tasks:
        data, prefix = paired[task.name], output_prefix(task.name, len(model_tasks))
        if task.labels:
            scorers.append(ClassificationScorer(task, data, prefix))
        else:
            check_holds_numbers(task.name, data, owner="model")
            scorers.append(RegressionScorer(task, data, prefix))
    return scorers


class ClassificationScorer:
    """Scorer of a classification.

    Args:
        task: of the model.
        data: the same task of the data; its classes may be others, and in another order.
        prefix: of the model's output names.

    Raises:
        DataError: they have no class in common.
    """

    def __init__(self, task: Task, data: Task, prefix: str) -> None:
        self.name = task.name
        self.columns: tuple[str, ...] = tuple(
            prefix + column for column in ("label", "predicted", "score", "label_score")
        )
        self._task, self._data, self._prefix = task, data, prefix
        check_some_known(task.labels, data.labels or task.labels)
        self._labels = [*task.labels, *sorted(set(data.labels) - set(task.labels))]
        ids = {label: index for index, label in enumerate(self._labels)}
        # Class id of the data -> index into self._labels; id -1, not labelled, takes the last entry and stays -1.
        self._index_by_id = np.array([ids[label] for label in data.labels or task.labels] + [-1], np.int64)
        self._metrics = ClassificationMetrics(self._labels, len(task.labels))
        self._mistakes = MostConfidentMistakes(self._labels)
        self._classes_checked = False

    def update(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> Sequence[Iterable[object]]:
        """See `Scorer`.

        Raises:
            DataError: a class id is out of range, a score is not finite, or the model's class names are not its labels
                file's.
        """
        if not self._classes_checked:
            self._check_classes(outputs)
        ids, scores = self._label_indices(batch), _finite(outputs[self._prefix + SCORES].numpy(), batch)
        predictions = rank_predictions(ids, scores)
        self._metrics.update(ids, scores, predictions)
        self._mistakes.update(ids, predictions, batch.filenames, batch.images)
        return [
            [self._labels[index] if index >= 0 else "" for index in ids.tolist()],
            [self._labels[index] for index in predictions.predicted.tolist()],
            map(str, predictions.score),
            map(str, predictions.label_score),
        ]

    def labels_and_logits(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """One-hot labels, all zero for an unknown class, and log-probabilities: both float32 [B, K]."""
        import tensorflow as tf

        scores = tf.maximum(outputs[self._prefix + SCORES], MIN_SCORE)
        return tf.one_hot(self._label_indices(batch), len(self._task.labels)), tf.math.log(scores)

    def result(self) -> dict[str, Any]:
        """See `Scorer`. Warns of examples of classes that the model does not know."""
        result = self._metrics.result()
        if unknown := result["unknown_class_examples"]:
            _log.warning(
                "%s of %s evaluation images are of classes that the model does not know (%s): they count as "
                "mistakes. Accuracy %.4g, on the classes that it knows %.4g",
                f"{sum(unknown.values()):,}",
                f"{result['num_examples']:,}",
                abridged([f"{name} {count:,}" for name, count in unknown.items()], MAX_NAMED_CLASSES),
                result["accuracy"],
                result["known_class_accuracy"],
            )
        return result

    def mistakes(self) -> list[Mistake]:
        return self._mistakes.result()

    def _label_indices(self, batch: Batch) -> Labels:
        ids = batch.labels[self._data.name].astype(np.int64)
        num_classes = len(self._index_by_id) - 1
        if (invalid := (ids < -1) | (ids >= num_classes)).any():
            row = int(np.flatnonzero(invalid)[0])
            raise DataError(
                f"An example has a class id without a label: {batch.filenames[row]}",
                received=int(ids[row]),
                expected=f"0 to {num_classes - 1}",
            )
        return self._index_by_id[ids]

    def _check_classes(self, outputs: dict[str, tf.Tensor]) -> None:
        served = tuple(name.decode(errors="replace") for name in outputs[self._prefix + CLASSES][0].numpy())
        if served != self._task.labels or outputs[self._prefix + SCORES].shape[-1] != len(served):
            raise DataError(
                "The class names of the SavedModel differ from those of the labels file",
                received=abridged(served),
                expected=abridged(self._task.labels),
                hint="Export the model again.",
            )
        self._classes_checked = True


class RegressionScorer:
    """Scorer of a task whose label is a number.

    Args:
        task: of the model.
        data: the same task of the data.
        prefix: of the model's output names.
    """

    def __init__(self, task: Task, data: Task, prefix: str) -> None:
        self.name = task.name
        self.columns: tuple[str, ...] = (prefix + "label", prefix + "predicted")
        self._data, self._prefix = data, prefix
        self._metrics = RegressionMetrics()

    def update(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> Sequence[Iterable[object]]:
        """See `Scorer`.

        Raises:
            DataError: a predicted value is not finite.
        """
        labels = batch.labels[self._data.name].astype(np.float32)
        predicted = _finite(outputs[self._prefix + SCORES].numpy(), batch).reshape(-1)
        self._metrics.update(labels, predicted)
        return [map(str, labels), map(str, predicted)]

    def labels_and_logits(self, batch: Batch, outputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """True values, float32 [B], and predicted ones, float32 [B, 1]."""
        import tensorflow as tf

        return tf.constant(batch.labels[self._data.name], tf.float32), outputs[self._prefix + SCORES]

    def result(self) -> dict[str, Any]:
        return self._metrics.result()

    def mistakes(self) -> list[Mistake]:
        """None: a number is closer or farther, not wrong."""
        return []


def _finite(scores: NDArray[np.float32], batch: Batch) -> NDArray[np.float32]:
    """The scores, [B, ...]; raises DataError if one of them is not finite."""
    if not np.isfinite(scores).all():
        rows = np.flatnonzero(~np.isfinite(scores).all(axis=tuple(range(1, scores.ndim))))
        raise DataError(
            "The model's scores are not finite",
            received=abridged([batch.filenames[row] for row in rows.tolist()]),
            expected="finite scores for each image",
            hint="The training has probably diverged: lower --learning_rate.",
        )
    return scores
