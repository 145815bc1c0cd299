"""The files of an evaluation folder, and views of metrics.json for user interfaces: scalars and small matrices."""

from __future__ import annotations

import heapq
import math
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tf_image_classification.errors import DataError

METRICS, REPORT, PREDICTIONS = "metrics.json", "report.html", "predictions.csv"
CHAMPION = "champion"  # sub-folder with the same files for the model in service

MAX_MATRIX_CLASSES = 40
OTHERS = "(other classes)"

Metrics = dict[str, Any]


def by_task(metrics: Metrics) -> dict[str, Metrics]:
    """Task name -> its metrics; a single task has the name ''."""
    return metrics.get("tasks", {"": metrics})


def is_number(value: object) -> bool:
    """Whether a JSON value is a number that computations with floats can take."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max  # which not-a-number is not


def check_is_of(metrics: Metrics, sha256: str) -> None:
    """Checks that a model is the one that was evaluated.

    Args:
        metrics: content of metrics.json.
        sha256: the model's, see `model_folder.ModelFolder`.

    Raises:
        DataError: it is another one.
    """
    evaluated = metrics["model"].get("sha256")
    if evaluated != sha256:
        raise DataError(
            "The model is not the one that was evaluated",
            received=f"a model.json with the SHA-256 {sha256}",
            expected=evaluated or "an evaluation that records the model's SHA-256",
            hint="The model folder was changed after its evaluation, or belongs to another one. Evaluate it again.",
        )


def scalar_metrics(metrics: Metrics) -> dict[str, float]:
    """The metrics that are one finite number each, by name; of several tasks as `<task>_<name>`."""
    scalars: dict[str, float] = {}
    groups = {**by_task(metrics), **({"": metrics} if "tasks" in metrics else {})}
    for task, values in groups.items():
        candidates = {**values, **values.get("user_metrics", {})}
        if "calibration" in values:
            candidates["expected_calibration_error"] = values["calibration"]["expected_calibration_error"]
        for name, value in candidates.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                scalars[f"{task}_{name}" if task else name] = float(value)
    return scalars


def confusion_matrix(metrics: Metrics, max_classes: int = MAX_MATRIX_CLASSES) -> tuple[list[str], list[list[int]]]:
    """Class names and the confusion matrix, rows = true classes, reduced to `max_classes` rows and columns.

    Of more classes, those with the most mistakes are kept, in their order; the others are summed up as OTHERS, the last
    row and column.

    Returns:
        Names [K] and counts [K, K]; both empty for several tasks and for a regression.
    """
    labels = metrics.get("labels", [])
    if len(labels) <= max_classes:
        return labels, metrics.get("confusion_matrix", [])
    mistakes: Counter[int] = Counter()
    for true, predicted, count in confusions(metrics):
        if true != predicted:
            mistakes.update({true: count, predicted: count})
    most_mistakes_first = sorted(range(len(labels)), key=lambda index: -mistakes[index])
    kept = sorted(most_mistakes_first[: max_classes - 1])
    new_index = {index: position for position, index in enumerate(kept)}
    reduced = [[0] * max_classes for _ in range(max_classes)]
    for true, predicted, count in confusions(metrics):
        reduced[new_index.get(true, -1)][new_index.get(predicted, -1)] += count
    return [*(labels[index] for index in kept), OTHERS], reduced


def most_confused(metrics: Metrics, limit: int) -> list[tuple[str, str, int, float]]:
    """The most frequent confusions of two classes, the most frequent first.

    Args:
        metrics: of a classification.
        limit: number of confusions.

    Returns:
        (true class, predicted class, number of examples, their share of the true class).
    """
    labels = metrics["labels"]
    mistakes = [(-count, true, predicted) for true, predicted, count in confusions(metrics) if true != predicted]
    supports = [row["support"] for row in metrics["per_class"]]
    return [
        (labels[true], labels[predicted], -count, -count / supports[true])
        for count, true, predicted in heapq.nsmallest(limit, mistakes)
    ]


def confusions(metrics: Metrics) -> Iterator[tuple[int, int, int]]:
    """Id of the true class, id of the predicted one and number of examples, for each such pair of a classification.

    Of very many classes, metrics.json lists these instead of a matrix.
    """
    if "confusions" in metrics:
        yield from map(tuple, metrics["confusions"])
        return
    for true, row in enumerate(metrics.get("confusion_matrix", [])):
        for predicted, count in enumerate(row):
            if count:
                yield true, predicted, count
