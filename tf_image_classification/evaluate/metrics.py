"""Metrics of one task, gathered batch by batch: what is kept does not grow with the number of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tf_image_classification.evaluate.threshold_curves import MOST_CLASSES, ScoreHistograms

CALIBRATION_BINS = 15
# The least positive normal float32: a score that underflowed costs 87.3, not infinity.
LEAST_SCORE = float(np.finfo(np.float32).tiny)

Labels = NDArray[np.int64]
Scores = NDArray[np.float32]


class Outcome(NamedTuple):
    """What a batch came to.

    Attributes:
        predicted: int64 [B], class id of the highest score, the first of equal ones.
        score: float32 [B], that score.
        label_score: float32 [B], the true class's score; 0 for a class that the model does not know, or no label.
        in_top_5: bool [B], whether the true class is among the five with the highest scores.
    """

    predicted: Labels
    score: Scores
    label_score: Scores
    in_top_5: NDArray[np.bool_]

    def rows(self, which: NDArray[np.bool_]) -> Outcome:
        """The outcome of a part of the batch; `which` is bool [B]."""
        return Outcome(self.predicted[which], self.score[which], self.label_score[which], self.in_top_5[which])


def judge(label_ids: Labels, scores: Scores) -> Outcome:
    """Compares scores, float32 [B, K], with true class ids, int64 [B]; an id outside of [0, K) is a class without a
    score.

    Equal scores rank in the order of their ids, as argmax takes them, so that a constant model does not get top 5 for
    free.
    """
    rows, columns = np.arange(len(label_ids)), np.arange(scores.shape[1])
    predicted = scores.argmax(axis=1)
    has_score = (label_ids >= 0) & (label_ids < len(columns))
    label = np.where(has_score, label_ids, 0)
    label_score = scores[rows, label]
    above = scores > label_score[:, None]
    above |= (scores == label_score[:, None]) & (columns < label[:, None])
    in_top_5 = has_score & (above.sum(axis=1) < 5)
    return Outcome(predicted, scores[rows, predicted], np.where(has_score, label_score, np.float32(0)), in_top_5)


class ClassificationMetrics:
    """Counts of a classification task.

    Args:
        labels: class names by class id. The model's come first; the data may have more, which the model can only get
            wrong.
        known: how many of them the model knows.
    """

    def __init__(self, labels: Sequence[str], known: int) -> None:
        self._labels, self._known = list(labels), known
        self._confusion = np.zeros((len(labels), len(labels)), np.int64)
        self._unlabelled = 0
        self._loss_sum = 0.0
        self._top_5 = 0
        self._bins = np.zeros((3, CALIBRATION_BINS))  # examples, sum of scores, right ones
        self._histograms = ScoreHistograms(known) if len(labels) <= MOST_CLASSES else None

    def update(self, label_ids: Labels, scores: Scores, outcome: Outcome) -> None:
        """Counts one batch.

        Args:
            label_ids: int64 [B], below the number of labels; -1 for an example without a label, which counts for
                nothing.
            scores: float32 [B, known], finite, each row a probability distribution.
            outcome: of `judge`.
        """
        labelled = label_ids >= 0
        if not labelled.all():
            self._unlabelled += int((~labelled).sum())
            label_ids, scores, outcome = label_ids[labelled], scores[labelled], outcome.rows(labelled)
        np.add.at(self._confusion, (label_ids, outcome.predicted), 1)
        self._loss_sum -= float(np.log(np.clip(outcome.label_score, LEAST_SCORE, 1.0), dtype=np.float64).sum())
        self._top_5 += int(outcome.in_top_5.sum())
        bins = np.clip(np.ceil(outcome.score * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
        np.add.at(self._bins[0], bins, 1)
        np.add.at(self._bins[1], bins, outcome.score)
        np.add.at(self._bins[2], bins, outcome.predicted == label_ids)
        if self._histograms:
            self._histograms.update(label_ids, scores)

    def result(self) -> dict[str, Any]:
        """The metrics, as JSON values, all numbers finite; what would be divided by zero is 0.

        Macro averages are over the classes that have an example or were predicted, as scikit-learn's are. `calibration`
        follows Guo et al. 2017, "On Calibration of Modern Neural Networks": 15 bins of equal width over the score of
        the predicted class, and the mean over examples of the distance between a bin's mean score and its accuracy.
        """
        confusion = self._confusion
        support, predicted, right = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
        total = int(support.sum())
        precision, recall = _ratio(right, predicted), _ratio(right, support)
        f1 = _ratio(2 * right, support + predicted)
        seen = (support + predicted) > 0
        result: dict[str, Any] = {
            "num_examples": total,
            "unlabelled": self._unlabelled,
            "loss": self._loss_sum / max(total, 1),
            "accuracy": int(right.sum()) / max(total, 1),
            "top_5_accuracy": self._top_5 / max(total, 1),
            **{
                f"macro_{name}": float(values[seen].mean()) if seen.any() else 0.0
                for name, values in (("precision", precision), ("recall", recall), ("f1", f1))
            },
            "labels": self._labels,
            "unknown_labels": self._labels[self._known :],
            "per_class": [
                {"name": name, "precision": p, "recall": r, "f1": f, "support": s, "predicted": n}
                for name, p, r, f, s, n in zip(
                    self._labels,
                    precision.tolist(),
                    recall.tolist(),
                    f1.tolist(),
                    support.tolist(),
                    predicted.tolist(),
                    strict=True,
                )
            ],
            "confusion_matrix": confusion.tolist(),
            "calibration": self._calibration(total),
        }
        if self._histograms:
            result["curves"] = self._histograms.result(self._labels[: self._known])
        return result

    def _calibration(self, total: int) -> dict[str, Any]:
        examples, confidence, right = self._bins
        bins = [
            {
                "lower": index / CALIBRATION_BINS,
                "upper": (index + 1) / CALIBRATION_BINS,
                "examples": int(examples[index]),
                "score": float(confidence[index] / max(examples[index], 1)),
                "accuracy": float(right[index] / max(examples[index], 1)),
            }
            for index in range(CALIBRATION_BINS)
        ]
        return {"expected_calibration_error": float(np.abs(confidence - right).sum() / max(total, 1)), "bins": bins}


class RegressionMetrics:
    """Sums of a task that predicts one number."""

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
        """`loss` is the mean squared error."""
        examples = max(self._examples, 1)
        return {
            "num_examples": self._examples,
            "loss": self._squared / examples,
            "root_mean_squared_error": (self._squared / examples) ** 0.5,
            "mean_absolute_error": self._absolute / examples,
        }


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
