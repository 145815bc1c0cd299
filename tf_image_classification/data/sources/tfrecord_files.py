"""TFRecord files that were not built here, or are named one by one: a file, the matches of a glob, a folder of them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tf_image_classification import storage
from tf_image_classification.data.manifest import Task
from tf_image_classification.data.sources import listing, other_kinds
from tf_image_classification.data.sources.base import Candidate, FingerprintItem, ReadOptions, RecordFile, RecordSource


@dataclass(frozen=True, slots=True)
class TFRecordFiles(RecordSource):
    """Any file that no other kind recognises counts as TFRecords; in a folder those with `.tfrecord` in their names.

    Attributes:
        paths: of the files.
    """

    kind: ClassVar[str] = "TFRecords"
    description: ClassVar[str] = "TFRecord files or globs"

    paths: tuple[str, ...]

    @classmethod
    def match(cls, candidate: Candidate) -> TFRecordFiles | None:
        if not candidate.is_folder:
            other_kinds.refuse_file(candidate.path)
            return cls(candidate.path, (candidate.path,))
        names = [name for name in candidate.file_names if ".tfrecord" in name]
        if not names:
            other_kinds.refuse_model(candidate.path)
        return cls(candidate.path, tuple(storage.join(candidate.path, name) for name in names)) if names else None

    @property
    def named_paths(self) -> tuple[str, ...]:
        return self.paths

    def files(self, split: str) -> list[RecordFile]:
        return [RecordFile(path) for path in self.paths]

    def tasks(self) -> tuple[Task, ...]:
        return ()

    def fingerprint_items(self, options: ReadOptions) -> Iterator[FingerprintItem]:
        """Names, sizes and versions of the files."""
        return listing.stat_items((path, posixpath.basename(path)) for path in self.paths)
