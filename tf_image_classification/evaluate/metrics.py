"""Metrics of one task, updated batch by batch.

Their memory does not grow with the number of images, but for the pairs of very many classes, see `ConfusionCounts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tf_image_classification.evaluate.confusion import ConfusionCounts, as_json
from tf_image_classification.evaluate.threshold_curves import MAX_CURVES, ScoreHistograms

CALIBRATION_BINS = 15
# The smallest positive normal float32: a score that underflowed costs 87.3, not infinity.
MIN_SCORE = float(np.finfo(np.float32).tiny)
_TOP_K = 5

Labels = NDArray[np.int64]
Scores = NDArray[np.float32]


class Predictions(NamedTuple):
    """The model's predictions for the examples of a batch.

    Attributes:
        predicted: int64 [B], class id of the highest score, the lowest id of equal ones.
        score: float32 [B], that score.
        label_score: float32 [B], the true class's score; 0 for a class that the model does not know, or no label.
        in_top_5: bool [B], whether the true class is among the five with the highest scores.
    """

    predicted: Labels
    score: Scores
    label_score: Scores
    in_top_5: NDArray[np.bool_]

    def select(self, mask: NDArray[np.bool_]) -> Predictions:
        """The predictions where `mask`, bool [B], is true."""
        return Predictions(self.predicted[mask], self.score[mask], self.label_score[mask], self.in_top_5[mask])


def rank_predictions(label_ids: Labels, scores: Scores) -> Predictions:
    """Ranks each example's scores and finds the true class among them.

    Equal scores rank in the order of their ids, as argmax takes them, so that a constant model does not get top 5 for
    free.

    Args:
        label_ids: int64 [B], true class ids; an id outside of [0, K) is a class without a score.
        scores: float32 [B, K].
    """
    rows, columns = np.arange(len(label_ids)), np.arange(scores.shape[1])
    predicted = scores.argmax(axis=1)
    has_score = (label_ids >= 0) & (label_ids < len(columns))
    label = np.where(has_score, label_ids, 0)
    label_score = scores[rows, label]
    ranks_higher = scores > label_score[:, None]
    ranks_higher |= (scores == label_score[:, None]) & (columns < label[:, None])
    in_top_5 = has_score & (ranks_higher.sum(axis=1) < _TOP_K)
    return Predictions(predicted, scores[rows, predicted], np.where(has_score, label_score, np.float32(0)), in_top_5)


class ClassificationMetrics:
    """Streaming metrics of a classification task.

    Args:
        labels: class names by class id. The model's come first; the data may have more, which the model can only get
            wrong.
        num_known: how many of them the model knows.
    """

    def __init__(self, labels: Sequence[str], num_known: int) -> None:
        self._labels, self._num_known = list(labels), num_known
        self._confusion = ConfusionCounts(len(labels))
        self._unlabelled = 0
        self._loss_sum = 0.0
        self._top_5 = 0
        self._bins = np.zeros((3, CALIBRATION_BINS))  # examples, sum of scores, correct predictions
        self._histograms = ScoreHistograms(num_known) if len(labels) <= MAX_CURVES else None

    def update(self, label_ids: Labels, scores: Scores, predictions: Predictions) -> None:
        """Counts one batch.

        Args:
            label_ids: int64 [B], below the number of labels; -1 for an example without a label, which no metric
                counts.
            scores: float32 [B, num_known], finite, each row a probability distribution.
            predictions: `rank_predictions(label_ids, scores)`.
        """
        labelled = label_ids >= 0
        if not labelled.all():
            self._unlabelled += int((~labelled).sum())
            label_ids, scores, predictions = label_ids[labelled], scores[labelled], predictions.select(labelled)
        self._confusion.add(label_ids, predictions.predicted)
        self._loss_sum -= float(np.log(np.clip(predictions.label_score, MIN_SCORE, 1.0), dtype=np.float64).sum())
        self._top_5 += int(predictions.in_top_5.sum())
        # Bin m of M holds the scores in (m / M, (m + 1) / M].
        bins = np.ceil(predictions.score * CALIBRATION_BINS).astype(np.int64) - 1
        bins = np.clip(bins, 0, CALIBRATION_BINS - 1)
        np.add.at(self._bins[0], bins, 1)
        np.add.at(self._bins[1], bins, predictions.score)
        np.add.at(self._bins[2], bins, predictions.predicted == label_ids)
        if self._histograms:
            self._histograms.update(label_ids, scores)

    def result(self) -> dict[str, Any]:
        """The metrics, as JSON values, all numbers finite; a ratio whose denominator is zero is 0.

        Per class: precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN), support = TP + FN.
        A macro average is the unweighted mean over the classes that have an example or were predicted, as that of
        scikit-learn's precision_recall_fscore_support. `loss` is the mean over examples of -log(score of the true
        class), without regularisation.

        An example of a class that the model does not know is a mistake: it counts in `accuracy`, `top_5_accuracy`, the
        calibration, and as a row of `per_class` and `confusion_matrix`; its true class has the score MIN_SCORE in
        `loss`; in `curves` it is an example of no class. `unknown_class_examples` counts these examples by class, and
        `known_class_accuracy`, where there are such, is the accuracy of the others.

        `calibration` is described at `_calibration`, `confusion_matrix`, or in its place `confusions`, at
        `confusion.as_json`, and `curves` (where there are at most MAX_CURVES classes) at `ScoreHistograms.result`.
        """
        pairs = self._confusion.pairs()
        # Further classes of the data that have no example play no part: the model cannot predict them either.
        kept = np.arange(len(self._labels)) < self._num_known
        kept[pairs.true] = True
        labels, new_ids = [self._labels[index] for index in np.flatnonzero(kept)], np.cumsum(kept) - 1
        pairs = pairs._replace(true=new_ids[pairs.true], predicted=new_ids[pairs.predicted])
        support, predicted, correct = pairs.sums(len(labels))
        total, known = int(support.sum()), int(support[: self._num_known].sum())
        unknown = dict(zip(labels[self._num_known :], support[self._num_known :].tolist(), strict=True))
        precision, recall = _ratio(correct, predicted), _ratio(correct, support)
        f1 = _ratio(2 * correct, support + predicted)
        seen = (support + predicted) > 0
        result: dict[str, Any] = {
            "num_examples": total,
            "unlabelled": self._unlabelled,
            "loss": self._loss_sum / max(total, 1),
            "accuracy": int(correct.sum()) / max(total, 1),
            "top_5_accuracy": self._top_5 / max(total, 1),
            "macro_precision": _mean(precision[seen]),
            "macro_recall": _mean(recall[seen]),
            "macro_f1": _mean(f1[seen]),
            "labels": labels,
            "unknown_labels": list(unknown),
            "unknown_class_examples": unknown,
            "per_class": [
                {
                    "name": name,
                    "precision": float(precision[index]),
                    "recall": float(recall[index]),
                    "f1": float(f1[index]),
                    "support": int(support[index]),
                    "predicted": int(predicted[index]),
                }
                for index, name in enumerate(labels)
            ],
            **as_json(pairs, len(labels)),
            "calibration": self._calibration(total),
        }
        if total > known:
            result["known_class_accuracy"] = int(correct.sum()) / max(known, 1)
        if self._histograms:
            result["curves"] = self._histograms.result(self._labels[: self._num_known])
        return result

    def _calibration(self, total: int) -> dict[str, Any]:
        """Expected calibration error: sum over bins of |accuracy - mean score| * examples / total.

        Equation (3) of Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599): the examples are
        binned by the score of the predicted class, into 15 bins of equal width.
        """
        examples, score_sums, correct = self._bins
        bins = [
            {
                "lower": index / CALIBRATION_BINS,
                "upper": (index + 1) / CALIBRATION_BINS,
                "examples": int(examples[index]),
                "score": float(score_sums[index] / max(examples[index], 1)),
                "accuracy": float(correct[index] / max(examples[index], 1)),
            }
            for index in range(CALIBRATION_BINS)
        ]
        return {"expected_calibration_error": float(np.abs(score_sums - correct).sum() / max(total, 1)), "bins": bins}


class RegressionMetrics:
    """Streaming metrics of a task that predicts one number."""

    def __init__(self) -> None:
        self._examples = 0
        self._squared = self._absolute = 0.0

    def update(self, values: NDArray[np.float32], predicted: NDArray[np.float32]) -> None:
        """Counts one batch: true and predicted values, float32 [B]."""
        error = predicted.astype(np.float64) - values
        self._examples += len(error)
        self._squared += float(np.square(error).sum())
        self._absolute += float(np.abs(error).sum())

    def result(self) -> dict[str, Any]:
        """The metrics, as JSON values; `loss` is the mean squared error."""
        examples = max(self._examples, 1)
        return {
            "num_examples": self._examples,
            "loss": self._squared / examples,
            "root_mean_squared_error": (self._squared / examples) ** 0.5,
            "mean_absolute_error": self._absolute / examples,
        }


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
