"""Which classes were predicted for which: a matrix of few classes, and of many the pairs that occur."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A matrix of counts has 32 MB then, and some 12 MB as JSON; one of 100,000 classes would have 80 GB.
MAX_MATRIX_CLASSES = 2000

Ids = NDArray[np.int64]


class Pairs(NamedTuple):
    """The pairs of classes that occur, in the order of their ids.

    Attributes:
        true, predicted: class ids, int64 [N].
        examples: number of examples of each pair, int64 [N], at least 1.
    """

    true: Ids
    predicted: Ids
    examples: Ids

    def sums(self, num_classes: int) -> tuple[Ids, Ids, Ids]:
        """Numbers of examples by class id of the true class, of the predicted one and of both: int64 [num_classes]."""
        support, predicted, correct = np.zeros((3, num_classes), np.int64)
        np.add.at(support, self.true, self.examples)
        np.add.at(predicted, self.predicted, self.examples)
        is_correct = self.true == self.predicted
        correct[self.true[is_correct]] = self.examples[is_correct]
        return support, predicted, correct


class ConfusionCounts:
    """Counts of pairs of true and predicted class.

    Of more than MAX_MATRIX_CLASSES, they take memory for each pair that occurs: at most one for each example.

    Args:
        num_classes: ids are below it.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._matrix = np.zeros((num_classes, num_classes), np.int64) if num_classes <= MAX_MATRIX_CLASSES else None
        self._counts: Counter[int] = Counter()  # true * num_classes + predicted -> examples, without a matrix

    def add(self, true: Ids, predicted: Ids) -> None:
        """Counts a batch of examples: class ids, int64 [B]."""
        if self._matrix is not None:
            np.add.at(self._matrix, (true, predicted), 1)
        else:
            self._counts.update((true * self._num_classes + predicted).tolist())

    def pairs(self) -> Pairs:
        """The pairs so far."""
        if self._matrix is not None:
            true, predicted = np.nonzero(self._matrix)
            return Pairs(true, predicted, self._matrix[true, predicted])
        keys = np.array(sorted(self._counts), np.int64)
        examples = np.array([self._counts[key] for key in keys.tolist()], np.int64)
        return Pairs(keys // self._num_classes, keys % self._num_classes, examples)


def as_json(pairs: Pairs, num_classes: int) -> dict[str, list[list[int]]]:
    """The entry of metrics.json.

    Returns:
        `confusion_matrix`, counts [K, K] with rows = true classes; of more than MAX_MATRIX_CLASSES `confusions`, a list
        of [true id, predicted id, examples].
    """
    if num_classes > MAX_MATRIX_CLASSES:
        return {"confusions": np.stack(pairs, axis=1).tolist()}
    matrix = np.zeros((num_classes, num_classes), np.int64)
    matrix[pairs.true, pairs.predicted] = pairs.examples
    return {"confusion_matrix": matrix.tolist()}
