"""Training input of an Inception network (random crop, resize to 299, flip, colour) and its yardsticks."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_image_classification import dataset, preprocessing
from tf_image_classification.data.manifest import TRAIN, Manifest

IMAGE_SIZE, BATCH_SIZE = 299, 32


def ours(data: Manifest) -> Callable[[], None]:
    """One epoch of this project's input."""
    inception = preprocessing.PREPROCESSINGS["inception"]
    steps = data.splits[TRAIN].examples // BATCH_SIZE
    entries = [{"name": task.name, "depth": len(task.labels), "one-hot": True} for task in data.tasks]
    batches = dataset.training_batches(
        data,
        entries,
        decode_fn=inception.decode_fn,
        preproc_fn=inception.train_fn,
        image_size=IMAGE_SIZE,
        batch_size=BATCH_SIZE,
        seed=1,
        first_step=0,
        steps=steps,
        shuffle=True,
    )
    return _consume(batches)


def slim(data: Manifest) -> Callable[[], None]:
    """One epoch of slim's inception_preprocessing.preprocess_for_train with `fast_mode=True`, in tf.data.

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
        image = tf.compat.v1.image.resize_images(tf.slice(image, begin, size), [IMAGE_SIZE, IMAGE_SIZE])
        image = tf.image.random_flip_left_right(image)
        image = tf.image.random_saturation(tf.image.random_brightness(image, 32.0 / 255.0), 0.5, 1.5)
        return (tf.clip_by_value(image, 0.0, 1.0) - 0.5) * 2.0, label

    return _consume(
        _records(data)
        .shuffle(5 * BATCH_SIZE)
        .map(prepare, tf.data.AUTOTUNE)
        .batch(BATCH_SIZE, True)
        .prefetch(tf.data.AUTOTUNE)
    )


def bare_decoding(data: Manifest) -> Callable[[], None]:
    """One epoch of tf.io.decode_jpeg, nothing else."""

    def prepare(record: tf.Tensor) -> tf.Tensor:
        return tf.shape(tf.io.decode_jpeg(_parse(record)[0], channels=3))

    return _consume(_records(data).map(prepare, tf.data.AUTOTUNE).batch(BATCH_SIZE, True).prefetch(tf.data.AUTOTUNE))


def _records(data: Manifest) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(data.shard_paths(TRAIN))


def _parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_single_example(record, features)
    return parsed["image/encoded"], parsed["image/class/label"]


def _consume(batches: tf.data.Dataset) -> Callable[[], None]:
    def epoch() -> None:
        for _ in batches:
            pass

    return epoch
