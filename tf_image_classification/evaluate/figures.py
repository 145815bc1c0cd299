"""The report's figures, from the content of metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tf_image_classification import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 6.2, 3.5
_CORRECT_COLOR, _WRONG_COLOR = plots.SERIES[0], plots.SERIES[1]
_NAME_LENGTH = 22


def reliability_diagram(calibration: dict[str, Any]) -> Figure:
    """Accuracy of the predictions against their score: a calibrated model follows the diagonal.

    Args:
        calibration: as `ClassificationMetrics.result` returns it.
    """
    error = calibration["expected_calibration_error"]
    figure, axes = plots.figure(
        _WIDTH,
        _HEIGHT,
        title=f"Reliability diagram (expected calibration error {error:.4f})",
        xlabel="score of the predicted class",
        ylabel="accuracy",
    )
    bins = [row for row in calibration["bins"] if row["examples"]]
    centers = [(row["lower"] + row["upper"]) / 2 for row in bins]
    accuracies = [row["accuracy"] for row in bins]
    axes.bar(centers, accuracies, width=0.9 / len(calibration["bins"]), color=_CORRECT_COLOR)
    axes.plot([0, 1], [0, 1], color=_WRONG_COLOR, linestyle="--", linewidth=1.2, label="perfectly calibrated")
    _set_unit_limits(axes)
    plots.legend(axes)
    return figure


def score_histogram(calibration: dict[str, Any]) -> Figure:
    """How many predictions have which score, correct and wrong ones.

    Args:
        calibration: as `ClassificationMetrics.result` returns it.
    """
    figure, axes = plots.figure(
        _WIDTH, _HEIGHT, title="Scores of the predicted class", xlabel="score of the predicted class", ylabel="images"
    )
    bins = calibration["bins"]
    centers = [(row["lower"] + row["upper"]) / 2 for row in bins]
    correct = [round(row["accuracy"] * row["examples"]) for row in bins]
    wrong = [row["examples"] - count for row, count in zip(bins, correct, strict=True)]
    axes.bar(centers, correct, width=0.9 / len(bins), color=_CORRECT_COLOR, label="correct")
    axes.bar(centers, wrong, width=0.9 / len(bins), bottom=correct, color=_WRONG_COLOR, label="wrong")
    axes.set_xlim(0, 1)
    plots.legend(axes)
    return figure


def roc_curves(curves: Sequence[dict[str, Any]]) -> Figure:
    """True-positive rate against false-positive rate, one class versus the rest.

    Args:
        curves: as `ScoreHistograms.result` returns them.
    """
    figure, axes = plots.figure(
        _WIDTH,
        _HEIGHT,
        title="ROC curves, one class vs. rest",
        xlabel="false-positive rate",
        ylabel="true-positive rate",
    )
    for index, curve in enumerate(curves):
        x, y = [0.0, *curve["false_positive_rate"]], [0.0, *curve["true_positive_rate"]]
        label = _legend_label("AUC", curve["roc_auc"], curve["name"])
        axes.plot(x, y, color=plots.SERIES[index], linewidth=1.3, label=label)
    _set_unit_limits(axes)
    plots.legend(axes, beside=True)
    return figure


def precision_recall_curves(curves: Sequence[dict[str, Any]]) -> Figure:
    """Precision against recall, one class versus the rest.

    Args:
        curves: as `ScoreHistograms.result` returns them.
    """
    figure, axes = plots.figure(
        _WIDTH, _HEIGHT, title="Precision-recall curves, one class vs. rest", xlabel="recall", ylabel="precision"
    )
    for index, curve in enumerate(curves):
        x, y = [0.0, *curve["true_positive_rate"]], [curve["precision"][0], *curve["precision"]]
        label = _legend_label("AP", curve["average_precision"], curve["name"])
        axes.step(x, y, where="pre", color=plots.SERIES[index], linewidth=1.3, label=label)
    _set_unit_limits(axes)
    plots.legend(axes, beside=True)
    return figure


def confusion_heatmap(confusion_matrix: Sequence[Sequence[int]]) -> Figure:
    """A large confusion matrix as an image: the hue shows correct or wrong, the opacity the share of the true class.

    Args:
        confusion_matrix: counts [K, K], rows = true classes. The opacity is the square root of the share of the row, so
            that rare confusions are visible.
    """
    import numpy as np
    from matplotlib.colors import to_rgb

    figure, axes = plots.figure(7, 7, xlabel="predicted class id", ylabel="true class id")
    counts = np.asarray(confusion_matrix, float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = np.empty((*counts.shape, 4))  # RGBA
    image[...] = (*to_rgb(_WRONG_COLOR), 0)
    image[np.diag_indices(len(counts))] = (*to_rgb(_CORRECT_COLOR), 0)
    image[..., 3] = np.sqrt(share)
    axes.imshow(image, interpolation="nearest")
    axes.grid(False)
    return figure


def _set_unit_limits(axes: Axes) -> None:
    """Both axes from 0 to 1, with room for lines along the border."""
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)


def _legend_label(metric: str, value: float, name: str) -> str:
    if len(name) > _NAME_LENGTH:
        name = name[: _NAME_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return f"{name} ({metric} {value:.3f})"
