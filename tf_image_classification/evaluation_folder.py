"""The files of an evaluation folder, and views of metrics.json for user interfaces: scalars and small matrices."""

from __future__ import annotations

import math
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
    labels, matrix = metrics.get("labels", []), metrics.get("confusion_matrix", [])
    if len(labels) <= max_classes:
        return labels, matrix
    predicted = [sum(column) for column in zip(*matrix, strict=True)]
    mistakes = [sum(row) + predicted[index] - 2 * row[index] for index, row in enumerate(matrix)]
    most_mistakes_first = sorted(range(len(labels)), key=lambda index: -mistakes[index])
    kept = sorted(most_mistakes_first[: max_classes - 1])
    new_index = {index: position for position, index in enumerate(kept)}
    reduced = [[0] * max_classes for _ in range(max_classes)]
    for true, row in enumerate(matrix):
        for other, count in enumerate(row):
            reduced[new_index.get(true, -1)][new_index.get(other, -1)] += count
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
    confusions = []
    for true, row in enumerate(metrics["confusion_matrix"]):
        for predicted, count in enumerate(row):
            if count and true != predicted:
                confusions.append((-count, true, predicted))
    supports = [row["support"] for row in metrics["per_class"]]
    return [
        (labels[true], labels[predicted], -count, -count / supports[true])
        for count, true, predicted in sorted(confusions)[:limit]
    ]
