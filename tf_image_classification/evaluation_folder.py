"""Views of metrics.json's content for user interfaces that show little: flat numbers, and a confusion matrix of tens of
classes."""

from __future__ import annotations

import math
from typing import Any

METRICS, REPORT, PREDICTIONS = "metrics.json", "report.html", "predictions.csv"
CHAMPION = "champion"  # sub-folder with the same files for the model in service

MOST_CLASSES = 40
OTHERS = "(other classes)"

Metrics = dict[str, Any]


def by_task(metrics: Metrics) -> dict[str, Metrics]:
    """Task name -> its metrics; a single task goes by the name ''."""
    return metrics.get("tasks", {"": metrics})


def kfp_metrics(metrics: Metrics) -> dict[str, float]:
    """The metrics that are one finite number each, by name; of several tasks as `<task>_<name>`."""
    flat: dict[str, float] = {}
    groups = {**by_task(metrics), **({"": metrics} if "tasks" in metrics else {})}
    for task, values in groups.items():
        scalars = {**values, **values.get("user_metrics", {})}
        if "calibration" in values:
            scalars["expected_calibration_error"] = values["calibration"]["expected_calibration_error"]
        for name, value in scalars.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                flat[f"{task}_{name}" if task else name] = float(value)
    return flat


def confusion(metrics: Metrics, most_classes: int = MOST_CLASSES) -> tuple[list[str], list[list[int]]]:
    """Class names and the confusion matrix, rows = true classes; both empty where there is none: of several tasks, or
    of a regression.

    Of more than `most_classes` classes those with the most mistakes are kept, in their order; the others are added up
    under OTHERS, the last row and column.
    """
    labels, matrix = metrics.get("labels", []), metrics.get("confusion_matrix", [])
    if len(labels) <= most_classes:
        return labels, matrix
    columns = [sum(column) for column in zip(*matrix, strict=True)]
    mistakes = [sum(row) + columns[index] - 2 * row[index] for index, row in enumerate(matrix)]
    kept = sorted(sorted(range(len(labels)), key=lambda index: -mistakes[index])[: most_classes - 1])
    place = {index: position for position, index in enumerate(kept)}
    small = [[0] * most_classes for _ in range(most_classes)]
    for index, row in enumerate(matrix):
        for other, count in enumerate(row):
            small[place.get(index, -1)][place.get(other, -1)] += count
    return [*(labels[index] for index in kept), OTHERS], small


def most_confused(metrics: Metrics, most: int) -> list[tuple[str, str, int, float]]:
    """Pairs of classes that were taken for each other: (true, predicted, examples, share of the true class), the most
    frequent first."""
    labels = metrics["labels"]
    pairs = [
        (count, row, column)
        for row, counts in enumerate(metrics["confusion_matrix"])
        for column, count in enumerate(counts)
        if count and row != column
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    supports = [row["support"] for row in metrics["per_class"]]
    return [(labels[row], labels[column], count, count / supports[row]) for count, row, column in pairs[:most]]
