"""The order in which the records of a data set are read: a function of the seed and the epoch alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_image_classification import storage
from tf_image_classification.data import bucket_shards
from tf_image_classification.data import manifest as manifests
from tf_image_classification.data.manifest import Manifest, Split

# Shards are shuffled when they are built; the buffer adds variety between epochs and, for shards that others built,
# mixes classes. It is filled anew before the first batch of an epoch, so its size is what an epoch waits for: 64 MiB of
# encoded images are about 600 photographs of 100 kB. The original's five batches are the minimum.
_SHUFFLE_BYTES = 64 * 2**20
_MAX_SHUFFLED = 16384  # examples; of thumbnails, 64 MiB would be hundreds of thousands
# Fixed, not tf.data.AUTOTUNE: its thread sleeps for up to a minute between two looks at the pipeline, and the
# destructor of an iterator waits for it, so that a training stood still before its evaluation.
PARALLEL_CALLS = os.cpu_count() or 1
OPEN_SHARDS = 8  # interleaved: mixes shards, and hides the latency of a disk or a mount behind the others
_READ_BYTES = 8 * 2**20  # at a time from each open shard: mounts of buckets are fast at large reads only
EPOCH_SEEDS = 1_000_003  # between the seeds of two epochs' orders: a prime far above the --seed that people choose


class Shards:
    """The shards of a split, wherever they are.

    Attributes:
        paths: as they are opened.
        in_bucket: what reads them if some are in a bucket that is not mounted; else None.
    """

    def __init__(self, data: Manifest, split: str) -> None:
        self._compression = data.splits[split].compression or None
        self.paths = [storage.mounted(path) for path in data.shard_paths(split)]
        self.in_bucket = bucket_shards.BucketShards(data, split) if any(map(storage.is_remote, self.paths)) else None

    def read(self, files: tf.Tensor | Sequence[str]) -> tf.data.Dataset:
        """Serialised examples of one shard, or of several that are not in a bucket, one after the other."""
        if self.in_bucket:
            return self.in_bucket.read(files, _READ_BYTES)
        return tf.data.TFRecordDataset(files, compression_type=self._compression, buffer_size=_READ_BYTES)

    def interleave(
        self, files: tf.data.Dataset, opened: int, read: Callable[..., tf.data.Dataset] | None = None
    ) -> tf.data.Dataset:
        """The serialised examples of `files`, one of each in turn.

        Args:
            files: paths, or what `read` takes.
            opened: number of files that are read at a time.
            read: reads one of `files`; None: the whole shard.
        """
        # In a bucket one at a time, which gives the same order: in parallel, tf.data opens three times as many, and
        # each has to be there.
        calls = {} if self.in_bucket else {"num_parallel_calls": min(PARALLEL_CALLS, opened), "deterministic": True}
        return files.interleave(read or self.read, cycle_length=opened, **calls)


def training_examples(
    data: Manifest, batch_size: int, *, seed: int | tf.Tensor | None, first_step: int, steps: int
) -> tf.data.Dataset:
    """The serialised training examples of some steps; epochs follow each other without a seam.

    Args:
        seed: None: in the order of the shards.

    Returns:
        Pairs: int64 [] index of the example since step 0, string [] record.
    """
    first = first_step * batch_size
    first_epoch, offset = divmod(first, data.splits[manifests.TRAIN].examples)

    @tf.autograph.experimental.do_not_convert  # as `records`
    def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
        allow_any_seed()
        seeds = [None if seed is None else number * EPOCH_SEEDS + seed for number in (epoch, epoch + 1)]
        return records(data, manifests.TRAIN, batch_size, seed=seeds[0], next_seed=seeds[1])

    examples = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch_records).skip(offset)
    return examples.take(steps * batch_size).enumerate(start=first)


def allow_any_seed() -> None:
    """Lets the function that is being traced shuffle by a tensor, even if the seed of the process is 0."""
    # tf.data compares its pair of seeds, the global one and the shuffle's, with (0, 0), and the latter is a tensor.
    if tf.compat.v1.get_default_graph().seed == 0:
        tf.random.set_seed(1)  # of this function's graph, not of the process


@tf.autograph.experimental.do_not_convert  # its conditions are Python's
def records(
    data: Manifest, split: str, batch_size: int, *, seed: int | tf.Tensor | None, next_seed: tf.Tensor | None = None
) -> tf.data.Dataset:
    """Serialised examples of one epoch: in the shards' order, or shuffled by `seed`.

    Args:
        next_seed: of the epoch after it, whose first shards are prefetched from a bucket.
    """
    shards = Shards(data, split)
    paths, in_bucket = shards.paths, shards.in_bucket

    def order(seed: int | tf.Tensor | None) -> tf.data.Dataset:
        files = tf.data.Dataset.from_tensor_slices(paths)
        if seed is None or len(paths) == 1:
            return files
        return files.shuffle(len(paths), seed=seed, reshuffle_each_iteration=False)

    if seed is None and not in_bucket:
        return shards.read(paths)
    files = order(seed)
    if in_bucket:
        files = in_bucket.prefetch_shards(files, None if next_seed is None else order(next_seed), OPEN_SHARDS)
    if seed is None:
        return files.flat_map(shards.read)
    examples = files.flat_map(shards.read)
    if len(paths) > 1:
        examples = shards.interleave(files, min(len(paths), OPEN_SHARDS))
    return examples.shuffle(shuffle_buffer(data.splits[split], batch_size), seed=seed, reshuffle_each_iteration=False)


def shuffle_buffer(split: Split, batch_size: int) -> int:
    """Examples to shuffle among: as many as fit into `_SHUFFLE_BYTES`, at least five batches."""
    average = max(1, sum(shard.bytes for shard in split.shards) // max(1, split.examples))
    return min(split.examples, max(5 * batch_size, min(_SHUFFLE_BYTES // average, _MAX_SHUFFLED)))
