"""Parts of framed records, as workers write them, joined into the shards of a split."""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import NamedTuple

import google_crc32c

from tf_image_classification.build_tfrecords.joined_crc import joined
from tf_image_classification.data.manifest import Shard
from tf_image_classification.errors import UserError

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


class Piece(NamedTuple):
    """A row of a part's bytes that belong to one shard.

    Attributes:
        shard: its path.
        offset: where they go, in bytes.
        size: bytes.
    """

    shard: str
    offset: int
    size: int


class Placement(NamedTuple):
    """A part file whose records are to be moved to shards.

    Attributes:
        part: its path.
        pieces: all of its bytes, in their order.
    """

    part: str
    pieces: list[Piece]

    @property
    def size(self) -> int:
        """Bytes of the part."""
        return sum(piece.size for piece in self.pieces)

    def __str__(self) -> str:
        return f"{self.part}, which goes to {', '.join(piece.shard for piece in self.pieces) or 'no shard'}"


def place(placement: Placement) -> list[int]:
    """Moves a part's records to their places in the shards; the part is removed.

    Returns:
        CRC-32C of each piece.

    Raises:
        UserError: the shards cannot be written.
    """
    with writing(placement.part):
        with open(placement.part, "rb") as source:
            crcs = [_placed(source.fileno(), piece) for piece in placement.pieces]
        os.unlink(placement.part)
    return crcs


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Says what is wrong with the disk.

    Raises:
        UserError: for an OSError in the block.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            "The shards cannot be written",
            received=f"{path}: {error.strerror or error}",
            hint="Free some space and build again.",
        ) from error


def _placed(descriptor: int, piece: Piece) -> int:
    """Copies the next bytes of a part; returns their CRC-32C."""
    position, crc = piece.offset, 0
    target = os.open(piece.shard, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        for block in _blocks(descriptor, piece.size):
            crc = google_crc32c.extend(crc, block)
            rest = memoryview(block)
            while rest:
                written = os.pwrite(target, rest, position)
                position, rest = position + written, rest[written:]
    finally:
        os.close(target)
    return crc


class ShardWriter:
    """Writes the shards of one split into a folder, each of `shard_bytes` to twice that, or one if they are
    fewer bytes.

    Where a shard ends depends on the records alone, not on how they were spread over parts.
    """

    def __init__(
        self, folder: str, split: str, shard_bytes: int, submit: Callable[[Placement], Future[list[int]]]
    ) -> None:
        """Args:
        submit: has `place` called, here or in another process: this one decides only what goes where, as it would be
            the limit of a machine of many cores if it copied all bytes itself.
        """
        self._folder, self._split, self._min_bytes, self._submit = folder, split, shard_bytes, submit
        self._shards: list[Shard] = []
        self._placed: collections.deque[tuple[list[int], Placement, Future[list[int]]]] = collections.deque()

    def append(self, part: str, lengths: Sequence[int]) -> None:
        """Moves a part's records to the end of the shards; the part is removed.

        Args:
            part: file of framed records.
            lengths: bytes of each of them.

        Raises:
            UserError: the shards cannot be written.
        """
        numbers, pieces = [], []
        for begins, examples, size in _cuts(self._shards, lengths, self._min_bytes):
            if begins:
                self._shards.append(Shard(f".{self._split}-{len(self._shards)}", 0, 0, "00000000"))
            shard = self._shards[-1]
            numbers.append(len(self._shards) - 1)
            pieces.append(Piece(os.path.join(self._folder, shard.path), shard.bytes, size))
            self._shards[-1] = replace(shard, examples=shard.examples + examples, bytes=shard.bytes + size)
        placement = Placement(part, pieces)
        self._placed.append((numbers, placement, self._submit(placement)))
        while self._placed and self._placed[0][-1].done():
            self._take_crcs()

    def settle(self) -> None:
        """Waits until all records are in their places.

        Raises:
            UserError: the shards cannot be written.
        """
        while self._placed:
            self._take_crcs()

    def finish(self) -> tuple[Shard, ...]:
        """Renames the shards, now that their number is known: train-00000-of-00012.tfrecord. After `settle`."""
        if len(self._shards) > 1 and self._shards[-1].bytes < self._min_bytes:
            rest, last = self._shards.pop(), self._shards[-1]
            piece = Piece(os.path.join(self._folder, last.path), last.bytes, rest.bytes)
            (crc,) = place(Placement(os.path.join(self._folder, rest.path), [piece]))
            last = replace(last, examples=last.examples + rest.examples, bytes=last.bytes + rest.bytes)
            self._shards[-1] = _with_crc(last, crc, rest.bytes)
        finished = []
        for index, shard in enumerate(self._shards):
            name = shard_name(self._split, index, len(self._shards))
            os.rename(os.path.join(self._folder, shard.path), os.path.join(self._folder, name))
            finished.append(replace(shard, path=name))
        return tuple(finished)

    def _take_crcs(self) -> None:
        """Adds the checksums of the oldest part to those of its shards."""
        numbers, placement, crcs = self._placed.popleft()
        for number, piece, crc in zip(numbers, placement.pieces, crcs.result(), strict=True):
            self._shards[number] = _with_crc(self._shards[number], crc, piece.size)


def _with_crc(shard: Shard, crc: int, size: int) -> Shard:
    """A shard's checksum with that of its next bytes."""
    return replace(shard, crc32c=f"{joined(int(shard.crc32c, 16), crc, size):08x}")


class ShardCounter:
    """Counts what ShardWriter would write, where images are only checked."""

    def __init__(self) -> None:
        self._examples = self._bytes = 0

    def append(self, part: str, lengths: Sequence[int]) -> None:
        """Counts a part's records; there is no file."""
        self._examples += len(lengths)
        self._bytes += sum(lengths)

    def settle(self) -> None:
        """There is nothing to wait for."""

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
