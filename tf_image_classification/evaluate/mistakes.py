"""The most confident mistakes of a model: the first place to look for wrong labels and for confusing images."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tf_image_classification.evaluate.metrics import Labels, Predictions

if TYPE_CHECKING:
    import tensorflow as tf
    from PIL import Image

MAX_MISTAKES = 24
THUMBNAIL_PIXELS = 160


@dataclass(frozen=True, slots=True)
class Mistake:
    """A misclassified image.

    Attributes:
        filename: as in the shard, the path relative to its source.
        label: name of the true class.
        predicted: name of the predicted class.
        score: score of the predicted class.
        label_score: score of the true class.
        image: the encoded image.
    """

    filename: str
    label: str
    predicted: str
    score: float
    label_score: float
    image: bytes


class MostConfidentMistakes:
    """Keeps the `MAX_MISTAKES` mistakes with the highest scores; of equal scores the earlier ones.

    Args:
        labels: class names by class id.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._heap: list[tuple[float, int, Mistake]] = []  # the least confident first
        self._seen = 0

    def update(self, label_ids: Labels, predictions: Predictions, filenames: Sequence[str], images: tf.Tensor) -> None:
        """Considers the mistakes of one batch.

        Args:
            label_ids: int64 [B]; -1 for an example without a label, which is no mistake.
            predictions: for the same examples.
            filenames: of length B.
            images: string [B], encoded.
        """
        is_candidate = (predictions.predicted != label_ids) & (label_ids >= 0)
        if len(self._heap) == MAX_MISTAKES:
            is_candidate &= predictions.score > self._heap[0][0]
        rows = np.flatnonzero(is_candidate)
        # In descending order of their scores, so that the bytes of few images are copied.
        for row in rows[np.argsort(-predictions.score[rows], kind="stable")].tolist():
            score = float(predictions.score[row])
            if len(self._heap) == MAX_MISTAKES and score <= self._heap[0][0]:
                break
            mistake = Mistake(
                filename=filenames[row],
                label=self._labels[label_ids[row]],
                predicted=self._labels[predictions.predicted[row]],
                score=score,
                label_score=float(predictions.label_score[row]),
                image=images[row].numpy(),
            )
            push = heapq.heappushpop if len(self._heap) == MAX_MISTAKES else heapq.heappush
            push(self._heap, (score, -(self._seen + row), mistake))
        self._seen += len(label_ids)

    def result(self) -> list[Mistake]:
        """The mistakes, the most confident first."""
        return [mistake for _, _, mistake in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


def thumbnail(encoded: bytes) -> str | None:
    """A small JPEG of an encoded image as a data URI; None if Pillow cannot read the image."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))  # a JPEG is decoded no larger than needed
            small = _resize(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _resize(image: Image.Image) -> Image.Image:
    """The image with its longer side at most THUMBNAIL_PIXELS long; a small one is enlarged by a whole factor."""
    from PIL.Image import Resampling

    factor = THUMBNAIL_PIXELS // max(image.size)
    if factor > 1:  # sharp pixels: what the model received, not a blur
        return image.resize((image.width * factor, image.height * factor), Resampling.NEAREST)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    return image
