"""Shards of a bucket in tf.data: the records and their order are those of local shards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from tf_image_classification import storage
from tf_image_classification.data import shard_cache
from tf_image_classification.data.manifest import Manifest


class BucketShards:
    """A split some of whose shards are on gs://."""

    def __init__(self, data: Manifest, split: str) -> None:
        side = data.splits[split]
        self._shards = dict(zip(map(storage.mounted, data.shard_paths(split)), side.shards, strict=True))
        self._compression = side.compression or None

    def prefetch_shards(self, files: tf.data.Dataset, following: tf.data.Dataset | None, ahead: int) -> tf.data.Dataset:
        """`files`, of which `ahead` are being fetched before they are asked for; at the end the first of `following`
        are, too."""
        files = files.map(self._prefetch)
        if following is not None:
            files = files.concatenate(following.take(ahead).map(self._prefetch).filter(_none))
        return files.prefetch(ahead)

    def read(self, file: tf.Tensor, buffer_size: int) -> tf.data.Dataset:
        """The records of one shard, which is kept in the cache for as long as they are read."""

        def local_path(path: bytes) -> Iterator[str]:
            # tf.data drops the generator, and with it the hold on the shard, also when it stops before the last record.
            name = path.decode()
            if storage.is_gcs(name):
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
            if storage.is_gcs(name):
                shard_cache.shared().prefetch(name, self._shards[name])
            return path

        return tf.ensure_shape(tf.numpy_function(prefetch, [file], tf.string), [])


def _none(file: tf.Tensor) -> tf.Tensor:
    return tf.constant(False)


@contextlib.contextmanager
def failures_named() -> Iterator[None]:
    """Raises what kept a shard from being fetched, where tf.data wraps it into an error of its own."""
    try:
        yield
    except tf.errors.OpError as error:
        failure = shard_cache.shared().failure
        if failure is not None and str(failure) in str(error):
            raise failure from None
        raise
