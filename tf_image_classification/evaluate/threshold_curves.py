"""ROC and precision-recall curves without keeping the scores: one histogram of scores per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CURVES = 10  # more of them in one figure cannot be distinguished

# Bins of equal width in log-odds: near 0 and 1, where most scores of a trained network lie, as fine as float32 itself.
_BINS = 640
_MAX_LOG_ODDS = 16.0


class ScoreHistograms:
    """Two histograms of each class's scores: of the examples of other classes (negative), and of its own (positive).

    Args:
        num_classes: number of columns of the scores.
    """

    def __init__(self, num_classes: int) -> None:
        self._class_ids = np.arange(num_classes)
        self._counts = np.zeros((2, num_classes, _BINS), np.int64)  # negative, positive

    def update(self, label_ids: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Counts one batch: int64 [B], and float32 [B, num_classes] between 0 and 1."""
        with np.errstate(divide="ignore"):
            log_odds = np.log(scores) - np.log1p(-np.minimum(scores, 1))
        log_odds = np.clip(log_odds, -_MAX_LOG_ODDS, _MAX_LOG_ODDS)
        bins = ((log_odds + _MAX_LOG_ODDS) * (_BINS / (2 * _MAX_LOG_ODDS))).astype(np.int64)
        is_class = (label_ids[:, None] == self._class_ids).astype(np.int64)
        np.add.at(self._counts, (is_class, self._class_ids[None, :], np.minimum(bins, _BINS - 1)), 1)

    def result(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """One-vs-rest curves of each class that has both positive and negative examples.

        `roc_auc` is the area under the ROC curve by the trapezoidal rule. `average_precision` is the sum over
        thresholds of (R_n - R_{n-1}) P_n, not interpolated, as that of scikit-learn's average_precision_score.

        Args:
            names: class names by class id.

        Returns:
            Dicts of `name`, `roc_auc`, `average_precision` and the curves' points from the highest threshold down:
            `threshold`, `true_positive_rate` (= recall), `false_positive_rate`, `precision`. Scores of one bin, 0.05
            log-odds wide, count as equal.
        """
        log_odds = np.linspace(-_MAX_LOG_ODDS, _MAX_LOG_ODDS, _BINS + 1)[:-1]
        thresholds = 1 / (1 + np.exp(-log_odds))
        curves = []
        for name, negative, positive in zip(names, *self._counts, strict=True):
            if not positive.any() or not negative.any():
                continue
            used = np.flatnonzero(positive + negative)[::-1]  # from the highest score down
            true_positives, false_positives = np.cumsum(positive[used]), np.cumsum(negative[used])
            recall = true_positives / true_positives[-1]
            false_positive_rate = false_positives / false_positives[-1]
            precision = true_positives / (true_positives + false_positives)
            curves.append(
                {
                    "name": name,
                    "roc_auc": float(np.trapezoid(np.append(0.0, recall), np.append(0.0, false_positive_rate))),
                    "average_precision": float(np.sum(np.diff(recall, prepend=0.0) * precision)),
                    "threshold": thresholds[used].tolist(),
                    "true_positive_rate": recall.tolist(),
                    "false_positive_rate": false_positive_rate.tolist(),
                    "precision": precision.tolist(),
                }
            )
        return curves
