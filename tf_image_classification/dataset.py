"""The shards of a data set -> batches, with tf.data.

It reads data sets that build_tfrecords built or, of existing TFRecords, listed: build_tfrecords.prepare gets one from
metadata. The order of training examples is a function of the seed and the epoch alone: a training that was
interrupted continues with the very example it would have seen.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_image_classification import preprocessing, storage
from tf_image_classification.augmentation import MixFn
from tf_image_classification.data import bucket_shards
from tf_image_classification.data import manifest as manifests
from tf_image_classification.data.manifest import Manifest, Split, Task
from tf_image_classification.data.tasks import check_holds_numbers, pair_tasks
from tf_image_classification.errors import DataError

Tensors = dict[str, tf.Tensor]
LabelledImage = tuple[tf.Tensor, Tensors]  # and its labels by task

# Shards are shuffled when they are built; the buffer adds variety between epochs and, for shards that others built,
# mixes classes. It is filled anew before the first batch of an epoch, so its size is what an epoch waits for: 64 MiB of
# encoded images are about 600 photographs of 100 kB. The original's five batches are the minimum.
_SHUFFLE_BYTES = 64 * 2**20
_MAX_SHUFFLED = 16384  # examples; of thumbnails, 64 MiB would be hundreds of thousands
# Fixed, not tf.data.AUTOTUNE: its thread sleeps for up to a minute between two looks at the pipeline, and the
# destructor of an iterator waits for it, so that a training stood still before its evaluation.
_PARALLEL_CALLS = os.cpu_count() or 1
_PREFETCHED = 2  # batches
_OPEN_SHARDS = 8  # interleaved: mixes shards, and hides the latency of a disk or a mount behind the others
_READ_BYTES = 8 * 2**20  # at a time from each open shard: mounts of buckets are fast at large reads only
_EPOCH_SEEDS = 1_000_003  # between the seeds of two epochs' orders: a prime far above the --seed that people choose


def training_batches(
    data: Manifest,
    class_dict: Sequence[dict[str, Any]],
    *,
    decode_fn: preprocessing.DecodeFn,
    preproc_fn: preprocessing.PreprocFn,
    image_size: int,
    batch_size: int,
    seed: int,
    first_step: int,
    steps: int,
    shuffle: bool,
    mix_fn: MixFn | None = None,
) -> tf.data.Dataset:
    """Batches for the global steps `first_step` to `first_step + steps`; epochs follow each other without a seam.

    Args:
        class_dict: one entry {'name', 'depth', 'one-hot'} per task.
        decode_fn: (string [], width, height, int64 [2] seed) -> uint8 [h, w, 3].
        preproc_fn: (image, width, height) or (image, width, height, seed) -> float32 [height, width, 3].
        seed: decides the order and, through per-example seeds, the augmentation.
        mix_fn: (images, labels, int64 [2] seed of the batch's first example) -> images and labels of the same shapes;
            None: batches stay as they are.

    Returns:
        A data set of exactly `steps` pairs: float32 [batch_size, image_size, image_size, 3], and a dict of task name ->
        float32 [batch_size, depth] (one-hot) or float32 [batch_size].
    """
    split = data.splits[manifests.TRAIN]
    seen = first_step * batch_size
    first_epoch, offset = divmod(seen, split.examples)

    def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
        # tf.data compares its pair of seeds, the global one and this, with (0, 0), and an epoch's seed is a tensor.
        if tf.compat.v1.get_default_graph().seed == 0:
            tf.random.set_seed(1)  # of this function's graph, not of the process
        seeds = [number * _EPOCH_SEEDS + seed if shuffle else None for number in (epoch, epoch + 1)]
        return _records(data, manifests.TRAIN, batch_size, seed=seeds[0], next_seed=seeds[1])

    def prepare(index: tf.Tensor, record: tf.Tensor) -> LabelledImage:
        element_seed = tf.stack([tf.constant(seed, tf.int64), index])
        features = _parse(record, split, data.tasks)
        image = training_image(features["image_bytes"], image_size, element_seed, decode_fn, preproc_fn)
        return image, _labels(features, class_dict)

    def mix(index: tf.Tensor, batch: LabelledImage) -> LabelledImage:
        assert mix_fn is not None
        return mix_fn(*batch, tf.stack([tf.constant(seed, tf.int64), index * batch_size]))

    dataset = tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch_records)
    dataset = dataset.skip(offset).take(steps * batch_size).enumerate(start=seen)
    dataset = dataset.map(prepare, num_parallel_calls=_PARALLEL_CALLS, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    if mix_fn is not None:
        dataset = dataset.enumerate(start=first_step).map(mix, num_parallel_calls=_PARALLEL_CALLS, deterministic=True)
    return _without_autotuning(dataset.prefetch(_PREFETCHED))


def training_image(
    encoded: tf.Tensor,
    image_size: int,
    seed: tf.Tensor,
    decode_fn: preprocessing.DecodeFn,
    preproc_fn: preprocessing.PreprocFn,
) -> tf.Tensor:
    """One image of a training: string [] and int64 [2] -> float32 [image_size, image_size, 3]."""
    import inspect

    image = decode_fn(encoded, image_size, image_size, seed)
    extra = (seed,) if "seed" in inspect.signature(preproc_fn).parameters else ()
    image = tf.ensure_shape(preproc_fn(image, image_size, image_size, *extra), [image_size, image_size, 3])
    return tf.cast(image, tf.float32)


def evaluation_batches(
    data: Manifest,
    class_dict: Sequence[dict[str, Any]],
    *,
    preproc_fn: preprocessing.PreprocFn,
    image_size: int,
    batch_size: int,
    batches: int,
    shuffle: bool,
) -> tf.data.Dataset:
    """The first `batches` batches of the evaluation split, always the same ones; the last may be partial.

    Returns:
        Pairs like `training_batches`.
    """
    split = data.splits[manifests.EVAL]

    def prepare(record: tf.Tensor) -> LabelledImage:
        features = _parse(record, split, data.tasks)
        image = preproc_fn(preprocessing.decode(features["image_bytes"]), image_size, image_size)
        return tf.cast(tf.ensure_shape(image, [image_size, image_size, 3]), tf.float32), _labels(features, class_dict)

    dataset = _records(data, manifests.EVAL, batch_size, seed=0 if shuffle else None).take(batches * batch_size)
    dataset = dataset.map(prepare, num_parallel_calls=_PARALLEL_CALLS, deterministic=True)
    return _without_autotuning(dataset.batch(batch_size).prefetch(_PREFETCHED))


def evaluation_examples(data: Manifest, split: str, batch_size: int) -> tf.data.Dataset:
    """Undecoded examples in the order of the shards, each once.

    Returns:
        Dicts of `image_bytes` string [B], `filename` string [B] and `labels`, a dict of task name -> int64 [B] class
        ids (float32 [B] for a regression).
    """
    stored = data.splits[split]

    def prepare(records: tf.Tensor) -> dict[str, Any]:
        features = _parse(records, stored, data.tasks)
        labels = {
            task.name: tf.cast(features[task.name], tf.int64 if task.labels else tf.float32) for task in data.tasks
        }
        return {"image_bytes": features["image_bytes"], "filename": features["filename"], "labels": labels}

    dataset = _records(data, split, batch_size, seed=None).batch(batch_size)
    dataset = dataset.map(prepare, num_parallel_calls=_PARALLEL_CALLS, deterministic=True)
    return _without_autotuning(dataset.prefetch(_PREFETCHED))


def _without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.autotune.enabled = False
    if tf.config.list_physical_devices("GPU"):  # whose kernels the threads of TensorFlow itself launch
        options.threading.private_threadpool_size = _PARALLEL_CALLS
    return dataset.with_options(options)


def with_tasks(data: Manifest, class_dict: Sequence[dict[str, Any]]) -> Manifest:
    """The data with a spec's tasks: in their order and under their names, matched by tasks.pair_tasks.

    Raises:
        DataError: a task has no label in the data, its depth differs from the number of classes, or the data has
            classes where the spec wants numbers, or the other way round.
    """
    paired = pair_tasks([entry["name"] for entry in class_dict], data.tasks, owner="estimator")
    splits = {}
    for split, stored in data.splits.items():
        counts = {name: stored.class_counts.get(task.name, {}) for name, task in paired.items()}
        splits[split] = dataclasses.replace(stored, class_counts=counts)
    tasks = tuple(_as_declared(paired[entry["name"]], entry) for entry in class_dict)
    return dataclasses.replace(data, tasks=tasks, splits=splits)


def _as_declared(task: Task, entry: dict[str, Any]) -> Task:
    """The data's task as an entry of class_dict declares it."""
    name = entry["name"]
    if not entry["one-hot"]:
        check_holds_numbers(name, task, owner="estimator")
        return dataclasses.replace(task, name=name, labels=())
    if len(task.labels) != entry["depth"]:
        in_data = f"{len(task.labels)} classes in the data" if task.labels else "numbers in the data, not class ids"
        raise DataError(
            f"The estimator and the data disagree about the number of classes of {name}",
            received=in_data,
            expected=f"{entry['depth']}, the depth in class_dict",
            hint="A --labels_file names classes of which the data has no image, too.",
        )
    return dataclasses.replace(task, name=name)


@tf.autograph.experimental.do_not_convert  # its conditions are Python's
def _records(
    data: Manifest, split: str, batch_size: int, *, seed: int | tf.Tensor | None, next_seed: tf.Tensor | None = None
) -> tf.data.Dataset:
    """Serialised examples of one epoch: in the shards' order, or shuffled by `seed`.

    Args:
        next_seed: of the epoch after it, whose first shards are prefetched from a bucket.
    """
    stored = data.splits[split]
    paths = [storage.mounted(path) for path in data.shard_paths(split)]
    in_bucket = bucket_shards.BucketShards(data, split) if any(map(storage.is_remote, paths)) else None

    def read(files: tf.Tensor | Sequence[str]) -> tf.data.Dataset:
        if in_bucket:
            return in_bucket.read(files, _READ_BYTES)
        return tf.data.TFRecordDataset(files, compression_type=stored.compression or None, buffer_size=_READ_BYTES)

    def order(seed: int | tf.Tensor | None) -> tf.data.Dataset:
        files = tf.data.Dataset.from_tensor_slices(paths)
        if seed is None or len(paths) == 1:
            return files
        return files.shuffle(len(paths), seed=seed, reshuffle_each_iteration=False)

    if seed is None and not in_bucket:
        return read(paths)
    files = order(seed)
    if in_bucket:
        files = in_bucket.prefetch_shards(files, None if next_seed is None else order(next_seed), _OPEN_SHARDS)
    if seed is None:
        return files.flat_map(read)
    if len(paths) > 1:
        # In a bucket one at a time, which gives the same order: in parallel, tf.data opens three times as many, and
        # each has to be there.
        parallel = {} if in_bucket else {"num_parallel_calls": _PARALLEL_CALLS, "deterministic": True}
        records = files.interleave(read, cycle_length=min(len(paths), _OPEN_SHARDS), **parallel)
    else:
        records = files.flat_map(read)
    return records.shuffle(_shuffle_buffer(stored, batch_size), seed=seed, reshuffle_each_iteration=False)


def _shuffle_buffer(split: Split, batch_size: int) -> int:
    """Examples to shuffle among: as many as fit into `_SHUFFLE_BYTES`, at least five batches."""
    average = max(1, sum(shard.bytes for shard in split.shards) // max(1, split.examples))
    return min(split.examples, max(5 * batch_size, min(_SHUFFLE_BYTES // average, _MAX_SHUFFLED)))


def _parse(records: tf.Tensor, split: Split, tasks: Sequence[Task]) -> Tensors:
    """Serialised tf.train.Example, string [] or [B] -> `image_bytes`, `filename` and one entry per task, with the same
    leading shape."""
    original = split.schema == manifests.ORIGINAL
    image, filename = split.encoded_feature, manifests.FILENAME_FEATURES[split.schema]
    spec: dict[str, Any] = {image: tf.io.FixedLenFeature([], tf.string)}
    spec[filename] = tf.io.FixedLenFeature([], tf.string, default_value="")
    for task in tasks:
        if original:
            # The original's default for a record without the label: such an example counts for no class.
            spec[task.feature] = tf.io.FixedLenFeature([], tf.float32, default_value=-1.0)
        else:
            spec[task.feature] = tf.io.FixedLenFeature([], tf.int64)
    parse = tf.io.parse_single_example if records.shape.rank == 0 else tf.io.parse_example
    parsed = parse(records, spec)
    features = {"image_bytes": parsed[image], "filename": parsed[filename]}
    return features | {task.name: parsed[task.feature] for task in tasks}


def _labels(features: Tensors, class_dict: Sequence[dict[str, Any]]) -> Tensors:
    labels = {}
    for entry in class_dict:
        label = features[entry["name"]]
        if entry["one-hot"]:
            labels[entry["name"]] = tf.one_hot(tf.cast(label, tf.int32), entry["depth"], dtype=tf.float32)
        else:
            labels[entry["name"]] = tf.cast(label, tf.float32)
    return labels
