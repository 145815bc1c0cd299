"""The report's figures, from the content of metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tf_image_classification import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 6.2, 3.5
_RIGHT, _WRONG = plots.SERIES[0], plots.SERIES[1]
_NAME_LENGTH = 22


def reliability(calibration: dict[str, Any]) -> Figure:
    """Accuracy of the predictions against their score: a calibrated model follows the diagonal."""
    error = calibration["expected_calibration_error"]
    figure, axes = plots.figure(
        _WIDTH,
        _HEIGHT,
        title=f"Reliability (expected calibration error {error:.4f})",
        xlabel="score of the predicted class",
        ylabel="accuracy",
    )
    bins = [row for row in calibration["bins"] if row["examples"]]
    width = 0.9 / len(calibration["bins"])
    axes.bar(
        [(row["lower"] + row["upper"]) / 2 for row in bins],
        [row["accuracy"] for row in bins],
        width=width,
        color=_RIGHT,
    )
    axes.plot([0, 1], [0, 1], color=_WRONG, linestyle="--", linewidth=1.2, label="calibrated")
    _unit(axes)
    plots.legend(axes)
    return figure


def scores(calibration: dict[str, Any]) -> Figure:
    """How many predictions were made with which score, right and wrong ones."""
    figure, axes = plots.figure(
        _WIDTH, _HEIGHT, title="Scores of the predicted class", xlabel="score of the predicted class", ylabel="images"
    )
    bins = calibration["bins"]
    middles = [(row["lower"] + row["upper"]) / 2 for row in bins]
    right = [round(row["accuracy"] * row["examples"]) for row in bins]
    wrong = [row["examples"] - count for row, count in zip(bins, right, strict=True)]
    axes.bar(middles, right, width=0.9 / len(bins), color=_RIGHT, label="right")
    axes.bar(middles, wrong, width=0.9 / len(bins), bottom=right, color=_WRONG, label="wrong")
    axes.set_xlim(0, 1)
    plots.legend(axes)
    return figure


def roc(curves: Sequence[dict[str, Any]]) -> Figure:
    """True-positive rate against false-positive rate, each class against the rest."""
    figure, axes = plots.figure(
        _WIDTH,
        _HEIGHT,
        title="ROC, each class against the rest",
        xlabel="false-positive rate",
        ylabel="true-positive rate",
    )
    for index, curve in enumerate(curves):
        points = [0.0, *curve["false_positive_rate"]], [0.0, *curve["true_positive_rate"]]
        axes.plot(
            *points, color=plots.SERIES[index], linewidth=1.3, label=_named(curve["name"], "AUC", curve["roc_auc"])
        )
    _unit(axes)
    plots.legend(axes, beside=True)
    return figure


def precision_recall(curves: Sequence[dict[str, Any]]) -> Figure:
    """Precision against recall, each class against the rest."""
    figure, axes = plots.figure(
        _WIDTH, _HEIGHT, title="Precision and recall, each class against the rest", xlabel="recall", ylabel="precision"
    )
    for index, curve in enumerate(curves):
        label = _named(curve["name"], "AP", curve["average_precision"])
        points = [0.0, *curve["true_positive_rate"]], [curve["precision"][0], *curve["precision"]]
        axes.step(*points, where="pre", color=plots.SERIES[index], linewidth=1.3, label=label)
    _unit(axes)
    plots.legend(axes, beside=True)
    return figure


def heatmap(confusion_matrix: Sequence[Sequence[int]]) -> Figure:
    """A large confusion matrix as an image: hue tells right from wrong, opacity the share of the true class (its square
    root)."""
    import numpy as np
    from matplotlib.colors import to_rgb

    figure, axes = plots.figure(7, 7, xlabel="predicted class id", ylabel="true class id")
    counts = np.asarray(confusion_matrix, float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = np.empty((*counts.shape, 4))
    image[...] = (*to_rgb(_WRONG), 0)
    image[np.diag_indices(len(counts))] = (*to_rgb(_RIGHT), 0)
    image[..., 3] = np.sqrt(share)
    axes.imshow(image, interpolation="nearest")
    axes.grid(False)
    return figure


def _unit(axes: Axes) -> None:
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)


def _named(name: str, measure: str, value: float) -> str:
    short = name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return f"{measure} {value:.3f}  {short}"
