"""The engines of a build: what has chunks of images checked and their records written as shards, on this machine or on
others. Which images they are, in which order, and what is counted of them is the same for all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from tf_image_classification.build_tfrecords import local, part_file
from tf_image_classification.build_tfrecords.shards import ShardCounter, ShardWriter
from tf_image_classification.build_tfrecords.worker_messages import ImageChunk, PartResult, record_lengths
from tf_image_classification.data.manifest import Shard

CHUNK = 32  # images per job

_FEW_IMAGES = 200  # below, starting processes takes longer than the work
_PARTS = ".parts"


class Engine(Protocol):
    """Where a build's images are checked and its shards written."""

    @property
    def elsewhere(self) -> Mapping[str, str]:
        """Names of shards that are not in the folder of the build -> the objects that they are copied from."""
        ...

    def results(
        self, folder: str | None, chunks: Iterable[ImageChunk], total: int
    ) -> Iterator[tuple[ImageChunk, PartResult]]:
        """Checks the images and writes their records.

        Args:
            folder: where the shards go; None to check the images only.
            chunks: in the order of the shards.
            total: number of images.

        Yields:
            What became of each chunk, in their order.

        Raises:
            UserError: an image cannot be read because the disk or the network failed, a worker died, and the like.
        """
        ...

    def finish(self, split: str) -> tuple[Shard, ...]:
        """The shards of a split, once all results have been taken."""
        ...


class LocalEngine:
    """The engine of one machine.

    Attributes:
        elsewhere: empty.
    """

    def __init__(self, workers: int, shard_bytes: int) -> None:
        """Args:
        workers: processes.
        shard_bytes: see ShardWriter.
        """
        self.elsewhere: Mapping[str, str] = {}
        self._workers, self._shard_bytes = workers, shard_bytes
        self._writers: dict[str, ShardWriter | ShardCounter] = {}

    def results(
        self, folder: str | None, chunks: Iterable[ImageChunk], total: int
    ) -> Iterator[tuple[ImageChunk, PartResult]]:
        """See Engine."""
        workers = 1 if total <= _FEW_IMAGES else min(self._workers, -(-total // CHUNK))
        parts = None if folder is None else os.path.join(folder, _PARTS)
        if parts is not None:
            os.mkdir(parts)
        jobs = (
            replace(chunk, part=os.devnull if parts is None else os.path.join(parts, str(number)))
            for number, chunk in enumerate(chunks)
        )
        for chunk, part in local.run_jobs(part_file.write_part, jobs, workers):
            if chunk.split not in self._writers:
                self._writers[chunk.split] = self._writer(folder, chunk.split)
            self._writers[chunk.split].append(chunk.part, record_lengths(part))
            yield chunk, part
        if parts is not None:
            os.rmdir(parts)

    def finish(self, split: str) -> tuple[Shard, ...]:
        """See Engine."""
        return self._writers[split].finish()

    def _writer(self, folder: str | None, split: str) -> ShardWriter | ShardCounter:
        return ShardCounter() if folder is None else ShardWriter(folder, split, self._shard_bytes)
