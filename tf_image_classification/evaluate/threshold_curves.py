"""ROC and precision-recall curves without keeping the scores: one histogram of scores per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_CLASSES = 10  # more curves than that cannot be told apart

# Bins of equal width in log-odds: near 0 and 1, where most scores of a trained network lie, as fine as float32 itself.
_BINS = 640
_MOST_LOG_ODDS = 16.0


class ScoreHistograms:
    """Scores of each class, for examples that are of the class and for those that are not."""

    def __init__(self, classes: int) -> None:
        self._columns = np.arange(classes)
        self._counts = np.zeros((2, classes, _BINS), np.int64)

    def update(self, label_ids: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Counts one batch: int64 [B], float32 [B, classes]."""
        with np.errstate(divide="ignore"):
            log_odds = np.log(scores) - np.log1p(-np.minimum(scores, 1))
        bins = (
            (np.clip(log_odds, -_MOST_LOG_ODDS, _MOST_LOG_ODDS) + _MOST_LOG_ODDS) * (_BINS / (2 * _MOST_LOG_ODDS))
        ).astype(np.int64)
        is_class = (label_ids[:, None] == self._columns).astype(np.int64)
        np.add.at(self._counts, (is_class, self._columns[None, :], np.minimum(bins, _BINS - 1)), 1)

    def result(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """One class against the rest, for each class that has both kinds of examples.

        Returns:
            Dicts of `name`, `roc_auc`, `average_precision` and the curves' points from the highest threshold down:
            `threshold`, `true_positive_rate` (= recall), `false_positive_rate`, `precision`. Scores within 0.05
            log-odds count as equal.
        """
        edges = 1 / (1 + np.exp(-np.linspace(-_MOST_LOG_ODDS, _MOST_LOG_ODDS, _BINS + 1)[:-1]))
        curves = []
        for name, negative, positive in zip(names, *self._counts, strict=True):
            if not positive.any() or not negative.any():
                continue
            used = np.flatnonzero(positive + negative)[::-1]  # from the highest score down
            true_positives, false_positives = np.cumsum(positive[used]), np.cumsum(negative[used])
            recall = true_positives / true_positives[-1]
            fall_out = false_positives / false_positives[-1]
            precision = true_positives / (true_positives + false_positives)
            curves.append(
                {
                    "name": name,
                    "roc_auc": float(np.trapezoid(np.append(0.0, recall), np.append(0.0, fall_out))),
                    "average_precision": float(np.sum(np.diff(recall, prepend=0.0) * precision)),
                    "threshold": edges[used].tolist(),
                    "true_positive_rate": recall.tolist(),
                    "false_positive_rate": fall_out.tolist(),
                    "precision": precision.tolist(),
                }
            )
        return curves
