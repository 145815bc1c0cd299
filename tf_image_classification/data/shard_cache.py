"""Shards of a bucket, fetched before they are needed into a local cache of limited size."""

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
_SHARE_OF_DISK = 0.5
_FETCHED_AT_ONCE = 4


@functools.cache
def shared() -> ShardCache:
    """The cache of this process, for training and its evaluations alike; its folder goes when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="tfic-shards-")
    return ShardCache(folder, int(shutil.disk_usage(folder.name).free * _SHARE_OF_DISK))


@dataclass(slots=True)
class _Cached:
    size: int
    local: Future[str]
    readers: int = 0
    awaited: bool = False  # announced, and not yet read since


class ShardCache:
    """Local copies of shards: the least recently used ones go first, never one that is being read.

    Attributes:
        folder: where they are.
        failure: why the last shard that was needed could not be had, for whoever gets only tf.data's account of it.
    """

    def __init__(self, folder: tempfile.TemporaryDirectory[str], max_bytes: int) -> None:
        """
        Args:
            folder: for the copies alone; it goes with the cache.
            max_bytes: only shards that are being read go beyond it.
        """
        self.folder, self._max_bytes = folder.name, max_bytes
        self._folder = folder
        self._cached: OrderedDict[str, _Cached] = OrderedDict()  # by path, the least recently used first
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_FETCHED_AT_ONCE, thread_name_prefix="shards")
        self.failure: Exception | None = None

    def prefetch(self, path: str, shard: Shard) -> None:
        """Says that a shard is about to be read: it is fetched meanwhile, if there is room beside those that are read
        or awaited."""
        with self._lock:
            cached = self._cached.get(path)
            if cached is None and self._make_room(shard.bytes, spare_awaited=True):
                cached = self._start(path, shard)
            if cached is not None:
                cached.awaited = True
                self._cached.move_to_end(path)

    @contextlib.contextmanager
    def open(self, path: str, shard: Shard) -> Iterator[str]:
        """The local path of a shard's copy, which stays there until the block ends. Waits until it is fetched.

        Raises:
            DataError: the shard is missing, or has changed since it was built.
            UserError, OSError: the bucket cannot be read, or the disk is full.
        """
        with self._lock:
            cached = self._cached.get(path)
            if cached is None:
                self._make_room(shard.bytes, spare_awaited=False)
                cached = self._start(path, shard)
            cached.readers += 1
            cached.awaited = False
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
                self._make_room(0, spare_awaited=False)

    def _start(self, path: str, shard: Shard) -> _Cached:
        cached = self._cached[path] = _Cached(shard.bytes, self._pool.submit(self._fetch, path, shard))
        return cached

    def _fetch(self, path: str, shard: Shard) -> str:
        try:
            return fetch(path, shard, self.folder)
        except BaseException:
            with self._lock:  # whoever needs it next tries again
                del self._cached[path]
            raise

    def _make_room(self, size: int, *, spare_awaited: bool) -> bool:
        """Removes copies until `size` bytes have room, if that can be done."""
        excess = sum(cached.size for cached in self._cached.values()) + size - self._max_bytes
        for path, cached in list(self._cached.items()):
            if excess <= 0:
                break
            if cached.readers or not cached.local.done() or (spare_awaited and cached.awaited):
                continue
            os.unlink(cached.local.result())
            del self._cached[path]
            excess -= cached.size
        return excess <= 0


def fetch(path: str, shard: Shard, folder: str) -> str:
    """Copies a shard into a local folder and compares it with the manifest.

    Raises:
        DataError: it is missing, or another than the manifest says.
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
            expected=f"{shard.crc32c}, as its manifest says",
            hint="Build the data set again.",
        )
    return local
