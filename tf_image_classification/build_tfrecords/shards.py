"""Parts of framed records, as workers write them, joined into the shards of a split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import google_crc32c

from tf_image_classification.data.manifest import Shard

SHARD_BYTES = 100 * 2**20
_BLOCK = 2**20


class ShardWriter:
    """Writes the shards of one split into a folder, each of `shard_bytes` to twice that, or one if they are
    fewer bytes.

    Where a shard ends depends on the records alone, not on how they were spread over parts.
    """

    def __init__(self, folder: str, split: str, shard_bytes: int) -> None:
        self._folder, self._split, self._min_bytes = folder, split, shard_bytes
        self._shards: list[Shard] = []

    def append(self, part: str, lengths: Sequence[int]) -> None:
        """Moves a part's records to the end of the shards; the part is removed.

        Args:
            part: file of framed records.
            lengths: bytes of each of them.
        """
        with open(part, "rb") as source:
            start = 0
            while start < len(lengths):
                if not self._shards or self._shards[-1].bytes >= self._min_bytes:
                    self._shards.append(Shard(f".{self._split}-{len(self._shards)}", 0, 0, "00000000"))
                stop, size = start, 0
                while stop < len(lengths) and self._shards[-1].bytes + size < self._min_bytes:
                    size += lengths[stop]
                    stop += 1
                self._extend_last(_blocks(source.fileno(), size), stop - start)
                start = stop
        os.unlink(part)

    def finish(self) -> tuple[Shard, ...]:
        """Renames the shards, now that their number is known: train-00000-of-00012.tfrecord."""
        if len(self._shards) > 1 and self._shards[-1].bytes < self._min_bytes:
            rest = self._shards.pop()
            path = os.path.join(self._folder, rest.path)
            with open(path, "rb") as source:
                self._extend_last(_blocks(source.fileno(), rest.bytes), rest.examples)
            os.unlink(path)
        finished = []
        for index, shard in enumerate(self._shards):
            name = f"{self._split}-{index:05d}-of-{len(self._shards):05d}.tfrecord"
            os.rename(os.path.join(self._folder, shard.path), os.path.join(self._folder, name))
            finished.append(replace(shard, path=name))
        return tuple(finished)

    def _extend_last(self, blocks: Iterator[bytes], examples: int) -> None:
        shard = self._shards[-1]
        size, crc = shard.bytes, int(shard.crc32c, 16)
        with open(os.path.join(self._folder, shard.path), "ab") as file:
            for block in blocks:
                file.write(block)
                size += len(block)
                crc = google_crc32c.extend(crc, block)
        self._shards[-1] = Shard(shard.path, shard.examples + examples, size, f"{crc:08x}")


class ShardCounter:
    """Counts what ShardWriter would write, where images are only checked."""

    def __init__(self) -> None:
        self._examples = self._bytes = 0

    def append(self, part: str, lengths: Sequence[int]) -> None:
        """Counts a part's records; there is no file."""
        self._examples += len(lengths)
        self._bytes += sum(lengths)

    def finish(self) -> tuple[Shard, ...]:
        """All of them, as one shard without a path."""
        return (Shard("", self._examples, self._bytes, ""),)


def _blocks(descriptor: int, size: int) -> Iterator[bytes]:
    while size > 0:
        block = os.read(descriptor, min(size, _BLOCK))
        if not block:
            raise OSError("a part file is shorter than was written to it")
        size -= len(block)
        yield block
