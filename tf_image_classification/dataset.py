"""The shards of a data set -> batches, with tf.data.

It reads data sets that build_tfrecords built or, of existing TFRecords, listed: build_tfrecords.prepare gets one from
metadata. The order of training examples is a function of the seed and the epoch alone: a training that was
interrupted continues with the very example it would have seen, also on another number of workers, each of which decodes
its own part of every batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_image_classification import preprocessing, record_order, record_streams
from tf_image_classification.augmentation import MixFn
from tf_image_classification.data import manifest as manifests
from tf_image_classification.data.batch_part import BatchPart
from tf_image_classification.data.manifest import Manifest, Split, Task
from tf_image_classification.data.tasks import check_holds_numbers, pair_tasks
from tf_image_classification.errors import DataError
from tf_image_classification.preprocessing_parts import InParts, Unfinished

Tensors = dict[str, tf.Tensor]
LabelledImage = tuple[tf.Tensor | Unfinished, Tensors]  # or a batch; and its labels by task

_PREFETCHED = 2  # batches
_WAITING = 1  # image of a training that is prepared beside those of all cores: the next one of the first that is free


def training_batches(
    data: Manifest,
    class_dict: Sequence[dict[str, Any]],
    *,
    decode_fn: preprocessing.DecodeFn,
    preproc_fn: preprocessing.PreprocFn,
    image_size: int,
    batch_size: int,
    seed: int | tf.Tensor,
    first_step: int,
    steps: int,
    shuffle: bool,
    mix_fn: MixFn | None = None,
    part: BatchPart | None = None,
    streams: int = 1,
    finished: bool = True,
) -> tf.data.Dataset:
    """Batches for the global steps `first_step` to `first_step + steps`; epochs follow each other without a seam.

    Args:
        class_dict: one entry {'name', 'depth', 'one-hot'} per task.
        decode_fn: (string [], width, height, int64 [2] seed) -> uint8 [h, w, 3].
        preproc_fn: (image, width, height) or (image, width, height, seed) -> float32 [height, width, 3].
        seed: decides the order and, through per-example seeds, the augmentation.
        mix_fn: (images, labels, int64 [2] seed of the batch's first example) -> images and labels of the same shapes;
            None: batches stay as they are. It changes an example by the one before it, the first one by the last.
        part: what is read of each global batch; None: all of it, as one batch.
        streams: --shard_streams. More than one have an order of their own, see `record_streams`.
        finished: False: what follows resizing is left to the training step, if `preproc_fn` is `InParts` and no image
            is mixed with one that another process or device may have.

    Returns:
        A data set of exactly `steps` pairs: float32 [batch_size, image_size, image_size, 3] (or `Unfinished`), and a
        dict of task name -> float32 [batch_size, depth] (one-hot) or float32 [batch_size]. With a `part`, `count` pairs
        for each step, of batch_size / total examples: in the order of the parts, all of them are the global batch.
    """
    part = part or BatchPart(0, 1, 1)
    own = part.positions(batch_size)
    decode_fn = _for_images_of(data.splits[manifests.TRAIN], decode_fn)

    def prepare(index: tf.Tensor, record: tf.Tensor) -> LabelledImage:
        element_seed = tf.stack([tf.cast(seed, tf.int64), index])
        features = _parse(record, data.splits[manifests.TRAIN], data.tasks)
        image = _host_image(features["image_bytes"], image_size, element_seed, decode_fn, preproc_fn)
        return image, _labels(features, class_dict)

    # Its first example is mixed with the one before it.
    read = sorted({*own} if mix_fn is None else {*own, (own.start - 1) % batch_size})
    order_seed = seed if shuffle else None
    dataset = _records(data, batch_size, streams, read, seed=order_seed, first_step=first_step, steps=steps)
    dataset = dataset.map(prepare, num_parallel_calls=record_order.PARALLEL_CALLS + _WAITING, deterministic=True)
    if mix_fn is None:
        dataset = dataset.batch(part.examples_each(batch_size), drop_remainder=True)
        dataset = _finished(dataset, preproc_fn) if finished else dataset
    else:
        dataset = _finished(dataset.batch(len(read), drop_remainder=True), preproc_fn)
        dataset = _mixed(dataset, mix_fn, own, batch_size, seed, first_step)
        if part.count > 1:
            dataset = dataset.rebatch(part.examples_each(batch_size), drop_remainder=True)
    return without_autotuning(dataset.prefetch(_PREFETCHED))


def _records(
    data: Manifest, batch_size: int, streams: int, read: Sequence[int], *, seed: int | tf.Tensor | None, **steps: int
) -> tf.data.Dataset:
    """What `record_streams.training_examples` returns, of the positions `read` of each batch alone."""
    examples = record_streams.training_examples(data, batch_size, streams, read, seed=seed, **steps)
    if len(read) < batch_size:
        is_read = np.isin(np.arange(batch_size), read)
        examples = examples.filter(lambda index, record: tf.gather(is_read, index % batch_size))
    return examples


def _for_images_of(split: Split, decode_fn: preprocessing.DecodeFn) -> preprocessing.DecodeFn:
    """The decoding with a graph for what the split holds, if it is the framework's."""
    if isinstance(decode_fn, preprocessing.Decoder):
        return dataclasses.replace(decode_fn, stored=split.stored)
    return decode_fn


def _host_image(
    encoded: tf.Tensor,
    image_size: int,
    seed: tf.Tensor,
    decode_fn: preprocessing.DecodeFn,
    preproc_fn: preprocessing.PreprocFn,
) -> tf.Tensor | Unfinished:
    """One image of a training, as far as the host prepares it by itself."""
    if isinstance(preproc_fn, InParts):
        return preproc_fn.host_fn(decode_fn(encoded, image_size, image_size, seed), image_size, image_size, seed)
    return training_image(encoded, image_size, seed, decode_fn, preproc_fn)


def _finished(batches: tf.data.Dataset, preproc_fn: preprocessing.PreprocFn) -> tf.data.Dataset:
    """Batches whose images are as the network takes them."""
    if not isinstance(preproc_fn, InParts):
        return batches

    def finish(images: Unfinished, labels: Tensors) -> LabelledImage:
        return preproc_fn.finish(images), labels

    return batches.map(finish, num_parallel_calls=record_order.PARALLEL_CALLS, deterministic=True)


def _mixed(
    batches: tf.data.Dataset, mix_fn: MixFn, own: range, batch_size: int, seed: int | tf.Tensor, first_step: int
) -> tf.data.Dataset:
    """What the mixed global batches have at the positions `own`.

    Args:
        batches: of each global batch, the examples at `own` and the one before them, in the order of the batch: the one
            before the first is the last.
    """

    def mix(index: tf.Tensor, batch: LabelledImage) -> LabelledImage:
        images, labels = mix_fn(*batch, tf.stack([tf.cast(seed, tf.int64), index * batch_size]))
        if images.shape[0] == len(own):
            return images, labels
        kept = slice(1, None) if own.start else slice(len(own))
        return images[kept], {name: label[kept] for name, label in labels.items()}

    batches = batches.enumerate(start=first_step)
    return batches.map(mix, num_parallel_calls=record_order.PARALLEL_CALLS, deterministic=True)


def part_of_batches(batches: tf.data.Dataset, part: BatchPart, batch_size: int) -> tf.data.Dataset:
    """A part of global batches that were read whole.

    Args:
        batches: pairs like those of `training_batches`, of `batch_size` examples each.
        part: what is kept of each.

    Returns:
        Pairs as `training_batches` returns them for `part`.
    """
    own = part.positions(batch_size)

    def keep(images: tf.Tensor, labels: Tensors) -> LabelledImage:
        message = "input_fn of an estimator has to return batches of --batch_size examples, to be cut into equal parts"
        with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(images)[0], batch_size, message)]):
            return images[own.start : own.stop], {name: label[own.start : own.stop] for name, label in labels.items()}

    batches = batches.map(keep)
    return batches if part.count == 1 else batches.rebatch(part.examples_each(batch_size), drop_remainder=True)


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
        image = preproc_fn(preprocessing.decode(features["image_bytes"], split.stored), image_size, image_size)
        return tf.cast(tf.ensure_shape(image, [image_size, image_size, 3]), tf.float32), _labels(features, class_dict)

    dataset = record_order.records(data, manifests.EVAL, batch_size, seed=0 if shuffle else None).take(
        batches * batch_size
    )
    dataset = dataset.map(prepare, num_parallel_calls=record_order.PARALLEL_CALLS, deterministic=True)
    return without_autotuning(dataset.batch(batch_size).prefetch(_PREFETCHED))


def evaluation_examples(data: Manifest, split: str, batch_size: int) -> tf.data.Dataset:
    """Undecoded examples in the order of the shards, each once.

    Returns:
        Dicts of `image_bytes` string [B], `filename` string [B] and `labels`, a dict of task name -> int64 [B] class
        ids (float32 [B] for a regression).
    """
    stored = data.splits[split]

    @tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
    def prepare(records: tf.Tensor) -> dict[str, Any]:
        features = _parse(records, stored, data.tasks)
        labels = {
            task.name: tf.cast(features[task.name], tf.int64 if task.labels else tf.float32) for task in data.tasks
        }
        return {"image_bytes": features["image_bytes"], "filename": features["filename"], "labels": labels}

    dataset = record_order.records(data, split, batch_size, seed=None).batch(batch_size)
    dataset = dataset.map(prepare, num_parallel_calls=record_order.PARALLEL_CALLS, deterministic=True)
    return without_autotuning(dataset.prefetch(_PREFETCHED))


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The data set without the thread that tunes it, for whose sleep the end of an iteration may wait."""
    options = tf.data.Options()
    options.autotune.enabled = False
    if tf.config.list_physical_devices("GPU"):  # whose kernels the threads of TensorFlow itself launch
        options.threading.private_threadpool_size = record_order.PARALLEL_CALLS
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


@tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
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


@tf.autograph.experimental.do_not_convert  # no condition of Python's depends on a tensor
def _labels(features: Tensors, class_dict: Sequence[dict[str, Any]]) -> Tensors:
    labels = {}
    for entry in class_dict:
        label = features[entry["name"]]
        if entry["one-hot"]:
            labels[entry["name"]] = tf.one_hot(tf.cast(label, tf.int32), entry["depth"], dtype=tf.float32)
        else:
            labels[entry["name"]] = tf.cast(label, tf.float32)
    return labels
