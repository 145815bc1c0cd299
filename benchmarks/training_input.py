"""Training input of an Inception network (random crop, resize, flip, colour), its yardsticks and its ceiling.

All of them are data sets of the same number of batches per epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from benchmarks.timing import Measure, seconds
from tf_image_classification import dataset, preprocessing
from tf_image_classification.data.manifest import TRAIN, Manifest

BATCH_SIZE = 32

# Epochs -> batches.
Input = Callable[[int], tf.data.Dataset]


def ours(data: Manifest, image_size: int, *, finished: bool) -> Input:
    """This project's.

    Args:
        finished: False: uint8 batches as they leave the host of a training, whose compiled step flips them, changes
            their colours and normalises them. True: float32 batches as a network takes them, as the yardsticks' are.
    """
    inception = preprocessing.PREPROCESSINGS["inception"]
    entries = [{"name": task.name, "depth": len(task.labels), "one-hot": True} for task in data.tasks]
    return lambda epochs: dataset.training_batches(
        data,
        entries,
        decode_fn=inception.decode_fn,
        preproc_fn=inception.train_fn,
        image_size=image_size,
        batch_size=BATCH_SIZE,
        seed=1,
        first_step=0,
        steps=epochs * _batches(data),
        shuffle=True,
        finished=finished,
    )


def slim(data: Manifest, image_size: int) -> Input:
    """slim's inception_preprocessing.preprocess_for_train with `fast_mode=True`, in tf.data.

    It decodes the whole image, then crops, resizes, flips and distorts colours.
    """

    def prepare(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = _parse(record)
        image = tf.image.convert_image_dtype(tf.io.decode_jpeg(encoded, channels=3), tf.float32)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image),
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            min_object_covered=0.1,
            aspect_ratio_range=(0.75, 1.33),
            area_range=(0.05, 1.0),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.compat.v1.image.resize_images(tf.slice(image, begin, size), [image_size, image_size])
        image = tf.image.random_flip_left_right(image)
        image = tf.image.random_saturation(tf.image.random_brightness(image, 32.0 / 255.0), 0.5, 1.5)
        return (tf.clip_by_value(image, 0.0, 1.0) - 0.5) * 2.0, label

    return lambda epochs: _batched(_records(data, epochs).shuffle(5 * BATCH_SIZE).map(prepare, tf.data.AUTOTUNE))


def keras_layers(photographs: str, image_size: int) -> Input:
    """keras.utils.image_dataset_from_directory, and the layers of Keras that cost least for a like augmentation.

    It resizes whole images before they are batched: a random crop (RandomZoom) and RandomSaturation would take Keras
    half as long again.
    """
    layers = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomBrightness(32.0 / 255.0),
            keras.layers.RandomContrast(0.5),
            keras.layers.Rescaling(1 / 127.5, -1.0),
        ]
    )
    batches = keras.utils.image_dataset_from_directory(
        photographs, image_size=(image_size, image_size), batch_size=BATCH_SIZE, verbose=False
    ).map(lambda images, labels: (layers(images, training=True), labels), tf.data.AUTOTUNE)
    return lambda epochs: batches.repeat(epochs).prefetch(tf.data.AUTOTUNE)


def bare_decoding(data: Manifest) -> Input:
    """tf.io.decode_jpeg, nothing else."""

    def prepare(record: tf.Tensor) -> tf.Tensor:
        return tf.shape(tf.io.decode_jpeg(_parse(record)[0], channels=3))

    return lambda epochs: _batched(_records(data, epochs).map(prepare, tf.data.AUTOTUNE))


def cold_epoch(batches: Input, data: Manifest) -> Measure:
    """Seconds of the first epoch of a training, from the creation of its iterator to its last batch."""
    epoch, count = batches(1), _batches(data)

    def measure() -> float:
        iterator: Any = None

        def consume() -> None:
            nonlocal iterator
            iterator = iter(epoch)
            _take(iterator, count)

        # The destructor of the iterator, which may wait for Autotune's thread, is not part of it.
        return seconds(consume)()

    return measure


def steady_state(batches: Input, data: Manifest, *, epochs: int = 1) -> Measure:
    """Seconds of the second of three epochs: buffers are full, Autotune has settled, and there is more to read.

    Args:
        epochs: takes that many together as one, where one of them is short.
    """
    thrice, count = batches(3 * epochs), _batches(data) * epochs

    def measure() -> float:
        # A new iterator each time: one that is kept would read ahead while others are measured.
        iterator = iter(thrice)
        _take(iterator, count)
        return seconds(lambda: _take(iterator, count))()

    return measure


def _take(iterator: Any, count: int) -> None:
    for _ in range(count):
        next(iterator)


def _batches(data: Manifest) -> int:
    """Batches of an epoch."""
    return data.splits[TRAIN].examples // BATCH_SIZE


def _records(data: Manifest, epochs: int) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(data.shard_paths(TRAIN)).repeat(epochs)


def _batched(examples: tf.data.Dataset) -> tf.data.Dataset:
    return examples.batch(BATCH_SIZE, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_single_example(record, features)
    return parsed["image/encoded"], parsed["image/class/label"]
