"""Shards are the parts one after the other, whoever moves them to their places and whenever."""

from __future__ import annotations

import os
import random
from concurrent.futures import Future

import google_crc32c
import pytest

from tf_image_classification.build_tfrecords import joined_crc, local, shards
from tf_image_classification.data import tfrecord
from tf_image_classification.errors import UserError


@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0), (1, 1), (3, 2**16 + 1), (2**20, 123_456)])
def test_the_checksum_of_joined_parts_is_that_of_their_bytes(sizes):
    first, second = map(os.urandom, sizes)
    joined = joined_crc.joined(google_crc32c.value(first), google_crc32c.value(second), len(second))
    assert joined == google_crc32c.value(first + second)


@pytest.mark.parametrize("workers", [1, 3])
def test_parts_that_other_processes_move_become_the_same_shards(tmp_path, workers):
    draw = random.Random(workers)
    contents = [os.urandom(draw.randrange(1, 5000)) for _ in range(200)]
    with local.pool(workers) as pool:
        writer = shards.ShardWriter(str(tmp_path), "train", 50_000, lambda placed: pool.submit(shards.place, placed))
        position = 0
        while position < len(contents):
            records = contents[position : position + draw.randrange(1, 9)]
            position += len(records)
            (tmp_path / f"part-{position}").write_bytes(b"".join(records))
            writer.append(str(tmp_path / f"part-{position}"), [len(record) for record in records])
        writer.settle()
    written = writer.finish()
    assert sorted(os.listdir(tmp_path)) == sorted(shard.path for shard in written)
    assert len(written) > 5
    assert b"".join((tmp_path / shard.path).read_bytes() for shard in written) == b"".join(contents)
    for shard in written:
        assert shard.crc32c == tfrecord.file_crc32c(str(tmp_path / shard.path))
        assert shard.bytes == os.path.getsize(tmp_path / shard.path)
    assert sum(shard.examples for shard in written) == len(contents)


def test_placements_may_end_in_any_order(tmp_path):
    waiting: list[tuple[shards.Placement, Future[list[int]]]] = []

    def submit(placement):
        waiting.append((placement, Future()))
        return waiting[-1][1]

    writer = shards.ShardWriter(str(tmp_path), "eval", 10_000, submit)
    contents = [os.urandom(1000 + number) for number in range(30)]
    for number, content in enumerate(contents):
        (tmp_path / f"part-{number}").write_bytes(content)
        writer.append(str(tmp_path / f"part-{number}"), [400, len(content) - 400])
    for placement, future in reversed(waiting):
        future.set_result(shards.place(placement))
    writer.settle()
    written = writer.finish()
    assert b"".join((tmp_path / shard.path).read_bytes() for shard in written) == b"".join(contents)
    assert all(shard.crc32c == tfrecord.file_crc32c(str(tmp_path / shard.path)) for shard in written)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_part_that_cannot_be_moved_is_one_clear_error(tmp_path, workers):
    (tmp_path / "part").write_bytes(bytes(3))
    with local.pool(workers) as pool:
        writer = shards.ShardWriter(str(tmp_path), "train", 100, lambda placed: pool.submit(shards.place, placed))
        with pytest.raises(UserError, match=r"The shards cannot be written.*part: a part file is shorter than"):
            writer.append(str(tmp_path / "part"), [2, 2])
            writer.settle()
