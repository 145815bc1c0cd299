"""Vertex AI's import and export format for images with a single label, as JSON Lines.

Format: https://cloud.google.com/vertex-ai/docs/image-data/classification/prepare-data
Schema: gs://google-cloud-aiplatform/schema/dataset/ioformat/image_classification_single_label_io_format_1.0.0.yaml
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tf_image_classification.data import manifest
from tf_image_classification.data.sources import list_text, named_splits
from tf_image_classification.data.sources.base import Candidate, Entry, ImageSource, ReadOptions, Rejected
from tf_image_classification.data.sources.listed_image import ListedImages
from tf_image_classification.errors import DataError, abridged

_IMAGE, _ANNOTATION, _LABELS = "imageGcsUri", "classificationAnnotation", "dataItemResourceLabels"
_ML_USE = "aiplatform.googleapis.com/ml_use"
_OTHER_OBJECTIVES = {  # keys of Vertex AI's other formats
    "classificationAnnotations": "multi-label classification",
    "boundingBoxAnnotations": "object detection",
    "polygonAnnotations": "segmentation",
    "polylineAnnotations": "segmentation",
    "segmentationAnnotation": "segmentation",
    "videoGcsUri": "video",
    "textGcsUri": "text",
    "textContent": "text",
}
_EXPECTED = (
    'lines such as {"imageGcsUri": "gs://bucket/1.jpg", "classificationAnnotation": {"displayName": "daisy"}, '
    '"dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": "training"}}'
)


@dataclass(frozen=True, slots=True)
class VertexJsonLines(ImageSource):
    """Each line is an object with an image, its class, and optionally its split."""

    kind: ClassVar[str] = "JSON Lines file"
    fingerprint_name: ClassVar[str] = "vertex json lines"
    description: ClassVar[str] = "a JSON Lines file of Vertex AI"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl",)

    @classmethod
    def match(cls, candidate: Candidate) -> VertexJsonLines | None:
        is_list = candidate.path.lower().endswith(cls.suffixes) and not candidate.is_folder
        return cls(candidate.path) if is_list else None

    def task_names(self, options: ReadOptions) -> tuple[str, ...]:
        return (manifest.DEFAULT_TASK,)

    def entries(self, options: ReadOptions) -> Iterator[Entry | Rejected]:
        images, is_first = ListedImages(self.path, options), True
        with list_text.fetched(self.path, self.kind) as text:
            for number, line in text.lines():
                if line.strip():
                    yield self._read(line, f"{self.path}:{number}", images, is_first)
                    is_first = False
        if is_first:
            raise DataError(f"The {self.kind} is empty", received=self.path, expected=_EXPECTED)
        images.check()

    def _read(self, line: str, where: str, images: ListedImages, is_first: bool) -> Entry | Rejected:
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            item = None
        if isinstance(item, dict):
            if other := next((objective for key, objective in _OTHER_OBJECTIVES.items() if key in item), None):
                raise DataError(
                    f"A line of the {self.kind} is for {other}",
                    received=where,
                    expected="single-label classification: " + _EXPECTED,
                )
            uri, label = item.get(_IMAGE), _get(item, _ANNOTATION, "displayName")
            if isinstance(uri, str) and uri.strip():
                if not isinstance(label, str):
                    return Rejected(where, "no label")
                return images.entry(uri.strip(), (label.strip(),), _split(item, where))
        if is_first:
            found = f"keys {abridged(list(item))}" if isinstance(item, dict) else line.strip()[:200]
            raise DataError(
                f"The {self.kind} is not in Vertex AI's import format", received=f"{where}: {found}", expected=_EXPECTED
            )
        return Rejected(where, f"no {_IMAGE}" if isinstance(item, dict) else "not a JSON object")


def _split(item: Mapping[str, Any], where: str) -> str:
    word = _get(item, _LABELS, _ML_USE)
    return named_splits.UNASSIGNED if word is None else named_splits.read_split(str(word), where)


def _get(item: Mapping[str, Any], *keys: str) -> Any:
    """The value at nested keys; None where one is missing."""
    value: Any = item
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
