"""The engine of an Apache Beam runner: chunks of images into a pipeline, its results and shards out of it."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import itertools
import logging
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import grpc
from apache_beam.runners.runner import PipelineState

from tf_image_classification import storage
from tf_image_classification.build_tfrecords import beam_messages, beam_pipeline, beam_runner, shards
from tf_image_classification.build_tfrecords.beam_messages import Chunks
from tf_image_classification.build_tfrecords.beam_runner import BeamRunner
from tf_image_classification.build_tfrecords.engines import CHUNK
from tf_image_classification.build_tfrecords.worker_messages import ImageChunk, PartResult, record_lengths
from tf_image_classification.data.manifest import Shard
from tf_image_classification.errors import UserError

_CHUNKS_PER_FILE = 100  # 3,200 images: less than a second of a worker's time to read, minutes to check
_WORK = ".beam"  # folder of the workers in that of a build on a local disk
_BEAM = "apache_beam"
_CLOSED = "Channel closed prematurely"  # how Beam's Python engine finds that a worker's process is gone
_NAMED = re.compile(r"[\w.]*(Error|Exception)\b")

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def running(runner: BeamRunner, output_dir: str, shard_bytes: int) -> Iterator[BeamEngine]:
    """The engine of one build. In a bucket, its workers' files are beside the data set until the block ends, or in the
    folder of a job that may outlive this process.

    Args:
        output_dir: of the data set, in its canonical form.
        shard_bytes: see shards.ShardWriter.

    Raises:
        FlagError: the workers cannot write there.
    """
    runner.check_path(output_dir)
    if runner.job is not None or not storage.is_remote(output_dir):
        yield BeamEngine(runner, runner.job.folder if runner.job else None, shard_bytes)
        return
    work = f"{output_dir.rstrip('/')}.building-{uuid.uuid4().hex[:12]}"
    try:
        yield BeamEngine(runner, work, shard_bytes)
    finally:
        storage.delete_dir(work)


class BeamEngine:
    """See engines.Engine.

    Attributes:
        elsewhere: the shards of a bucket.
    """

    def __init__(self, runner: BeamRunner, work: str | None, shard_bytes: int) -> None:
        """Args:
        work: folder of a bucket for the workers' files; None for one in the build's local folder.
        shard_bytes: see shards.ShardWriter.
        """
        self.elsewhere: dict[str, str] = {}
        self._runner, self._work, self._shard_bytes = runner, work, shard_bytes
        self._shards: dict[str, list[Shard]] = collections.defaultdict(list)

    def results(
        self, folder: str | None, chunks: Iterable[ImageChunk], total: int
    ) -> Iterator[tuple[ImageChunk, PartResult]]:
        """See Engine; `folder` is never None."""
        assert folder is not None
        work = self._work or os.path.join(folder, _WORK)
        if self._work is None:
            os.mkdir(work)
        read = Chunks()
        job = self._runner.job
        is_started = job is not None and job.is_started()
        num_files, missing, digest = _write_chunks(chunks, read, work, is_started)
        if job is not None:
            _remember(digest, work, is_started)
        self._run(num_files, read, work)
        self._collect(work, folder)
        checked: dict[str, Counter[str]] = collections.defaultdict(Counter)
        for chunk, part in _read_results(work, read):
            lengths = record_lengths(part)
            checked[chunk.split].update(examples=len(lengths), bytes=sum(lengths))
            missing -= 1
            yield chunk, part
        for split, counts in checked.items():
            self._check_shards(split, counts)
        if missing:
            raise self._failure(f"{missing:,} groups of {CHUNK} images have no result")
        if self._work is None:
            shutil.rmtree(work)

    def finish(self, split: str) -> tuple[Shard, ...]:
        """See Engine."""
        return tuple(self._shards[split])

    def _run(self, num_files: int, chunks: Chunks, work: str) -> None:
        logging.getLogger(_BEAM).setLevel(logging.WARNING)
        logging.getLogger(f"{_BEAM}.runners.dataflow").setLevel(logging.INFO)  # where to watch the job
        billed = os.environ.get(storage.BILLING_VARIABLE)
        _log.info("Building on Apache Beam's %s", self._runner.name)
        try:
            state = self._runner.run(
                lambda pipeline: beam_pipeline.build(pipeline, num_files, chunks, work, self._shard_bytes, billed)
            )
        except UserError:
            raise
        except Exception as error:  # whatever a runner raises
            raise self._failure(_reason(error)) from error
        if state != PipelineState.DONE:
            raise self._failure(f"it ended as {state}")

    def _failure(self, why: str) -> UserError:
        return UserError(
            "The Apache Beam pipeline failed",
            received=f"{self._runner.name}: {why}",
            hint="The log of its workers says more. Nothing was written to the output folder: build again.",
        )

    def _check_shards(self, split: str, checked: Mapping[str, int]) -> None:
        """Checks that the shards hold what the results say."""
        written = Counter(examples=0, bytes=0)
        for shard in self._shards[split]:
            written.update(examples=shard.examples, bytes=shard.bytes)
        if written != checked:
            raise self._failure(
                f"of the {split} split {checked['examples']:,} examples ({checked['bytes']:,} bytes) were checked, and "
                f"{written['examples']:,} ({written['bytes']:,} bytes) written; do images change while they are read?"
            )

    def _collect(self, work: str, folder: str) -> None:
        """Gives the shards their names: in the folder, or in a bucket once the data set is complete."""
        for split, of_split in itertools.groupby(beam_pipeline.shards_in(work), key=lambda shard: shard[0]):
            found = list(of_split)
            for _, index, path, examples, size, crc in found:
                name = shards.shard_name(split, index, len(found))
                if self._work is None:
                    os.rename(path, os.path.join(folder, name))
                else:
                    self.elsewhere[name] = path
                self._shards[split].append(Shard(name, examples, size, crc))


def _reason(error: Exception) -> str:
    """What a runner's error says, in one line. Some hold the traceback of a worker, whose last line is the error."""
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    last_line = str(error).strip().rpartition("\n")[2]
    if _CLOSED in last_line:
        return "the process of a worker ended, as it does when memory runs out"
    return last_line if _NAMED.match(last_line) else f"{type(error).__name__}: {last_line}"


def _write_chunks(given: Iterable[ImageChunk], chunks: Chunks, work: str, is_started: bool) -> tuple[int, int, str]:
    """Writes the files that the pipeline reads, unless a job reads them already.

    Returns:
        The numbers of files and of chunks, and a hash of all that is in the files.
    """
    num_files = num_chunks = 0
    digest = hashlib.sha256()
    lines = (chunks.to_json(number, chunk) for number, chunk in enumerate(given))
    while of_file := list(itertools.islice(lines, _CHUNKS_PER_FILE)):
        content = b"\n".join(of_file)
        digest.update(content + b"\n")
        if not is_started:
            storage.write_bytes(beam_pipeline.chunk_file(work, num_files), content)
        num_files, num_chunks = num_files + 1, num_chunks + len(of_file)
    return num_files, num_chunks, digest.hexdigest()


def _remember(digest: str, work: str, is_started: bool) -> None:
    """Writes down which chunks a job reads, or compares them with those of the job that an earlier process started.

    Raises:
        UserError: they are others.
    """
    path = beam_runner.marker(work)
    if not is_started:
        storage.write_text(path, digest)
    elif storage.read_text(path) != digest:
        raise UserError(
            "The images are others than those of the job that an earlier attempt has started",
            hint="Do images change while they are built? The next attempt starts another job.",
        )


def _read_results(work: str, chunks: Chunks) -> Iterator[tuple[ImageChunk, PartResult]]:
    """All results, in the order of their chunks."""
    for path in beam_pipeline.result_files(work):
        results = map(beam_messages.result_from_json, storage.read_bytes(path).split(b"\n"))
        numbered = [(*chunks.from_json(line), part) for line, part in results]
        for _, chunk, part in sorted(numbered, key=lambda result: result[0]):
            yield chunk, part
