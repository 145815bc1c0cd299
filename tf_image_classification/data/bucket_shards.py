"""Shards of a bucket in tf.data: the records and their order are those of local shards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from tf_image_classification import storage
from tf_image_classification.data import shard_cache
from tf_image_classification.data.manifest import Manifest


class BucketShards:
    """A split some of whose shards are on gs://. tf.data calls it from threads of its own; it holds no state but the
    manifest's, and the cache of the process is thread-safe."""

    def __init__(self, data: Manifest, split: str) -> None:
        paths = map(storage.mounted, data.shard_paths(split))
        self._shards = dict(zip(paths, data.splits[split].shards, strict=True))
        self._compression = data.splits[split].compression or None

    def prefetch_shards(self, files: tf.data.Dataset, following: tf.data.Dataset | None, ahead: int) -> tf.data.Dataset:
        """`files`, each fetched into the cache some positions before it is read.

        Args:
            files: paths of the shards in reading order.
            following: the files that are read after them, whose first ones are fetched at the end; None for nothing.
            ahead: number of positions.
        """
        files = files.map(self._prefetch)
        if following is not None:
            files = files.concatenate(following.take(ahead).map(self._prefetch).filter(_is_kept))
        return files.prefetch(ahead)

    def read(self, file: tf.Tensor, buffer_size: int) -> tf.data.Dataset:
        """The records of one shard, which is kept in the cache for as long as they are read."""

        def local_path(path: bytes) -> Iterator[str]:
            # tf.data drops the generator, and with it the shard, also when it stops before the last record.
            name = path.decode()
            if storage.is_remote(name):
                with shard_cache.shared().open(name, self._shards[name]) as local:
                    yield local
            else:
                yield name

        paths = tf.data.Dataset.from_generator(local_path, args=(file,), output_signature=tf.TensorSpec([], tf.string))

        def records(path: tf.Tensor) -> tf.data.Dataset:
            return tf.data.TFRecordDataset(path, self._compression, buffer_size)

        return paths.flat_map(records)

    def _prefetch(self, file: tf.Tensor) -> tf.Tensor:
        def prefetch(path: bytes) -> bytes:
            name = path.decode()
            if storage.is_remote(name):
                shard_cache.shared().prefetch(name, self._shards[name])
            return path

        return tf.ensure_shape(tf.numpy_function(prefetch, [file], tf.string), [])


def _is_kept(file: tf.Tensor) -> tf.Tensor:
    return tf.constant(False)  # only prefetched


@contextlib.contextmanager
def translate_fetch_errors() -> Iterator[None]:
    """Replaces an error of tf.data in the block by the failure to fetch a shard that caused it, if one did."""
    try:
        yield
    except tf.errors.OpError as error:
        failure = shard_cache.shared().failure
        if failure is not None and str(failure) in str(error):
            raise failure from None
        raise
