"""A data set that build_tfrecords wrote: its manifest names the shards of its splits."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tf_image_classification import storage
from tf_image_classification.data import manifest
from tf_image_classification.data.manifest import Downscaled, Manifest, Task
from tf_image_classification.data.sources import listing
from tf_image_classification.data.sources.base import Candidate, FingerprintItem, ReadOptions, RecordFile, RecordSource
from tf_image_classification.errors import DataError


@dataclass(frozen=True, slots=True)
class BuiltDataSet(RecordSource):
    """The folder of a data set. The manifest is read when it is needed, and not kept."""

    kind: ClassVar[str] = "data set"
    description: ClassVar[str] = "a folder that build_tfrecords wrote"
    has_splits: ClassVar[bool] = True

    @classmethod
    def match(cls, candidate: Candidate) -> BuiltDataSet | None:
        return cls(candidate.path) if candidate.is_folder and manifest.FILE_NAME in candidate.file_names else None

    @property
    def named_paths(self) -> tuple[str, ...]:
        return (self.path,)

    def read(self) -> Manifest:
        """The data set's manifest.

        Raises:
            DataError: it cannot be read.
        """
        return manifest.read(self.path)

    def files(self, split: str) -> list[RecordFile]:
        data = self.read()
        if split not in data.splits:
            raise DataError(
                f"The data set has no {split} split", received=self.path, hint=f"It has: {', '.join(data.splits)}."
            )
        stored, labels = data.splits[split], tuple(task.feature for task in data.tasks)
        return [
            RecordFile(path, shard.crc32c, stored.encoded_feature, labels)
            for path, shard in zip(data.shard_paths(split), stored.shards, strict=True)
        ]

    def tasks(self) -> tuple[Task, ...]:
        return self.read().tasks

    def downscaled(self) -> Downscaled | None:
        return self.read().downscaled

    def fingerprint_items(self, options: ReadOptions) -> Iterator[FingerprintItem]:
        """The manifest's content, and names, sizes and versions of the shards."""
        yield "manifest", listing.digest(storage.read_bytes(storage.join(self.path, manifest.FILE_NAME)))
        data = self.read()
        shards = (path for split in data.splits for path in data.shard_paths(split))
        yield from listing.stat_items((path, posixpath.basename(path)) for path in shards)
