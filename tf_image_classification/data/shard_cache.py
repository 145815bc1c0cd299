"""A local cache of limited size for shards of a bucket, which fetches them before they are read."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from tf_image_classification import storage
from tf_image_classification.data import tfrecord
from tf_image_classification.data.manifest import Shard
from tf_image_classification.errors import DataError

# Of what is free on the disk of temporary files: checkpoints, their copies for the upload and the exported model need
# some of it too.
_DISK_SHARE = 0.5
_PARALLEL_FETCHES = 4


@functools.cache
def shared() -> ShardCache:
    """The cache of this process, for training and its evaluations alike; its folder is deleted with the process."""
    folder = tempfile.TemporaryDirectory(prefix="tfic-shards-")
    return ShardCache(folder, int(shutil.disk_usage(folder.name).free * _DISK_SHARE))


@dataclass(slots=True)
class _Cached:
    size: int
    local: Future[str]  # path of the copy
    readers: int = 0
    prefetched: bool = False  # and not yet opened since


class ShardCache:
    """Local copies of shards. The least recently used ones are removed first, never one that is open.

    `prefetch` and `open` may be called from any thread. A lock guards the table of copies with the counts of their
    readers; the files are written by the cache's own threads, each by the one that fetches it, and read by whoever has
    them open.

    Attributes:
        folder: of the copies.
        failure: why the last shard to be opened could not be fetched, for callers that get only tf.data's text of it;
            set by whichever thread failed last.
    """

    def __init__(self, folder: tempfile.TemporaryDirectory[str], max_bytes: int) -> None:
        """
        Args:
            folder: for the copies alone; it is deleted with the cache.
            max_bytes: of all copies together; only open shards may exceed it.
        """
        self.folder, self._max_bytes = folder.name, max_bytes
        self._folder = folder
        self._cached: OrderedDict[str, _Cached] = OrderedDict()  # by path, the least recently used first
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_PARALLEL_FETCHES, thread_name_prefix="shards")
        self.failure: Exception | None = None

    def prefetch(self, path: str, shard: Shard) -> None:
        """Starts to fetch a shard that will be opened soon, and returns at once. It does nothing if there is no room
        beside the shards that are open or prefetched.

        Args:
            path: of the shard, gs://.
            shard: its entry in the manifest.
        """
        with self._lock:
            cached = self._cached.get(path)
            if cached is None and self._make_room(shard.bytes, keep_prefetched=True):
                cached = self._start(path, shard)
            if cached is not None:
                cached.prefetched = True
                self._cached.move_to_end(path)

    @contextlib.contextmanager
    def open(self, path: str, shard: Shard) -> Iterator[str]:
        """Yields the local path of a shard's copy, which is kept until the block ends. Waits until it is fetched.

        Args:
            path, shard: as for `prefetch`, which need not have been called.

        Raises:
            DataError: the shard is missing, or has changed since it was built.
            UserError, OSError: the bucket cannot be read, or the disk is full.
        """
        with self._lock:
            cached = self._cached.get(path)
            if cached is None:
                self._make_room(shard.bytes, keep_prefetched=False)
                cached = self._start(path, shard)
            cached.readers += 1
            cached.prefetched = False
            self._cached.move_to_end(path)
        try:
            try:
                local = cached.local.result()
            except Exception as error:
                self.failure = error
                raise
            yield local
        finally:
            with self._lock:
                cached.readers -= 1
                self._make_room(0, keep_prefetched=False)

    def _start(self, path: str, shard: Shard) -> _Cached:
        cached = self._cached[path] = _Cached(shard.bytes, self._pool.submit(self._fetch, path, shard))
        return cached

    def _fetch(self, path: str, shard: Shard) -> str:
        try:
            return fetch(path, shard, self.folder)
        except BaseException:
            with self._lock:  # the next call tries again
                del self._cached[path]
            raise

    def _make_room(self, size: int, *, keep_prefetched: bool) -> bool:
        """Removes copies until `size` bytes fit; returns whether they do. The caller holds the lock."""
        excess = sum(cached.size for cached in self._cached.values()) + size - self._max_bytes
        for path, cached in list(self._cached.items()):
            if excess <= 0:
                break
            if cached.readers or not cached.local.done() or (keep_prefetched and cached.prefetched):
                continue
            os.unlink(cached.local.result())
            del self._cached[path]
            excess -= cached.size
        return excess <= 0


def fetch(path: str, shard: Shard, folder: str) -> str:
    """Copies a shard into a local folder and checks it against the manifest.

    Returns:
        Path of the copy.

    Raises:
        DataError: it is missing, or has changed since the manifest was written.
    """
    try:
        local = storage.fetch(path, folder)
    except FileNotFoundError:
        raise DataError("A shard is missing", received=path, hint="Build the data set again.") from None
    if (crc := tfrecord.file_crc32c(local)) != shard.crc32c:
        os.unlink(local)
        raise DataError(
            "A shard has changed since it was built",
            received=f"{path} with CRC-32C {crc}",
            expected=f"{shard.crc32c}, as its manifest records",
            hint="Build the data set again.",
        )
    return local
