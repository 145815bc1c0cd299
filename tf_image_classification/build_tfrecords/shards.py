"""Parts of framed records, as workers write them, joined into the shards of a split."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import google_crc32c

from tf_image_classification.data.manifest import Shard

SHARD_BYTES = 100 * 2**20
_BLOCK = 2**20


class PlannedShard(NamedTuple):
    """Which records a shard gets.

    Attributes:
        first: number of the part that its first record is in, and the record's index in that part.
        examples: number of records.
        bytes: of all of them.
    """

    first: tuple[int, int]
    examples: int
    bytes: int


def plan(parts: Iterable[tuple[int, Sequence[int]]], shard_bytes: int) -> list[PlannedShard]:
    """The shards that ShardWriter would write.

    Args:
        parts: number of each part of a split, in their order, and bytes of each of its records.
        shard_bytes: see ShardWriter.
    """
    planned: list[PlannedShard] = []
    for number, lengths in parts:
        index = 0
        for begins, examples, size in _cuts(planned, lengths, shard_bytes):
            if begins:
                planned.append(PlannedShard((number, index), 0, 0))
            planned[-1] = _extended(planned[-1], examples, size)
            index += examples
    if len(planned) > 1 and planned[-1].bytes < shard_bytes:
        rest = planned.pop()
        planned[-1] = _extended(planned[-1], rest.examples, rest.bytes)
    return planned


def shard_name(split: str, index: int, number: int) -> str:
    """The name of one of so many shards: train-00000-of-00012.tfrecord."""
    return f"{split}-{index:05d}-of-{number:05d}.tfrecord"


def _extended(shard: PlannedShard, examples: int, size: int) -> PlannedShard:
    return shard._replace(examples=shard.examples + examples, bytes=shard.bytes + size)


def _cuts(
    shards: Sequence[Shard | PlannedShard], lengths: Sequence[int], min_bytes: int
) -> Iterator[tuple[bool, int, int]]:
    """Which shards the records of a part belong to.

    Args:
        shards: so far; the caller extends the last one, or appends one, as it is told to.
        lengths: bytes of each record.
        min_bytes: a shard that has them is full.

    Yields:
        Whether a shard begins, how many of the next records it gets, and their bytes.
    """
    start = 0
    while start < len(lengths):
        begins = not shards or shards[-1].bytes >= min_bytes
        filled, stop, size = 0 if begins else shards[-1].bytes, start, 0
        while stop < len(lengths) and filled + size < min_bytes:
            size += lengths[stop]
            stop += 1
        yield begins, stop - start, size
        start = stop


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
            for begins, examples, size in _cuts(self._shards, lengths, self._min_bytes):
                if begins:
                    self._shards.append(Shard(f".{self._split}-{len(self._shards)}", 0, 0, "00000000"))
                self._extend_last(_blocks(source.fileno(), size), examples)
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
            name = shard_name(self._split, index, len(self._shards))
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
