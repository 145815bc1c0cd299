"""A CSV of image paths and labels: `path,label` lines, or a header such as `URIs,labels` with one or more label
columns."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tf_image_classification import storage
from tf_image_classification.data import manifest
from tf_image_classification.data.sources.base import Candidate, Entry, ImageSource, ReadOptions, Rejected
from tf_image_classification.data.sources.image_paths import folder_of, locate, normalize
from tf_image_classification.errors import DataError, FlagError

_PATH_COLUMNS = frozenset(
    {"uris", "uri", "path", "paths", "image", "images", "file", "files", "filename", "image_path", "file_path"}
)
_TASK_NAME = re.compile(r"[\w.-]+")
_EXPECTED = "lines of path,label, or a header URIs,labels and such lines"


@dataclass(frozen=True, slots=True)
class CsvFile(ImageSource):
    """Several label columns are several tasks; then the header is required, for it names them."""

    kind: ClassVar[str] = "CSV"
    fingerprint_name: ClassVar[str] = "csv"
    description: ClassVar[str] = "a CSV"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    @classmethod
    def match(cls, candidate: Candidate) -> CsvFile | None:
        is_csv = candidate.path.lower().endswith(cls.suffixes) and not candidate.is_folder
        return cls(candidate.path) if is_csv else None

    def task_names(self) -> tuple[str, ...]:
        first = next(_rows(self.path), None)
        if first is None:
            raise DataError("The CSV is empty", received=self.path, expected=_EXPECTED)
        _, fields = first
        received = f"{self.path}: {','.join(fields)}"
        if len(fields) < 2:
            raise DataError("The CSV has a single column", received=received, expected=_EXPECTED)
        if len(fields) == 2:
            return (manifest.DEFAULT_TASK,)
        if not _is_header(fields):
            raise DataError(
                f"The CSV has {len(fields)} columns and no header",
                received=received,
                expected="a first line such as path,age,gender that names the label columns, or two columns",
                hint="A path or label that contains a comma must be in double quotes.",
            )
        names = tuple(fields[1:])
        if len(set(names)) < len(names) or not all(_TASK_NAME.fullmatch(name) for name in names):
            raise DataError(
                "The CSV's header does not name its label columns",
                received=received,
                expected="different names of letters, digits, '_', '-' and '.'",
            )
        return names

    def entries(self, options: ReadOptions) -> Iterator[Entry | Rejected]:
        columns = len(self.task_names()) + 1
        folder = folder_of(self.path)
        root = None if options.image_root is None else normalize(options.image_root)
        for number, fields in _rows(self.path):
            if number == 0 and _is_header(fields):
                continue
            if len(fields) != columns:
                yield Rejected(fields[0] or self.path, f"{len(fields)} columns instead of {columns}")
            elif not fields[0]:
                yield Rejected(self.path, "no path")
            else:
                yield locate(fields[0], tuple(fields[1:]), folder, root)


def _is_header(fields: Sequence[str]) -> bool:
    return fields[0].lower() in _PATH_COLUMNS


def _rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not blank, counted from 0, as fields without the spaces around them."""
    with contextlib.ExitStack() as stack:
        try:
            local = storage.fetch(path, stack.enter_context(storage.temporary_dir()))
            file = stack.enter_context(open(local, encoding="utf-8-sig", newline=""))
            number = 0
            for line in csv.reader(file, skipinitialspace=True):
                fields = [field.strip() for field in line]
                if any(fields):
                    yield number, fields
                    number += 1
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                "The CSV cannot be read", received=f"{path}: {error}", expected="UTF-8 text of " + _EXPECTED
            ) from error
        except OSError as error:
            raise FlagError(
                "The CSV cannot be read", received=f"{path}: {error.strerror}", expected="a readable file"
            ) from error
