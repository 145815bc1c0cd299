"""The mistakes that a model was surest of: the first place to look for wrong labels and for what it has not
understood."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tf_image_classification.evaluate.metrics import Labels, Outcome

if TYPE_CHECKING:
    import tensorflow as tf
    from PIL import Image

MOST = 24
THUMBNAIL_PIXELS = 160


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image that was classified wrongly.

    Attributes:
        label, predicted: class names.
        score, label_score: scores of the predicted and of the true class.
        image: the encoded image.
    """

    filename: str
    label: str
    predicted: str
    score: float
    label_score: float
    image: bytes


class SurestMistakes:
    """The `MOST` mistakes with the highest scores; of equal ones those that came first."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._heap: list[tuple[float, int, Mistake]] = []
        self._seen = 0

    def offer(self, label_ids: Labels, outcome: Outcome, filenames: Sequence[str], images: tf.Tensor) -> None:
        """Takes the mistakes of one batch into account; `images` is string [B]."""
        wrong = (outcome.predicted != label_ids) & (label_ids >= 0)
        if len(self._heap) == MOST:
            wrong &= outcome.score > self._heap[0][0]
        rows = np.flatnonzero(wrong)
        # The surest first, so that the bytes of few images are copied.
        for row in rows[np.argsort(-outcome.score[rows], kind="stable")].tolist():
            score = float(outcome.score[row])
            if len(self._heap) == MOST and score <= self._heap[0][0]:
                break
            mistake = Mistake(
                filename=filenames[row],
                label=self._labels[label_ids[row]],
                predicted=self._labels[outcome.predicted[row]],
                score=score,
                label_score=float(outcome.label_score[row]),
                image=images[row].numpy(),
            )
            replace = heapq.heappushpop if len(self._heap) == MOST else heapq.heappush
            replace(self._heap, (score, -(self._seen + row), mistake))
        self._seen += len(label_ids)

    def result(self) -> list[Mistake]:
        """The mistakes, the surest first."""
        return [mistake for _, _, mistake in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


def thumbnail(encoded: bytes) -> str | None:
    """A small JPEG of an encoded image as a data URI; None if Pillow cannot read the image."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))  # a JPEG is decoded no larger than needed
            small = _fitted(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _fitted(image: Image.Image) -> Image.Image:
    from PIL.Image import Resampling

    factor = THUMBNAIL_PIXELS // max(image.size)
    if factor > 1:  # whole pixels: what the model saw, not a blur
        return image.resize((image.width * factor, image.height * factor), Resampling.NEAREST)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    return image
