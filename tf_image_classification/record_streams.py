"""Training records as streams of shards (--shard_streams), so that workers need not read all shards.

Each stream fills the same places of every batch: of S streams and B examples, the stream s those from s * B / S on. In
each epoch the shards are shuffled and put one after the other, and what they hold is cut into the streams: each gets
as many records as it has places in that epoch. So the order is a function of seed, epoch, batch size and number of
streams. A worker reads the shards of the streams that its part needs; a shard that is cut is read by two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_image_classification import record_order
from tf_image_classification.data import manifest as manifests
from tf_image_classification.data.manifest import Manifest
from tf_image_classification.errors import FlagError

_STREAM_SEEDS = 2**40  # between the seeds of two streams of an epoch: above those of all epochs


def training_examples(
    data: Manifest,
    batch_size: int,
    streams: int,
    places: Sequence[int],
    *,
    seed: int | None,
    first_step: int,
    steps: int,
) -> tf.data.Dataset:
    """The serialised training examples of some steps, of the streams that fill `places`.

    Args:
        streams: number of streams, which divides `batch_size`. One has the order of `record_order`.
        places: positions in a batch.
        seed: None: each stream in the order of the shards.

    Returns:
        Pairs in the order of the batches: int64 [] index of the example since step 0, string [] record.

    Raises:
        FlagError: there are more streams than shards.
    """
    if streams == 1:
        return record_order.training_examples(data, batch_size, seed=seed, first_step=first_step, steps=steps)
    shards = len(data.splits[manifests.TRAIN].shards)
    if shards < streams:
        raise FlagError(
            "A stream has to have a shard of its own",
            received=f"--shard_streams {streams}, {shards} shards of training images",
            expected=f"--shard_streams {shards} or less",
        )
    each = batch_size // streams
    numbers = np.unique(np.array(places, np.int64) // each)
    all_streams = _Streams(data, batch_size, streams, seed)

    @tf.autograph.experimental.do_not_convert  # conditions are Python's
    def read(number: tf.Tensor) -> tf.data.Dataset:
        def with_index(count: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return count // each * batch_size + number * each + count % each, record

        records = all_streams.records(number, first_step).take(steps * each)
        return records.enumerate(start=first_step * each).map(with_index)

    return tf.data.Dataset.from_tensor_slices(numbers).interleave(read, cycle_length=len(numbers), block_length=each)


class _Streams:
    """The records of each stream, by its number: int64 []."""

    def __init__(self, data: Manifest, batch_size: int, streams: int, seed: int | None) -> None:
        split = data.splits[manifests.TRAIN]
        self._shards = record_order.Shards(data, manifests.TRAIN)
        self._counts = np.array([shard.examples for shard in split.shards], np.int64)
        self._examples = split.examples
        self._batch_size, self._each, self._seed = batch_size, batch_size // streams, seed
        # All streams together have as many shards open, and examples to shuffle among, as one of all shards has.
        self._open_shards = max(1, record_order.OPEN_SHARDS // streams)
        self._shuffled = max(1, record_order.shuffle_buffer(split, batch_size) // streams)

    def records(self, number: tf.Tensor, first_step: int) -> tf.data.Dataset:
        """Serialised examples from a step on, epoch after epoch."""
        first_epoch = first_step * self._batch_size // self._examples
        earlier = first_epoch * self._examples
        of_earlier_epochs = self._places_before(earlier, number + 1) - self._places_before(earlier, number)
        epochs = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(lambda epoch: self._epoch(number, epoch))
        return epochs.skip(first_step * self._each - of_earlier_epochs)

    def _places_before(self, end: tf.Tensor | int, number: tf.Tensor) -> tf.Tensor:
        """How many of the training's first `end` examples are of the streams before `number`."""
        own, end = number * self._each, tf.cast(end, tf.int64)
        return end // self._batch_size * own + tf.minimum(end % self._batch_size, own)

    def _epoch(self, number: tf.Tensor, epoch: tf.Tensor) -> tf.data.Dataset:
        record_order.allow_any_seed()
        paths, *within = self._pieces(number, epoch)
        files = tf.data.Dataset.from_tensor_slices(paths)
        if self._shards.in_bucket:
            following = tf.data.Dataset.from_tensor_slices(self._pieces(number, epoch + 1)[0])
            files = self._shards.in_bucket.prefetch_shards(files, following, self._open_shards)
        pieces = tf.data.Dataset.zip((files, *map(tf.data.Dataset.from_tensor_slices, within)))

        def read(file: tf.Tensor, begin: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
            return self._shards.read(file).skip(begin).take(count)

        if self._seed is None:
            return pieces.flat_map(read)
        seed = number * _STREAM_SEEDS + epoch * record_order.EPOCH_SEEDS + self._seed
        examples = self._shards.interleave(pieces, self._open_shards, read)
        return examples.shuffle(self._shuffled, seed=seed, reshuffle_each_iteration=False)

    def _pieces(self, number: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The paths of the shards that a stream reads in an epoch, the first record of each, and how many."""
        order = tf.range(len(self._counts))
        if self._seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, [self._seed, epoch])
        counts = tf.gather(self._counts, order)
        ends = tf.cumsum(counts)
        first, end = epoch * self._examples, (epoch + 1) * self._examples
        begin, stop = (self._places_before(end, n) - self._places_before(first, n) for n in (number, number + 1))
        begins = tf.clip_by_value(begin - (ends - counts), 0, counts)
        numbers = tf.clip_by_value(stop - (ends - counts), 0, counts) - begins
        read = numbers > 0
        paths = tf.gather(self._shards.paths, order)
        return tf.boolean_mask(paths, read), tf.boolean_mask(begins, read), tf.boolean_mask(numbers, read)
