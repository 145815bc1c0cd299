"""A list of image paths and labels: `path,label` lines, or a header such as `URIs,labels` with one or more label
columns. Also Vertex AI's and AutoML's import files: lines of `[ML_USE,]path,label`.

Import format: https://cloud.google.com/vertex-ai/docs/image-data/classification/prepare-data
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tf_image_classification.data.sources import csv_layout, list_text, named_splits
from tf_image_classification.data.sources.base import Candidate, Entry, ImageSource, ReadOptions, Rejected
from tf_image_classification.data.sources.csv_layout import Layout, Row
from tf_image_classification.data.sources.list_text import ListText
from tf_image_classification.data.sources.listed_image import ListedImages
from tf_image_classification.errors import DataError

_NUMBER = re.compile(r"[0-9.eE+-]+")
_DELIMITERS = {".csv": (",", "\t", ";"), ".tsv": ("\t", ",", ";"), ".txt": ("\t", ",", ";", " ")}


@dataclass(frozen=True, slots=True)
class CsvFile(ImageSource):
    """Several label columns are several tasks; then the header is required, for it names them."""

    kind: ClassVar[str] = "CSV"
    fingerprint_name: ClassVar[str] = "csv"
    description: ClassVar[str] = "a CSV"
    suffixes: ClassVar[tuple[str, ...]] = tuple(_DELIMITERS)
    takes_split_column: ClassVar[bool] = True

    @classmethod
    def match(cls, candidate: Candidate) -> CsvFile | None:
        is_csv = candidate.path.lower().endswith(cls.suffixes) and not candidate.is_folder
        return cls(candidate.path) if is_csv else None

    def task_names(self, options: ReadOptions) -> tuple[str, ...]:
        with list_text.fetched(self.path, self.kind) as text:
            return self._layout(text, options).tasks

    def entries(self, options: ReadOptions) -> Iterator[Entry | Rejected]:
        images = ListedImages(self.path, options)
        with list_text.fetched(self.path, self.kind) as text:
            layout = self._layout(text, options)
            rows = csv_layout.rows(text, layout.delimiter)
            if layout.header:
                next(rows)
            for row in rows:
                if layout.header:
                    yield self._under_header(row, layout, images)
                elif layout.has_ml_use:
                    yield self._imported(row, images)
                else:
                    yield self._entry(row, row.fields, None, images, 2)
        images.check()

    def _layout(self, text: ListText, options: ReadOptions) -> Layout:
        delimiters = _DELIMITERS[posixpath.splitext(self.path)[1].lower()]
        base = ListedImages(self.path, options).base
        return csv_layout.read_layout(text, delimiters, base, options.split_column)

    def _under_header(self, row: Row, layout: Layout, images: ListedImages) -> Entry | Rejected:
        assert layout.header is not None
        columns, split, fields = len(layout.header), None, row.fields
        if csv_layout.same_header(fields, layout.header):
            return Rejected(self._where(row), "repeats the header")
        if layout.split_index is not None and len(fields) == columns:
            split = named_splits.read_split(fields[layout.split_index], self._where(row))
            fields = fields[: layout.split_index] + fields[layout.split_index + 1 :]
            columns -= 1
        return self._entry(row, fields, split, images, columns)

    def _imported(self, row: Row, images: ListedImages) -> Entry | Rejected:
        """A line of Vertex AI's import format."""
        fields, split = row.fields, named_splits.UNASSIGNED
        if not fields[0] or named_splits.is_ml_use(fields[0]):
            split, *fields = named_splits.read_split(fields[0], self._where(row)), *fields[1:]
        if len(fields) > 2:
            is_detection = all(not field or _NUMBER.fullmatch(field) for field in fields[2:])
            raise DataError(
                f"A line of the {self.kind} is none of Vertex AI's import format for a single label",
                received=f"{self._where(row)}: {','.join(row.fields)}",
                expected=f"{', '.join(named_splits.ML_USE)} or nothing, then a path and one label",
                hint="Object detection, with boxes behind the label, is not supported."
                if is_detection
                else "Multi-label classification is not supported: each image has one class.",
            )
        if len(fields) == 1 and fields[0]:
            return Rejected(fields[0], "no label")
        return self._entry(row, fields, split, images, 2)

    def _entry(
        self, row: Row, fields: list[str], split: str | None, images: ListedImages, columns: int
    ) -> Entry | Rejected:
        """The entry of a line of `path,label,..`, of which `columns` are expected."""
        if len(fields) != columns:
            return Rejected(self._where(row), f"{len(fields)} columns instead of {columns}")
        if not fields[0]:
            return Rejected(self._where(row), "no path")
        return images.entry(fields[0], tuple(fields[1:]), split)

    def _where(self, row: Row) -> str:
        return f"{self.path}:{row.number}"
