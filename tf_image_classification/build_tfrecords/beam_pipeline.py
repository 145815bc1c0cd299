"""The build as a pipeline of Apache Beam, imported by who starts it and by its workers.

A bundle may be done twice, by two workers even, and each of them may die in it. So whatever is written has a name that
is unique, and only names that come out of the pipeline are used: what an attempt left behind is not read.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import threading
import uuid
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import google_crc32c
from apache_beam.pvalue import AsDict, TaggedOutput

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import beam_messages, part_file, shards
from tf_image_classification.build_tfrecords.beam_messages import Chunks
from tf_image_classification.build_tfrecords.worker_messages import record_lengths

_RESULTS, _LENGTHS, _SHARDS = "results", "lengths", "shards"
_CHUNKS_PER_FILE = 1000  # of results
# Memory is limited per process while an image is decoded, and a worker of some runners has several threads.
_one_at_a_time = threading.Lock()


def build(
    pipeline: beam.Pipeline, num_files: int, chunks: Chunks, work: str, shard_bytes: int, billed: str | None
) -> None:
    """Adds all steps to a pipeline.

    Args:
        num_files: number of files with chunks, see `chunk_file`: a chunk as JSON in each line.
        chunks: reads them.
        work: folder for what the steps write: shards, results, and lists of both, see `shards_in` and `result_files`.
        shard_bytes: see shards.ShardWriter.
        billed: project that pays for the workers' requests; None for that of the bucket.
    """
    checked = (
        pipeline
        | "NumFiles" >> beam.Create([num_files])  # not a list of them: a job's description is limited to megabytes
        | "Files" >> beam.FlatMap(lambda number: list(range(number)))
        | "SpreadFiles" >> beam.Reshuffle()
        | "ReadChunks" >> beam.FlatMap(_read_chunks, work, billed)
        | "SpreadChunks" >> beam.Reshuffle()
        | "Check" >> beam.ParDo(_Check(chunks, billed)).with_outputs(_RESULTS, _LENGTHS, main="records")
    )
    results = (
        checked[_RESULTS]
        | "GroupResults" >> beam.GroupByKey()
        | "WriteResults" >> beam.Map(_write_results, work, billed)
    )
    planned = checked[_LENGTHS] | "GroupLengths" >> beam.GroupByKey() | "Plan" >> beam.Map(_plan, shard_bytes)
    written = (
        checked["records"]
        | "ToShards" >> beam.Map(_to_shard, AsDict(planned))
        | "Shuffle" >> beam.GroupByKey()
        | "WriteShards" >> beam.Map(_write_shard, work, billed)
    )
    _ = (
        (results, written)
        | beam.Flatten()
        | "GroupOutcome" >> beam.GroupByKey()
        | "WriteOutcome" >> beam.Map(_write_outcome, work, billed)
    )


def chunk_file(work: str, index: int) -> str:
    """The path of a file with chunks of images."""
    return storage.join(work, f"chunks-{index}")


def result_files(work: str) -> list[str]:
    """The files of results, one as JSON in each line. Each file is of the next chunks, in any order."""
    return [path for _, path in _outcome(work, _RESULTS)]


def shards_in(work: str) -> list[tuple[str, int, str, int, int, str]]:
    """Split, index, file, examples, bytes and CRC-32C of all shards, in the order of their records."""
    return [tuple(shard) for shard in _outcome(work, _SHARDS)]


def _outcome(work: str, kind: str) -> list[Any]:
    with contextlib.suppress(FileNotFoundError):  # all images are rejected: there is no shard
        return sorted(json.loads(storage.read_bytes(_outcome_path(work, kind))))
    return []


class _Check(beam.DoFn):
    """Number and chunk -> the records of its images by their place; beside them, results and lengths of records."""

    def __init__(self, chunks: Chunks, billed: str | None) -> None:
        self._chunks, self._billed = chunks, billed

    def setup(self) -> None:
        storage.bill_to(self._billed)

    def process(self, element: bytes) -> Iterator[Any]:
        number, chunk = self._chunks.from_json(element)
        records: list[bytes] = []
        with _one_at_a_time:
            part = part_file.check(chunk, records.append)
        yield TaggedOutput(_RESULTS, (number // _CHUNKS_PER_FILE, beam_messages.result_to_json(element, part)))
        yield TaggedOutput(_LENGTHS, (chunk.split, (number, array("I", record_lengths(part)).tobytes())))
        for index, record in enumerate(records):
            yield (chunk.split, (number, index)), record


# Each step may be the first one of its process to ask for storage, and so says who pays.


def _read_chunks(index: int, work: str, billed: str | None) -> list[bytes]:
    storage.bill_to(billed)
    return storage.read_bytes(chunk_file(work, index)).split(b"\n")


def _write_results(grouped: tuple[int, Iterable[bytes]], work: str, billed: str | None) -> tuple[str, Any]:
    storage.bill_to(billed)
    group, results = grouped
    path = storage.join(work, f"results-{group}.{uuid.uuid4().hex}")
    storage.write_bytes(path, b"\n".join(results))
    return _RESULTS, (group, path)


def _plan(grouped: tuple[str, Iterable[tuple[int, bytes]]], shard_bytes: int) -> tuple[str, Any]:
    """The first record of each shard of a split. Four bytes per record are all that comes to one machine."""
    split, lengths = grouped
    parts = ((number, array("I", packed)) for number, packed in sorted(lengths))
    return split, [shard.first for shard in shards.plan(parts, shard_bytes)]


def _to_shard(placed: tuple[tuple[str, tuple[int, int]], bytes], plan: Mapping[str, Any]) -> tuple[Any, Any]:
    (split, position), record = placed
    return (split, bisect.bisect_right(plan[split], position) - 1), (position, record)


def _write_shard(grouped: tuple[tuple[str, int], Iterable[Any]], work: str, billed: str | None) -> tuple[str, Any]:
    storage.bill_to(billed)
    (split, index), records = grouped
    path = storage.join(work, f"{split}-{index}.{uuid.uuid4().hex}")
    examples = size = crc = 0
    with storage.temporary_dir() as folder:
        local = os.path.join(folder, "shard") if storage.is_remote(path) else path
        with open(local, "wb") as file:
            for _, record in sorted(records):
                file.write(record)
                examples, size, crc = examples + 1, size + len(record), google_crc32c.extend(crc, record)
        if local != path:
            storage.upload(local, path)
    return _SHARDS, (split, index, path, examples, size, f"{crc:08x}")


def _write_outcome(grouped: tuple[str, Iterable[Any]], work: str, billed: str | None) -> None:
    """Under a name that is not unique: what is in it is settled when it is grouped, the same for each attempt."""
    storage.bill_to(billed)
    kind, entries = grouped
    storage.write_bytes(_outcome_path(work, kind), json.dumps(sorted(entries)).encode())


def _outcome_path(work: str, kind: str) -> str:
    return storage.join(work, f"{kind}.json")
